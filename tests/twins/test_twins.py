"""The two implementations are the same text where they can be, and have the same parts where they can't."""

import ast

import pytest
from conftest import ROOT


def tree(source: str) -> str:
    """The syntax tree with `call` read as `forward`: comments, and so the shapes, are not in it."""
    module = ast.parse(source)
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == "call":
            node.name = "forward"
        if isinstance(node, ast.Attribute) and node.attr == "call":
            node.attr = "forward"
    return ast.dump(module, indent=1)


def text(package: str, file: str) -> str:
    return (ROOT / f"{package}_impl" / file).read_text()


@pytest.mark.parametrize("file", ["blocks.py", "resnet.py"])
def test_blocks_and_network_have_one_syntax_tree(file):
    assert tree(text("torch", file)) == tree(text("keras", file))


@pytest.mark.parametrize("file", ["blocks.py", "resnet.py"])
def test_line_against_line(file):
    """So that they can be laid side by side: the same number of lines, different only in `forward` and in comments."""
    for a, b in zip(text("torch", file).splitlines(), text("keras", file).splitlines(), strict=True):
        assert a.replace("forward(", "call(").split("  # ")[0] == b.split("  # ")[0]


@pytest.mark.parametrize("file", ["blocks.py", "resnet.py"])
def test_the_comparison_can_fail(file):
    """Whichever name or constant is another in one of the two. Of all of them every tenth is tried."""
    ours, theirs = text("torch", file), tree(text("keras", file))
    assert tree(ast.unparse(ast.parse(ours))) == theirs
    spoiled = 0
    for k in range(0, sum(isinstance(n, CHANGED) for n in ast.walk(ast.parse(ours))), 10):
        module = ast.parse(ours)
        node = [n for n in ast.walk(module) if isinstance(n, CHANGED)][k]
        if isinstance(node, ast.Name):
            node.id += "_"
        elif isinstance(node, ast.Attribute):
            node.attr += "_"
        else:
            node.value = f"{node.value}_"
        assert tree(ast.unparse(module)) != theirs, ast.dump(node)
        spoiled += 1
    assert spoiled > 20


CHANGED = (ast.Name, ast.Attribute, ast.Constant)


def public(source: str) -> list[str]:
    return [
        n.name
        for n in ast.parse(source).body
        if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
    ]


# what one framework needs and the other has no counterpart of, each for a reason that its docstring gives
ONE_SIDED = {
    "layers.py": {"he", "BatchNorm", "GroupNorm", "ConvLinear", "StdConv1d", "StdConv2d", "Conv1D", "Conv2D", "Dense"},
    "model.py": {
        "Part",
        "keras_name",
        "is_training",
        "refuse_quantization",
        "Sequential",
        "from_source",
        "to_keras",
        "to_torch",
        "to_tensor",
    },
    "weights.py": {"named_layers", "named_tensors", "named_variables"},
    "originals.py": {"in_dtype", "fill", "save"},  # Keras' own formats hold the model's configuration
    "train.py": {"SyncNorm", "feed", "Rates"},  # Keras' own layer does it, and JAX needs none; for Keras' own `fit`
    "optim.py": {"SGD", "Adam", "AdamW"},  # PyTorch's rules, which torch.optim has
}


@pytest.mark.parametrize(
    "file", [f"{m}.py" for m in "model layers weights files trace originals autodiff optim onnx train fast".split()]
)
def test_the_other_files_have_the_same_names_in_the_same_order(file):
    ours, twin = ([n for n in public(text(p, file)) if n not in ONE_SIDED.get(file, ())] for p in ("torch", "keras"))
    assert ours == twin and ours


def test_no_arithmetic_in_the_implementations():
    """Channels, strides and paddings are worked out in common/plan.py: blocks and network multiply nothing and add
    only paths."""
    for file in ("blocks.py", "resnet.py"):
        operators = [n.op for n in ast.walk(ast.parse(text("torch", file))) if isinstance(n, ast.BinOp)]
        allowed = (ast.Mult, ast.BitOr)  # x * gate of two attentions, and types such as A | None
        assert (
            all(isinstance(op, allowed) for op in operators) and sum(isinstance(op, ast.Mult) for op in operators) <= 2
        ), file
