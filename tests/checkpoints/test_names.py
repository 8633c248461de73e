"""Checkpoints as people really have them: made as their scripts make them, each taken with its source's numbers, or
refused in words that say what to do."""

# ruff: noqa: E501 (a kind of checkpoint a line)

import argparse
import collections
import datetime
import enum
import json
import pathlib
import pickle
import re

import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import ROOT, relative

import torch_impl
from common.arch import get
from common.checkpoints import port
from common.checkpoints.libraries.keras_applications import RESNET
from common.checkpoints.libraries.library import TRANSFORMS
from common.errors import RosettaError
from common.init import randomised

BASIC = get("resnet18", depths=(1, 1, 1, 1), widths=(4, 6, 8, 10), num_classes=5)
BOTTLENECK = get("resnet50", depths=(1, 1, 1, 1), widths=(4, 6, 8, 10), num_classes=5)
KERAS = get("resnet50_keras", depths=(1, 1), widths=(4, 6), num_classes=5)
WEIGHTS = {arch: randomised(arch) for arch in (BASIC, BOTTLENECK, KERAS)}


class Colour(enum.Enum):
    RED = "red"


class History:
    """As mmengine's HistoryBuffer: arrays of numpy, and methods of its own."""

    def __init__(self):
        self.log, self.methods = np.zeros(3), {"mean": History.mean}

    def mean(self):
        return 0


def state(arch=BASIC, prefix="", head=True, rename=lambda n: n, counters=True):
    """A state_dict as PyTorch makes it, with the counters of its norms."""
    found = collections.OrderedDict()
    for name, w in WEIGHTS[arch].items():
        if head or not name.startswith("fc."):
            found[prefix + rename(name)] = torch.from_numpy(w.copy())
            if counters and name.endswith("running_var"):
                found[prefix + rename(name).replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return found


def other(found):
    """Another net of the same shapes: what must not be taken."""
    return {n: t + 1 if t.is_floating_point() else t for n, t in found.items()}


def children(name):
    top, _, rest = name.partition(".")
    return ".".join([{"conv1": "0", "bn1": "1", **{f"layer{i}": f"{i + 3}" for i in range(1, 5)}}[top], rest])


def detectron2(name):
    for i in range(1, 5):
        name = name.replace(f"layer{i}.", f"res{i + 1}.")
    for i in range(1, 4):
        name = name.replace(f".bn{i}.", f".conv{i}.norm.")
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm").replace("fc.", "linear.")
    return "stem." + name.replace("bn1.", "conv1.norm.", 1) if name.startswith(("conv1", "bn1")) else name


def transformers(name):
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = re.sub(r"layer(\d)\.(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"(?<=\d\.)conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution", name)
    name = re.sub(r"(?<=\d\.)bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization", name)
    return name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")


def linear(name, into, out, bias=True):
    made = {f"{name}.weight": torch.randn(out, into)}
    return made | ({f"{name}.bias": torch.randn(out)} if bias else {})


def mlp(before, *widths, at=2):
    return {k: v for i in range(len(widths) - 1) for k, v in linear(f"{before}.{at * i}", *widths[i : i + 2]).items()}


body = dict(head=False)
OPT = {"state": {0: {"exp_avg": torch.zeros(4, 3, 7, 7)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
FPN = {f"{n}.weight": torch.randn(2, 4, 1, 1) for n in ("neck.fpn.0", "rpn.head.conv", "roi.mask.0")}
renamed = lambda f, **k: state(rename=f, **k)  # noqa: E731
heads = lambda more, **k: {**state(head=False, **k), **more}  # noqa: E731

# what a script makes: the file, and whether it keeps the classifier ("head") or the body alone ("body")
TAKEN = {
    # plain, and the trainers' dictionaries
    "state_dict": (lambda: state(), "head"),
    "without counters": (lambda: state(counters=False), "head"),
    "bottleneck": (lambda: state(BOTTLENECK), "head"),
    "pytorch/examples": (lambda: {"epoch": 90, "arch": "resnet18", "state_dict": state(prefix="module."),
                                  "best_acc1": torch.tensor(71.5), "optimizer": OPT, "scheduler": {"step": 1}}, "head"),
    "torchvision's reference": (lambda: {"model": state(), "optimizer": OPT, "lr_scheduler": {}, "epoch": 3,
                                         "args": argparse.Namespace(output_dir="x", lr=0.1),
                                         "model_ema": {"n_averaged": torch.tensor(3), **other(state(prefix="module."))},
                                         "scaler": {"scale": 1.0}}, "head"),
    "a path in the arguments": (lambda: {"model": state(), "args": argparse.Namespace(data=pathlib.PurePosixPath("/d"))}, "head"),
    "Lightning, a path": (lambda: {"state_dict": state(prefix="net."), "hyper_parameters": {"root": pathlib.PurePosixPath("/d")}}, "head"),
    "Lightning, a date": (lambda: {"state_dict": state(prefix="net."), "began": datetime.datetime(2026, 1, 2), "how": Colour.RED}, "head"),
    "mmengine's history": (lambda: {"meta": {"t": "x"}, "state_dict": state(prefix="backbone."), "message_hub": {"lr": History()}}, "head"),
    "timm's training": (lambda: {"epoch": 1, "state_dict": state(), "state_dict_ema": other(state()), "optimizer": OPT,
                                 "metric": 71.2, "version": 2}, "head"),
    "timm's EMA alone": (lambda: {"state_dict_ema": state()}, "head"),
    "a loss beside it": (lambda: {"model_state_dict": state(), "loss": torch.tensor(0.3), "optimizer_state_dict": OPT}, "head"),
    "model_state": (lambda: {"model_state": state(), "iteration": 12}, "head"),
    "net": (lambda: {"net": state(prefix="module."), "acc": 95.4, "epoch": 199}, "head"),
    "network": (lambda: {"network": state()}, "head"),
    "weights": (lambda: {"weights": state()}, "head"),
    "params": (lambda: {"params": state()}, "head"),
    "ignite": (lambda: {"model": state(), "trainer": {"epoch": 1}, "optimizer": OPT}, "head"),
    "accelerate": (lambda: state(prefix="module._orig_mod."), "head"),
    "torch.compile": (lambda: state(prefix="_orig_mod."), "head"),
    "compiled and parallel": (lambda: state(prefix="_orig_mod.module."), "head"),
    "parallel and compiled": (lambda: state(prefix="module._orig_mod."), "head"),
    "Lightning": (lambda: {"state_dict": state(prefix="model."), "pytorch-lightning_version": "2.6", "global_step": 1,
                           "callbacks": {}, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [OPT]}, "head"),
    "Lightning, a weighted loss": (lambda: {"state_dict": {**state(prefix="model."), "loss.weight": torch.ones(5)}}, "head"),
    "Lightning, a metric": (lambda: {"state_dict": {**state(prefix="backbone."), "acc.confmat": torch.zeros(5, 5)}}, "head"),
    "Composer": (lambda: {"state": {"model": state(prefix="module."), "timestamp": {}, "optimizers": {"SGD": OPT}},
                          "rng": [{"torch": torch.zeros(5056, dtype=torch.uint8)}]}, "head"),
    "DeepSpeed": (lambda: {"module": state(), "ds_config": {}, "dp_world_size": 1}, "head"),
    "SWA": (lambda: {"n_averaged": torch.tensor(5), **state(prefix="module.")}, "head"),
    "catalyst": (lambda: {"model_state_dict": state(), "criterion_state_dict": {}, "epoch": 1}, "head"),
    "EMA in a dictionary": (lambda: {"ema": {"module": state(), "decay": 0.9999}}, "head"),
    "keys of numbers beside": (lambda: {0: "x", "state_dict": state()}, "head"),
    "one tensor too many": (lambda: {**state(), "criterion.weight": torch.ones(5)}, "head"),
    "several wrappers deep": (lambda: {"a": {"b": {"c": state(prefix="module.model.net.")}}}, "head"),
    "half": (lambda: {n: t.half() if t.is_floating_point() else t for n, t in state().items()}, "half"),
    "bfloat16": (lambda: {n: t.bfloat16() if t.is_floating_point() else t for n, t in state().items()}, "half"),
    "parameters": (lambda: {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in state().items()}, "head"),
    # wrappers' prefixes
    **{f"{p} before the names": ((lambda p=p: state(prefix=p)), "head") for p in (
        "module.", "model.", "net.", "network.", "timm_model.", "model.timm_model.", "backbone.", "encoder.", "resnet.",
        "base_model.", "cnn.", "feature_extractor.", "student.", "vision_model.", "trunk.", "model.resnet.",
        "module.model.", "classifier.model.", "image_encoder.", "visual.", "img_backbone.", "extractor.model.",
    )},
    # self-supervised
    "MoCo v1": (lambda: {"state_dict": {**state(prefix="module.encoder_q."), **other(state(prefix="module.encoder_k.")),
                                        "module.queue": torch.randn(5, 20), "module.queue_ptr": torch.tensor([0])}}, "head"),
    "MoCo v2": (lambda: {"state_dict": {**heads(mlp("module.encoder_q.fc", 10, 10, 4), prefix="module.encoder_q."),
                                        **other(heads(mlp("module.encoder_k.fc", 10, 10, 4), prefix="module.encoder_k.")),
                                        "module.queue": torch.randn(4, 20)}}, "body"),
    "MoCo v3": (lambda: {"state_dict": {**state(prefix="module.base_encoder.", **body), **mlp("module.base_encoder.fc", 10, 8, 4, at=3),
                                        **other(state(prefix="module.momentum_encoder.", **body)),
                                        **mlp("module.predictor", 4, 8, 4, at=3)}}, "body"),
    "MoCo linear": (lambda: {"state_dict": state(prefix="module."), "best_acc1": torch.tensor(60.0)}, "head"),
    "DINO": (lambda: {"student": other({**state(prefix="module.backbone.", **body), **mlp("module.head.mlp", 10, 8, 4)}),
                      "teacher": {**state(prefix="backbone.", **body), **mlp("head.mlp", 10, 8, 4)}, "optimizer": OPT,
                      "epoch": 3, "args": argparse.Namespace(arch="resnet50"), "dino_loss": {"center": torch.zeros(1, 4)}}, "body"),
    "SimCLR": (lambda: {"epoch": 1, "arch": "resnet18", "optimizer": OPT,
                        "state_dict": heads(mlp("backbone.fc", 10, 10, 4), prefix="backbone.")}, "body"),
    "SimSiam": (lambda: {"state_dict": {**state(prefix="module.encoder.", **body), **mlp("module.encoder.fc", 10, 10, 4, at=3),
                                        **mlp("module.predictor", 4, 2, 4, at=3)}}, "body"),
    "SwAV": (lambda: heads({**mlp("module.projection_head", 10, 8, 4, at=3), "module.prototypes.weight": torch.randn(9, 4)},
                           prefix="module."), "body"),
    "VICReg": (lambda: {"model": {**state(prefix="module.backbone.", **body), **mlp("module.projector", 10, 8, 8)}}, "body"),
    "VICReg's backbone": (lambda: state(**body), "body"),
    "Barlow Twins": (lambda: {"model": {**state(prefix="module.backbone.", **body), **mlp("module.projector", 10, 8, 8, at=3),
                                        "module.bn.running_mean": torch.zeros(8)}}, "body"),
    "BYOL": (lambda: {**state(prefix="online_encoder.net.", **body), **other(state(prefix="target_encoder.net.", **body)),
                      **mlp("online_predictor.net", 10, 8, 4, at=3)}, "body"),
    "lightly": (lambda: {"state_dict": {**renamed(children, head=False, prefix="backbone."), **mlp("projection_head.layers", 10, 8, 4)}}, "body"),
    "lightly's momentum": (lambda: {"state_dict": {**renamed(children, head=False, prefix="backbone."),
                                                   **other(renamed(children, head=False, prefix="backbone_momentum."))}}, "body"),
    "solo-learn": (lambda: {"state_dict": {**state(prefix="backbone.", **body), **linear("classifier", 10, 5),
                                           **mlp("projector", 10, 8, 4)}}, "body"),
    # taken apart
    "children": (lambda: renamed(children, head=False), "body"),
    "children, RadImageNet": (lambda: renamed(children, head=False, prefix="backbone."), "body"),
    "fastai": (lambda: {"model": {**renamed(children, head=False, prefix="0."), **linear("1.8", 20, 5)}, "opt": OPT}, "body"),
    "fastai's export": (lambda: {**renamed(children, head=False, prefix="0."), **linear("1.4", 20, 8), **linear("1.8", 8, 5)}, "body"),
    "features of children": (lambda: {**renamed(children, head=False, prefix="features."), **linear("classifier", 10, 5)}, "linear"),
    "children, Dropout and Linear": (lambda: {**renamed(children, head=False, prefix="encoder."), **linear("fc.1", 10, 5)}, "linear"),
    "children, flattened": (lambda: {**renamed(children, head=False), **linear("10", 10, 5)}, "linear"),
    # detectors and segmenters
    "Faster R-CNN": (lambda: {**state(prefix="backbone.body.", counters=False, **body), **FPN, **linear("roi_heads.box", 8, 5)}, "body"),
    "Mask R-CNN in a dictionary": (lambda: {"model": {**state(prefix="backbone.body.", **body), **FPN}, "epoch": 3}, "body"),
    "RetinaNet": (lambda: {"state_dict": {**state(prefix="model.backbone.body.", **body), **FPN}}, "body"),
    "FCN": (lambda: {**state(prefix="backbone.", **body), "classifier.4.weight": torch.randn(2, 4, 1, 1),
                     "classifier.0.weight": torch.randn(4, 10, 3, 3)}, "dilated"),
    "DeepLab in a dictionary": (lambda: {"model": {**state(prefix="backbone.", **body), "classifier.0.convs.0.0.weight":
                                                   torch.randn(4, 10, 1, 1)}}, "dilated"),
    "DETR": (lambda: {"model": {**state(prefix="backbone.0.body.", counters=False, **body), **linear("class_embed", 8, 5),
                                "query_embed.weight": torch.randn(9, 8), "input_proj.weight": torch.randn(8, 10, 1, 1)}}, "body"),
    "DETR of Transformers": (lambda: {**state(prefix="model.backbone.conv_encoder.model.", counters=False, **body),
                                      **linear("class_labels_classifier", 8, 5)}, "body"),
    "DETR, its ResNet too": (lambda: {**renamed(transformers, head=False, prefix="model.backbone.conv_encoder.model."),
                                      **linear("bbox_predictor.layers.0", 8, 4)}, "body"),
    "smp's U-Net": (lambda: {**state(prefix="encoder.", **body), "decoder.blocks.0.conv1.0.weight": torch.randn(4, 18, 3, 3),
                             "segmentation_head.0.weight": torch.randn(2, 4, 3, 3)}, "body"),
    "smp in Lightning": (lambda: {"state_dict": {**state(prefix="model.encoder.", **body),
                                                 "model.segmentation_head.0.weight": torch.randn(2, 4, 3, 3)}}, "body"),
    "mmdetection": (lambda: {"meta": {"epoch": 12}, "state_dict": {**state(prefix="backbone.", **body), **FPN}, "optimizer": OPT}, "body"),
    "mmpretrain": (lambda: {"meta": {}, "state_dict": {**state(prefix="backbone.", **body), **linear("head.fc", 10, 5)}}, "linear"),
    "mmpretrain's EMA": (lambda: {"state_dict": state(prefix="backbone.", **body),
                                  "ema_state_dict": {"steps": torch.tensor(3), **other(state(prefix="module.backbone.", **body))}}, "body"),
    "detectron2": (lambda: {"model": {**state(BOTTLENECK, "backbone.bottom_up.", False, detectron2, False), **FPN},
                            "iteration": 9}, "stride 1"),
    "detectron2's backbone": (lambda: state(BOTTLENECK, "", False, detectron2, False), "stride 1"),
    "detectron2's own pickle": (lambda: state(BOTTLENECK, "", True, detectron2, False), "stride 1"),
    # other heads
    "Dropout and Linear": (lambda: heads(linear("fc.1", 10, 5)), "linear"),
    "Sequential of one": (lambda: heads(linear("fc.0", 10, 5)), "linear"),
    "classifier": (lambda: heads(linear("classifier", 10, 5)), "linear"),
    "Cadene's": (lambda: heads(linear("last_linear", 10, 5)), "linear"),
    "head": (lambda: heads(linear("head", 10, 5)), "linear"),
    "a head beside the backbone": (lambda: {**state(prefix="backbone.", **body), **linear("classifier", 10, 5)}, "linear"),
    "no bias": (lambda: heads({"fc.weight": torch.from_numpy(WEIGHTS[BASIC]["fc.weight"].copy())}), "no bias"),
    "an MLP": (lambda: heads(mlp("fc", 10, 8, 5)), "body"),
    "an MLP with a norm": (lambda: heads({**mlp("fc", 10, 8, 5, at=3), "fc.1.weight": torch.ones(8), "fc.1.bias": torch.ones(8),
                                          "fc.1.running_mean": torch.ones(8), "fc.1.running_var": torch.ones(8)}), "body"),
    "two tasks": (lambda: heads({**linear("head_a", 10, 5), **linear("head_b", 10, 2)}), "body"),
    "keras-style MLP": (lambda: heads({**linear("fc1", 10, 8), **linear("fc2", 8, 5)}), "body"),
    "ArcFace": (lambda: heads({"arcface.weight": torch.randn(7, 4), **linear("embedding", 10, 4)}), "body"),
    # Transformers
    "ResNetForImageClassification": (lambda: {**renamed(transformers, head=False, prefix="resnet."), **linear("classifier.1", 10, 5)}, "linear"),
    "ResNetModel": (lambda: renamed(transformers, head=False), "body"),
    "parallel Transformers": (lambda: {**renamed(transformers, head=False, prefix="module.resnet."), **linear("module.classifier.1", 10, 5)}, "linear"),
    "Transformers, wrapped": (lambda: {**renamed(transformers, head=False, prefix="model.resnet."), **linear("model.classifier.1", 10, 5)}, "linear"),
}  # fmt: skip


# -- files and folders of other kinds: each writes itself into a folder, and says which weights it has


def numpys(arch=BASIC, prefix="", head=True, rename=lambda n: n):
    return {n: t.numpy() for n, t in state(arch, prefix, head, rename, counters=False).items()}


def pickled(held, protocol=2):
    return lambda folder: write(folder / "R-50.pkl", pickle.dumps(held(), protocol))


def write(path, data):
    path.write_bytes(data)
    return path


def msra():
    """The names that Kaiming He's nets have in Caffe2; their norms are a scale and a shift."""
    held, w = {}, WEIGHTS[BOTTLENECK]
    for name, value in w.items():
        layer, leaf = name.rsplit(".", 1)
        norm = re.search(r"bn\d$|downsample.1$", layer)
        theirs = re.sub(r"layer(\d)\.(\d)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_", layer)
        theirs = (
            re.sub(r"(conv|bn)(\d)$", lambda m: f"branch2{'abc'[int(m[2]) - 1]}", theirs) if "res" in theirs else theirs
        )
        theirs = re.sub(r"downsample.\d", "branch1", theirs).replace("bn1", "res_conv1").replace("fc", "fc1000")
        if leaf in ("weight", "bias"):
            held[f"{theirs}_{'bn_' if norm else ''}{'s' if norm and leaf == 'weight' else leaf[0]}"] = value
    return held | {"conv1_b": np.zeros(4, np.float32), "res2_0_branch2a_w_momentum": held["conv1_w"]}


def scripted(folder, how):
    net = torch_impl.create_model(BASIC, weights=WEIGHTS[BASIC]).eval()
    if how == "exported":
        torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 64, 64),)), folder / "a.pt2")
        return folder / "a.pt2"
    torch.jit.save(
        torch.jit.script(net) if how == "scripted" else torch.jit.trace(net, torch.zeros(1, 3, 64, 64)), folder / "a.pt"
    )
    return folder / "a.pt"


def hub(folder, held, kind, config):
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text(json.dumps(config))
    halves = [dict(list(held.items())[i::2]) for i in range(2)] if "index" in kind else [held]
    for i, half in enumerate(halves):
        end = f"-{i + 1:05}-of-00002" if "index" in kind else ""
        if "bin" in kind:
            torch.save({n: torch.from_numpy(w) for n, w in half.items()}, folder / "m" / f"pytorch_model{end}.bin")
        else:
            safetensors.numpy.save_file(half, folder / "m" / f"model{end}.safetensors", metadata={"format": "pt"})
    if "index" in kind:
        name, stem = ("pytorch_model.bin", "pytorch_model-{:05}-of-00002.bin") if "bin" in kind else (
            "model.safetensors", "model-{:05}-of-00002.safetensors")  # fmt: skip
        where = {n: stem.format(i + 1) for i, half in enumerate(halves) for n in half}
        (folder / "m" / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder / "m"


TIMM = {"architecture": "resnet18", "num_classes": 5,
        "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 6, 8, 10]}, "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}  # fmt: skip


def keras_file(make, suffix):
    """A model that is made around keras.applications' layers, with our weights in those."""

    def written(folder):
        import keras
        from keras.src.applications import resnet

        def stack(x):
            x = resnet.stack_residual_blocks_v1(x, 4, 1, stride1=1, name="conv2")
            return resnet.stack_residual_blocks_v1(x, 6, 1, name="conv3")

        def base(**how):
            how = {"include_top": False, "classes": 5, **how}
            return resnet.ResNet(stack, False, True, name="resnet50", weights_name="resnet50", weights=None,
                                 input_shape=(64, 64, 3), **how)  # fmt: skip

        keras.utils.clear_session()
        model = make(keras, base)
        layers = {layer.name: layer for layer in model._flatten_layers()}
        for slot in RESNET.slots(KERAS):
            name, leaf = slot.theirs.split("/")
            if name in layers:
                getattr(layers[name], leaf).assign(TRANSFORMS[slot.transform][1](WEIGHTS[KERAS][slot.canonical]))
        getattr(model, "save_weights" if "weights" in suffix else "save")(folder / f"a{suffix}")
        return folder / f"a{suffix}"

    return written


def around(keras, base, *before, head, pooling="avg"):
    L = keras.layers  # noqa: N806
    x = images = keras.Input((64, 64, 3))
    for layer in (*(each(L) for each in before), base(pooling=pooling)):
        x = layer(x, training=False)
    return keras.Model(images, head(L)(x))


def on_top(keras, base, head):
    net = base(pooling="avg")
    return keras.Model(net.input, head(keras.layers)(net.output))


dense = lambda L: L.Dense(5, activation="softmax")  # noqa: E731
mlp_of = lambda L: lambda x: L.Dense(5)(L.Dropout(0.5)(L.Dense(7, activation="relu")(x)))  # noqa: E731
rescaling = lambda L: L.Rescaling(1 / 127.5, offset=-1.0)  # noqa: E731
flip = lambda L: L.RandomFlip("horizontal")  # noqa: E731

# the file, whether it keeps the classifier, and the row's weights that are in it
FILES = {
    "detectron2's R-50.pkl": (pickled(lambda: {"model": {n.replace("linear.", "stem.fc."): w for n, w in numpys(BOTTLENECK, rename=detectron2).items()},
                                               "__author__": "torchvision", "matching_heuristics": True}), "head"),
    "detectron2's, a newer pickle": (pickled(lambda: {"model": numpys(BOTTLENECK, head=False, rename=detectron2), "iteration": 9}, 4), "stride 1"),
    "MSRA's R-50.pkl": (pickled(msra), "affine"),
    "Detectron's blobs": (pickled(lambda: {"blobs": msra(), "cfg": "MODEL: x"}), "affine"),
    "a pickle of arrays": (pickled(numpys, 3), "head"),
    ".npz": (lambda folder: (np.savez(folder / "a.npz", **numpys()), folder / "a.npz")[1], "head"),
    ".npz, compressed": (lambda folder: (np.savez_compressed(folder / "a.npz", **numpys(prefix="model.")), folder / "a.npz")[1], "head"),
    "TorchScript": (lambda folder: scripted(folder, "scripted"), "head"),
    "a trace": (lambda folder: scripted(folder, "traced"), "head"),
    "torch.export": (lambda folder: scripted(folder, "exported"), "head"),
    "before PyTorch 1.6": (lambda folder: (torch.save(state(), folder / "a.pth", _use_new_zipfile_serialization=False), folder / "a.pth")[1], "head"),
    "timm's folder": (lambda folder: hub(folder, numpys(), "safetensors", TIMM), "head"),
    "pytorch_model.bin": (lambda folder: hub(folder, numpys(), "bin", TIMM), "head"),
    "safetensors in parts": (lambda folder: hub(folder, numpys(), "safetensors index", TIMM), "head"),
    "pytorch_model.bin in parts": (lambda folder: hub(folder, numpys(), "bin index", TIMM), "head"),
    "TimmWrapper's folder": (lambda folder: hub(folder, numpys(prefix="timm_model."), "safetensors", {**TIMM, "model_type": "timm_wrapper"}), "head"),
    "keras.applications": (keras_file(lambda keras, base: base(include_top=True), ".keras"), "head"),
    "keras.applications, .h5": (keras_file(lambda keras, base: base(include_top=True), ".h5"), "head"),
    "keras.applications, notop": (keras_file(lambda keras, base: base(), ".weights.h5"), "body"),
    "Sequential around it": (keras_file(lambda keras, base: keras.Sequential([base(), keras.layers.GlobalAveragePooling2D(), keras.layers.Flatten(), dense(keras.layers)]), ".keras"), "linear"),
    "Keras' transfer learning": (keras_file(lambda keras, base: around(keras, base, flip, head=dense), ".keras"), "linear"),
    "the same, .weights.h5": (keras_file(lambda keras, base: around(keras, base, head=dense), ".weights.h5"), "linear"),
    "the same, .h5": (keras_file(lambda keras, base: around(keras, base, head=dense), ".h5"), "linear"),
    "after a Rescaling": (keras_file(lambda keras, base: around(keras, base, rescaling, head=dense), ".keras"), "linear"),
    "Keras' MLP": (keras_file(lambda keras, base: on_top(keras, base, mlp_of), ".keras"), "body"),
    "a flattened head": (keras_file(lambda keras, base: around(keras, base, head=lambda L: lambda x: L.Dense(5)(L.Flatten()(x)), pooling=None), ".h5"), "body"),
}  # fmt: skip
# what others of the default suite have parts of
LIKE_OTHERS = ("a trace", "keras.applications", "keras.applications, .h5", "keras.applications, notop", "the same, .weights.h5",
               "a flattened head")  # fmt: skip
SAFE = ("state_dict", "SWA", "MoCo v1", "timm_model. before the names", "model. before the names", "Faster R-CNN",
        "smp's U-Net", "children", "Dropout and Linear", "DETR")  # fmt: skip


def check(path, kind, **options):
    """What is recognised computes what its source does: the parameters are those that were put in."""
    found = port.inspect(path, **options)
    source = BOTTLENECK if found.arch.block == "bottleneck" else BASIC
    body = {n: w for n, w in WEIGHTS[source].items() if not n.startswith("fc.")}
    weights = found.weights()
    for name, w in body.items():
        if kind == "half":
            assert np.abs(weights[name].astype(np.float64) - w).max() <= 2**-8 * np.abs(w).max()
        else:
            assert np.array_equal(weights[name], w), name
    assert found.arch.stride_in == (1 if kind == "stride 1" else 2) or source is BASIC
    assert found.arch.num_classes == {"body": 0, "dilated": 0}.get(kind, 5) or kind == "stride 1"
    assert found.arch.output_stride == (8 if kind == "dilated" else 0)
    if kind == "linear":
        return found
    if kind == "head":
        assert np.array_equal(weights["fc.weight"], WEIGHTS[source]["fc.weight"]) or "children" in found.library.name
    if kind == "no bias":
        assert not weights["fc.bias"].any()
    return found


@pytest.mark.parametrize("name", TAKEN)
def test_checkpoints_as_people_have_them(tmp_path, name):
    make, kind = TAKEN[name]
    held = make()
    torch.save(held, tmp_path / "a.pth")
    found = check(tmp_path / "a.pth", kind)
    if kind == "linear":
        pairs = (held.get("state_dict", held)).items()
        assert any(torch.equal(v, torch.from_numpy(found.weights()["fc.weight"])) for _, v in pairs if v.ndim == 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The TorchScript type system", "ignore:You are saving")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LIKE_OTHERS else n for n in FILES])
def test_files_of_other_kinds(tmp_path, name):
    make, kind = FILES[name]
    path = make(tmp_path)
    found = port.inspect(path)
    source = KERAS if found.library.keras else BOTTLENECK if found.arch.block == "bottleneck" else BASIC
    for n, w in found.weights().items():
        if kind == "affine" and n.endswith(("running_mean", "running_var")):
            assert not np.any(w) if "mean" in n else np.abs(w + found.arch.norm_eps - 1).max() < 1e-7
        elif not (n.startswith("fc.") and kind == "linear"):
            assert np.array_equal(w, WEIGHTS[source][n]), n
    assert found.arch.num_classes == (0 if kind in ("body", "stride 1") else 5)
    assert found.arch.stride_in == (1 if source is KERAS or kind in ("stride 1", "affine") else 2)
    said = " ".join(found.notes)
    assert ("neither run nor read" in said) == (path.suffix in (".pt", ".pt2"))
    assert ("before its net it has Rescaling" in said) == (name == "after a Rescaling")


@pytest.mark.parametrize("name", SAFE)
def test_the_same_in_safetensors(tmp_path, name):
    make, kind = TAKEN[name]
    held = make()
    flat = held.get("state_dict", held.get("model", held))
    safetensors.numpy.save_file({n: t.numpy() for n, t in flat.items()}, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", kind)


@pytest.mark.parametrize("name", ["DINO", "lightly", "detectron2", "Dropout and Linear", "children", "half"])
def test_logits_are_the_sources(tmp_path, name):
    """In float64, by a net of the row that was put in; the rest of the table is held to the bit of its parameters."""
    make, kind = TAKEN[name]
    torch.save(make(), tmp_path / "a.pth")
    found = port.inspect(tmp_path / "a.pth")
    source = BOTTLENECK if found.arch.block == "bottleneck" else BASIC
    arch = get(source, num_classes=0, **({"stride_in": 1} if kind == "stride 1" else {}))
    wanted = torch_impl.create_model(
        arch, dtype="float64", weights={n: w for n, w in WEIGHTS[source].items() if "fc." not in n}
    )
    got = torch_impl.load(tmp_path / "a.pth", dtype="float64", num_classes=0)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 65, 97)))
    with torch.no_grad():
        apart = relative(wanted.eval()(x).numpy(), got.eval()(x).numpy())
    assert apart <= (1e-2 if kind == "half" else 1e-12)


REFUSED = {
    "CLIP": (lambda: {**state(prefix="visual.", **body), "visual.attnpool.positional_embedding": torch.randn(5, 10)}, "is CLIP's ResNet"),
    "smp's DeepLab": (lambda: {**state(prefix="encoder.", **body), "decoder.aspp.0.convs.0.0.weight": torch.randn(4, 10, 1, 1)},
                      "is a segmentation net.*--set output_stride=8"),
    "mmsegmentation's PSPNet": (lambda: {"state_dict": {**state(prefix="backbone.", **body), "decode_head.psp_modules.0.1.conv.weight":
                                                        torch.randn(4, 10, 1, 1)}}, "is a segmentation net.*--set output_stride=8"),
    "two nets": (lambda: {"online_model": state(), "ema_model": other(state())}, "under ema_model, online_model. Say"),
    "two towers": (lambda: {**state(prefix="left."), **other(state(prefix="right."))}, "under left, right. Say which one is meant, such as --prefix right"),
    "a gate in a block": (lambda: {**state(), "layer1.0.gate.weight": torch.ones(4)}, r"\+ layer1.0.gate.weight"),
    "a pooling with a power": (lambda: {**state(), "global_pool.p": torch.ones(1)}, r"\+ global_pool.p"),
    "another convolution": (lambda: {**state(), "up.weight": torch.ones(4, 4, 3, 3)}, r"\+ up.weight"),
    "a stage is missing": (lambda: {n: t for n, t in state().items() if "layer2" not in n}, "the stages"),
    "code": (lambda: {"model": state(), "hook": eval}, "wants to run builtins.eval"),
    "a whole pickled net": (lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), "wants to run torch.nn.*save its state_dict"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_in_words(tmp_path, name):
    make, words = REFUSED[name]
    torch.save(make(), tmp_path / "a.pth")
    with pytest.raises(RosettaError, match=words):
        port.inspect(tmp_path / "a.pth")


def test_a_dilation_that_no_tensor_tells_is_set(tmp_path):
    torch.save(REFUSED["smp's DeepLab"][0](), tmp_path / "a.pth")
    assert port.inspect(tmp_path / "a.pth", overrides={"output_stride": 16}).arch.output_stride == 16


def test_a_prefix_chooses(tmp_path):
    from click.testing import CliRunner

    from common.cli import cli

    torch.save({"online_model": other(state()), "ema_model": state()}, tmp_path / "a.pth")
    for prefix in ("ema_model", "ema_model."):
        check(tmp_path / "a.pth", "head", prefix=prefix)
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "a.pth"), "--prefix", "ema_model"])
    assert (
        done.exit_code == 0
        and "'ema_model.', which is left out" in done.output
        and "--prefix online_model" in done.output
    )
    with pytest.raises(RosettaError, match="no names that begin with 'ema_modle'; did you mean ema_model"):
        port.inspect(tmp_path / "a.pth", prefix="ema_modle")
    torch.save({"state_dict": state(), "state_dict_ema": other(state())}, tmp_path / "b.pth")
    check(tmp_path / "b.pth", "head")
    assert not np.array_equal(
        port.inspect(tmp_path / "b.pth", prefix="state_dict_ema").weights()["fc.bias"], WEIGHTS[BASIC]["fc.bias"]
    )


def test_there_are_as_many_kinds_as_were_asked_for():
    """121 kinds, of which at least 110 are taken. A kind has a name of its own: what differs in a prefix alone counts
    once."""
    prefixes = [name for name in TAKEN if name.endswith("before the names")]
    taken = len(TAKEN) - len(prefixes) + 1 + len(FILES)
    assert taken >= 110 and taken + len(REFUSED) >= 121, (taken, len(REFUSED))
    assert f"\n{taken} of {taken + len(REFUSED)} kinds are taken" in (ROOT / "docs" / "checkpoints.md").read_text()
