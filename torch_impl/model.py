"""What every net has in PyTorch, whatever its layers: how it is made, and in which dtype; its arrays and PyTorch's.

The twin of keras_impl/model.py: the same names in the same order.
"""

import numpy as np
import torch
from torch import nn

from common.arch import get
from common.errors import RosettaError
from common.init import classifier, draw_ahead, given
from common.names import chosen, feature_info, section_of
from common.plan import Plan, make_plan


class Module(nn.Module):
    """A layer of layers. PyTorch knows it by its attribute path; the name is for Keras' summaries."""

    def __init__(self, name: str = ""):
        super().__init__()


class Model(nn.Module):
    """What a whole net has beyond its layers: the plan that it was built from."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    names: tuple[str, ...] = ()  # of the stages that come out instead of logits

    def forward(self, x):
        return self.features(x, *self.names) if self.names else self.logits(x)

    feature_info = property(lambda self: feature_info(self.plan.arch))

    def backbone(self, *names) -> "Model":
        """The net as far as these stages need it, without a classifier: from images to {name: what the stage puts out}.
        The layers are this net's own, under the names that they have here; copy.deepcopy gives it its own."""
        with torch.device("meta"):
            part = type(self)(self.plan)
        part.names, trunks = chosen(self.plan, names)
        for name in list(part._modules):
            if section_of(name) == "stem" or any(name in stages for stages in trunks):
                setattr(part, name, getattr(self, name))
            else:
                delattr(part, name)
        return part.train(self.training)

    def reset_classifier(self, num_classes: int, seed: int | None = None) -> None:
        """Puts a fresh classifier, drawn from `seed` or by PyTorch's generator, in the place of the net's own; with 0
        the net gives its pooled features. The other layers stay as they are. Raises RosettaError for such a number."""
        plan = make_plan(get(self.plan.arch, num_classes=num_classes))
        own = next(self.parameters())
        with torch.device("meta"):
            head = self.head(plan)
        state = {n.removeprefix("fc."): to_tensor(draw()) for n, draw in classifier(plan.arch, fresh(seed)).items()}
        if state:
            head.load_state_dict(state, assign=True)
            head.to(own.device, own.dtype).train(self.training)
        del self.fc
        self.plan, self.fc = plan, head

    def __prepare_scriptable__(self):
        """What torch.jit.script compiles instead of the net, whose stages it can't find by name."""
        return torch.fx.GraphModule(self, _Tracer().trace(self))


class _Tracer(torch.fx.Tracer):
    """Goes into all but PyTorch's own layers, and those that do something else in training."""

    def is_leaf_module(self, m, qualified_name):
        return isinstance(m, nn.Dropout) or super().is_leaf_module(m, qualified_name)


def construct(cls, plan: Plan, dtype: str | None, seed: int | None = None, weights=None, copy: bool = True) -> Model:
    """The net in `dtype` with `weights`, or what they give when called, or fresh ones; the seed is PyTorch's own where
    none is given. Without `copy` the net takes the arrays of `weights` for its own."""
    kind = dtype_named(dtype)
    if weights is None:
        source = draw_ahead(plan.arch, fresh(seed))
    # on "meta" first: PyTorch's own initialisation, kaiming_uniform(a=sqrt(5)), would take its time and be overwritten
    with torch.device("meta"):
        model = cls(plan)
    if weights is not None:
        source = given(plan.arch, weights() if callable(weights) else weights)
    device = torch.get_default_device()
    counters = [n for n in model.state_dict() if n not in source]  # of batches, which nothing reads
    state = {n: torch.zeros((), dtype=torch.long, device=device) for n in counters}
    copy = copy and weights is not None  # what was drawn is nobody else's
    state |= {name: to_tensor(value()).to(device, kind, copy=copy) for name, value in source.items()}
    model.load_state_dict(state, assign=True)
    return model.to(device, kind)  # what is no weight, such as the filter of a blur


def fresh(seed: int | None) -> int:
    return int(torch.randint(2**62, (), device="cpu")) if seed is None else seed


def dtype_named(dtype) -> torch.dtype:
    """PyTorch's dtype of that name, or itself; its default for None. Raises RosettaError where it is none of floats."""
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.get_default_dtype()
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise RosettaError(f"dtype {dtype!r} can't be: expected float32, float64, bfloat16 or float16")
    return kind


def sequential(*layers, name: str = "") -> nn.Sequential:
    return nn.Sequential(*layers)


def to_tensor(weight: np.ndarray) -> torch.Tensor:
    """The array's own memory where PyTorch can use it; a copy of one that is read-only or has gaps."""
    return torch.from_numpy(np.require(weight, requirements=["C", "W"]))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array; bfloat16, which numpy lacks, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
