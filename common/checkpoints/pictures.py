"""What a checkpoint says of its images and classes; else what its library's are by convention."""

import dataclasses
import re
from typing import Any

import numpy as np

from common.arch import Arch
from common.checkpoints.containers import Container
from common.checkpoints.libraries.library import Library
from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError
from common.plan import make_plan


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
    own = library.preprocessing
    if own is None or arch.dims != 2 or len(own.mean) != arch.in_channels:
        return None, labels
    small = make_plan(arch).default_input()[-1]
    if small < own.size and not library.labels:
        own = dataclasses.replace(own, size=small, resize=small)
    seen = meta.get("preprocessor_config.json")
    cfg = config.get("pretrained_cfg") if isinstance(config, dict) else None
    said: Any = seen
    try:
        if isinstance(seen, dict) and "image_mean" in seen and "image_std" in seen:
            own = dataclasses.replace(own, mean=tuple(seen["image_mean"]), std=tuple(seen["image_std"]))
        if isinstance(cfg, dict) and "mean" in cfg and "std" in cfg:
            said = cfg
            side = int((cfg.get("input_size") or (3, own.size, own.size))[-1])
            resize = int(side / float(cfg.get("crop_pct") or 0.875))  # rounded down, as timm does
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
