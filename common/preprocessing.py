"""What becomes of a photograph before a net sees it, as the library that trained the net has it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import RosettaError


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize`, cut `size` x `size` from the middle, divide pixels (0 to 255) by `scale`,
    subtract `mean`, divide by `std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    size: int = 224
    resize: int = 256
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    channel_order: Literal["RGB", "BGR"] = "RGB"

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
            made = cls(**row)
            numbers = (*made.mean, *made.std, made.scale, made.size, made.resize)
            if all(isinstance(n, int | float) for n in numbers) and len(made.mean) == len(made.std):
                return made
        except (ValueError, TypeError, AttributeError):
            pass
        raise RosettaError(f"the preprocessing in the metadata can't be read: {text[:80]!r}")

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
