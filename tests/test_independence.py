"""Who imports whom. A fresh process each, since this one has imported everything."""

import subprocess
import sys

import pytest
from conftest import ROOT

FRAMEWORKS = ("torch", "tensorflow", "keras")  # TensorFlow itself imports JAX where it finds it


def loaded(code: str, backend: str = "tensorflow") -> set[str]:
    """The frameworks that a process has loaded after `code`."""
    report = f"{code}\nimport sys; print('loaded', *[m for m in {FRAMEWORKS} if m in sys.modules])"
    env = {"PATH": "/usr/bin:/bin", "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(ROOT / ".venv")}
    done = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.strip().splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "import importlib, pkgutil, common\n"
            "for m in pkgutil.walk_packages(common.__path__, 'common.'):\n"
            "    m.name.endswith('__main__') or importlib.import_module(m.name)",
            set(),
        ),
        (
            "import torch_impl, torch_impl.trace, torch_impl.originals; torch_impl.create_model('cifar_resnet20')",
            {"torch"},
        ),
        (
            "import keras_impl, keras_impl.trace, keras_impl.originals; keras_impl.create_model('cifar_resnet20')",
            {"keras", "tensorflow"},
        ),
    ],
    ids=["common", "torch_impl", "keras_impl"],
)
def test_imports(code, expected):
    assert loaded(code) == expected


def test_the_import_check_can_fail():
    assert loaded("import common, torch") == {"torch"}


def test_the_command_line_loads_no_framework_to_show_something():
    """Not even numpy: it would double the time that these take."""
    code = """
import contextlib, sys
from common.cli import cli
for words in (["list"], ["show", "cifar_resnet1202"], ["--help"], *([name, "--help"] for name in cli.commands)):
    with contextlib.suppress(SystemExit):
        cli(words, standalone_mode=False)
    if "numpy" in sys.modules:
        sys.exit(f"rosetta {' '.join(words)} imports numpy")
"""
    assert loaded(code) == set()


def test_porting_loads_what_it_needs_and_no_more(tmp_path):
    """Between safetensors files of any library nothing, for PyTorch's own files torch, for Keras' files not even
    Keras."""
    from common.arch import get
    from common.checkpoints import port, writers
    from common.init import randomised

    arch = get("resnet18", depths=(1, 1), widths=(16, 16), num_classes=3)
    files = {}
    for name, library in (("timm.safetensors", "timm"), ("a.pth", "torchvision"), ("ours.weights.h5", None)):
        files[name] = tmp_path / name
        writers.write(files[name], writers.target_of(files[name], library, arch), arch, randomised(arch))
    for source, target, expected in (
        ("timm.safetensors", "o.safetensors", set()),
        ("timm.safetensors", "o.weights.h5", set()),
        ("timm.safetensors", "o.keras", set()),
        ("ours.weights.h5", "o.safetensors", set()),
        ("a.pth", "o.weights.h5", {"torch"}),
        ("a.pth", "o.keras", {"torch"}),
    ):
        (tmp_path / target).unlink(missing_ok=True)
        words = f"{str(files[source])!r}, {str(tmp_path / target)!r}, probe=False"
        code = f"from common.checkpoints import port; port.port({words})"
        assert loaded(code) == expected, (source, target)
    assert port.inspect(tmp_path / "o.keras").arch == arch
