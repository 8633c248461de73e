"""The fast path for inference in one call. The twin of keras_impl/fast.py.

fast = optimize(model, images, dtype="bfloat16")
logits = fast(images)
"""

import copy
import dataclasses
import logging
import warnings
from contextlib import contextmanager
from functools import cache

import torch

from common.speed import fast, runners
from common.tools.memory import keep_memory
from torch_impl.model import dtype_named, to_numpy
from torch_impl.onnx import export
from torch_impl.resnet import ResNet, create_model
from torch_impl.trace import trace
from torch_impl.weights import named_tensors


class InParts(ResNet):
    """The same net, which takes a batch through the stem and the first `early` stages in `parts`, one after another, so
    that what one layer writes is near when the next one reads it (`common.speed.fast.in_parts`)."""

    parts, early = 1, 0

    def logits(self, x):
        (trunk,) = self.plan.trunks
        y = torch.cat([self.begun(part, trunk.stages[: self.early]) for part in x.tensor_split(self.parts)])
        return self.fc(self.pooled(dataclasses.replace(trunk, stages=trunk.stages[self.early :]), y))

    def begun(self, x, stages):
        x = self.stem(x)
        for stage in stages:
            x = getattr(self, stage.name)(x)
        return x


def optimize(model, example: torch.Tensor, *, dtype: str | None = None, engine: str = "compiler") -> fast.Optimized:
    """A callable that computes what `model` does in evaluation mode, as fast as PyTorch can.

    BatchNorm is folded, activations are channels last, the graph is compiled by Inductor with frozen weights, in
    `dtype` (by default the model's). `example` (N C *S) is the shape that it is made for, and what it is held against
    the model on. The model stays as it is; so does its memory, and the process keeps what memory it frees.

    `engine` "onnxruntime" or "openvino" runs the folded net's ONNX graph there, on the CPU; "auto" makes it in every
    engine that is installed, times them in turns on the example and takes the fastest, which the result tells.

    Raises RosettaError for an example that the model can't take, for a model that was changed so that it computes
    something else than its row says, for an engine that isn't there or lacks the dtype, and where the logits differ by
    more than the dtype's noise.
    """
    fast.check_row(model)
    own = next(model.parameters())
    kind = dtype_named(dtype) if dtype else own.dtype
    name, bits = (str(d).removeprefix("torch.") for d in (kind, own.dtype))
    runners.check(engine, "torch", name, own.device.type)
    fast.check_example(example, model.plan.arch, isinstance(example, torch.Tensor), "a tensor N C *S", 1)
    keep_memory()
    weights = {n: to_numpy(t) for n, t in named_tensors(model)}
    fast.check_names(model.plan.arch, {n: w.shape for n, w in weights.items()})
    images = to_numpy(example)

    @cache
    def of_row(bits: str):
        device = "cpu" if bits == "float64" else own.device  # which may have no float64
        return trace(create_model(model.plan.arch, dtype=bits, weights=weights).to(device), images[:2])

    # before all else: the memory of these nets is used again
    two = trace(model, images[:2])
    try:
        exact = trace(copy.deepcopy(model).to("cpu", torch.float64), images[:2])
        fast.check_same(exact, of_row("float64"), "float64")
    except (RuntimeError, TypeError):  # somebody's module or hook that can't be copied, or has a dtype of its own
        fast.check_same(two, of_row(bits), bits)
    floor = fast.noise(two, bits, name, of_row)
    plain = trace(model, images)
    folded = dataclasses.replace(model.plan.arch, folded=True)

    @cache
    def graph() -> bytes:
        return runners.exported(export, create_model(folded, weights=weights))

    def by_compiler() -> fast.Optimized:
        steps = ["BatchNorm folded", name]
        layout = torch.contiguous_format
        if example.ndim == 4 and kind != torch.float64:  # which oneDNN lacks, and nothing else profits
            layout = torch.channels_last
            steps.append("channels last")
        on_gpu = own.device.type != "cpu"
        parts, early = (1, 0) if on_gpu else fast.in_parts(model.plan.arch, example.shape, name, steps)

        def net():
            made = create_model(folded, dtype=name, weights=weights)
            if parts > 1:
                made.__class__, made.parts, made.early = InParts, parts, early
            return made.eval().requires_grad_(False).to(own.device, memory_format=layout)

        def prepared(x: torch.Tensor) -> torch.Tensor:
            return x.to(own.device, kind).to(memory_format=layout)  # in one go it takes three times as long

        compiled = _compiled(net(), prepared(example), steps)
        if compiled is None:  # whose weights were given up
            compiled = net()
        shape, returned = example.shape, own.dtype

        def run(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                if x.shape == shape:
                    return compiled(prepared(x)).to(returned)
                before = model.training
                try:
                    return model.eval()(x.to(own))
                finally:
                    model.train(before)

        return fast.proven(run, to_numpy(run(example)), plain, name, steps, floor)

    def by_graph(engine: str) -> fast.Optimized:
        runners.check(engine, "torch", name, own.device.type)
        steps = ["BatchNorm folded", name]
        logits, returned = runners.runner(engine, graph(), name, torch.get_num_threads(), steps), own.dtype

        def run(x: torch.Tensor) -> torch.Tensor:
            fast.check_example(x, model.plan.arch, isinstance(x, torch.Tensor), "a tensor N C *S", 1)
            return torch.from_numpy(logits(x.detach().to("cpu", torch.float32).contiguous().numpy())).to(returned)

        return fast.proven(run, to_numpy(run(example)), plain, name, steps, floor, engine)

    def made(engine: str) -> fast.Optimized:
        return by_compiler() if engine == runners.COMPILER else by_graph(engine)

    return runners.chosen(engine, made, example, to_numpy)


def _compiled(net, x: torch.Tensor, steps: list[str]):
    """The net as Inductor makes it with constant weights, which oneDNN gets in its own order and with the sum and the
    ReLU after each convolution; its own are given up. None, and why, where there is no C++ compiler."""
    import torch._inductor.config as inductor

    try:
        # a graph of its own: Dynamo would count every net as another shape of one and the same `forward`, and gives up
        # after 8
        with torch.no_grad(), inductor.patch(freezing=True, freezing_discard_parameters=True), _quiet():
            graph = torch.export.export(net, (x,)).module()
            compiled = torch.compile(graph, dynamic=False)
            compiled(x)
    except (RuntimeError, OSError) as e:
        steps.append(f"not compiled ({str(e).strip().splitlines()[0]})")
        return None
    steps.append("compiled by Inductor with frozen weights")
    return compiled


@contextmanager
def _quiet():
    """No word of PyTorch's own about its compiling."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
