"""timm's names. Its ResNets (plain, D, SE, ResNeXt, wide) have the canonical ones; its pre-activation `resnetv2` has
not."""

import re

RULES = (  # (pattern, canonical), the first that matches
    (r"stem\.conv\.(.+)", r"conv1.\1"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.norm(\d)\.(.+)", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{m[3]}.{m[4]}"),
    (
        r"stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.(.+)",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0.{m[3]}",
    ),
    (r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{m[3]}"),
    (r"head\.fc\.(.+)", r"fc.\1"),
)


def canonical(name: str) -> str:
    """The canonical name of timm's `name`."""
    for pattern, to in RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(to) if isinstance(to, str) else to(match)
    return name
