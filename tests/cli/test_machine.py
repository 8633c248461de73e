"""What the machine refuses is one message and exit code 2: the exceptions are made up, in the frameworks' own words."""

import io
import json
import pickle
import types

import pytest
import torch
from click.testing import CliRunner

import torch_impl.train
from common.cli import cli
from common.errors import RosettaError
from common.parity import worker
from common.speed import contender
from common.speed.bench import Process
from common.tools.refusals import refusal


class ResourceExhaustedError(Exception):
    """TensorFlow's, which is no RuntimeError."""


CARD = (
    "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is free"
)
SAID = [
    (torch.OutOfMemoryError(CARD), "20.50 GiB was asked for on a GPU of 79.11 GiB, of which 1.20 GiB were free"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"),
     "4096 bytes was asked for"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3.73GiB."), "3.73GiB was asked for"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4000000000 bytes."), "4000000000 bytes was asked for"),
    (ResourceExhaustedError("OOM when allocating tensor with shape[64,256,56,56] and type float on GPU:0 by allocator"),
     r"tensor with shape\[64,256,56,56\] and type float was asked for"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "more than there is was asked for"),
    (MemoryError(), "more than there is was asked for"),
    (RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update"),
     "the GPU can't be used: The NVIDIA driver on your system is too old .found version 11040"),
    (RuntimeError("CUDA error: CUDA driver version is insufficient for CUDA runtime version\nCUDA kernel errors"),
     "the GPU can't be used: CUDA error: CUDA driver version is insufficient for CUDA runtime version. What"),
    (RuntimeError("Unable to initialize backend 'cuda': INTERNAL: cuInit(0) failed: error 803"), "cuInit.0. failed"),
    (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no kernel image"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words"), SAID)
def test_a_command_says_it_in_one_line(error, words, tmp_path, monkeypatch):
    def step(*given):
        try:
            raise error
        except Exception as e:
            raise RuntimeError("while a graph was compiled") from e  # as compilers wrap it

    monkeypatch.setattr(torch_impl.train.Trainer, "step", step)
    words_of = ["train", "cifar_resnet20", "--set", "depths=1,1,1", "--data", "digits", "--out", tmp_path / "run"]
    done = CliRunner().invoke(cli, [str(w) for w in (*words_of, "--steps", 1, "--device", "cpu", "--quiet")])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    last = done.output.splitlines()[-1]
    assert last.startswith("rosetta: "), done.output
    with pytest.raises(RosettaError, match=words):
        raise RosettaError(last)
    assert "Traceback" not in done.output and "--device cpu" in last


def test_what_is_no_answer_of_the_machines_is_not_hidden():
    assert refusal(RuntimeError("CUDA error: an illegal memory access was encountered")) is None
    assert refusal(ValueError("a driver of a car")) is None


@pytest.fixture
def pipes(monkeypatch):
    """The two ends of a process that is none."""

    def made(module, asked, replies):
        monkeypatch.setattr(module, "os", types.SimpleNamespace(dup=id, dup2=max, fdopen=lambda *given: replies))
        monkeypatch.setattr(module, "sys", types.SimpleNamespace(stdin=asked))
        return replies

    return made


@pytest.mark.parametrize(("error", "words"), [SAID[0], SAID[7]])
def test_a_backends_process_answers_and_goes_on(error, words, pipes, monkeypatch):
    def run(job):
        raise error
        yield

    monkeypatch.setattr(worker, "Here", lambda *given: types.SimpleNamespace(run=run, versions=dict))
    asked = b"".join(pickle.dumps(m) for m in [(1, "run", None), (0, "versions", None)])
    replies = pipes(worker, types.SimpleNamespace(buffer=io.BytesIO(asked)), io.BytesIO())
    worker.main("keras:jax", "gpu")
    replies.seek(0)
    key, kind, said = pickle.load(replies)
    assert (key, kind) == (1, "error") and said.startswith("keras:jax: ")
    with pytest.raises(RosettaError, match=words):
        raise RosettaError(said)
    assert pickle.load(replies) == (0, "value", {})


@pytest.mark.parametrize(("error", "words"), [SAID[0], SAID[7]])
def test_a_benchmarks_process_answers(error, words, pipes, monkeypatch):
    def side(spec):
        raise error

    monkeypatch.setitem(contender.SIDES, "torch", side)
    spec = dict(side="torch", mode="eager", dtype="float32", arch="{}", name="n", input=[1], threads=1, device="cpu",
                files={})  # fmt: skip
    replies = pipes(contender, io.StringIO(), io.StringIO())
    contender.main(json.dumps(spec))
    process = object.__new__(Process)
    process.what, process.process = "torch, eager", types.SimpleNamespace(stdout=io.StringIO(replies.getvalue()))
    with pytest.raises(RosettaError, match=f"torch, eager: .*{words}"):
        process.answer()
