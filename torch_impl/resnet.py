"""The network: stem, stages, head. The twin of this file in the other package has the same text, comments apart."""

from common.arch import Arch, get
from common.names import chosen
from common.plan import Plan, StemPlan, Trunk, make_plan

from .blocks import BLOCKS
from .layers import concat, conv, identity, linear, norm, pool, relu, relu_layer, spatial_mean
from .model import Model, construct, sequential


class ResNet(Model):
    """Any row of common/arch.py: from images or signals, channels where the framework has them, to logits."""

    def __init__(self, plan: Plan):
        super().__init__(plan)
        self.conv1 = stem_convs(plan.stem)
        if not plan.arch.preact:  # there the first block begins with a norm
            self.bn1 = norm(plan.stem.norms[-1])
        self.maxpool = stem_pool(plan.stem)
        for trunk in plan.trunks:
            for stage in trunk.stages:
                setattr(self, stage.name, sequential(*(BLOCKS[b.kind](b) for b in stage.blocks), name=stage.name))
        for trunk in plan.trunks:
            if trunk.norm:
                setattr(self, trunk.norm.name, norm(trunk.norm))
        self.fc = self.head(plan)

    def head(self, plan: Plan):
        return linear(plan.fc) if plan.fc else identity

    def stem(self, x):
        x = self.conv1(x)  # 3 224 224 -> 64 112 112
        if not self.plan.arch.preact:
            x = relu(self.bn1(x))
        return self.maxpool(x)  # 64 56 56

    def pooled(self, trunk: Trunk, x):
        for stage in trunk.stages:
            x = getattr(self, stage.name)(x)
        if trunk.norm:
            x = relu(getattr(self, trunk.norm.name)(x))
        return spatial_mean(x, self.plan.arch.dims)  # N features

    def logits(self, x):
        x = self.stem(x)
        return self.fc(concat([self.pooled(trunk, x) for trunk in self.plan.trunks]))  # N classes

    def features(self, x, *names):
        """{"stem": ..., "layer1": ..., ...}: what the stem and each stage put out, before any last BN-ReLU; of `names`
        alone, if there are any, and then as far as these need it. In training mode, as a new net of PyTorch's is, the
        pass moves the running statistics: net.eval() comes first."""
        wanted, trunks = chosen(self.plan, names)
        out = {"stem": self.stem(x)}
        for stages in trunks:
            y = out["stem"]
            for name in stages:
                y = out[name] = getattr(self, name)(y)
        return {name: out[name] for name in wanted}


def stem_convs(stem: StemPlan):
    """One convolution, or several with norm and ReLU between (ResNet-C, He et al. 2018, figure 2b)."""
    *first, last = stem.convs
    if not first:
        return conv(last)
    layers = [layer for c, n in zip(first, stem.norms, strict=False) for layer in (conv(c), norm(n), relu_layer())]
    return sequential(*layers, conv(last))


def stem_pool(stem: StemPlan):
    """Nothing, one pooling, or one behind another."""
    pools = [pool(p) for p in stem.pools]
    return pools[0] if len(pools) == 1 else sequential(*pools) if pools else identity


def create_model(
    name_or_arch: str | Arch, *, dtype: str | None = None, seed: int | None = None, weights=None, **overrides
) -> ResNet:
    """A net with fresh weights, or with `weights`: `create_model("resnet50", num_classes=10, seed=0)`.

    `name_or_arch` is a variant of common/arch.py or a row of one's own; `overrides` replace fields of it. `dtype` is by
    default the framework's own. `folded=True` makes the same function without the norms, for inference
    (common/fold.py): it takes the weights of the net with norms, or those that `rosetta port --fold` wrote.
    He initialisation (common/init.py): the same seed gives both frameworks the same net, to the bit; without one, the
    framework's own generator gives the seed. `weights` are {canonical name: array}, as `export_weights` gives them.
    Raises RosettaError for an unknown name, field or dtype, a row that can't exist, or weights that don't fit.
    """
    return construct(ResNet, make_plan(get(name_or_arch, **overrides)), dtype, seed, weights)
