"""What files say of themselves, changed 500 times: each is refused, or taken as the net that it then says, or as the
same one; never as another function, silently."""

import copy
import dataclasses
import functools
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from common.arch import VARIANTS, Arch, get
from common.checkpoints.containers import Container, Entry
from common.checkpoints.libraries import TRANSFORMERS
from common.checkpoints.libraries.timm import NEEDS
from common.checkpoints.libraries.transformers import transformers_config
from common.checkpoints.recognise import recognise
from common.errors import RosettaError
from common.names import parameters

TIMM = (
    "resnet18", "resnet50", "resnet50d", "resnetaa50", "resnetblur18", "seresnet50", "resnext50_32x4d",
    "wide_resnet50_2",
)  # fmt: skip
OTHERS = ("resnetaa50d", "resnet50_gn", "ecaresnet50d", "resnest50d", "res2net50_26w_4s", "skresnet50")
# arguments of timm's that no tensor shows, with values that change the function; and what leaves it as it is
CHANGES = {
    "output_stride": [8, 16], "global_pool": ["max", "avgmax", "catavgmax", ""], "aa_layer": ["avg", "blur", "blurpc"],
    "act_layer": ["silu", "gelu", "leaky_relu", "hard_swish"], "norm_layer": ["groupnorm", "frozenbatchnorm2d"],
    "bn_eps": [1e-3, 0.0], "down_kernel_size": [3], "replace_stem_pool": [True], "preact": [False],
    "block_args": [{"attn_layer": "ca"}, {"attn_layer": "gc"}, {"attn_layer": "se", "rd_ratio": 0.25}],
    "drop_block_rate": [0.1], "conv_padding": [1], "unheard_of": [True, 3, "x", None, [1], {"a": 1}],
}  # fmt: skip
HARMLESS = ("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")
HF = {
    "hidden_act": ["gelu", "silu"], "downsample_in_first_stage": [True], "downsample_in_bottleneck": [True],
    "layer_type": ["basic"], "embedding_size": [32], "hidden_sizes": [[64, 128, 256, 512]], "depths": [[3, 4, 23, 3]],
    "model_type": ["resnetv2", "bit", "regnet", "convnext", 3], "num_channels": [1],
}  # fmt: skip


def held(entries, config):
    return Container(Path("x"), "", entries, {"config": config})


@functools.cache
def of(arch, transformers=False):
    shapes = {s.theirs: s.shape for s in TRANSFORMERS.slots(arch)} if transformers else parameters(arch)
    return {n: Entry(s, "float32", lambda: np.empty(0)) for n, s in shapes.items()}


def function(arch: Arch) -> Arch:
    """What of a row its logits depend on."""
    return dataclasses.replace(arch, drop_path=0.0, dropout=0.0)


def changed_timm(r: random.Random):
    """(the file's tensors, its configuration, the rows that may be recognised)."""
    name = r.choice(TIMM)
    config = {"architecture": name, "num_classes": 1000}
    how = r.choice(["argument", "argument", "two", "architecture", "top", "spelling"])
    allowed = []
    if how == "architecture":
        config["architecture"] = r.choice([*TIMM, *OTHERS])
        allowed = [VARIANTS[config["architecture"]]] if config["architecture"] in VARIANTS else []
    elif how == "spelling":
        config["architecture"] = r.choice([name[:-1], name + "x", "ResNet", "", 3, None, ["resnet50"], name.upper()])
        said = config["architecture"]
        allowed = [VARIANTS[said]] if isinstance(said, str) and said in VARIANTS else []
    elif how == "top":
        config["global_pool"] = r.choice(["max", "avgmax", "avg"])
        allowed = [VARIANTS[name]] if config["global_pool"] == "avg" else []
    else:
        keys = r.sample(sorted(CHANGES), 2 if how == "two" else 1)
        config["model_args"] = {key: copy.deepcopy(r.choice(CHANGES[key])) for key in keys}
        said = {k: v for k, v in config["model_args"].items() if k not in HARMLESS and v is not None}
        allowed = [] if said else [VARIANTS[name]]
        if said and set(said) <= {"aa_layer", "output_stride"} and said.get("aa_layer") != "blurpc":
            fields = {"aa_layer": "antialias", "output_stride": "output_stride"}
            allowed = [dataclasses.replace(VARIANTS[name], **{fields[k]: v for k, v in said.items()})]
    return of(VARIANTS[name]), config, allowed


def changed_transformers(r: random.Random):
    arch = r.choice([get("resnet50"), get("resnet18")])
    config, plain = transformers_config(arch, ()), transformers_config(arch, ())
    key = r.choice(sorted(HF))
    config[key] = copy.deepcopy(r.choice(HF[key]))
    fields = {"downsample_in_first_stage": {"first_stride": 2}, "downsample_in_bottleneck": {"stride_in": 1}}.get(key)
    if config == plain or (arch.block == "basic" and key == "downsample_in_bottleneck"):
        allowed = [arch]
    else:
        allowed = [get(arch, **fields)] if fields else []  # what a row can say, is said
    return of(arch, True), config, allowed


@pytest.mark.parametrize(("make", "count"), [(changed_timm, 350), (changed_transformers, 150)])
def test_what_a_file_says_is_never_passed_over(make, count):
    taken = refused = 0
    for seed in range(count):
        entries, config, allowed = make(random.Random(seed))
        try:
            found = recognise(held(entries, config))
        except RosettaError as e:
            assert len(str(e)) < 2000
            refused += 1
            continue
        taken += 1
        if not isinstance(config.get("architecture", ""), str):  # it says nothing, and that is said
            assert "anti-aliasing" in found.told["the rest"]
        else:
            assert function(found.arch) in [function(row) for row in allowed], (seed, config, found.described)
    assert taken >= 10 and refused >= count // 3, (taken, refused)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"backbone": "resnet50"}, {}),
        ({"backbone": "resnet50", "dilation": True}, {"output_stride": 16}),  # DETR's DC5
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "output_stride": 8}},
         {"output_stride": 8}),
        ({"backbone": "resnetaa50", "backbone_kwargs": {"out_indices": [1, 2]}}, {"antialias": "avg"}),
        ({"backbone": "resnet50", "backbone_kwargs": {"act_layer": "silu"}}, "act_layer = 'silu'"),
        ({"backbone": "resnest50d"}, "timm's resnest50d"),
        ({"backbone": "resnet101"}, "depths would be otherwise"),
    ],
)  # fmt: skip
def test_what_a_larger_net_says_of_its_resnet(said, wanted):
    row = get("resnet50", num_classes=0)
    file = held({f"model.backbone.model.{n}": e for n, e in of(row).items()}, {"model_type": "detr", **said})
    if isinstance(wanted, dict):
        assert recognise(file).arch == get(row, **wanted)
        return
    with pytest.raises(RosettaError, match=wanted):
        recognise(file)


@pytest.mark.parametrize("said", [{"downsample_in_bottleneck": True}, {"hidden_act": "gelu"}])
def test_a_larger_net_with_a_resnet_of_transformers(said):
    row = get("resnet50", num_classes=0)
    inner = transformers_config(row, ()) | said
    entries = {f"backbone.{n}": e for n, e in of(row, transformers=True).items()}
    file = held(entries, {"model_type": "upernet", "backbone_config": inner})
    if "hidden_act" in said:
        with pytest.raises(RosettaError, match="hidden_act = 'gelu'"):
            recognise(file)
    else:
        assert recognise(file).arch == get(row, stride_in=1)


def test_timms_hundred_and_one(referees):
    """Of the architectures of its resnet.py and resnetv2.py 95 are rows, each with timm's names and shapes; the others
    are refused with what they need."""
    timm = referees[1]
    names = [*timm.list_models(module="resnet"), *timm.list_models(module="resnetv2")]
    assert len(names) >= 101 and {n for n in names if n not in VARIANTS} == set(NEEDS)
    for name in names:
        with torch.device("meta"):
            state = timm.create_model(name).state_dict()
        entries = {n: Entry(tuple(t.shape), "float32", lambda: np.empty(0)) for n, t in state.items()}
        file = held(entries, {"architecture": f"{name}.a1_in1k"})
        if name in NEEDS:
            with pytest.raises(RosettaError, match=f"is timm's {name}.a1_in1k, which needs {NEEDS[name]}"):
                recognise(file)
        else:
            found = recognise(file)
            assert found.arch == VARIANTS[name] and found.library.name.startswith("timm"), name
            assert found.claim == f"timm's {name}.a1_in1k" and not found.told, name
