"""Other people's ResNets, each as it is at one commit, diagnosed: docs/tutorials.json, which the site tells, and the
table of docs/diagnosis.md.

    make tutorials

It executes their files, in processes without sockets. None of their code is kept. A file that can't be run as it is, or
a notebook, is run once more with its imports, functions, classes and constants alone, and with what is `mended`.
"""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from common.diagnosis.hers import diagnose_file
from common.errors import RosettaError
from common.tools.files import atomic
from common.tools.text import within

ROOT = Path(__file__).parent.parent
JSON, PAGE = ROOT / "docs" / "tutorials.json", ROOT / "docs" / "diagnosis.md"
TUTORIALS, COURSE = "dragen1860/Deep-Learning-with-PyTorch-Tutorials", "dragen1860/TensorFlow-2.x-Tutorials"


@dataclass(frozen=True)
class Net:
    """`call` makes it, `like` is the row that it is meant to be; `mended` are edits of its text, with which it runs."""

    repository: str
    commit: str
    path: str
    call: str
    like: str | None = None
    mended: tuple[tuple[str, str], ...] = ()


_LABML = "from torch.nn import Module"  # what labml_helpers' Module is for a net
_DRAWN = "def create_initializer(mode):\n    return lambda module: None"
_HYSTS = (
    "Network((N := __import__('types').SimpleNamespace)(dataset=N(n_channels=3, image_size=32, n_classes=10), "
    "model=N(init_mode='', resnet_preact=N(initial_channels=16, remove_first_relu=False, add_last_bn=False, "
    "block_type='basic', depth=110, preact_stage=[True] * 3))))"
)
NETS = (
    Net("FrancescoSaverioZuppichini/ResNet", "b5c4255a", "ResNet.ipynb", "resnet18(3, 1000)", "resnet18"),
    Net("weiaicunzai/pytorch-cifar100", "11d8418f", "models/resnet.py", "resnet18()"),
    Net("a-martyn/resnet", "a9779154", "resnet.py", "ResNet(3)", "cifar_resnet20"),
    Net("bearpaw/pytorch-classification", "24f1c456", "models/cifar/resnet.py", "resnet(depth=20)", "cifar_resnet20"),
    Net("Lornatang/ResNet-PyTorch", "0b5dbbb8", "model.py", "resnet18()", "resnet18"),
    Net(TUTORIALS, "7535c8fa", "lesson42-ResNet/resnet.py", "ResNet18()", "resnet18"),
    Net(TUTORIALS, "7535c8fa", "lesson45-Cifar10与ResNet18实战/resnet.py", "ResNet18()", "resnet18"),
    Net("labmlai/annotated_deep_learning_paper_implementations", "0a4b5b68", "labml_nn/resnet/__init__.py",
        "ResNetBase([3, 4, 6, 3], [64, 128, 256, 512])", "resnet34",
        (("from labml_helpers.module import Module", _LABML),)),
    Net("rasbt/deeplearning-models", "18e04692", "pytorch_ipynb/cnn/cnn-resnet18-mnist.ipynb", "resnet18(10)",
        "resnet18"),
    Net("rasbt/deeplearning-models", "18e04692", "pytorch_ipynb/cnn/cnn-resnet50-mnist.ipynb", "resnet34(10)",
        "resnet34"),
    Net("rasbt/deeplearning-models", "18e04692", "pytorch_ipynb/cnn/cnn-resnet101-cifar10.ipynb",
        "resnet101(10, False)", "resnet101"),
    Net("michuanhaohao/reid-strong-baseline", "3da7e6f0", "modeling/backbones/resnet.py", "ResNet()", "resnet50"),
    Net("junyuseu/pytorch-cifar-models", "cdb40bfb", "models/resnet_cifar.py", "resnet20_cifar()", "cifar_resnet20"),
    Net("junyuseu/pytorch-cifar-models", "cdb40bfb", "models/resnet_cifar.py", "preact_resnet110_cifar()",
        "cifar_preresnet110"),
    Net("Mayurji/Image-Classification-PyTorch", "6f53dceb", "ResNet.py", "ResNet(3, 1000)"),
    Net("hysts/pytorch_image_classification", "993089a3",
        "pytorch_image_classification/models/cifar/resnet_preact.py", _HYSTS, "cifar_preresnet110",
        (("from ..initializer import create_initializer", _DRAWN),)),
    Net("calmisential/TensorFlow2.0_ResNet", "6136d57c", "models/resnet.py", "resnet_50()", "resnet50"),
    Net(COURSE, "9861a308", "深度学习与TensorFlow入门实战-源码和PPT/lesson43-ResNet/resnet.py", "resnet18()",
        "resnet18"),
    Net(COURSE, "9861a308", "08-ResNet/main.py", "ResNet([2, 2, 2], 10)"),
    Net("asmith26/wide_resnets_keras", "cd5cdd4f", "main.py", "create_model()", "cifar_wrn28_10",
        (('weight_init="he_normal"', 'channel_axis = -1\ninput_shape = (32, 32, 3)\nweight_init="he_normal"'),)),
    Net("WZMIAOMIAO/deep-learning-for-image-processing", "0ff6a3ed", "tensorflow_classification/Test5_resnet/model.py",
        "resnet50()", "resnet50", (("/BatchNorm", "_BatchNorm"), ('"SAME"', '"same"'))),
    Net("broadinstitute/keras-resnet", "898a1ee4", "keras_resnet/models/_2d.py",
        "ResNet2D50(keras.layers.Input((224, 224, 3)))", "resnet50"),
    Net("fchollet/deep-learning-models", "ccd0eb24", "resnet50.py", "ResNet50(weights=None)", "resnet50",
        (("from keras.applications.imagenet_utils import _obtain_input_shape",
          "def _obtain_input_shape(shape, **options):\n    return shape or (224, 224, 3)"),)),
    Net("flyyufelix/cnn_finetune", "cba34398", "resnet_50.py", "resnet50_model(224, 224, 3, 1000)", "resnet50"),
    Net("priya-dwivedi/Deep-Learning", "35a3ea28", "resnet_keras/Residual_Networks_yourself.ipynb", "ResNet50()",
        "resnet50_keras"),
)  # fmt: skip


def named(net: Net) -> tuple[str, str, str]:
    return net.repository, net.path, net.call


def checked_out(net: Net, clones: Path, folder: Path) -> Path:
    """The Python files of the commit, and its file, in `folder`; the file's path. Clones what isn't there."""
    clone = clones / net.repository.replace("/", "+")
    if not clone.exists():
        address = f"https://github.com/{net.repository}"
        subprocess.run(["git", "clone", "-q", "--filter=blob:none", "--no-checkout", address, clone], check=True)
    which = [f":(literal){net.path}", *([] if net.path.endswith(".ipynb") else [":(glob)**/*.py"])]
    command = ["git", "-C", str(clone), "archive", net.commit, "--", *which]
    packed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder / net.path


def source(path: Path) -> str:
    """A file's Python, or that of a notebook's cells."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        text = re.sub(r"^[%!].*", "", text, flags=re.M)  # what is Jupyter's and no Python
    return text


def definitions(text: str) -> str:
    """Its imports, as far as they can be had, its functions and classes, and its constants: nothing is trained."""
    kept = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = (
                    ast.Import([alias])
                    if isinstance(node, ast.Import)
                    else ast.ImportFrom(node.module, [alias], node.level)
                )
                kept.append(f"try:\n    {ast.unparse(one)}\nexcept ImportError:\n    pass")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) or isinstance(node, ast.Assign) and constant(node.value):
            kept.append(ast.unparse(node))
    return "\n\n".join(kept) + "\n"


def constant(value: ast.expr) -> bool:
    """A literal, or a `partial` of something that was defined."""
    with contextlib.suppress(ValueError):
        ast.literal_eval(value)
        return True
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "partial"


def diagnosed(net: Net, clones: Path) -> dict[str, Any]:
    """What diagnose says of the file as it is, or with which exception it doesn't run; and then of its definitions."""
    with tempfile.TemporaryDirectory(prefix="tutorials-") as folder:
        path, found = checked_out(net, clones, Path(folder)), {}
        os.environ["PYTHONPATH"] = folder  # modules from the root of the repository
        if path.suffix == ".py":
            try:
                return said(path, net)
            except RosettaError as e:
                found["as it is"] = plain(e)
        text = source(path)
        for old, new in net.mended:
            if old not in text:
                raise click.ClickException(f"{net.repository} has no {old!r} to mend")
            text = text.replace(old, new)
        cut = path.with_suffix(".py")
        cut.write_text(definitions(text), "utf-8")
        try:
            return {**found, "cut": True, "mended": bool(net.mended), **said(cut, net)}
        except RosettaError as e:
            return {**found, "cut": True, "error": plain(e)}


def plain(error: RosettaError) -> str:
    """Without this machine's folders, and without addresses."""
    return re.sub(r" \(/[^)]*\)|https?://[^ ]*/", "", str(error))


def said(path: Path, net: Net) -> dict[str, Any]:
    _, found = diagnose_file(str(path), None, net.call, net.like, limit=900)
    edits = [{k: e[k] for k in ("name", "kind", "says", "matters")} for e in found["edits"]]
    worst = found["proof"] and float(f"{found['proof']['worst']:.0e}")
    return {"row": found["row"], "same": found["same"], "edits": edits, "unexplained": list(found["unexplained"]),
            "remarks": list(found["remarks"]), "worst": worst}  # fmt: skip


def row(net: dict[str, Any]) -> str:
    """Of the table in docs/diagnosis.md."""
    name = f"{net['repository']} {net['path']} {net['commit']}, {net['call'].split('(')[0]}"
    name += " (cut)" * net.get("cut", False) + " (mended)" * net.get("mended", False)
    parts = [f"its exception: `{net['as it is']}`"] if "as it is" in net else []
    if "error" in net:
        parts += [f"its exception: `{net['error']}`"] if net["error"] != net.get("as it is") else []
    elif net["unexplained"]:
        parts += net["unexplained"]
    else:
        parts += ["; ".join(e["name"] for e in net["edits"]) or "nothing"]
    away = f"{net['worst']:.0e}" if net.get("worst") is not None else ""
    return f"| {name} | {net.get('row') or net['like'] or ''} | {'. Its definitions: '.join(parts)} | {away} |"


def page(nets: list[dict[str, Any]], text: str) -> str:
    """docs/diagnosis.md with the table of these nets."""
    lines = ["| net | row | what differs | away |", "|---|---|---|--:|", *map(row, nets)]
    return within(text, "nets: make tutorials", "\n".join(lines))


@click.command()
@click.option("--clones", default=Path.home() / ".cache" / "resnet-rosetta-clones", type=click.Path(path_type=Path),
              help="A folder of clones, owner+name.")  # fmt: skip
@click.option(
    "--only", default="", help="Those whose repository, path or call has this word; the others keep what they have."
)
def main(clones: Path, only: str) -> None:
    nets = json.loads(JSON.read_text("utf-8"))["nets"] if JSON.is_file() else []
    kept = {(n["repository"], n["path"], n["call"]): n for n in nets}
    under = {name: version(name) for name in ("torch", "keras")}
    clones.mkdir(parents=True, exist_ok=True)
    for net in NETS:
        if only not in " ".join(named(net)):
            continue
        click.echo(f"{' '.join(named(net))}", err=True)
        found = diagnosed(net, clones)
        kept[named(net)] = {"repository": net.repository, "commit": net.commit, "path": net.path, "call": net.call,
                            "like": net.like, **found}  # fmt: skip
        nets = [kept[key] for key in map(named, NETS) if key in kept]
        whole = {"date": date.today().isoformat(), "versions": under, "nets": nets}
        for path, text in ((JSON, json.dumps(whole, indent=1, ensure_ascii=False) + "\n"),
                           (PAGE, page(nets, PAGE.read_text("utf-8")))):  # fmt: skip
            with atomic(path) as temporary:
                temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
