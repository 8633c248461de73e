"""The network: stem, stages, head. The twin of this file in the other package has the same text, comments apart."""

from concurrent.futures import ThreadPoolExecutor

from common.arch import Arch, get
from common.errors import RosettaError
from common.plan import Plan, StemPlan, Trunk, make_plan
from common.port import edited, inspect

from .blocks import BLOCKS
from .layers import (
    Model,
    concat,
    construct,
    conv,
    identity,
    in_parts,
    linear,
    max_pool,
    norm,
    relu,
    relu_layer,
    sequential,
    spatial_mean,
)
from .weights import import_weights


class ResNet(Model):
    """Any row of common/arch.py. Takes images or signals, channels where the framework has them; gives logits, no
    softmax."""

    parts, early = 1, 0  # the stem and so many stages take a batch in so many parts; `optimize` sets it

    def __init__(self, plan: Plan):
        super().__init__(plan)
        self.conv1 = stem_convs(plan.stem)
        if not plan.arch.preact:  # there the first block begins with a norm
            self.bn1 = norm(plan.stem.norms[-1])
        self.maxpool = max_pool(plan.arch.dims, plan.stem.pool == "zeros") if plan.stem.pool else identity
        for trunk in plan.trunks:
            for stage in trunk.stages:
                setattr(self, stage.name, sequential(*(BLOCKS[b.kind](b) for b in stage.blocks), name=stage.name))
        for trunk in plan.trunks:
            if trunk.norm:
                setattr(self, trunk.norm.name, norm(trunk.norm))
        self.fc = linear(plan.fc) if plan.fc else identity

    def stem(self, x):
        x = self.conv1(x)  # 3 224 224 -> 64 112 112
        if not self.plan.arch.preact:
            x = relu(self.bn1(x))
        return self.maxpool(x)  # 64 56 56

    def begun(self, x):
        x = self.stem(x)
        for stage in self.plan.trunks[0].stages[: self.early]:
            x = getattr(self, stage.name)(x)
        return x

    def pooled(self, trunk: Trunk, x):
        for stage in trunk.stages[self.early :]:
            x = getattr(self, stage.name)(x)
        if trunk.norm:
            x = relu(getattr(self, trunk.norm.name)(x))
        return spatial_mean(x, self.plan.arch.dims)  # N features

    def logits(self, x):
        x = in_parts(self.begun, x, self.parts)
        return self.fc(concat([self.pooled(trunk, x) for trunk in self.plan.trunks]))  # N classes

    def features(self, x):
        """{"stem": ..., "layer1": ..., ...}: what the stem and each stage put out, before any last BN-ReLU."""
        x = self.stem(x)
        out = {"stem": x}
        for trunk in self.plan.trunks:
            y = x
            for stage in trunk.stages:
                y = out[stage.name] = getattr(self, stage.name)(y)
        return out


def stem_convs(stem: StemPlan):
    """One convolution, or several with norm and ReLU between (ResNet-C, He et al. 2018, figure 2b)."""
    *first, last = stem.convs
    if not first:
        return conv(last)
    layers = []
    for c, n in zip(first, stem.norms, strict=False):
        layers += [conv(c), norm(n), relu_layer()]
    return sequential(*layers, conv(last))


def create_model(
    name_or_arch: str | Arch, *, dtype: str | None = None, seed: int | None = None, weights=None, **overrides
) -> ResNet:
    """A net with fresh weights, or with `weights`: `create_model("resnet50", num_classes=10, seed=0)`.

    `name_or_arch` is a variant of common/arch.py or a row of one's own; `overrides` replace fields of it. `dtype` is by
    default the framework's own.
    `folded=True` makes the same function without the norms, for inference (common/fold.py): it takes the weights of
    the net with norms, or those that `rosetta port --fold` wrote.
    He initialisation (common/init.py): the same seed gives both frameworks the same net, to the bit; without one, the
    framework's own generator gives the seed. `weights` are {canonical name: array}, as `export_weights` gives them.
    Raises RosettaError for an unknown name, field or dtype, a row that can't exist, or weights that don't fit.
    """
    return construct(ResNet, make_plan(get(name_or_arch, **overrides)), dtype, seed, weights)


def load(
    path, *, dtype: str | None = None, folded: bool = False, into: ResNet | None = None,
    num_classes: int | None = None, seed: int = 0, **options,
) -> ResNet:  # fmt: skip
    """A net with the weights of a checkpoint: of torchvision, timm, Hugging Face Transformers, keras.applications,
    KerasHub, akamaster or kuangliu, or our own, in any container (common/port.py).

    `dtype` is by default the file's; `folded` puts the norms into the convolutions (common/fold.py), for inference;
    `into` is a net that takes the weights in its own dtype, and stays as it is if they don't fit; `num_classes` gives
    the net a fresh classifier, drawn from `seed`, or none with 0. `options` are those of `common.port.inspect`. Raises
    RosettaError for a file that is damaged or unknown.
    """
    if into is not None and num_classes is not None:
        raise RosettaError("a net that is there has its classifier: num_classes can't be given with into")
    if into is not None and not into.plan.arch.folded:  # a folded net takes a file with norms, too
        options = {"arch": into.plan.arch, **options}
    found = inspect(path, **options)
    if into is not None:
        import_weights(into, found.weights("mapped"))
        return into
    headed = found.arch if num_classes is None else get(found.arch, num_classes=num_classes)
    arch = get(headed, folded=folded or headed.folded)
    with ThreadPoolExecutor(1) as beside:  # the file is read while the net is built
        weights = beside.submit(lambda: edited(found.arch, headed, found.weights("together"), seed)[0])
        return construct(ResNet, make_plan(arch), dtype or found.read_as, weights=weights.result, copy=False)
