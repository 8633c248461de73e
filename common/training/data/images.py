"""Photographs as a net takes them: upright, resized, cropped, scaled, N C *S. Pillow decodes."""

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints.arrays import array
from common.checkpoints.preprocessing import IMAGENET, LARGEST, imagenet
from common.errors import RosettaError
from common.plan import Plan

MEAN, STD = IMAGENET.mean, IMAGENET.std
# what Pillow may decode: photographs, and nothing that calls another program (EPS) or is a document
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
PIXELS, A_BYTE = 24_000_000, 64  # an image may have so many; beyond that, at most so many for each byte of its file
LONGEST = 4  # sides of a photograph to each other; of a longer one only the middle is looked at


def photographs() -> list[Path]:
    """Two photographs, 640 x 427, that scikit-learn ships: a temple and a flower."""
    spec = importlib.util.find_spec("sklearn")  # finds it without importing it
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder, "datasets", "images", name) for folder in folders for name in ("china.jpg", "flower.jpg")]
    if not files or not all(f.is_file() for f in files):
        raise RosettaError("scikit-learn's photographs aren't there; install scikit-learn, or name images with --image")
    return files


def read(paths: Sequence[str | Path], plan: Plan, size: int | None = None) -> np.ndarray:
    """The images as the net's input: float64, N C *S.

    Resized by the shorter side to 8/7 of `size` (by default the size the net was designed for) with antialiasing,
    cropped in the centre, scaled by ImageNet's mean and deviation: torchvision's evaluation. One channel means grey;
    more than three repeat red, green and blue. A net of one axis gets lines of the grey image as its signals.

    A single .npy (N C *S, as the net takes it) is used as it is.

    Raises RosettaError for a file that is missing, no image, or smaller than the net's stride.
    """
    channels, *axes = plan.arch.input_shape()
    if len(paths) == 1 and str(paths[0]).endswith(".npy"):
        return _array(Path(paths[0]), channels, len(axes))
    if size is not None:
        axes = [size] * len(axes)
    if min(axes) < 1 or max(axes) > LARGEST:
        raise RosettaError(f"size {size} can't be: expected at least 1 pixel, and at most {LARGEST}")
    return np.stack([_read(Path(path), channels, axes, plan.total_stride) for path in paths])


def photograph(path: Path, grey: bool) -> Any:
    """Pillow's image of a file, upright as its EXIF says: RGB or L; or where a grey pixel has more than 8 bits F, of 0
    to 255 with all its digits.

    16-bit grey is divided by 257; a float image is of 0 to 1, or else of 0 to 255. Raises RosettaError for what is no
    image, is damaged, has many more pixels than its file has bytes, or doesn't say what white is.
    """
    found = _decoded(path, grey)
    if isinstance(found, str):
        raise RosettaError(f"{path} {found}")
    return found


def fault(path: Path) -> str:
    """Why a file is no photograph that can be read, as the end of a sentence; empty where it is one."""
    found = _decoded(path, False)
    return found if isinstance(found, str) else ""


def _decoded(path: Path, grey: bool) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as image:
            count, content = image.width * image.height, os.stat(path).st_size
            if not count:
                return "has no pixels"
            if count > max(PIXELS, A_BYTE * content):
                return (
                    f"has {image.width} x {image.height} pixels in {content:,} bytes: expected at most {PIXELS:,}, or "
                    f"{A_BYTE} to a byte; save it smaller"
                )
            image.info.pop("transparency", None)  # of a palette's colours; it has no part in red, green and blue
            image.load()
            with contextlib.suppress(Exception):  # EXIF that can't be read is no reason to refuse the image
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                return _deep(image)
            mode = "L" if grey else "RGB"
            return image if image.mode == mode else image.convert(mode)
    except UnidentifiedImageError:
        return f"is not an image that can be read: expected {', '.join(FORMATS)}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "has more pixels than Pillow takes for an image: save it smaller"
    except Exception as e:  # Pillow's decoders raise what they like on a damaged file
        return f"is damaged or unreadable ({str(e).splitlines()[0][:100] if str(e) else type(e).__name__})"


def _deep(image: Any) -> Any:
    """A grey image of more than 8 bits as F, 0 to 255; or why it can't be. (Pillow's own `convert` cuts off.)"""
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    x = np.asarray(image, np.float32)
    if image.mode == "F":
        low, high = float(x.min()), float(x.max())
        if not (0 <= low and high <= 255):
            return f"has floats from {low:g} to {high:g}: expected 0 to 1, or 0 to 255"
        white = 1.0 if high <= 1 else 255.0
    elif image.mode != "I" or image.format in ("PNG", "PPM"):
        white = 2.0 ** (tags.get(258) or (16,))[0] - 1  # BitsPerSample: a TIFF may have 12
    else:
        return "has whole numbers of 32 bits or with a sign, which don't say what white is: save it with 8 or 16 bits"
    x = x if white == 255 else x * np.float32(255) / np.float32(white)  # a product of 16 bits and 8 is exact
    return Image.fromarray(255 - x if tags.get(262) == 0 else x)  # PhotometricInterpretation: white is zero


def middle(image: Any, short: int, axes: Sequence[int], resample: Any) -> Any:
    """Pillow's image resized by its shorter side to `short`, and of that the middle, `axes` high and wide. The longer
    side is rounded down, the middle to even numbers: as torchvision, timm and Transformers have it, to the pixel. Of a
    strip the ends are cut off before, since 1 x 20,000 pixels would become 256 x 5,120,000."""
    side = LONGEST * min(image.size)
    if max(image.size) > side:
        image = _centre(image, min(image.width, side), min(image.height, side))
    size = [short * n // min(image.size) for n in image.size]
    return _centre(image.resize(size, resample), axes[1], axes[0])


def resized(x: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """Images N C H W, uint8 or floats, resized by their shorter sides to `size`, and of that the middle; each as a
    photograph of it would be."""
    from PIL import Image

    how = Image.Resampling[interpolation.upper()]
    planes = x.reshape(-1, *x.shape[2:])
    found = [np.asarray(middle(Image.fromarray(plane), size, (size, size), how)) for plane in planes]
    return np.stack(found).reshape(*x.shape[:2], size, size)


def _centre(image: Any, width: int, height: int) -> Any:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _array(path: Path, channels: int, dims: int) -> np.ndarray:
    try:
        with open(path, "rb") as f:
            x = array(f, os.fstat(f.fileno()).st_size, f"{path} has an array")
    except FileNotFoundError:
        raise RosettaError(f"no such file: {path}") from None
    except OSError as e:
        raise RosettaError(f"{path} can't be read: {e.strerror}") from None
    expected = ("N", channels, *("HW" if dims == 2 else "L"))
    if x.ndim != dims + 2 or x.shape[1] != channels or x.size == 0 or x.dtype.kind not in "iuf":
        raise RosettaError(f"{path} is {x.dtype} {x.shape}: expected numbers, {' x '.join(map(str, expected))}")
    return x.astype(np.float64)


def _read(path: Path, channels: int, axes: list[int], stride: int) -> np.ndarray:
    from PIL import Image

    if not path.is_file():
        raise RosettaError(f"no such image: {path}")
    image = photograph(path, grey=channels == 1 or len(axes) == 1)
    if min(image.size) < stride:
        w, h = image.size
        raise RosettaError(
            f"{path} is too small: {w} x {h} pixels, expected at least {stride} of each, the net's total stride"
        )
    if len(axes) == 1:  # rows of the image are the channels of a signal
        pixels = np.asarray(image.resize((axes[0], channels), Image.Resampling.BICUBIC), np.float64)
        return (pixels / 255 - np.mean(MEAN)) / np.mean(STD)
    image = middle(image, imagenet(max(axes)).resize, axes, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float64) / 255  # H W [3]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    mean, std = (np.mean(MEAN), np.mean(STD)) if pixels.shape[-1] == 1 else (np.array(MEAN), np.array(STD))
    pixels = np.moveaxis((pixels - mean) / std, -1, 0)
    return pixels[np.arange(channels) % len(pixels)]
