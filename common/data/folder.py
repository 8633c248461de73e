"""A folder of images, one folder a class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.data.augment import Augment, part
from common.data.sources import Data, Examples
from common.errors import RosettaError
from common.images import middle
from common.preprocessing import Preprocessing, imagenet

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def read(path: Path, size: int, skip_corrupt: bool = False) -> Data:
    """PATH/train/CLASS/* and PATH/val/CLASS/* (or test). Every image is opened once, so that a broken one is known
    before the training, and named."""
    if not path.is_dir():
        raise RosettaError(f"no such folder: {path}")
    halves = {
        "train": path / "train",
        "val": next((path / n for n in ("val", "test") if (path / n).is_dir()), path / "val"),
    }
    for half in halves.values():
        if not half.is_dir():
            raise RosettaError(f"{path} has no folder {half.name}: expected {path}/train/CLASS/ and {path}/val/CLASS/")
    classes = tuple(sorted(p.name for p in halves["train"].iterdir() if p.is_dir()))
    if len(classes) < 2:
        raise RosettaError(f"{halves['train']} has {len(classes)} folders of a class: expected at least 2")
    if strange := sorted({p.name for p in halves["val"].iterdir() if p.is_dir()} - set(classes)):
        raise RosettaError(f"{halves['val']} has classes that {halves['train']} lacks: {', '.join(strange[:5])}")
    broken: list[str] = []
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
                raise RosettaError(f"{half / name} has no image" + " that can be read" * bool(broken))
        parts.append(Examples(np.array(labels, np.int64), None, files))
    notes = []
    if broken:
        count = f"{len(broken)} image{'s' * (len(broken) > 1)}"
        named = "\n".join(f"  {row}" for row in broken[:20]) + f"\n  and {len(broken) - 20} more" * (len(broken) > 20)
        if not skip_corrupt:
            raise RosettaError(f"{path} has {count} that can't be read; --skip-corrupt leaves them out\n{named}")
        notes.append(f"left out {count} that can't be read:\n{named}")
    name, how = path.resolve().name, Augment("resized", flip=True)
    return Data(name, parts[0], parts[1], classes, (3, size, size), imagenet(size), how, notes)


def fault(file: Path) -> str:
    """Why Pillow can't read an image; empty where it can."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
        return ""
    except Exception as e:  # Pillow's decoders raise what they like on a damaged file
        return str(e).split("\n")[0][:100] or type(e).__name__


def pixels(file: Path, how: Preprocessing, channels: int, draws: np.ndarray | None = None) -> np.ndarray:
    """One image as uint8 C H W: its middle, or with `draws` a random part of it."""
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("L" if channels == 1 else "RGB")
    method = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
    resample = method.get(how.interpolation, Image.Resampling.BICUBIC)
    if draws is not None:
        image = image.resize((how.size, how.size), resample, box=part(*image.size, draws))
    else:
        image = middle(image, how.resize, (how.size, how.size), resample)
    found = np.asarray(image, np.uint8)
    found = found[..., None] if found.ndim == 2 else found
    return np.moveaxis(found if how.channel_order == "RGB" else found[..., ::-1], -1, 0)


def images(path: Path) -> Iterator[Path]:
    """The images under a folder, in order of their names."""
    return (p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES)
