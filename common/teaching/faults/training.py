"""What shows in training alone: modes, the loss, gradients, and the optimizer's steps."""

import dataclasses
from typing import Any

import numpy as np

from common.names import is_trainable, parameters
from common.plan import MOMENTUM
from common.teaching.faults.fault import Side, fault

TRAIN: dict[str, Any] = dict(checks=("forward", "train"))
GRADIENTS: dict[str, Any] = dict(checks=("forward", "train", "gradients"))
STEPS: dict[str, Any] = dict(checks=("forward", "train", "gradients", "steps"))


def _norm(side: Side) -> Any:
    """The class of the norms."""
    if side.torch:
        from torch.nn.modules.batchnorm import _BatchNorm

        return _BatchNorm
    return side.layers.BatchNorm


@fault("eval() forgotten", "the net predicts in training mode, and normalises by the batch", "basic",
       ("forward", "bn1"), None)  # fmt: skip
def _(side: Side) -> None:
    if side.torch:
        side.around(side.resnet.ResNet, "train", lambda train, self, mode=True: train(self, True))
    else:
        side.set(side.layers, "is_training", lambda training: True)


@fault("momentum 0.99", "Keras' default for PyTorch's 0.1", "basic", ("train", "bn1.running_mean"), 2, **TRAIN)
def _(side: Side) -> None:
    side.set(side.layers, "MOMENTUM", 0.01)


@fault(
    "momentum 0.1 for 0.9", "PyTorch's number under Keras' meaning", "basic", ("train", "bn1.running_mean"), 2, **TRAIN
)
def _(side: Side) -> None:
    side.set(side.layers, "MOMENTUM", 0.9)


@fault("statistics stand still", "the batch normalises, and nothing is kept of it", "basic",
       ("train", "bn1.running_mean"), 3, **TRAIN)  # fmt: skip
def _(side: Side) -> None:
    side.set(side.layers, "MOMENTUM", 0.0)


@fault(
    "biased variance", "Keras' running variance, without n / (n - 1)", "basic", ("train", "bn1.running_var"), 11,
    **TRAIN,
)  # fmt: skip
def _(side: Side) -> None:
    def biased(call: Any, self: Any, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        keras = not side.torch
        moving = self.moving_variance if keras else self.running_var
        before = np.asarray(moving) if keras else moving.clone()
        y = call(self, x, training) if keras else call(self, x)
        if side.model.is_training(training) if keras else self.training:
            n = np.prod([x.shape[a] for a in (0, *side.positions(x))])
            kept = before * (1 - MOMENTUM)
            now = kept + ((np.asarray(moving) if keras else moving.clone()) - kept) * (n - 1) / n
            moving.assign(now) if keras else moving.data.copy_(now)
        return y

    side.around(_norm(side), side.call, biased)


@fault(
    "frozen norms", "a norm that runs in evaluation mode while the net trains", "basic", ("train", "layer2.0.bn1"), 3,
    **TRAIN,
)  # fmt: skip
def _(side: Side) -> None:
    def frozen(net: Any) -> None:
        norm = side.layer(net, "layer2.0.bn1")
        if side.torch:
            norm.eval()
            norm.train = lambda mode=True: norm
        else:
            norm.trainable = False

    side.built(frozen)


@fault(
    "dropout unscaled", "what survives dropout isn't scaled up", "dropped", ("train", "layer1.0.dropout"), None, **TRAIN
)
def _(side: Side) -> None:
    def unscaled(call: Any, self: Any, x: Any, training: bool | None = None) -> Any:
        if side.torch:
            return call(self, x) * (1 - self.p) if self.training else x
        y = call(self, x, training)
        return y * (1 - self.rate) if y is not x else y

    side.around(side.layers.Dropout, side.call, unscaled)


@fault("stochastic depth by element", "a mask for each element, and not for each example", "dropped",
       ("train", "layer1.0.drop_path"), None, **TRAIN)  # fmt: skip
def _(side: Side) -> None:
    side.set(side.layers.DropPath, side.call, getattr(side.layers.Dropout, side.call))


@fault("softmax in the loss", "the loss takes a softmax for logits", "basic", ("train", "loss"), 13, **TRAIN)
def _(side: Side) -> None:
    side.around(
        side.autodiff, "loss_of", lambda loss_of, logits, *rest, **more: loss_of(side.softmax(logits), *rest, **more)
    )


@fault("loss of a sum", "the loss is summed over the batch, and not averaged", "basic", ("train", "loss"), None,
       **TRAIN)  # fmt: skip
def _(side: Side) -> None:
    side.around(
        side.autodiff, "loss_of", lambda loss_of, logits, *rest, **more: loss_of(logits, *rest, **more) * len(logits)
    )


# ---- gradients


@fault("statistics without gradient", "nothing is differentiated through the batch's mean and variance", "basic",
       ("gradients", "conv1.weight"), None, **GRADIENTS)  # fmt: skip
def _(side: Side) -> None:
    if side.torch:
        import torch
        import torch.nn.functional as F

        def constant(call: Any, self: Any, x: Any) -> Any:
            if not self.training:
                return call(self, x)
            with torch.no_grad():
                call(self, x)  # moves the running statistics
                axes = (0, *side.positions(x))
                mean, variance = x.mean(axes), x.var(axes, correction=0)
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)

        side.around(_norm(side), "forward", constant)
        return
    from keras import ops

    from keras_impl import engines

    mean = engines.mean
    side.set(
        engines, "mean",
        lambda x, axes, keepdims=False: ops.stop_gradient(mean(x, axes)) if 0 in axes else mean(x, axes, keepdims),
    )  # fmt: skip


@fault("gradient of the last bias lost", "one gradient is that of nothing", "basic", ("gradients", "fc.bias"), None,
       **GRADIENTS)  # fmt: skip
def _(side: Side) -> None:
    if side.torch:
        import torch
        import torch.nn.functional as F

        still = lambda self, x: F.linear(x, self.weight, self.bias.detach() + 0 * self.bias)  # noqa: E731
        side.set(torch.nn.Linear, "forward", still)
        return
    from keras import ops

    tensor = ops.convert_to_tensor
    side.set(
        side.layers.Dense, "call",
        lambda self, x, training=None: x @ tensor(self.kernel) + ops.stop_gradient(tensor(self.bias)),
    )  # fmt: skip


# ---- steps


def _stepping(side: Side, kind: str, key: str, attribute: str, value: Any) -> None:
    """The rule's step runs with `value(...)` for one of its numbers: in PyTorch `key` of a group of parameters, given
    (optimizer, group, rate); in Keras `attribute`, given (optimizer, variable, rate)."""
    if side.torch:

        def stepped(step: Any, model: Any, optimizer: Any, gradients: Any, rate: float) -> None:
            groups = optimizer.param_groups if type(optimizer).__name__ == kind else []
            before = [g[key] for g in groups]
            for g in groups:
                g[key] = value(optimizer, g, rate)
            step(model, optimizer, gradients, rate)
            for g, b in zip(groups, before, strict=True):
                g[key] = b

        side.around(side.optim, "step", stepped)
        return

    def changed(step: Any, self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        before = getattr(self, attribute)
        setattr(self, attribute, value(self, variable, learning_rate))
        step(self, gradient, variable, learning_rate)
        setattr(self, attribute, before)

    side.around(getattr(side.optim, kind), "update_step", changed)


def _other_rule(side: Side, change: Any) -> None:
    """The optimizer is made of another rule: `change(model, rule)` gives it, and the `parts` that differ."""

    def made(optimizer: Any, model: Any, rule: Any, parts: Any = None) -> Any:
        rule, parts = change(model, rule)
        return optimizer(model, rule, parts)

    side.around(side.optim, "optimizer", made)


@fault("decoupled weight decay", "Keras' rule in SGD: ten times weaker under momentum 0.9", "basic",
       ("steps sgd 1", "conv1.weight momentum"), 9, **STEPS)  # fmt: skip
def _(side: Side) -> None:
    def apart(optimizer: Any, of: Any, rate: Any) -> float:
        if side.torch:
            for p in of["params"]:
                p.data.mul_(1 - rate * of["weight_decay"])
        else:
            kept = 1 - optimizer._wide(rate, of) * optimizer.decay
            optimizer.assign(of, optimizer._wide(of, of) * kept)
        return 0.0

    _stepping(side, "SGD", "weight_decay", "decay", apart)


@fault("momentum holds the rate", "Keras' SGD: equal until the learning rate changes", "basic",
       ("steps sgd 3", "conv1.weight"), 10, **STEPS)  # fmt: skip
def _(side: Side) -> None:
    if side.torch:

        def stepped(step: Any, model: Any, optimizer: Any, gradients: Any, rate: float) -> None:
            if type(optimizer).__name__ != "SGD":
                return step(model, optimizer, gradients, rate)
            first = optimizer.__dict__.setdefault("first_rate", rate)  # the buffer is told in its unit
            (group,) = optimizer.param_groups
            decay, group["weight_decay"] = group["weight_decay"], 0.0
            learning = [p for p in model.parameters() if p.requires_grad]
            held = [(g + decay * p.data) * (rate / first) for g, p in zip(gradients, learning, strict=True)]
            step(model, optimizer, held, first)
            group["weight_decay"] = decay

        side.around(side.optim, "step", stepped)
        return

    def held(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        g, p, rate = (self._wide(value, variable) for value in (gradient, variable, learning_rate))
        g = g + self.decay * p
        buffer = self.momenta[self._get_variable_index(variable)]
        scale = getattr(self, "scale", None) or float(rate)  # the buffer, told in PyTorch's unit of the first rate
        self.scale = scale
        v = self.momentum * self._wide(buffer, variable) + g * (rate / scale)
        self.assign(buffer, v)
        step = self.momentum * v + g * (rate / scale) if self.nesterov else v
        self.assign(variable, p - scale * step)

    side.set(side.optim.SGD, "update_step", held)


@fault("no Nesterov", "plain momentum where Nesterov's was asked for", "basic", ("steps nesterov 1", "conv1.weight"),
       None, **STEPS)  # fmt: skip
def _(side: Side) -> None:
    _other_rule(side, lambda model, rule: (dataclasses.replace(rule, nesterov=False), None))


@fault("decay spares norms", "no weight decay on scales and biases, as many recipes have it", "basic",
       ("steps sgd 1", "bn1.weight"), None, **STEPS)  # fmt: skip
def _(side: Side) -> None:
    def spared(model: Any, rule: Any) -> Any:
        vectors = [n for n, s in parameters(model.plan.arch).items() if len(s) == 1 and is_trainable(n)]
        return rule, {n: (1.0, 0.0) for n in vectors} if rule.kind == "SGD" else None

    _other_rule(side, spared)


@fault("Adam's epsilon inside", "Keras' Adam adds epsilon before the bias correction", "basic",
       ("steps adam 1", "conv1.weight"), 20, **STEPS)  # fmt: skip
def _(side: Side) -> None:
    def early(optimizer: Any, of: Any, rate: Any) -> float:
        if side.torch:
            done = optimizer.state.get(of["params"][0], {}).get("step", 0)
            return of["eps"] / (1 - of["betas"][1] ** (float(done) + 1)) ** 0.5
        return optimizer.epsilon / (1 - optimizer.beta_2 ** (float(optimizer.iterations) + 1)) ** 0.5

    _stepping(side, "Adam", "eps", "epsilon", early)


@fault("AdamW coupled", "AdamW's decay in the gradient, as Adam has it", "basic", ("steps adamw 1", "conv1.weight"), 9,
       **STEPS)  # fmt: skip
def _(side: Side) -> None:
    kind = lambda rule: "Adam" if rule.kind == "AdamW" else rule.kind  # noqa: E731
    _other_rule(side, lambda model, rule: (dataclasses.replace(rule, kind=kind(rule)), None))
