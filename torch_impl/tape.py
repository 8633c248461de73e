"""The tape of a PyTorch net: what it calls when it runs, and the net as a thing to hold a proof against.

The twin of keras_impl/tape.py. Calls are seen by a TorchFunctionMode, so that `F.relu`, `+`, `cat`, `view`, calls in
place and control flow are recorded as they run, and by hooks, which know the layers.
"""

import copy
import itertools
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from common.diagnosis import tape
from common.diagnosis.tape import INPUT, Arrays, Call, Ran, Tape, tensors_of
from torch_impl.calls import DROPOUTS, HANDLERS, Unknown
from torch_impl.model import to_numpy
from torch_impl.play import play

# PyTorch's own files and those that record, which are nobody's net
_NOT_HERS = (f"{Path(torch.__file__).parent}{os.sep}", __file__, str(Path(tape.__file__).parent))


class Live:
    """A copy of `model` in float64 on the CPU (`common.diagnosis.tape.Live`)."""

    def __init__(self, model: nn.Module):
        self.model = copy.deepcopy(model).to("cpu", torch.float64).eval()
        _shaped(self.model)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.is_floating_point()}
        self.tensors = self.parameters | {n: b for n, b in self.model.named_buffers() if b.is_floating_point()}

        self.constants: Arrays = {}  # kernels that are no tensors of hers, as a recording finds them

    play = staticmethod(play)

    def arrays(self) -> Arrays:
        return {name: to_numpy(t.detach()).copy() for name, t in self.tensors.items()} | self.constants

    def put(self, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, value in arrays.items():
                if name in self.tensors:
                    self.tensors[name].copy_(torch.from_numpy(np.asarray(value, np.float64)))

    def restore(self, state: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for buffer, before in state:
            buffer.copy_(before)
        self.model.eval()

    def record(self, x: np.ndarray, training: bool = False) -> Tape:
        state = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            with torch.no_grad(), _Layers(self.model) as layers, _Recorder(self, layers) as recorder:
                tensor = torch.from_numpy(np.asarray(x, np.float64))
                recorder.number(tensor)
                outputs, names = tensors_of(self.model.train(training)(tensor), torch.is_tensor)
            numbers = tuple(recorder.numbers.get(id(t), -1) for t in outputs)
            return Tape(tuple(recorder.calls), numbers, tuple(x.shape), names)
        finally:
            self.restore(state)

    def run(self, x: np.ndarray, training: bool = False) -> Ran:
        state = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            with _Unmasked(), torch.set_grad_enabled(training):
                tensor = torch.from_numpy(np.asarray(x, np.float64)).requires_grad_(training)
                output = tensors_of(self.model.train(training)(tensor), torch.is_tensor)[0][0]
            gradients = {}
            if training:
                leaves = {"": tensor} | {n: p for n, p in self.parameters.items() if p.requires_grad}
                found = torch.autograd.grad(output.square().mean() / 2, list(leaves.values()), allow_unused=True)
                gradients = {n: to_numpy(g) for n, g in zip(leaves, found, strict=True) if g is not None}
            buffers = {n: t for n, t in self.tensors.items() if n not in self.parameters}
            statistics = {n: to_numpy(t).copy() for n, t in buffers.items()} if training else {}
            return Ran(to_numpy(output.detach()), statistics, gradients)
        finally:
            self.restore(state)


def _shaped(model: nn.Module) -> None:
    """Lazy layers get their shapes from a first run, of whatever they take."""
    lazy = any(isinstance(t, nn.parameter.UninitializedTensorMixin) for t in model.state_dict(keep_vars=True).values())
    failure: Exception | None = None
    for channels, size in itertools.product((3, 1), (64, 224, 96)) if lazy else ():
        try:
            with torch.no_grad():
                model(torch.zeros(2, channels, size, size, dtype=torch.float64))
            return
        except Exception as e:
            failure = failure or e
    if failure:
        raise failure


class _Layers:
    """Knows, while a net runs, which of its layers is being called."""

    def __init__(self, model: nn.Module):
        self.names = {id(m): name for name, m in model.named_modules()}
        self.stack = [""]

    def __enter__(self):
        before = hooks.register_module_forward_pre_hook(lambda m, x: self.stack.append(self.names.get(id(m), "")))
        after = hooks.register_module_forward_hook(lambda m, x, y: (self.stack.pop(), None)[1])
        self.handles = [before, after]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


class _Unmasked(TorchFunctionMode):
    """Runs a net without drawing masks: dropout passes its input through."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        if name in DROPOUTS:
            x = args[0]
            return x if kwargs.get("inplace") else x.view_as(x)
        if name == "bernoulli" and args[1:]:  # a mask, which is divided by this rate later on
            return args[0].fill_(args[1])
        return func(*args, **kwargs)


# new tensors like one that there is, whose values they don't have
_MADE = {f"{what}_like" for what in ("ones", "zeros", "empty", "full", "rand")} | {
    f"new_{what}" for what in ("ones", "zeros", "empty", "full", "tensor")
}


class _Recorder(_Unmasked):
    def __init__(self, live: Live, layers: _Layers):
        super().__init__()
        self.layers = layers
        self.calls: list[Call] = []
        self.numbers: dict[int, int] = {}  # of tensors that depend on the input, by id
        self.named = {id(t): name for name, t in live.tensors.items()}
        self.live, self.tensors = live, live.tensors
        self.kept: list[torch.Tensor] = list(live.tensors.values())  # an id is somebody else's once its object is gone
        self.computed: set[int] = set()  # what was made of parameters: no tensor of hers has its values
        self.masks: dict[int, float] = {}  # what drops whole examples or channels, with its rate
        self.last = INPUT - 1

    def number(self, tensor: torch.Tensor) -> int:
        self.last += 1
        self.kept.append(tensor)
        self.numbers[id(tensor)] = self.last
        return self.last

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [a for a in _flat((args, kwargs)) if isinstance(a, torch.Tensor)]
        name = getattr(func, "__name__", str(func)).strip("_")
        inputs = () if name in _MADE else tuple(self.numbers[id(t)] for t in given if id(t) in self.numbers)
        result = super().__torch_function__(func, types, args, kwargs)
        results = [r for r in _flat(result) if isinstance(r, torch.Tensor)]
        if not results:
            return result
        if inputs:
            self.write(name, args, kwargs, inputs, results)
        else:
            if name == "bernoulli":
                self.masks[id(results[0])] = 1 - args[1]
            elif name in DROPOUTS and (args[2] if args[2:] else kwargs.get("training", True)):
                self.masks[id(results[0])] = args[1] if args[1:] else kwargs.get("p", 0.5)
            self.derive(given, results)
        return result

    def derive(self, given: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """What is made of parameters alone: the same values in another shape keep their name."""
        sources = [t for t in given if id(t) in self.named or id(t) in self.computed]
        self.kept += results
        for r in results if sources else ():
            name = self.named.get(id(sources[0])) if len(sources) == 1 else None
            if name and r.numel() == sources[0].numel() and torch.equal(r.reshape(-1), sources[0].reshape(-1)):
                self.named[id(r)] = name
            elif id(r) not in self.named:
                self.computed.add(id(r))

    def write(self, name: str, args, kwargs, inputs: tuple[int, ...], results: list[torch.Tensor]) -> None:
        name = name[1:] if name in ("iadd", "imul", "isub", "radd", "rmul") else name
        handler = HANDLERS.get(name)
        # the numbers of the inputs are looked up before the outputs get theirs: in place, both are one object
        steps = None
        if handler:
            try:
                steps = handler(self, *args, **kwargs)
            except (Unknown, TypeError):
                steps = None
        if steps is None:
            steps = [(f"?{name}", inputs, {}, {})]
        where = _where()
        for i, (op, sources, attributes, arrays, *shapes) in enumerate(steps):
            if i < len(steps) - 1:
                self.last += 1
                outputs = (self.last,)
            else:
                outputs = tuple(self.number(r) for r in results)
            sources = tuple(s if s is not None else self.last - 1 for s in sources) if i else sources
            shape = tuple(shapes[0] if shapes else results[0].shape)
            self.calls.append(Call(op, sources, outputs, shape, attributes, arrays, self.layers.stack[-1], where))

    def of(self, tensor: torch.Tensor) -> int:
        if not isinstance(tensor, torch.Tensor) or id(tensor) not in self.numbers:
            raise Unknown
        return self.numbers[id(tensor)]

    def note(self, kernel: torch.Tensor) -> None:
        """Gives a kernel a name of its own that is no tensor of hers, and nothing computed."""
        if not {id(kernel)} & (self.named.keys() | self.numbers.keys() | self.computed):
            value, constants = to_numpy(kernel.double()), self.live.constants
            name = next((n for n, v in constants.items() if np.array_equal(v, value)), f"constant {len(constants)}")
            constants[name], self.named[id(kernel)] = value, name

    def standardised(self, kernel: torch.Tensor) -> tuple[str, float] | None:
        """The name and epsilon of a kernel that is a parameter's standardised weights."""
        if id(kernel) not in self.computed:
            return None
        return tape.standardised(to_numpy(kernel), self.kernels)

    @cached_property
    def kernels(self) -> Arrays:
        """Hers, which no run changes."""
        return {name: array for name, array in self.live.arrays().items() if array.ndim > 2}

    def arrays(self, **tensors: torch.Tensor | None) -> dict[str, str]:
        if any(t is not None and id(t) not in self.named for t in tensors.values()):
            raise Unknown  # computed from parameters, or no tensor of hers
        return {leaf: self.named[id(t)] for leaf, t in tensors.items() if t is not None}


def _flat(value: Any):
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, list | tuple) or hasattr(value, "__next__") or type(value).__name__ == "dict_values":
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _where() -> str:
    frame = sys._getframe(1)
    while frame:
        file = frame.f_code.co_filename
        if not file.startswith(_NOT_HERS) and not file.startswith("<"):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
