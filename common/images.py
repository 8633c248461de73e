"""Photographs as a net takes them: resized, cropped, scaled, N C *S. Pillow decodes."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RosettaError
from common.plan import Plan
from common.preprocessing import IMAGENET, imagenet

MEAN, STD = IMAGENET.mean, IMAGENET.std


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
    channels, *axes = plan.default_input()
    if len(paths) == 1 and str(paths[0]).endswith(".npy"):
        return _array(Path(paths[0]), channels, len(axes))
    if size is not None:
        axes = [size] * len(axes)
    if min(axes) < 1:
        raise RosettaError(f"size {size} can't be: expected at least 1 pixel")
    return np.stack([_read(Path(path), channels, axes, plan.total_stride) for path in paths])


def middle(image: Any, short: int, axes: Sequence[int], resample: Any) -> Any:
    """Pillow's image resized by its shorter side to `short`, and of that the middle, `axes` high and wide. The longer
    side is rounded down, the middle to even numbers: as torchvision, timm and Transformers have it, to the pixel."""
    image = image.resize([short * n // min(image.size) for n in image.size], resample)
    left, top = round((image.width - axes[1]) / 2), round((image.height - axes[0]) / 2)
    return image.crop((left, top, left + axes[1], top + axes[0]))


def _array(path: Path, channels: int, dims: int) -> np.ndarray:
    try:
        x = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise RosettaError(f"no such file: {path}") from None
    except (OSError, ValueError, EOFError) as e:
        raise RosettaError(f"{path} is not a whole .npy of numbers: {e}") from None
    expected = ("N", channels, *("HW" if dims == 2 else "L"))
    if x.ndim != dims + 2 or x.shape[1] != channels or x.size == 0 or not np.issubdtype(x.dtype, np.number):
        raise RosettaError(f"{path} is {x.dtype} {x.shape}: expected numbers, {' x '.join(map(str, expected))}")
    return x.astype(np.float64)


def _read(path: Path, channels: int, axes: list[int], stride: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise RosettaError(f"no such image: {path}")
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 or len(axes) == 1 else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = (
            "not an image that Pillow can read"
            if isinstance(e, UnidentifiedImageError)
            else f"damaged or unreadable ({e})"
        )
        raise RosettaError(f"{path} is {reason}") from None
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
