"""Against what nobody here wrote: torchvision, timm, keras.applications, akamaster's checkpoints, and a book's net by
its text.

Two twins can be wrong together; these can't be wrong with them.
"""

import numpy as np
import pytest
import torch
from conftest import relative
from test_papers import PAPERS
from torch import nn
from torch.nn import functional as F

import keras_impl
import torch_impl
from common.arch import VARIANTS, get
from common.checkpoints.libraries import LIBRARIES
from common.checkpoints.libraries.library import TRANSFORMS
from common.checkpoints.writers import cannot_hold, stored
from common.init import randomised
from common.names import parameters

# whole nets; deeper and wider ones are the same blocks in other numbers, of which test_counts.py has every published
# one: they are whole under `make test-slow`, and here narrow with one block a stage
TORCHVISION = "resnet18 resnet50 resnext50_32x4d".split()
TORCHVISION_LARGE = (
    "resnet34 wide_resnet50_2 resnet101 resnet152 resnext101_32x8d resnext101_64x4d wide_resnet101_2".split()
)
TIMM = "resnet18 resnet18d resnet26d seresnet18 resnetv2_18 resnetv2_50".split()
TIMM_LARGE = """resnet34 resnet50 wide_resnet50_2 resnext50_32x4d resnet34d resnet50d seresnet34 seresnet50
seresnext50_32x4d resnetv2_34 resnet101 resnet152 resnext101_32x4d resnext101_32x8d resnext101_64x4d
wide_resnet101_2 resnet101d resnet152d resnet200d seresnet101 seresnet152 seresnext101_32x4d
seresnext101_32x8d resnetv2_101 resnetv2_152""".split()
# the same nets with one choice more
TIMM_NARROW = """resnetaa34d resnetaa50 resnetaa50d resnetaa101d resnetblur18 resnetblur50 resnetblur50d resnetblur101d
seresnetaa50d seresnextaa101d_32x8d seresnextaa201d_32x8d ecaresnet26t ecaresnet50d ecaresnet50t ecaresnet101d
ecaresnet200d ecaresnet269d ecaresnetlight ecaresnext26t_32x4d ecaresnext50t_32x4d resnet26 resnet200
resnet10t resnet14t resnet26t resnet50t resnet50c resnet101c resnet152c resnet50s resnet101s resnet152s
resnext50d_32x4d resnext101_32x16d resnext101_32x32d seresnet50t seresnet152d seresnet200d seresnet269d
seresnext26d_32x4d seresnext26t_32x4d seresnext101d_32x8d seresnext101_64x4d resnetv2_18d resnetv2_34d
resnetv2_50d resnetv2_50t resnetv2_101d resnetv2_152d resnetrs50 resnetrs101 resnetrs152 resnetrs200
resnetrs270 resnetrs350 resnetrs420 resnet50_gn resnetv2_50d_gn resnetv2_50x1_bit resnetv2_50x3_bit
resnetv2_101x1_bit resnetv2_101x3_bit resnetv2_152x2_bit resnetv2_152x4_bit""".split()
KERAS = ["resnet50_keras", "resnet50v2_keras"]
KERAS_LARGE = [f"resnet{n}{v}_keras" for v in ("", "v2") for n in (101, 152)]


def and_slow(names: list[str], large: list[str]) -> list:
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in large)]


def randomise(module: nn.Module) -> None:
    """Statistics and scales that show a swap, in somebody else's net; calm enough for 200 layers."""
    generator = torch.Generator().manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.GroupNorm):
            m.weight.data.uniform_(0.2, 0.6, generator=generator)
            m.bias.data.uniform_(-0.2, 0.2, generator=generator)
        if isinstance(m, nn.BatchNorm2d):
            for t, low, high in (
                (m.weight, 0.2, 0.6),
                (m.bias, -0.2, 0.2),
                (m.running_mean, -0.2, 0.2),
                (m.running_var, 0.5, 1.5),
            ):
                t.data.uniform_(low, high, generator=generator)


def same_logits(theirs: nn.Module, arch, state: dict[str, torch.Tensor], sizes=((64, 64), (65, 65), (48, 71))) -> None:
    """`state` loads strictly into our net, which then gives the other's logits to the bit, at three sizes."""
    ours = torch_impl.create_model(arch).eval()
    ours.load_state_dict(state, strict=True)
    for size in sizes:
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            a, b = theirs(x), ours(x)
            assert a.isfinite().all() and a.std() > 1e-3
        assert torch.equal(a, b), (size, relative(a.numpy(), b.numpy()))


@pytest.mark.parametrize("name", and_slow(TORCHVISION, TORCHVISION_LARGE))
def test_torchvision(referees, name):
    models, _ = referees
    theirs = getattr(models, name)(weights=None)
    randomise(theirs.eval())
    assert [k for k in theirs.state_dict() if "num_batches" not in k] == list(parameters(VARIANTS[name]))
    same_logits(theirs, VARIANTS[name], theirs.state_dict())


@pytest.mark.parametrize("name", and_slow(TIMM, TIMM_LARGE + TIMM_NARROW))
def test_timm(referees, name):
    as_timm(referees[1].create_model(name, pretrained=False), VARIANTS[name])


@pytest.mark.parametrize("name", TIMM_LARGE + TIMM_NARROW)
def test_timm_narrow(referees, name):
    """One block a stage, and narrow but for the stem."""
    arch = get(name, depths=(1, 1, 1, 1), widths=(32, 32, 64, 64))
    channels = [w * arch.expansion if arch.preact else w for w in arch.widths]
    create = referees[1].create_model
    if name.endswith("_bit"):  # whose functions have depths and widths of their own, and take no other
        create, arch = referees[1].models.resnetv2._create_resnetv2_bit, get(arch, stem=get("resnetv2_50x1_bit").stem)
    as_timm(create(name, layers=arch.depths, channels=channels), arch)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", [
    "resnet18", "resnet50", "resnet50d", "resnetblur50", "resnetaa50d",
    "resnetv2_18", "resnetv2_18d", "resnetv2_50", "resnetv2_50d", "resnetv2_50d_gn",
])  # fmt: skip
def test_timm_dilated(referees, name, stride):
    widths = (32, 64, 96, 128) if "v2" in name else (16, 32, 48, 64)  # v2 projects, even from the stem's 64 to 64
    arch = get(name, depths=(1, 2, 2, 2), widths=widths, output_stride=stride)
    channels = [w * arch.expansion if arch.preact else w for w in arch.widths]
    as_timm(referees[1].create_model(name, layers=arch.depths, channels=channels, output_stride=stride), arch)


def test_torchvision_dilated(referees):
    """As its segmenters have it: for bottlenecks alone, and narrow by their groups' width."""
    theirs = referees[0].resnet.ResNet(
        referees[0].resnet.Bottleneck, [1, 2, 2, 2], width_per_group=4,
        replace_stride_with_dilation=[False, True, True], num_classes=7,
    )  # fmt: skip
    randomise(theirs.eval())
    same_logits(
        theirs, get("resnet50", depths=(1, 2, 2, 2), width_per_group=4, output_stride=8, num_classes=7),
        theirs.state_dict(),
    )  # fmt: skip


def as_timm(theirs: nn.Module, arch) -> None:
    randomise(theirs.eval())
    state = theirs.state_dict()
    library = next(lib for lib in LIBRARIES if lib.name.startswith("timm") and not cannot_hold(lib, arch))
    counters = {n: v for n, v in torch_impl.create_model(arch).state_dict().items() if n.endswith("tracked")}
    assert not {s.theirs for s in library.slots(arch)} ^ {n for n in state if not n.endswith("tracked")}
    state = counters | {
        s.canonical: torch.from_numpy(TRANSFORMS[s.transform][0](state[s.theirs].numpy())) for s in library.slots(arch)
    }
    # timm's means of 2x2 leave the last row and column out, and its shortcuts don't: at other sizes its nets break off
    sizes = {"sizes": ((64, 64), (65, 97))} if arch.antialias == "avg" else {}
    same_logits(theirs, arch, state, **sizes)


def test_the_bit_equality_can_fail(referees):
    models, _ = referees
    theirs = models.resnet50(weights=None).eval()
    with pytest.raises(AssertionError):
        same_logits(
            theirs, VARIANTS["resnet50_v1"], theirs.state_dict()
        )  # the stride on the other convolution: same shapes


@pytest.mark.parametrize("name", and_slow(KERAS, KERAS_LARGE))
def test_keras_applications(name):
    """Its v1 nets with a bias everywhere, and its V2 nets; float64."""
    from keras_impl import originals

    arch = VARIANTS[name]
    with originals.in_dtype("float64"):
        theirs = originals.build("keras.applications", name, arch, "float64")
    weights = randomised(arch)
    library = next(lib for lib in LIBRARIES if lib.name == "keras.applications" and not cannot_hold(lib, arch))
    originals.fill(theirs, stored(library.slots(arch), weights))
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224))
    expected = np.asarray(theirs(np.moveaxis(x, 1, -1), training=False))
    twin = keras_impl.create_model(arch, dtype="float64", weights=weights)
    ours = torch_impl.create_model(arch, dtype="float64", weights=weights).eval()
    with torch.no_grad():
        logits = ours(torch.from_numpy(x)).numpy()
    assert relative(expected, np.asarray(twin(np.moveaxis(x, 1, -1)))) <= 1e-12
    assert relative(expected, logits) <= 1e-12


@pytest.mark.parametrize(
    ("name", "file"), [("cifar_resnet20", "resnet20-12fca82f.th"), ("cifar_resnet56", "resnet56-4bfd9763.th")]
)
def test_akamasters_checkpoints_on_real_images(shared, name, file):
    """Trained by others, with option A padded on both sides: their code's float64 logits, in both frameworks."""
    state = torch.load(shared / file, map_location="cpu", weights_only=True)["state_dict"]
    names = {k: k.removeprefix("module.").replace("linear.", "fc.") for k in state if "num_batches" not in k}
    weights = {ours: state[theirs].numpy() for theirs, ours in names.items()}
    data, expected = (
        np.load(shared / "cifar10_test1000.npz"),
        np.load(shared / f"{name[6:]}_expected.npz")["logits_float64"],
    )
    x = ((data["x"] / np.float32(255) - data["mean"]) / data["std"]).astype(
        np.float64
    )  # N H W C; float32 until here, as theirs
    ours, twin = torch_impl.create_model(name, dtype="float64").eval(), keras_impl.create_model(name, dtype="float64")
    torch_impl.import_weights(ours, weights)
    keras_impl.import_weights(twin, weights)
    n = 50  # of 1,000, which test_port.py has whole: TensorFlow takes its time in float64
    with torch.no_grad():
        a = ours(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x[:n], -1, 1)))).numpy()
    b = np.asarray(twin(x[:n]))
    assert relative(expected[:n], a) <= 1e-12 and relative(expected[:n], b) <= 1e-12
    assert (a.argmax(1) == expected[:n].argmax(1)).all() and (b.argmax(1) == expected[:n].argmax(1)).all()
    assert (a.argmax(1) == data["y"][:n]).mean() > 0.7  # a trained net


D2L = {"resnet18_d2l": (2, 2, 2, 2), "resnet34_d2l": (3, 4, 6, 3)}


class Book(nn.Module):
    """Dive into Deep Learning's ResNets (section 8.6), from its description: biases everywhere, and in the first
    block of each stage but the first a 1x1 convolution on the shortcut, with a stride of 2 and without a norm."""

    def __init__(self, w: dict[str, np.ndarray], depths: tuple[int, ...]):
        super().__init__()
        self.depths = depths
        self.w = {k: torch.from_numpy(v.astype(np.float64)) for k, v in w.items()}

    def conv(self, x, name, stride, padding):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], stride, padding)

    def norm(self, x, name):
        w = self.w
        return F.batch_norm(
            x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
        )

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x, "conv1", 2, 3), "bn1")), 3, 2, 1)
        for stage, depth in enumerate(self.depths, 1):
            for block in range(depth):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = F.relu(self.norm(self.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
                y = self.norm(self.conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
                x = F.relu(y + (self.conv(x, f"{name}.downsample.0", 2, 0) if stride == 2 else x))
        return F.linear(x.mean((2, 3)), self.w["fc.weight"], self.w["fc.bias"])


@pytest.mark.parametrize("name, depths", D2L.items())
def test_dive_into_deep_learning(name, depths):
    arch = VARIANTS[name]
    weights = randomised(arch)
    ours = torch_impl.create_model(arch, dtype="float64").eval()
    torch_impl.import_weights(ours, weights)
    x = torch.randn(2, 1, 67, 96, dtype=torch.float64)
    with torch.no_grad():
        assert relative(Book(weights, depths)(x).numpy(), ours(x).numpy()) <= 1e-14


def test_training_mode_is_torchvisions(referees):
    """Gradients too: the same ops in the same order, so bit-equal."""
    models, _ = referees
    theirs, ours = models.resnet18(weights=None).train(), torch_impl.create_model("resnet18").train()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 64, 64)
    for model in (theirs, ours):
        model(x).square().mean().backward()
    for (name, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, p), q in zip(theirs.named_buffers(), ours.buffers(), strict=True):
        assert torch.equal(p, q), name


def test_every_named_variant_has_a_witness():
    """The lists are those that the tests run over: a new row without a referee or a paper's net fails here."""
    assert {*TORCHVISION, *TIMM, *TIMM_LARGE, *TIMM_NARROW, *KERAS, *KERAS_LARGE, *D2L, *PAPERS} == set(VARIANTS)


def test_one_axis_is_two_axes_of_height_one():
    """The 1-D nets against the 2-D ones, which are held: a signal is an image one pixel high, a kernel k its middle
    row."""
    arch = get("resnet50_1d")
    flat = get(arch, dims=2)
    weights = randomised(arch)
    wide = {}
    for name, shape in parameters(flat).items():
        w = weights[name]
        if w.ndim == 3:
            full = np.zeros(shape, np.float32)
            full[:, :, shape[2] // 2, :] = w
            w = full
        wide[name] = w
    ours, theirs = (
        torch_impl.create_model(arch, dtype="float64").eval(),
        torch_impl.create_model(flat, dtype="float64").eval(),
    )
    torch_impl.import_weights(ours, weights)
    torch_impl.import_weights(theirs, wide)
    x = torch.randn(2, 1, 203, dtype=torch.float64)
    with torch.no_grad():
        assert relative(theirs(x[:, :, None, :]).numpy(), ours(x).numpy()) <= 1e-14
