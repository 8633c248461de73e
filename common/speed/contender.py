"""One side of a benchmark, in a process of its own: `python -m common.speed.contender SPEC`, in which SPEC is JSON.

On stdin comes how often to run, on stdout go the seconds of each run; at the end, the memory. What libraries print goes
to stderr. See common/speed/bench.py.
"""

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.arch import Arch
from common.tools.frameworks import load, peer
from common.tools.memory import peak
from common.tools.refusals import refusal

Run = Callable[[], object]
MODES = {
    "eager": "inference, called as it is built (Keras: predict_on_batch)",
    "optimised": "inference by the fast path: ours by optimize(), a peer by the best that its guides offer",
    "train": "a training step in the plain loop (Keras: train_on_batch)",
    "train-optimised": "ours as Trainer has it; PyTorch's peers with channels last",
}
PEERS = {  # what it needs, and what it has
    "torchvision": (("torch", "torchvision"), tuple(MODES)),
    "timm": (("torch", "torchvision", "timm"), tuple(MODES)),
    "keras.applications": (("keras", "tensorflow"), ("eager", "optimised", "train")),
    "onnxruntime": (("onnxruntime", "torch", "onnx", "onnxscript"), ("optimised",)),
    "openvino": (("openvino", "onnxruntime", "torch", "onnx", "onnxscript"), ("optimised",)),
}


@dataclass(frozen=True)
class Spec:
    """What one process is to run."""

    side: str  # torch, keras:tensorflow, ..., or a peer
    mode: str  # eager, optimised, train or train-optimised
    dtype: str
    arch: str  # JSON of the row that it builds
    name: str  # by which peers know the net
    input: tuple[int, ...]  # N C *S
    threads: int
    device: str  # cpu or gpu
    files: Mapping[str, str]  # "weights" and "graph", for those who need them
    engine: str = "compiler"  # of ours, optimised

    @property
    def row(self) -> Arch:
        return Arch.from_json(self.arch)

    @property
    def kind(self) -> str:
        """PyTorch's name of the device."""
        return "cuda" if self.device == "gpu" else "cpu"

    def images(self) -> np.ndarray:
        """N C *S, float32."""
        return np.random.default_rng(0).standard_normal(self.input, np.float32)

    def labels(self) -> np.ndarray:
        return np.random.default_rng(1).integers(0, max(self.row.num_classes, 1), self.input[0])


RATE, MOMENTUM = 1e-4, 0.9  # of everybody's training step: plain SGD with momentum


def _recipe(spec: Spec) -> Any:
    from common.parity.rules import Rule
    from common.training import recipe

    precision = spec.dtype if spec.dtype in ("float32", "float64") else f"mixed_{spec.dtype}"
    made = recipe.get("imagenet", precision=precision)
    return dataclasses.replace(made, rule=Rule("SGD", RATE, momentum=MOMENTUM, weight_decay=0.0), smoothing=0.0)


def _weights(spec: Spec) -> Any:
    from common.weights import load as load_weights

    return load_weights(spec.files["weights"])[1]


class _Fast:
    """A run of `optimize`'s, and how it was made."""

    def __init__(self, fast: Any, x: Any, done: Callable[[Any], object] = lambda y: y):
        self.fast, self.x, self.done = fast, x, done

    def __call__(self) -> object:
        return self.done(self.fast(self.x))


def torch_side(spec: Spec) -> Run:
    impl = load("torch")
    if spec.mode == "train-optimised":
        trainer = load("torch", "train").Trainer(impl.create_model(spec.row, seed=0), _recipe(spec))
        x, y = spec.images(), spec.labels()
        return lambda: trainer.step(x, y, RATE)
    if spec.mode == "train":
        return _torch_step(impl.create_model(spec.row, seed=0), spec)
    model = impl.create_model(spec.row, weights=_weights(spec))
    if spec.mode == "eager":
        return _torch_forward(model, spec)
    import torch

    x = torch.from_numpy(spec.images()).to(spec.kind)
    return _Fast(impl.optimize(model, x, dtype=spec.dtype, engine=spec.engine), x)


def _torch_forward(model: Any, spec: Spec) -> Run:
    import torch

    dtype = getattr(torch, spec.dtype)
    model.eval().to(spec.kind, dtype)
    x = torch.from_numpy(spec.images()).to(spec.kind, dtype)

    def run() -> object:
        with torch.inference_mode():
            return model(x)

    return run


def _torch_step(model: Any, spec: Spec, layout: str = "contiguous_format") -> Run:
    """The loop that PyTorch's tutorials have."""
    import torch

    kind = getattr(torch, layout)
    model.train().to(spec.kind, memory_format=kind)
    x = torch.from_numpy(spec.images()).to(spec.kind, memory_format=kind)
    y = torch.from_numpy(spec.labels()).to(spec.kind)
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    half = spec.dtype in ("bfloat16", "float16")

    def run() -> object:
        optimizer.zero_grad()
        with torch.autocast(spec.kind, getattr(torch, spec.dtype), enabled=half):
            logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _torch_peer(model: Any, spec: Spec) -> Run:
    if spec.mode.startswith("train"):
        return _torch_step(model, spec, "channels_last" if spec.mode == "train-optimised" else "contiguous_format")
    if spec.mode == "eager":
        return _torch_forward(model, spec)
    # what ours gets: channels last, frozen weights, Inductor, which folds the norms, and the memory kept
    import torch
    import torch._inductor.config as inductor

    from common.tools.memory import keep_memory

    keep_memory()
    dtype = getattr(torch, spec.dtype)
    model.eval().requires_grad_(False).to(spec.kind, dtype, memory_format=torch.channels_last)
    images = torch.from_numpy(spec.images()).to(spec.kind)
    with torch.no_grad(), inductor.patch(freezing=True):
        x = images.to(dtype, memory_format=torch.channels_last)
        compiled = torch.compile(torch.export.export(model, (x,)).module(), dynamic=False)
        compiled(x)

    def run() -> object:
        with torch.no_grad():
            return compiled(images.to(dtype, memory_format=torch.channels_last)).float()

    return run


def torchvision_side(spec: Spec) -> Run:
    return _torch_peer(getattr(peer("torchvision").models, spec.name)(weights=None), spec)


def timm_side(spec: Spec) -> Run:
    return _torch_peer(peer("timm").create_model(spec.name), spec)


def keras_side(spec: Spec) -> Run:
    impl = load("keras")
    if spec.mode == "train-optimised":
        how = _recipe(spec)
        trainer = load("keras", "train").Trainer(impl.create_model(spec.row, seed=0, dtype=how.precision), how)
        x, y = spec.images(), spec.labels()
        return lambda: trainer.step(x, y, RATE)
    policy = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}.get(spec.dtype, spec.dtype)
    if spec.mode == "train":
        return _keras_step(impl.create_model(spec.row, seed=0, dtype=policy), spec)
    if spec.mode == "eager":
        model = impl.create_model(spec.row, weights=_weights(spec), dtype=spec.dtype)
        x = _last(spec.images())
        return lambda: model.predict_on_batch(x)
    model, x = impl.create_model(spec.row, weights=_weights(spec)), _last(spec.images())
    if spec.device == "gpu":  # where PyTorch's images are, too
        import keras

        x = keras.ops.convert_to_tensor(x)
    return _Fast(impl.optimize(model, x, dtype=spec.dtype, engine=spec.engine), x, np.asarray)


def _last(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _keras_step(model: Any, spec: Spec) -> Run:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), loss)
    x, y = _last(spec.images()), spec.labels()
    return lambda: model.train_on_batch(x, y)


def keras_applications_side(spec: Spec) -> Run:
    load("keras")
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(spec.dtype)
    model = getattr(keras.applications, KERAS_APPLICATIONS[spec.name])(weights=None, classifier_activation=None)
    if spec.mode == "train":
        return _keras_step(model, spec)
    x = _last(spec.images())

    def predict() -> object:
        return model.predict_on_batch(x)

    if spec.mode == "eager":
        return predict
    # whatever is fastest of what Keras' and TensorFlow's guides offer
    graph = tf.function(lambda x: model(x, training=False))
    xla = tf.function(lambda x: model(x, training=False), jit_compile=True)
    ways = [predict, lambda: graph(tf.constant(x)).numpy(), lambda: xla(tf.constant(x)).numpy()]
    return min(ways, key=lambda way: sorted(_seconds(way, 5))[2])


def onnxruntime_side(spec: Spec) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    session = onnxruntime.InferenceSession(spec.files["graph"], options, providers=["CPUExecutionProvider"])
    x = {"input": spec.images()}
    return lambda: session.run(None, x)


def openvino_side(spec: Spec) -> Run:
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[spec.dtype],
        "INFERENCE_NUM_THREADS": spec.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    graph = core.read_model(spec.files["graph"])
    graph.reshape(list(spec.input))  # a known shape is its fast path
    compiled = core.compile_model(graph, "CPU", hints)
    x = spec.images()
    return lambda: compiled(x)


KERAS_APPLICATIONS = {
    **{f"resnet{n}{v}": f"ResNet{n}" for n in (50, 101, 152) for v in ("", "_v1", "_keras")},
    **{f"resnet{n}v2_keras": f"ResNet{n}V2" for n in (50, 101, 152)},
}
SIDES: dict[str, Callable[[Spec], Run]] = {
    "torch": torch_side, "keras": keras_side, "torchvision": torchvision_side, "timm": timm_side,
    "keras.applications": keras_applications_side, "onnxruntime": onnxruntime_side, "openvino": openvino_side,
}  # fmt: skip


def matrix_product(dtype: str, device: str = "cpu") -> dict[str, float]:
    """Multiply-adds per second of a large product in `dtype`, by what computes it: the device's own limit, as far as
    software reaches it."""
    n, found = 8192 if device == "gpu" else 2048, {}

    def fastest(run: Run) -> float:
        run()
        return n**3 / min(_seconds(run, 7))

    if dtype == "float32" and device == "cpu":
        a = np.random.default_rng(0).standard_normal((n, n), np.float32)
        found["numpy"] = fastest(lambda: a @ a)
    try:
        import torch
    except ImportError:
        return found
    kind = getattr(torch, dtype)
    b = torch.randn(n, n).to("cuda" if device == "gpu" else "cpu", kind)
    if device == "gpu":
        found["torch.matmul"] = fastest(lambda: (b @ b, torch.cuda.synchronize()))
        return found
    found["torch.matmul"] = fastest(lambda: b @ b)
    # as large a product as a 1x1 convolution, which is oneDNN's: MKL is slow on other makers' processors
    image = torch.randn(8, n, 16, n // 128).to(kind, memory_format=torch.channels_last)
    kernel = torch.randn(n, n, 1, 1).to(kind, memory_format=torch.channels_last)
    found["torch.conv2d 1x1"] = fastest(lambda: torch.conv2d(image, kernel))
    return found


def _seconds(run: Run, times: int) -> list[float]:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        found.append(time.perf_counter() - start)
        del result
    return found


def _prepare(side: str, dtype: str, device: str) -> tuple[str, str]:
    """(the GPU's name, the dtype of its arrays), with products of float32 in full but in tf32; no name of a CPU. Raises
    RosettaError where there is no GPU."""
    if device == "cpu":
        return "", dtype
    from common.parity.engines import fewer_bits, versions

    ours = {"keras.applications": "keras:tensorflow"}.get(side, side if side.startswith("keras") else "torch")
    name = versions(ours, device)["device"]
    if dtype != "tf32":
        return name, dtype
    fewer_bits(ours)
    return name, "float32"


def _waited(run: Run) -> Run:
    import torch

    def waited() -> object:
        result = run()
        torch.cuda.synchronize()
        return result

    return waited


def _peak(spec: Spec) -> int:
    """The most bytes of the process; of PyTorch's on a GPU those that it had there."""
    if spec.device == "gpu" and not spec.side.startswith("keras"):
        import torch

        return torch.cuda.max_memory_allocated()
    return peak()


def main(text: str) -> None:
    """Builds, then answers each number on stdin with as many runs."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    said = json.loads(text)

    def reply(what: Any) -> None:
        print(json.dumps(what), file=replies, flush=True)

    try:
        if "product" in said:
            _, dtype = _prepare("torch", said["product"], said["device"])
            reply(matrix_product(dtype, said["device"]))
            return
        spec = Spec(**{**said, "input": tuple(said["input"])})
        name, dtype = _prepare(spec.side, spec.dtype, spec.device)
        spec = dataclasses.replace(spec, dtype=dtype)
        start = time.perf_counter()
        run = SIDES[spec.side.split(":")[0]](spec)
        made = str(run.fast) if isinstance(run, _Fast) else ""
        if spec.device == "gpu" and not spec.side.startswith("keras"):  # whose runs end with arrays on the host
            run = _waited(run)
        built = time.perf_counter() - start
        first = _seconds(run, 1)[0]
        _seconds(run, 2)
        reply({"built": built, "first": first, "device": name, "made": made})
        for line in sys.stdin:
            gc.collect()
            time.sleep(0.1)  # the others' threads wait for work at full speed for a while
            _seconds(run, 1)  # the others have had the caches
            reply({"seconds": _seconds(run, int(line)), "peak": _peak(spec)})
    except Exception as e:
        if (why := refusal(e)) is None:
            raise
        reply({"error": str(why)})


if __name__ == "__main__":
    main(sys.argv[1])
