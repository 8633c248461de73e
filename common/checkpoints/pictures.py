"""What a checkpoint says of its images and classes; else what its library's are by convention."""

import dataclasses
import re
from typing import Any

import numpy as np

from common.arch import Arch
from common.checkpoints.containers import Container
from common.checkpoints.libraries.library import Library
from common.checkpoints.preprocessing import IMAGENET, Preprocessing
from common.errors import RosettaError

# the digits in the names of torchvision's second weights, whose images are resized to 232 and not 256 (its
# models/resnet.py, IMAGENET1K_V2, and V1 of resnext101_64x4d)
SECOND = (
    "-11ad3fa6.", "-cd907fc2.", "-f82ba261.", "-1a0047aa.", "-110c445d.", "-173b62eb.", "-9ba9bcbe.", "-d733dc28."
)  # fmt: skip


def preprocessing_of(held: Container, library: Library, arch: Arch) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What the file says of its images and classes; else the library's convention."""
    labels: tuple[str, ...] = ()
    meta, config = held.metadata, held.metadata.get("config")
    if isinstance(meta.get("labels"), str):
        labels = tuple(meta["labels"].split("\n"))
    elif isinstance(config, dict) and isinstance(config.get("id2label"), dict):
        rows = config["id2label"]
        if all(isinstance(v, str) for v in rows.values()) and set(rows) == {str(i) for i in range(len(rows))}:
            labels = tuple(rows[str(i)] for i in range(len(rows)))
    elif len(library.labels) == arch.num_classes:
        labels = library.labels
    labels = (
        labels if len(labels) == arch.num_classes and not all(re.fullmatch(r"LABEL_\d+", x) for x in labels) else ()
    )
    if isinstance(meta.get("preprocessing"), str):
        try:
            return Preprocessing.from_json(meta["preprocessing"]), labels
        except RosettaError as e:
            raise RosettaError(f"{held.path}: {e}") from None
    seen = meta.get("preprocessor_config.json")
    cfg = config.get("pretrained_cfg") if isinstance(config, dict) else None
    says = any(isinstance(x, dict) and ("mean" in x or "image_mean" in x) for x in (seen, cfg))
    own = library.preprocessing or (IMAGENET if says else None)  # what a file says is kept, whosever names it has
    if own is None or arch.dims != 2 or len(own.mean) != arch.in_channels:
        return None, labels
    small = arch.input_shape()[-1]
    if small < own.size and not library.labels:
        own = dataclasses.replace(own, size=small, resize=small)
    if any(digits in f"{held.path.name} {meta.get('source', '')}" for digits in SECOND):
        own = dataclasses.replace(own, resize=232)
    said: Any = seen
    try:
        if isinstance(seen, dict) and "image_mean" in seen and "image_std" in seen:
            own = dataclasses.replace(own, mean=tuple(seen["image_mean"]), std=tuple(seen["image_std"]))
            size = (seen.get("size") or {}).get("shortest_edge") if isinstance(seen.get("size"), dict) else None
            if size and seen.get("crop_pct"):
                resize = int(size / float(seen["crop_pct"])) if size < 384 else size  # its larger ones are not cropped
                own = dataclasses.replace(own, size=size, resize=resize)
            kinds: dict[Any, Any] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
            own = dataclasses.replace(own, interpolation=kinds.get(seen.get("resample"), own.interpolation))
        if isinstance(cfg, dict) and "mean" in cfg and "std" in cfg:
            said = cfg
            side = int((cfg.get("test_input_size") or cfg.get("input_size") or (3, own.size, own.size))[-1])
            part = float(cfg.get("test_crop_pct") or cfg.get("crop_pct") or 0.875)
            resize = int(side / part)  # rounded down, as timm does
            how = cfg.get("interpolation")
            own = dataclasses.replace(
                own, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]), size=side, resize=resize,
                interpolation=how if how in ("bilinear", "bicubic") else own.interpolation,
            )  # fmt: skip
        numbers = np.array([own.mean, own.std], np.float64)
        good = numbers.shape == (2, arch.in_channels) and np.isfinite(numbers).all() and (numbers[1] > 0).all()
        good = (
            good and all(type(n) in (int, float) for n in (*own.mean, *own.std)) and 0 < own.size <= own.resize < 2**16
        )
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError):
        good = False
    if not good:
        raise RosettaError(f"{held.path}: its configuration says of its images what can't be: {str(said)[:200]!r}")
    return own, labels
