"""What becomes of a batch before a net trains on it, drawn from counters."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from common.training.data import counters


@dataclass(frozen=True)
class Augment:
    """`crop` "pad": shifted by up to `pad` positions each way, with zeros where nothing is (He et al. 2015, section
    4.2); "resized": a random part of the image, resized to the net's input (Szegedy et al. 2014), which only files of
    images can have; "": nothing. `flip` mirrors every other image on average, left and right."""

    crop: Literal["", "pad", "resized"] = ""
    pad: int = 0
    flip: bool = False


NOTHING = Augment()


def augment(x: np.ndarray, how: Augment, seed: int, epoch: int, batch: int) -> np.ndarray:
    """`x` (N C *S) shifted and flipped; a copy, or `x` itself where there is nothing to do."""
    n, _, *axes = x.shape
    draws = counters.raw(n * 3, seed, counters.AUGMENT, epoch, batch).reshape(3, n)
    if how.crop == "pad" and how.pad:
        padded = np.pad(x, ((0, 0), (0, 0), *((how.pad, how.pad),) * len(axes)))
        places = [counters.below(draws[i], 2 * how.pad + 1)[:, None] + np.arange(s) for i, s in enumerate(axes)]
        if len(axes) == 1:
            x = np.take_along_axis(padded, places[0][:, None, :], 2)
        else:
            x = padded[np.arange(n)[:, None, None], :, places[0][:, :, None], places[1][:, None, :]]
            x = np.moveaxis(x, -1, 1)
    if how.flip:
        flipped = (draws[2] & np.uint64(1)).astype(bool)
        x = np.where(flipped.reshape(n, *(1,) * (x.ndim - 1)), x[..., ::-1], x)
    return x


def part(width: int, height: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """A random part of an image, (left, top, right, bottom): 8 % to all of its area, 3 : 4 to 4 : 3, from raw numbers
    three a try; after 10 tries the largest square in the middle (Szegedy et al. 2014, section 6)."""
    for area, ratio, place in counters.uniform(draws).reshape(-1, 3):
        aspect = np.exp((2 * ratio - 1) * np.log(4 / 3))
        wanted = (0.08 + 0.92 * area) * width * height
        w, h = round(float(np.sqrt(wanted * aspect))), round(float(np.sqrt(wanted / aspect)))
        if 0 < w <= width and 0 < h <= height:
            free_x, free_y = width - w + 1, height - h + 1
            spot = int(place * free_x * free_y)
            left, top = spot % free_x, spot // free_x
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
