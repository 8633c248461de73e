"""Checkpoints by name, against a server of this machine: no test asks the internet."""

import hashlib
import http.server
import json
import sys
import threading
import time

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from common.arch import get
from common.checkpoints import hubs, port
from common.cli import cli
from common.errors import RosettaError
from common.init import randomised

ARCH = get("resnet18", depths=(1, 1, 1, 1), widths=(4, 6, 8, 10), num_classes=5)
WEIGHTS = randomised(ARCH)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architecture": "resnet18", "num_classes": 5, "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 6, 8, 10]},
    "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 224, 224], "crop_pct": 0.95,
                       "interpolation": "bicubic"},
}  # fmt: skip


class Hub(http.server.BaseHTTPRequestHandler):
    """The two routes of Hugging Face's hub that are asked; and plain files."""

    files: dict = {}
    how: dict = {}  # what goes wrong with a file
    asked: list = []

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        Hub.asked.append((self.command, self.path))
        name = self.path.split("?")[0].rsplit("/", 1)[1]
        how = Hub.how.get(name, "")
        if how == "redirect" and not self.path.startswith("/cdn"):
            self.send_response(302)
            for key, value in self.about(name).items():
                self.send_header(key, value)
            self.send_header("Location", f"/cdn/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if how == "slow":
            threading.Event().wait(0.6)
        codes = {"unknown": "RepoNotFound", "gated": "GatedRepo", "revision": "RevisionNotFound"}
        code = codes.get(how, "EntryNotFound")
        if how in ("unknown", "gated", "revision") or name not in Hub.files:
            self.send_response({"unknown": 401, "gated": 403}.get(how, 404))
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = Hub.files[name]
        self.send_response(200)
        for key, value in {**self.about(name), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            wrong = bytes([data[-1] ^ 1]) if how == "wrong" else data[-1:]
            self.wfile.write(data[: len(data) // 2] if how == "cut" else data[:-1] + wrong)

    def about(self, name):
        data = Hub.files[name]
        digest = hashlib.sha256(data).hexdigest() if len(data) > 5000 else hashlib.sha1(data).hexdigest()
        return {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{digest}"'}  # fmt: skip

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # it waits before it tries again
    Hub.files, Hub.how, Hub.asked = {"config.json": json.dumps(CONFIG).encode()}, {}, []
    safetensors.numpy.save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    Hub.files["model.safetensors"] = (tmp_path / "a.safetensors").read_bytes()
    yield url
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["hf:timm/small.a1", "hf://timm/small.a1", "hf-hub:timm/small.a1@main"])
def test_a_net_of_the_hub_is_ported_by_its_name(hub, tmp_path, name):
    done = CliRunner().invoke(cli, ["port", name, str(tmp_path / "b.safetensors"), "--no-probe"])
    assert done.exit_code == 0, done.output
    found = port.inspect(tmp_path / "b.safetensors")
    assert found.arch == ARCH and all(np.array_equal(w, WEIGHTS[n]) for n, w in found.weights().items())
    digest = hashlib.sha256(Hub.files["model.safetensors"]).hexdigest()
    assert f"hf:timm/small.a1@{COMMIT}" in found.source and digest in found.source and digest in done.output
    assert found.preprocessing.resize == 235 and found.preprocessing.mean == (0.5,) * 3
    port.port(tmp_path / "b.safetensors", tmp_path / "c.pth", probe=False)
    assert port.inspect(tmp_path / "c.pth").source == found.source


def test_what_is_in_the_cache_is_not_fetched_again_and_is_there_offline(hub, monkeypatch):
    port.inspect("hf:timm/small.a1")
    fetched = [path for how, path in Hub.asked if how == "GET"]
    port.inspect("hf:timm/small.a1")
    assert [path for how, path in Hub.asked if how == "GET" and path.endswith(".safetensors")] == [
        path for path in fetched if path.endswith(".safetensors")
    ]
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    assert port.inspect("hf:timm/small.a1").arch == ARCH
    with pytest.raises(RosettaError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        port.inspect("hf:timm/another")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "can't be fetched|can't be reached"), ("wrong", "came damaged, and is removed"),
        ("slow", "can't be fetched|can't be reached"), ("unknown", "no such repository, or it is private"),
        ("gated", "is gated: accept"), ("revision", "no such revision"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(hub, tmp_path, how, words):
    Hub.how = (
        {"config.json": how, "model.safetensors": how}
        if how not in ("cut", "wrong", "slow")
        else {"model.safetensors": how}
    )
    done = CliRunner().invoke(cli, ["port", "hf:timm/small.a1", str(tmp_path / "b.safetensors")])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit | RosettaError), done.output
    with pytest.raises(RosettaError, match=words) as error:
        port.inspect("hf:timm/small.a1")
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "b.safetensors").exists()
    Hub.how = {}
    assert port.inspect("hf:timm/small.a1").arch == ARCH  # nothing broken was left in the cache


def test_a_name_is_taken_wherever_a_file_is(hub):
    from common.training.record import model_of
    from common.training.run import from_root

    arch, weights = port.named("hf:timm/small.a1")
    assert arch == ARCH and np.array_equal(weights["fc.bias"], WEIGHTS["fc.bias"])
    assert from_root("hf:timm/small.a1") == "hf:timm/small.a1" and hubs.named(model_of("hf://timm/small.a1"))


def test_a_redirect_is_followed(hub):
    Hub.how = {"model.safetensors": "redirect"}
    assert port.inspect("hf:timm/small.a1").arch == ARCH


def test_a_repository_without_weights(hub):
    del Hub.files["model.safetensors"]
    with pytest.raises(RosettaError, match="has no weights that are known here: expected model.safetensors"):
        port.inspect("hf:timm/small.a1")
    for name in ("hf:timm", "hf:../../etc", "hf:a b/c"):
        with pytest.raises(RosettaError, match="is no name of a repository"):
            port.inspect(name)


def test_weights_in_several_files(hub, tmp_path):
    names = list(WEIGHTS)
    for i, part in enumerate((names[:30], names[30:]), 1):
        safetensors.numpy.save_file({n: WEIGHTS[n] for n in part}, tmp_path / "s")
        Hub.files[f"model-0000{i}-of-00002.safetensors"] = (tmp_path / "s").read_bytes()
    where = {n: f"model-0000{1 + (n not in names[:30])}-of-00002.safetensors" for n in names}
    Hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": where}).encode()
    del Hub.files["model.safetensors"]
    found = port.inspect("hf:timm/small.a1")
    assert found.arch == ARCH and all(np.array_equal(w, WEIGHTS[n]) for n, w in found.weights().items())


def test_torchvisions_own_weights(hub, referees, monkeypatch, tmp_path):
    import torch

    models, _ = referees
    torch.save({n: torch.from_numpy(w) for n, w in WEIGHTS.items()}, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    file = f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    Hub.files[file] = data
    monkeypatch.setattr(models, "get_model_weights", lambda name: type("W", (), {"DEFAULT": type("D", (), {
        "url": f"{hub}/{file}", "__str__": lambda self: "ResNet18_Weights.IMAGENET1K_V1"})()}))  # fmt: skip
    found = port.inspect("torchvision:resnet18")
    assert found.arch == ARCH and file in found.source
    count = len(Hub.asked)
    port.inspect("torchvision:resnet18")
    assert len(Hub.asked) == count  # from the cache, where torchvision has it, too
    kept = tmp_path / "torch" / "hub" / "checkpoints" / file
    kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RosettaError, match="is damaged"):
        port.inspect("torchvision:resnet18")
    for how, words in (("cut", "ended after"), ("wrong", "gave another file"), ("unknown", "answers 401")):
        kept.unlink(missing_ok=True)
        Hub.how = {file: how}
        with pytest.raises(RosettaError, match=words):
            port.inspect("torchvision:resnet18")
        assert not kept.exists()
    monkeypatch.setattr(hubs, "_SECONDS", 0.2)
    Hub.how = {file: "slow"}
    with pytest.raises(RosettaError, match="no answer within|timed out"):
        port.inspect("torchvision:resnet18")


def test_unknown_names_are_offered_the_nearest(referees):
    with pytest.raises(RosettaError, match="has no ResNet 'resnet51'; did you mean resnet50"):
        port.inspect("torchvision:resnet51")
    with pytest.raises(RosettaError, match="has no weights 'ResNet50_Weights.V3'"):
        port.inspect("torchvision:ResNet50_Weights.V3")
    with pytest.raises(RosettaError, match="has no ResNet 'ResNet50V3'; did you mean ResNet50V2"):
        port.inspect("keras:ResNet50V3")
    with pytest.raises(RosettaError, match="no such file: kers:ResNet50; did you mean keras"):
        port.inspect("kers:ResNet50")
    with pytest.raises(RosettaError, match="no such file: .*; hubs are hf:, torchvision: and keras:"):
        port.inspect("modelscope:a/b")


def test_a_hub_that_is_not_there_is_one_line(hub, monkeypatch, caplog):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(RosettaError, match="config.json is not in the cache, and the hub can't be reached"):
        port.inspect("hf:timm/small.a1")
    assert not caplog.records
