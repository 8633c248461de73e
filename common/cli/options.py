"""Options and words that several commands share."""

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from common.errors import RosettaError, nearest


class Choice(click.Choice):
    """One of several words; another is offered the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as e:
            hint = nearest(str(value), self.choices)
            raise click.BadParameter(e.message.rstrip(".") + hint, ctx=ctx, param=param) from None


def overrides(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`groups=8` as {"groups": 8}: values are JSON where they can be, or JSON with commas between, else words."""
    result = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            such = "smoothing=0.1" if param.name == "changes" else "groups=8 or depths=2,2,2,2"
            raise RosettaError(f"{param.opts[0]} {text!r} can't be: expected FIELD=VALUE, such as {such}")
        text = value.replace("(", "[").replace(")", "]").replace("True", "true").replace("False", "false")
        result[key] = value
        for such in (text, f"[{text}]") if "," in text else (text,):
            with contextlib.suppress(ValueError, RecursionError):
                result[key] = json.loads(such)
                break
    return result


def several(option: str, default: str, help: str, metavar: str = "A B ...") -> Callable[[Any], Any]:
    """An option of several words, with commas or, in a command of `SeveralWords`, without."""
    return click.option(option, default=default, callback=words, metavar=metavar, help=help)


set_option = click.option(
    "--set", "overrides", multiple=True, callback=overrides, metavar="FIELD=VALUE",
    help="Replace a field of the variant's row; may be repeated.",
)  # fmt: skip


class SeveralWords(click.Command):
    """Takes `--backends torch keras:tensorflow` and `--against torchvision timm`: options of as many words as name a
    backend or a peer, or nearly."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not {"--backends", "--against"} & set(args):
            return super().parse_args(ctx, args)

        from common.arch import VARIANTS
        from common.parity.backends import BACKENDS
        from common.speed.contender import PEERS

        options: dict[str, Iterable[str]] = {"--backends": BACKENDS, "--against": PEERS}
        given: list[str] = []
        taking = ""
        for arg in args:
            known = list(options.get(taking, ()))
            near = ":" in arg or (arg not in VARIANTS and nearest(arg, known))
            if taking and not arg.startswith("-") and (arg in known or near):
                given[-1] += ("," if given[-1] else "") + arg
                continue
            if taking and not given[-1]:
                raise RosettaError(f"{taking} needs names: {', '.join(known)}")
            taking = arg if arg in options and arg in (o for p in self.params for o in p.opts) else ""
            given += [arg, ""] if taking else [arg]
        if taking and not given[-1]:
            raise RosettaError(f"{taking} needs names: {', '.join(options[taking])}")
        return super().parse_args(ctx, given)


def words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in value.split(",") if word))


def numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in values:
        section, _, number = text.partition("=")
        try:
            found[section] = float(number)
        except ValueError:
            raise RosettaError(
                f"{param.opts[0]} {text!r} can't be: expected SECTION=NUMBER, such as layer4=0.1"
            ) from None
    return found


FRAMEWORK = "torch, keras (on TensorFlow), keras:jax or keras:torch"


device_option = click.option(
    "--device", type=Choice(["auto", "cpu", "gpu"]), default="auto",
    help="Where to run. Default: a GPU where there is one.",
)  # fmt: skip


def data_options(command: Any) -> Any:
    for option in (
        click.option("--skip-corrupt", is_flag=True, help="Leave out images that can't be read, and name them."),
        click.option(
            "--size", type=click.IntRange(1), metavar="PIXELS", help="Resize images to this. Default for folders: 224."
        ),
        click.option(
            "--layout",
            type=Choice(["channels-first", "channels-last"]),
            help="Where a .npz file has its channels, if its shapes don't tell.",
        ),
        click.option("--data-dir", type=click.Path(), metavar="DIR", help="The folder with the data's files."),
        click.option("--workers", type=click.IntRange(1, 64), default=1, help="Threads that load data. Default: 1."),
    ):
        command = option(command)
    return command


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a checkpoint is, where it can't tell."""
    for option in (
        set_option,
        click.option("--arch", "name", metavar="NAME", help="The variant that the file must hold."),
        click.option("--prefix", metavar="P", help="What the net's names begin with, where a file holds several nets."),
        click.option("--library", metavar="L", help="The library whose names the file has. Default: it is recognised."),
    ):
        command = option(command)
    return command
