"""What commands print: JSON that every reader takes, tables that line up, all that a reader of them needs."""

import json

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import common.weights as store
from common.arch import get
from common.cli import cli
from common.init import randomised
from common.tools.text import table, to_json, width
from common.training import evaluation


def rosetta(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args])


def strictly(text: str):
    """As JSON's own grammar has it, and not Python's, which takes NaN."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def stubborn(tmp_path):
    """A net for digits that says 3 to everything."""
    arch = get("cifar_resnet20", depths=(1, 1, 1), in_channels=1)
    weights = randomised(arch)
    weights["fc.bias"][3] = 1e6
    store.save(tmp_path / "w.safetensors", arch, weights)
    return tmp_path / "w.safetensors"


def test_json_is_strict():
    said = to_json({"a": float("nan"), "b": [1.0, float("inf")], "c": (np.float64("nan"), None, True, "NaN")})
    assert strictly(said) == {"a": None, "b": [1.0, None], "c": [None, None, True, "NaN"]}


def test_every_json_of_every_command_is_strict(tmp_path, stubborn, here):
    """`evaluate` printed NaN for a class that is never said."""
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(picture)
    file = tmp_path / "out.json"
    small = ("--set", "depths=[1,1,1]")
    plain = tmp_path / "plain.py"
    assert rosetta("write", "cifar_resnet20", plain).exit_code == 0
    calls = {
        "list": ["--json"],
        "show": ["cifar_resnet20", *small, "--json"],
        "compare": [stubborn, "--checks", "forward", "--size", 32, "--image", picture, "--json", file],
        "inspect": [stubborn, "--json"],
        "port": [stubborn, tmp_path / "w.pt", "--json"],
        "train": ["cifar_resnet20", *small, "--data", "digits", "--epochs", 1, "--out", tmp_path / "run", "--json"],
        "evaluate": [stubborn, "--data", "digits", "--json"],
        "predict": [picture, "--weights", stubborn, "--json"],
        "curves": [tmp_path / "run", "--json"],
        "traps": ["--json"],
        "diagnose": [f"{plain}:ResNet", "--like", "cifar_resnet20", "--json"],
        "bench": [
            "cifar_resnet20", *small, "--backends", "torch", "--modes", "eager", "--rounds", 1, "--batch", 1,
            "--json", file,
        ],
    }  # fmt: skip
    takers = {
        name for name, command in cli.commands.items()
        if any("--json" in p.opts for p in command.params if isinstance(p, click.Option))
    }  # fmt: skip
    assert takers == set(calls), "a command with --json that isn't tried here"
    for name, args in calls.items():
        file.unlink(missing_ok=True)
        out = rosetta(name, *args)
        assert out.exit_code == 0, (name, out.output, out.exception)
        said = strictly(file.read_text() if file.exists() else out.stdout)
        if name == "evaluate":
            scores = said["backends"]["torch"]
            assert scores["per_class"]["0"]["precision"] is None and scores["per_class"]["3"]["recall"] == 1.0
            assert scores["balanced_accuracy"] == pytest.approx(0.1)


def test_evaluate_says_what_a_headline_hides(tmp_path, stubborn, here):
    out = rosetta("evaluate", stubborn, "--data", "digits")
    assert out.exit_code == 0, out.output
    head, line = [row for row in out.stdout.splitlines() if "accuracy" in row or row.startswith("torch")]
    assert (
        "balanced" in head and "macro F1" in head and "top 5" in head and "10.00%" in line and "nan" not in out.stdout
    )


def test_the_top_5_of_three_classes_is_not_shown():
    from common.cli.use import _scores
    from common.training.scores import scores

    labels = np.array([0, 1, 2])
    for classes, shown in ((3, False), (5, False), (6, True)):
        rows, align = _scores({"torch": scores(np.eye(classes)[:3], labels)}, 3)
        assert ("top 5" in rows[0]) == shown and len(rows[0]) == len(rows[1]) == len(align)


def test_columns_line_up_in_any_script():
    assert width("cat") == 3 and width("猫") == 2 and width("ｶﾞ") == 2 and width("é") == width("e\u0301") == 1
    lines = table([("class", "n"), ("猫", "1"), ("Katze", "22"), ("e\u0301té", "3")], "lr")
    assert [width(line) for line in lines] == [9, 9, 9, 9]


def test_two_frameworks_that_say_other_classes_are_counted(monkeypatch, stubborn):
    """Of 359 examples the two say another class for 7: that number, and exit code 1."""
    from common.parity.checks import Item

    class Fake:
        def __init__(self, spec, device):
            self.spec = spec

        def run(self, job):
            logits = np.tile(np.arange(10.0), (len(job.examples), 1))
            if self.spec == "keras":
                logits[:7, 0] = 20
            yield Item("predict", "logits", "logits", logits)

        def close(self):
            pass

    monkeypatch.setattr(evaluation, "Elsewhere", Fake)
    out = rosetta("evaluate", stubborn, "--data", "digits", "--framework", "both", "--json")
    said = strictly(out.stdout)
    assert out.exit_code == 1 and said["same_classes"] == said["examples"] - 7 and said["relative"] == 20 / 9
    assert "the same class for 352 of 359" in rosetta(
        "evaluate", stubborn, "--data", "digits", "--framework", "both"
    ).stdout  # fmt: skip


def test_set_takes_what_show_prints():
    """A list without brackets, and a stem as `show` has it; each gives the same row back."""

    def arch(*sets, name="resnet50"):
        out = rosetta("show", name, *(a for s in sets for a in ("--set", s)), "--json")
        assert out.exit_code == 0, out.output
        return strictly(out.stdout)["arch"]

    assert arch("depths=3,4,6,3", "groups=8") == arch("depths=[3,4,6,3]", "groups=8")
    assert arch("depths=(1,1)", "widths=8, 16")["widths"] == [8, 16]
    for name in ("resnet50", "resnet50d", "cifar_resnet20", "resnet50v2_keras", "resnet18_1d"):
        row = get(name)
        text = row.stem.text(row.dims)
        assert type(row.stem).parse(text) == row.stem, text
        shown = rosetta("show", name).stdout
        assert f"stem            {text}" in shown
        assert arch(f"stem={text}", name=name) == arch(name=name)
    assert arch("stem=64@3x3/1")["stem"] == {"convs": [[64, 3, 1]], "pool": False}
    assert "pad (option A" in rosetta("show", "cifar_resnet20").stdout


def test_hints_know_other_names():
    """What others call a thing, what it is a part or a beginning of, and what is spelt alike."""
    from common.arch import VARIANTS
    from common.errors import ALIASES, nearest

    for name, meant in (
        ("resnext50", "resnext50_32x4d"), ("seresnext50", "seresnext50_32x4d"), ("resnet20", "cifar_resnet20"),
        ("resnet56", "cifar_resnet56"), ("resnet50v2", "resnet50v2_keras"), ("resnet-50", "resnet50"),
    ):  # fmt: skip
        assert nearest(name, VARIANTS).startswith(f"; did you mean {meant}"), (name, nearest(name, VARIANTS))
    assert not nearest("", VARIANTS) and not nearest("zzzz", VARIANTS)
    for args, words in (
        (["show", "resnet34", "--set", "shortcut=A"], "'pad' (option A), 'project' (option B)"),
        (["show", "resnet34", "--set", "shortcut=A"], "did you mean pad?"),
        (["show", "resnet34", "--set", "stem=64@3*3/1"], "64@7x7/2, max pool 3/2"),
        (["show", "resnet34", "--set", "depths=3,x"], "a sequence of whole numbers"),
        (["train", "cifar_resnet20", "--data", "digits", "--with", "lr=0.1"], "did you mean rate?"),
        (["train", "cifar_resnet20", "--data", "digits", "--with", "zzz=1"], "there are accumulate, "),
        (["train", "cifar_resnet20", "--data", "digits", "--lr", "0.1"], "--rate"),
        (["train", "cifar_resnet20", "--data", "digits", "--framework", "pytorch"], "did you mean torch?"),
        (["compare", "resnet18", "--backends", "torch", "tensorflow"], "did you mean keras:tensorflow?"),
        (["compare", "resnet18", "--dtype", "fp16"], "did you mean float16?"),
        (["compare", "resnet18", "--device", "cuda"], "did you mean gpu?"),
        (["info", "resnet18"], "did you mean inspect?"),
    ):  # fmt: skip
        out = rosetta(*args)
        assert out.exit_code == 2 and words in out.stderr, (args, out.output, out.exception)
    assert all(meant.split() for meant in ALIASES.values())
