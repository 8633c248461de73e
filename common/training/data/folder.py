"""A folder of images, one folder a class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.checkpoints.preprocessing import Preprocessing, imagenet
from common.errors import RosettaError
from common.training.data.augment import Augment, part
from common.training.data.examples import Data, Examples
from common.training.data.images import fault, middle, photograph

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def read(path: Path, size: int, skip_corrupt: bool = False, *, test: bool = True) -> Data:
    """PATH/train/CLASS/* and PATH/val/CLASS/* (or test), which isn't looked for without `test`. Every image is opened
    once, so that a broken one is known before the training, and named."""
    if not path.is_dir():
        kind = f"{path} is a file: --data {path}" if path.suffix == ".npz" and path.is_file() else "no such folder"
        raise RosettaError(f"{kind}: {path}" if kind == "no such folder" else kind)
    halves = {"train": path / "train"}
    if test:
        halves["val"] = next((path / n for n in ("val", "test") if (path / n).is_dir()), path / "val")
    for half in halves.values():
        if not half.is_dir():
            hint = f" and {path}/val/CLASS/" * test + "; --hold-out 0.2 needs no val" * (half.name == "val")
            raise RosettaError(f"{path} has no folder {half.name}: expected {path}/train/CLASS/{hint}")
    classes = _classes(halves["train"])
    if len(classes) < 2:
        raise RosettaError(f"{halves['train']} has {len(classes)} folders of a class: expected at least 2")
    if test and (strange := sorted(set(_classes(halves["val"])) - set(classes))):
        raise RosettaError(f"{halves['val']} has classes that {halves['train']} lacks: {', '.join(strange[:5])}")
    broken: list[str] = []
    missing: list[str] = []
    parts = []
    for half in halves.values():
        files, labels = [], []
        for label, name in enumerate(classes):
            for file in images(half / name):
                why = fault(file)
                if why:
                    broken.append(f"{file} ({why})")
                else:
                    files.append(file)
                    labels.append(label)
            if not labels or labels[-1] != label:
                if half is halves["train"]:
                    raise RosettaError(f"{half / name} has no image" + " that can be read" * bool(broken))
                missing.append(name)
        parts.append(Examples(np.array(labels, np.int64), None, files))
    notes = []
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"{halves['val']} has no image of {', '.join(missing[:5])}{more}: nothing is measured of them")
    if broken:
        count = f"{len(broken)} image{'s' * (len(broken) > 1)}"
        named = "\n".join(f"  {row}" for row in broken[:20]) + f"\n  and {len(broken) - 20} more" * (len(broken) > 20)
        if not skip_corrupt:
            raise RosettaError(f"{path} has {count} that can't be read; --skip-corrupt leaves them out\n{named}")
        notes.append(f"left out {count} that can't be read:\n{named}")
    name, how = path.resolve().name, Augment("resized", flip=True)
    parts.append(parts[0].subset(np.arange(0)))  # where there is no second half
    return Data(name, parts[0], parts[1], classes, (3, size, size), imagenet(size), how, notes)


def _classes(half: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in half.iterdir() if p.is_dir() and not p.name.startswith(".")))


def pixels(file: Path, how: Preprocessing, channels: int, draws: np.ndarray | None = None) -> np.ndarray:
    """One image as C H W of 0 to 255: its middle, or with `draws` a random part of it. uint8, or float64 where a grey
    pixel has more than 8 bits. Raises RosettaError for a file that can't be read."""
    from PIL import Image

    image = photograph(file, grey=channels == 1)
    method = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
    resample = method.get(how.interpolation, Image.Resampling.BICUBIC)
    if draws is not None:
        image = image.resize((how.size, how.size), resample, box=part(image.width, image.height, draws))
    else:
        image = middle(image, how.resize, (how.size, how.size), resample)
    found = np.asarray(image)
    if found.dtype != np.uint8:  # bicubic weights reach beyond black and white
        found = np.repeat(np.clip(found[..., None].astype(np.float64), 0, 255), 1 if channels == 1 else 3, 2)
    found = found[..., None] if found.ndim == 2 else found
    return np.moveaxis(found if how.channel_order == "RGB" else found[..., ::-1], -1, 0)


def images(path: Path) -> Iterator[Path]:
    """The images under a folder, in order of their names; what begins with a dot is a system's own."""
    inside = (p for p in sorted(path.rglob("*")) if not any(n.startswith(".") for n in p.relative_to(path).parts))
    return (p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file())
