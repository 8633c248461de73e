"""What becomes of a photograph before a net sees it, as the library that trained the net has it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import RosettaError

LARGEST = 4096  # pixels of a side of what a net sees


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize`, cut `size` x `size` from the middle, divide pixels (0 to 255) by `scale`,
    subtract `mean`, divide by `std`. Raises RosettaError for numbers that can't be."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    size: int = 224
    resize: int = 256
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    channel_order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        def number(n: object, least: float) -> bool:
            return isinstance(n, int | float) and not isinstance(n, bool) and least <= n <= 1e30  # and not nan

        why = {
            f"mean {self.mean}": bool(self.mean) and all(number(n, -1e30) for n in self.mean),
            f"std {self.std}": len(self.std) == len(self.mean) and all(number(n, 1e-12) for n in self.std),
            f"scale {self.scale}": number(self.scale, 1e-12),
            f"size {self.size}": type(self.size) is int and 1 <= self.size <= 10**7,
            f"resize {self.resize} for size {self.size}": type(self.resize) is int and self.size <= self.resize <= 2e7,
            f"interpolation {self.interpolation!r}": self.interpolation in ("nearest", "bilinear", "bicubic"),
            f"channel_order {self.channel_order!r}": self.channel_order in ("RGB", "BGR"),
        }
        for what, fine in why.items():
            if not fine:
                raise RosettaError(f"preprocessing can't be with {what[:100]}")

    def fitted(self, size: int, whole: bool = False) -> "Preprocessing":
        """The same for images of another size, of which as large a part is cut off, or with `whole` nothing."""
        return dataclasses.replace(self, size=size, resize=size if whole else round(size * self.resize / self.size))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """Raises RosettaError where `text` is not what `to_json` wrote."""
        try:
            row: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
            return cls(**row)
        except RosettaError:
            raise
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise RosettaError(f"the preprocessing in the metadata can't be read: {text[:80]!r}") from None

    def __str__(self) -> str:
        mean, std = (", ".join(f"{x:g}" for x in v) for v in (self.mean, self.std))
        return (
            f"{self.channel_order}, shorter side {self.resize} ({self.interpolation}), centre {self.size} x "
            f"{self.size}, pixels / {self.scale:g}, mean {mean}, std {std}"
        )


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def imagenet(size: int) -> Preprocessing:
    """ImageNet's for another size, with as much cut off: torchvision's evaluation."""
    return dataclasses.replace(IMAGENET, size=size, resize=round(size * 8 / 7))


CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
