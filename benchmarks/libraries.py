"""Every ResNet that other libraries build with these blocks, saved as they save it: taken with its source's numbers, or
refused in which words. Writes docs/libraries.json and docs/libraries.md; timm's nets are in docs/checkpoints.md.

    make libraries

What isn't installed (pytorchcv: `pip install --no-deps pytorchcv`) keeps its rows. Nets are made at random, statistics
too, and compared in float64 at 65 x 97: logits, or what the stages put out where a net has none.
"""

import gc
import importlib.util
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from common.arch import VARIANTS, get, nearly
from common.checkpoints import port
from common.checkpoints.libraries.keras_hub import KERAS_HUB
from common.checkpoints.writers import cannot_hold
from common.errors import RosettaError
from common.tools.files import atomic
from common.tools.frameworks import load, peer

ROOT = Path(__file__).parent.parent
JSON, PAGE = ROOT / "docs" / "libraries.json", ROOT / "docs" / "libraries.md"
MOST = 1e-12  # of the largest element
# a net: it saves itself into a folder, and gives the file and what it computes of images N C H W
Net = Callable[[Path], tuple[Path, Callable[[np.ndarray], list[np.ndarray]]]]
DETECTORS = ("Detr", "ConditionalDetr", "DeformableDetr", "TableTransformer", "DabDetr")
KERAS_PRESETS = {"": (18, 50, 101, 152), "_v2": (50, 101), "_vd": (18, 34, 50, 101, 152, 200)}  # KerasHub's own


def torchvision_names() -> list[str]:
    """Its models with a ResNet of images in them."""
    names = peer("torchvision").models.list_models()
    return [n for n in names if re.search("resne", n)]


def _torch(build: Callable[[], Any], of: Callable[[Any], Any], save: Callable[[Any, Path], Path]) -> Net:
    """`of` gives the function of the built model whose outputs are compared."""

    def made(folder: Path) -> tuple[Path, Callable[[np.ndarray], list[np.ndarray]]]:
        import torch

        torch.manual_seed(0)
        model = build().eval()
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.ndim == 1:  # norms and biases
                low, high = (0.5, 1.5) if name.endswith(("weight", "running_var", "gamma")) else (-0.1, 0.1)
                value.copy_(torch.empty_like(value).uniform_(low, high))
        path, function = save(model, folder), of(model.double())

        def outputs(x: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad():
                return [y.numpy() for y in function(torch.from_numpy(x))]

        return path, outputs

    return made


def _state_dict(model: Any, folder: Path) -> Path:
    import torch

    torch.save(model.state_dict(), folder / "a.pth")
    return folder / "a.pth"


def _folder(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder / "m")
    return folder / "m"


def torchvision() -> Iterator[tuple[str, Net]]:
    models = peer("torchvision").models

    def of(model: Any) -> Any:
        if not hasattr(model, "backbone"):
            return lambda x: [model(x)]
        if hasattr(model.backbone, "body"):  # a detector's
            return lambda x: list(model.backbone.body(x).values())
        return lambda x: [model.backbone(x)["out"]]

    for name in torchvision_names():
        bare = {"weights_backbone": None} if re.search("rcnn|retinanet|fcos|fcn|deeplab", name) else {}
        yield name, _torch(lambda n=name, b=bare: models.get_model(n, weights=None, **b), of, _state_dict)


def transformers() -> Iterator[tuple[str, Net]]:
    peer("torchvision")
    import transformers as hf

    def part(model: Any) -> Any:
        """The ResNet in a larger model."""
        kinds = ("ResNetBackbone", "RTDetrResNetBackbone", "FeatureListNet")  # the last is timm's
        net = next(m for m in model.modules() if type(m).__name__ in kinds)
        return lambda x: list(getattr(y := net(x), "feature_maps", y))

    logits = lambda model: lambda x: [model(x).logits]  # noqa: E731
    last = lambda model: lambda x: [model(x).last_hidden_state]  # noqa: E731
    maps = lambda model: lambda x: list(model(x).feature_maps)  # noqa: E731
    basic = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    every = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}

    def net(name: str, of: Any, config: Any) -> tuple[str, Net]:
        kind = name.split(",")[0]
        return name, _torch(lambda: getattr(hf, kind)(config), of, _folder)

    resnet = hf.ResNetConfig
    yield net("ResNetForImageClassification", logits, resnet())
    yield net("ResNetForImageClassification, basic", logits, resnet(**basic))
    for more in ({"downsample_in_bottleneck": True}, {"downsample_in_first_stage": True}, {"hidden_act": "gelu"}):
        ((key, value),) = more.items()
        yield net(f"ResNetForImageClassification, {key}={value}", logits, resnet(**more))
    yield net("ResNetModel", last, resnet())
    yield net("ResNetBackbone", maps, resnet(**every))
    yield net("BitForImageClassification", logits, hf.BitConfig())
    for bit in ({"layer_type": "bottleneck"}, {"global_padding": "same"},
                {"output_stride": 16}, {"embedding_dynamic_padding": True}):  # fmt: skip
        said = ", ".join(f"{k}={v}" for k, v in bit.items())
        yield net(f"BitForImageClassification, {said}", logits, hf.BitConfig(**bit))
    yield net("RTDetrResNetBackbone", maps, hf.RTDetrResNetConfig(**every))
    yield net("RTDetrResNetBackbone, basic", maps, hf.RTDetrResNetConfig(**basic, **every))
    yield net("RTDetrForObjectDetection", part, hf.RTDetrConfig())
    for name in DETECTORS:
        config = getattr(hf, f"{name}Config")
        own = config(use_timm_backbone=False, backbone=None, backbone_config=resnet(**every))
        yield net(f"{name}ForObjectDetection, its ResNet", part, own)
        for dilation in (False, True):
            said = "timm's ResNet" + ", dilation=True" * dilation
            yield net(
                f"{name}ForObjectDetection, {said}", part, config(use_pretrained_backbone=False, dilation=dilation)
            )
    for name, task in (("UperNet", "SemanticSegmentation"), ("MaskFormer", "InstanceSegmentation"),
                       ("Mask2Former", "UniversalSegmentation"), ("OneFormer", "UniversalSegmentation")):  # fmt: skip
        yield net(f"{name}For{task}", part, getattr(hf, f"{name}Config")(backbone_config=resnet(**every)))
    yield net("TimmWrapperForImageClassification", logits, hf.TimmWrapperConfig(architecture="resnet50d"))
    yield net("TimmBackbone", maps, hf.TimmBackboneConfig(backbone="resnet50d", use_pretrained_backbone=False))


def _keras(build: Callable[[], Any], suffix: str) -> Net:
    def made(folder: Path) -> tuple[Path, Callable[[np.ndarray], list[np.ndarray]]]:
        import keras

        from keras_impl.originals import in_dtype

        keras.utils.clear_session()
        with in_dtype("float64"):
            model = build()
        rng = np.random.default_rng(0)
        for variable in model.variables:
            if variable.dtype == "float64" and len(variable.shape) == 1:
                low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.1, 0.1)
                variable.assign(rng.uniform(low, high, variable.shape))
        getattr(model, "save_weights" if "weights" in suffix else "save")(folder / f"a{suffix}")

        def outputs(x: np.ndarray) -> list[np.ndarray]:
            return [np.asarray(model(np.moveaxis(x, 1, -1), training=False))]

        return folder / f"a{suffix}", outputs

    return made


def keras_applications() -> Iterator[tuple[str, Net]]:
    load("keras")
    import keras

    shape = {"weights": None, "input_shape": (65, 97, 3)}
    for depth in (50, 101, 152):
        for version in ("", "V2"):
            name = f"ResNet{depth}{version}"
            kind = getattr(keras.applications, name)
            yield (
                name,
                _keras(lambda k=kind: k(classifier_activation=None, **shape), ".keras"),
            )
    for name in ("ResNet50", "ResNet50V2"):
        kind = getattr(keras.applications, name)
        build = lambda k=kind: k(include_top=False, pooling="avg", **shape)  # noqa: E731
        yield f"{name}, include_top=False", _keras(build, ".weights.h5")


def keras_hub() -> Iterator[tuple[str, Net]]:
    load("keras")
    from keras_impl import originals

    for version, depths in KERAS_PRESETS.items():
        for depth in depths:
            rows = {
                "": f"resnet{depth}",
                "_v2": f"resnetv2_{depth}",
                "_vd": f"resnet{depth}{'_vd' if depth < 50 else 'd'}",
            }
            row = VARIANTS[rows[version]]
            assert not cannot_hold(KERAS_HUB, row)
            build = lambda r=row: originals.build("keras-hub", "", r, "float64")  # noqa: E731
            yield f"resnet{version}_{depth}", _keras(build, ".keras")

    def around(kind: str, **how: Any) -> Callable[[], Any]:
        hub = __import__("keras_hub").models
        return lambda: getattr(hub, kind)(image_encoder=originals.build("keras-hub", "", bare, "float64"), **how)

    bare = get("resnet50", num_classes=0)
    yield "RetinaNetBackbone", _keras(around("RetinaNetBackbone", min_level=3, max_level=5, use_p5=False), ".keras")
    deeplab = around(
        "DeepLabV3Backbone", projection_filters=16, upsampling_size=16, dilation_rates=[6, 12, 18],
        low_level_feature_key="P2", spatial_pyramid_pooling_key="P5",
    )  # fmt: skip
    yield "DeepLabV3Backbone", _keras(deeplab, ".keras")


def pytorchcv() -> Iterator[tuple[str, Net]]:
    """Its names are nobody else's, so that a first block and the stem say whether a net is taken."""
    import torch

    peer("torchvision")  # which it imports
    from pytorchcv.model_provider import _models

    def first(model: Any, folder: Path) -> Path:
        held = {n: t for n, t in model.state_dict().items() if not re.search(r"stage[2-9]|unit([2-9]|\d\d)", n)}
        torch.save({n: torch.zeros(t.shape, dtype=t.dtype) for n, t in held.items()}, folder / "a.pth")
        return folder / "a.pth"

    def built(name: str) -> Any:
        with torch.device("meta"):
            return _models[name]()

    for name in sorted(_models):
        if re.match(r"(pre|se|sepre)?resne[xt]|resnet[ad]|wrn|(bam|cbam)_resnet", name):
            yield name, _torch(lambda n=name: built(n), lambda model: lambda x: [], first)


LIBRARIES = {"torchvision": torchvision, "Transformers": transformers, "keras.applications": keras_applications,
             "KerasHub": keras_hub, "pytorchcv": pytorchcv}  # fmt: skip
MODULES = {"Transformers": "transformers", "keras.applications": "keras", "KerasHub": "keras_hub"} | {
    name: name for name in ("torchvision", "pytorchcv")
}


def outcome(net: Net, folder: Path) -> dict[str, Any]:
    """{"row", "relative"} of a net that is taken, or {"refused"} in which words."""
    import torch_impl

    path, theirs = net(folder)
    try:
        found = port.inspect(path)
    except RosettaError as e:
        said = re.sub(r"\s+", " ", str(e).replace(str(path), "it"))
        return {"refused": re.sub(r": [^ ]+, [^ ]+, .*| \(- expected.*", "", said.split(". ")[0])[:200]}
    import torch

    ours = torch_impl.create_model(found.arch, dtype="float64", weights=found.weights()).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 65, 97))
    wanted = theirs(x)
    with torch.no_grad():
        if wanted[-1].ndim == 2:
            got = [ours(torch.from_numpy(x)).numpy()]
        else:
            got = [y.numpy() for y in ours.features(torch.from_numpy(x)).values()][-len(wanted) :]
    apart = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(wanted, got, strict=True))
    usual = {"output_stride": 0, "first_stride": 1}
    other = {field: getattr(found.arch, field) for field in usual if getattr(found.arch, field) != usual[field]}
    return {"row": nearly(get(found.arch, **usual)), "but": other, "relative": float(apart)}


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """docs/libraries.md."""
    lines = [
        "# Other libraries' ResNets", "",
        "Every ResNet of these libraries, and every net of theirs with one in it, made at random, saved as its",
        "library saves it, and read here: the row that it was taken for, and how far its logits or stages are from",
        "its source's in float64, at 65 x 97; or the words in which it is refused. `make libraries` measures, and",
        "tests hold the page against it. timm's nets are in [Variants](variants.md).",
    ]  # fmt: skip
    for library, nets in found.items():
        taken = {n: r for n, r in nets.items() if "row" in r}
        lines += ["", f"## {library}", "", f"{len(taken)} of {len(nets)} are taken.", ""]
        if taken:
            lines += ["| net | row | difference |", "|---|---|--:|"]
            for name, r in taken.items():
                also = "".join(f", {field} = {value}" for field, value in r["but"].items())
                apart = f"{r['relative']:.0e}" if r["relative"] else "0"
                lines.append(f"| {name} | {r['row']}{also} | {apart} |")
        words: dict[str, list[str]] = {}
        for name, r in nets.items():
            if "refused" in r:
                words.setdefault(r["refused"], []).append(name)
        if words:
            lines += ["", "| refused | in these words |", "|---|---|"]
            some = lambda names: ", ".join(names) if len(names) < 20 else f"{len(names)}: {', '.join(names[:10])}, ..."  # noqa: E731
            lines += [f"| {some(names)} | {said} |" for said, names in words.items()]
    return "\n".join(lines) + "\n"


@click.command()
@click.option(
    "--library", type=click.Choice(list(LIBRARIES)), multiple=True, help="These alone; others keep their rows."
)
def main(library: tuple[str, ...]) -> None:
    warnings.simplefilter("ignore")
    found = json.loads(JSON.read_text()) if JSON.exists() else {}
    for name in library or LIBRARIES:
        if importlib.util.find_spec(MODULES[name]) is None:
            click.echo(f"{name} is not installed")
            continue
        rows = found[name] = {}
        for net, make in LIBRARIES[name]():
            with tempfile.TemporaryDirectory() as folder:
                rows[net] = outcome(make, Path(folder))
            gc.collect()
            click.echo(f"{name} {net}: {rows[net]}")
        found = {n: found[n] for n in LIBRARIES if n in found}
        with atomic(JSON) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
        with atomic(PAGE) as temporary:
            temporary.write_text(page(found))


if __name__ == "__main__":
    main()
