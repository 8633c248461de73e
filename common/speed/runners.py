"""The engines that `optimize` can have a net run in, and which of them is the fastest here.

"compiler" is the framework's own. The others run the ONNX graph of our own export, on a CPU.
"""

import dataclasses
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RosettaError, hint
from common.parity.graphs import INPUT, LOGITS, NEEDS
from common.speed.fast import Optimized
from common.tools.frameworks import require

COMPILER, AUTO = "compiler", "auto"
DTYPES = {"onnxruntime": ("float32",), "openvino": ("float32", "bfloat16")}  # of what runs a graph
ENGINES = (COMPILER, *DTYPES)
EXPORTS = ("torch", "keras:tensorflow")  # the backends that make a graph
ROUNDS, ENOUGH = 7, 0.02  # turns of each engine when they are compared, and at least so many seconds a turn


def check_name(engine: str) -> None:
    """Raises RosettaError for a name that is no engine's."""
    if engine not in (known := (*ENGINES, AUTO)):
        raise RosettaError(f"unknown engine {engine!r}{hint(engine, known)}")


def packages(engine: str, framework: str) -> list[str]:
    """What a graph of that framework needs to be made, and run in that engine."""
    return [engine, *(p for p in NEEDS[framework] if p not in DTYPES)]


def installed(framework: str, dtype: str) -> list[str]:
    """The engines that are there, and have the dtype."""
    return [COMPILER] + [
        engine
        for engine, has in DTYPES.items()
        if dtype in has and all(importlib.util.find_spec(p) for p in packages(engine, framework))
    ]


def check(engine: str, framework: str, dtype: str, place: str) -> None:
    """Raises RosettaError, with what to do, for an engine that is none, or that runs graphs and isn't there, hasn't the
    dtype, or can't reach the device of the net."""
    check_name(engine)
    if engine not in DTYPES:
        return
    extra = {"onnxruntime": "onnx"}.get(engine, engine)
    require(f"the engine {engine}", packages(engine, framework), f"{framework},{extra}")
    if dtype not in DTYPES[engine]:
        raise RosettaError(
            f"{engine} has no {dtype} here, only {' and '.join(DTYPES[engine])}; engine={COMPILER!r} has it"
        )
    if place != "cpu":
        raise RosettaError(f"{engine} runs on the CPU here, and the net is on {place}; engine={COMPILER!r} runs there")


def exported(export: Callable[[Any, Path], None], net: Any) -> bytes:
    """The graph that a framework's `export` writes of a net. Raises RosettaError where it can't."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.onnx")
        try:
            export(net, path)
        except RosettaError:
            raise
        except Exception as e:  # an exporter's own, of no common kind
            raise RosettaError(f"the net can't be exported: {_first_line(e)}") from e
        return path.read_bytes()


def _first_line(e: Exception) -> str:
    return (str(e).strip() or repr(e)).splitlines()[0]


def runner(engine: str, graph: bytes, dtype: str, threads: int, steps: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """What gives a graph's logits of images N C *S of any batch and size, in float32. Says in `steps` what it is.

    Raises RosettaError, in the engine's own words, where it can't run the graph.
    """
    try:
        run, computes_in = _RUNNERS[engine](graph, dtype, threads)
    except Exception as e:  # each has its own, of no common kind
        raise RosettaError(f"{engine} can't run the graph: {_first_line(e)}") from e
    steps.append(f"in {engine} {version(engine)}")
    if computes_in != dtype:  # which it says, and doesn't refuse, where the processor has no instruction for it
        steps.append(f"which computes in {computes_in} on this processor")
    return run


def _onnxruntime(graph: bytes, dtype: str, threads: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads  # which else are bound to cores
    options.add_session_config_entry("session.force_spinning_stop", "1")  # when a run is over: others need the cores
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run([LOGITS], {INPUT: x})[0], "float32"


def _openvino(graph: bytes, dtype: str, threads: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    # the graph's axes stay free: a graph of one fixed shape was no faster
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", hints)
    request = compiled.create_infer_request()
    kind = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    computes_in = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(kind, kind)
    return lambda x: request.infer({0: x}, share_inputs=True)[0], computes_in


_RUNNERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def chosen(engine: str, made: Callable[[str], Optimized], example: Any, wait: Callable[[Any], object]) -> Optimized:
    """The net made for `engine`; for "auto", in every engine that is there and whose logits pass, the fastest of them
    on `example`. `wait` waits for logits to be there. Raises RosettaError where there is none."""
    if engine != AUTO:
        return made(engine)
    there: dict[str, Optimized] = {}
    left_out: dict[str, str] = {}
    for name in ENGINES:
        try:
            there[name] = made(name)
        except RosettaError as e:
            left_out[name] = str(e)
    if not there:
        raise RosettaError("no engine gives the plain net's logits: " + "; ".join(left_out.values()))
    seconds = in_turns({name: net.run for name, net in there.items()}, example, wait) if len(there) > 1 else {}
    best = min(seconds, key=seconds.__getitem__, default=next(iter(there)))
    return dataclasses.replace(there[best], seconds=seconds, left_out=left_out)


def in_turns(runs: Mapping[str, Callable[[Any], Any]], example: Any, wait: Callable[[Any], object]) -> dict[str, float]:
    """Median seconds of each on `example`, in turns: a change of the machine's speed meets all alike."""

    def seconds(run: Callable[[Any], Any]) -> float:
        begin = time.perf_counter()
        wait(run(example))
        return time.perf_counter() - begin

    for run in runs.values():  # what the first runs make is not counted
        seconds(run)
    times = {name: min(50, 1 + int(ENOUGH / seconds(run))) for name, run in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    gc.collect()
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds(runs[name])  # the others have had the caches
            found[name] += [seconds(runs[name]) for _ in range(times[name])]
    return {name: statistics.median(each) for name, each in found.items()}
