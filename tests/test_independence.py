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
            "import common.arch, common.plan, common.names, common.weights, common.init, common.noise, common.images, "
            "common.parity, common.port, common.checks, common.rules, common.backends, common.engines, common.worker, "
            "common.graphs, common.export, common.report, common.cli, common.frameworks, common.foreign, "
            "common.containers, common.recognise, common.writers, common.hdf5, common.keras_files, common.data, "
            "common.recipe, common.training, common.kept, common.figures, common.scores, common.evaluation, "
            "common.race, common.commands",
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


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--json"],
        ["show", "cifar_resnet1202"],
        ["--help"],
        ["compare", "--help"],
        ["train", "--help"],
    ],
)
def test_the_command_line_loads_no_framework_to_show_something(command):
    code = f"from common.commands import cli\ntry: cli({command})\nexcept SystemExit as e: assert not e.code, e.code"
    assert loaded(code) == set()


def test_porting_loads_what_it_needs_and_no_more(tmp_path):
    """Between safetensors files of any library nothing, for PyTorch's own files torch, for Keras' files not even
    Keras."""
    from common import port, writers
    from common.arch import get
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
        code = f"from common import port; port.port({str(files[source])!r}, {str(tmp_path / target)!r}, probe=False)"
        assert loaded(code) == expected, (source, target)
    assert port.inspect(tmp_path / "o.keras").arch == arch
