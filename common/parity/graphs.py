"""ONNX graphs: what both exporters call things, and how a graph is run by something that neither framework wrote."""

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from common.arch import Arch
from common.errors import RosettaError
from common.parity.checks import Item, Job
from common.tools.frameworks import load, require

INPUT, LOGITS, OPSET = "input", "logits", 18
RUNNERS = ("onnx", "onnxruntime")
NEEDS = {"torch": (*RUNNERS, "onnxscript"), "keras": (*RUNNERS, "tf2onnx")}  # to export from a framework, and run


def axes(arch: Arch) -> tuple[str, ...]:
    """The names of a graph's free axes after batch and channels."""
    return ("L",) if arch.dims == 1 else ("H", "W")


def run(path: str | os.PathLike, x: np.ndarray) -> np.ndarray:
    """The logits of the graph at `path` on `x` (N C *S), in the graph's dtype.

    float32 runs in ONNX Runtime. That has no convolution in float64: there it is ONNX's own reference evaluator, in
    numpy. Raises RosettaError where one of them isn't installed, or the graph has another dtype.
    """
    require("running an ONNX graph", RUNNERS, "onnx")
    import onnx
    import onnx.helper

    kind = onnx.load(path).graph.input[0].type.tensor_type.elem_type
    dtype: Any = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype == np.float32:
        session = _session(path)
        return session.run([LOGITS], {INPUT: x.astype(np.float32)})[0]
    if dtype != np.float64:
        raise RosettaError(f"a graph in {dtype} can't be run here: ONNX Runtime's convolutions are float32")
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(os.fspath(path)).run([LOGITS], {INPUT: x.astype(np.float64)})[0])


def _session(path: str | os.PathLike) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def run_job(spec: str, job: Job) -> Iterator[Item]:
    """What a referee can say of a job: the logits of the forward check."""
    if job.dtype not in ("float32", "float64"):
        raise RosettaError(f"{spec} has no {job.dtype}: ONNX Runtime runs float32, ONNX's own evaluator float64")
    framework = spec.split(":")[1]
    impl, exporter = load(framework), load(framework, "onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.onnx")
        exporter.export(impl.create_model(job.arch, dtype=job.dtype, weights=job.given()), path)
        if "forward" in job.checks:
            yield Item("forward", "logits", "logits", run(path, job.x))
