"""Training a PyTorch net by a recipe: one step, and what to keep of it. The twin of keras_impl/train.py.

trainer = Trainer(create_model("cifar_resnet20", seed=0), recipe)
for step, (x, labels) in enumerate(batches):
    loss, right = trainer.step(x, labels, recipe.rate(step, len(batches)))
"""

import gc
import importlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from common.errors import RosettaError
from common.names import section_of
from common.plan import Conv
from common.training.kept import Kept
from common.training.recipe import LossScale
from torch_impl import optim
from torch_impl import weights as store
from torch_impl.autodiff import loss_of
from torch_impl.model import to_numpy, to_tensor
from torch_impl.weights import named_tensors


def freeze(model, sections: tuple[str, ...]) -> None:
    """Neither the parameters of these sections (stem, layer1, ..., head) nor their running statistics move any more,
    and their norms normalise by those. PyTorch's `requires_grad` alone would let the statistics move."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(section_of(name) not in sections)
    model.frozen = [
        m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and section_of(name) in sections
    ]


@contextmanager
def distributed(devices: int = 1, device: str = "auto") -> Iterator[torch.device]:
    """Inside, this process is one of torchrun's, if it is: each takes its part of every batch. Gives the device for its
    net: a GPU of its own if there is one for each process here and `device` isn't "cpu". `devices` are Keras'. Raises
    RosettaError where `device` is "gpu" and there are too few."""
    rank, mine = (int(os.environ.get(f"LOCAL_{name}", d)) for name, d in (("RANK", "0"), ("WORLD_SIZE", "1")))
    cards = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    if device == "gpu" and cards < mine:
        raise RosettaError(f"--device gpu takes a GPU a process: there are {mine} processes here and {cards} GPUs")
    place = torch.device("cuda", rank) if cards >= mine else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield place
        return
    # Before there is a group: its functions keep the group that they find when they are imported, which
    # DistributedDataParallel does later. A group that is never let go has threads while Python ends, and one that lets
    # a tensor go then aborts the process, once in ten runs (PyTorch 2.13, 2026-11-25).
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        dist.destroy_process_group()
        gc.collect()  # DistributedDataParallel's circles of references hold the group, and the group its threads


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.forward(ctx, gradient)


class SyncNorm(_BatchNorm):
    """Normalises by the batch of all processes. PyTorch's own SyncBatchNorm has no CPU."""

    def _check_input_dim(self, x):
        """Images and signals alike."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
        n = _Sum.apply(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _Sum.apply(x.sum(axes)) / n
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(shape) + self.bias.view(shape)


class Trainer(Kept):
    """A model, its optimizer, and what a recipe keeps beside them; `Kept` says what it is made of."""

    optim, store = optim, store

    def begin(self, frozen: tuple[str, ...]) -> None:
        model, recipe = self.model, self.recipe
        freeze(model, frozen)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        # channels last: a quarter faster on two cores of a CPU (cifar_resnet20), except in float64, which oneDNN lacks
        images = model.plan.arch.dims == 2 and recipe.precision != "float64"
        broken = any(isinstance(c, Conv) and c.breaks_onednn for c in model.plan.layers())
        self.layout = torch.channels_last if images and not broken else torch.contiguous_format
        model.to(memory_format=self.layout)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = optim.optimizer(model, recipe.rule, self.parts)
        half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(recipe.precision)
        self.autocast = torch.autocast(self.device.type, half) if half else nullcontext()
        self.scale = LossScale() if half == torch.float16 else None
        self.average = {n: t.clone() for n, t in named_tensors(model)} if recipe.ema else {}
        self.random = model.plan.random
        self.net = model
        if self.world > 1:
            for m in model.modules():
                if isinstance(m, _BatchNorm):
                    m.__class__ = SyncNorm
            # the buffers are the same everywhere already; PyTorch 2.13 has another name for the option
            named = inspect.signature(DistributedDataParallel).parameters
            option = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
            self.net = DistributedDataParallel(model, **{option: False})

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float, seed: int = 0) -> tuple[float, int]:
        """One step of the optimizer on a batch (N C *S; N), of which each process takes its part. Gives the loss before
        it, and how many classes were right. Masks of dropout are drawn from `seed`."""
        self.model.train()
        for m in self.model.frozen:
            m.eval()
        if self.random:
            torch.manual_seed(seed + self.rank)
        mine = np.array_split(np.arange(len(x)), self.world)[self.rank]
        found, scale = torch.zeros(2, dtype=torch.float64, device=self.device), self.scale.value if self.scale else 1.0
        for rows in np.array_split(mine, min(self.recipe.accumulate, len(mine))):
            share = self.share(labels[rows], labels)
            with self.autocast:
                logits = self.net(self._tensor(x[rows]))
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            part = loss_of(logits, labels[rows], self.recipe.smoothing, self.classes) * share
            (part * (scale * self.world)).backward()  # DistributedDataParallel takes the mean of the processes
            right = logits.argmax(1) == torch.as_tensor(labels[rows], device=self.device)
            found += torch.stack([part.detach().double(), right.sum().double()])
        if self.world > 1:
            dist.all_reduce(found)
        if self._unscaled(scale):
            if self.recipe.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            optim.step(self.model, self.optimizer, [p.grad for p in self.parameters], rate)
            self.steps += 1
            self._averaged()
        else:
            self.optimizer.zero_grad()
        return float(found[0]), int(found[1])

    def _unscaled(self, scale: float) -> bool:
        """Takes the loss' scale out of the gradients; whether they are finite."""
        if self.scale is None:
            return True
        for p in self.parameters:
            p.grad /= scale
        return self.scale.update(all(bool(p.grad.isfinite().all()) for p in self.parameters))

    @torch.no_grad()
    def _averaged(self) -> None:
        for name, tensor in named_tensors(self.model) if self.average else ():
            self.average[name].lerp_(tensor, 1 - self.recipe.ema)

    def agreed(self, stop: bool) -> bool:
        """Whether any process says so."""
        if self.world > 1:
            asked = torch.tensor(float(stop), device=self.device)
            dist.all_reduce(asked)
            return bool(asked)
        return stop

    @torch.no_grad()
    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits (N classes) of a batch in evaluation mode, from the weights as they are."""
        self.model.eval()
        with self.autocast:
            y = self.model(self._tensor(x))
        return to_numpy(y)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).to(self.device, memory_format=self.layout)

    def to_canonical(self, tensor) -> np.ndarray:
        return to_numpy(tensor).copy()

    def from_canonical(self, array: np.ndarray):
        return to_tensor(array.copy()).to(self.device)
