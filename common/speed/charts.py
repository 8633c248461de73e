"""What `rosetta bench` draws."""

import os
from typing import Any

from common.speed.bench import Measured, Result, quartiles
from common.speed.sides import INFERENCE
from common.tools.figures import figure

OURS, THEIRS, MUTED = "#1f5fa8", "#b9bec6", "#5b6470"
_KINDS = {"eager": "", "optimised": " optimised", "train": "", "train-optimised": " optimised"}


def plot(result: Result, path: str | os.PathLike) -> None:
    """Images a second of every side, the fastest on top: inference and training each in a panel, ours in blue."""
    panels = {
        title: sorted(of, key=lambda m: m.per_second)
        for title, of in (
            ("inference", [m for m in result.sides if m.side.mode in INFERENCE]),
            ("training steps", [m for m in result.sides if m.side.mode not in INFERENCE]),
        )
        if of
    }
    heights = [len(of) + 1.2 for of in panels.values()]
    size = (10, 1.2 + 0.42 * sum(heights))
    with figure(path, len(panels), 1, size, squeeze=False, height_ratios=heights) as (fig, axes):
        n, c, *s = result.input
        fig.suptitle(
            f"{result.name}: images per second", x=0.01, ha="left", fontsize=17, fontweight="bold", color="#1c2530"
        )
        for ax, (title, of) in zip(axes[:, 0], panels.items(), strict=True):
            _panel(ax, title, of, result)
        versions = ", ".join(f"{k} {v}" for k, v in result.versions.items() if k != "numpy")
        fig.supxlabel(
            f"batch {n}, {' x '.join(map(str, (c, *s)))}; {result.device}, {result.threads} threads; medians of "
            f"{result.rounds} rounds in turns, whiskers are quartiles\n{versions}",
            fontsize=8, color=MUTED, x=0.01, ha="left",
        )  # fmt: skip


def _panel(ax: Any, title: str, of: list[Measured], result: Result) -> None:
    values = [m.per_second for m in of]
    low, high = [], []
    for m in of:
        a, b = quartiles(m.rounds)
        low.append(m.per_second - m.images / b)
        high.append(m.images / a - m.per_second)
    names = [f"{_who(m)}{_KINDS[m.side.mode]}{m.side.how.removeprefix(m.side.mode)}, {m.side.dtype}" for m in of]
    bars = ax.barh(names, values, color=[OURS if m.side.ours else THEIRS for m in of], height=0.72)
    ax.errorbar(values, range(len(of)), xerr=[low, high], fmt="none", ecolor="#1c2530", elinewidth=1, capsize=2)
    for bar, m, up in zip(bars, of, high, strict=True):
        base = result.base(m)
        times = "" if base is m else f"  {result.ratio(m, base).median:.2f}x"
        share = f"  {part:.0%} of a product" if (part := result.fraction(m)) else ""
        ax.annotate(
            f"{m.per_second:.3g}{times}{share}", (bar.get_width() + up, bar.get_y() + bar.get_height() / 2),
            xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=MUTED,
        )  # fmt: skip
    for label, m in zip(ax.get_yticklabels(), of, strict=True):
        label.set_fontweight("bold" if m.side.ours else "normal")
    base = result.base(of[0])
    ax.set_title(f"{title}; times as fast as {_who(base)} in {base.side.dtype}", loc="left", fontsize=11, color=MUTED)
    ax.set_xlim(0, max(v + h for v, h in zip(values, high, strict=True)) * 1.5)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.tick_params(axis="y", left=False)


def _who(m: Measured) -> str:
    return {"torch": "torch_impl", "keras:tensorflow": "keras_impl (TensorFlow)"}.get(
        m.side.who, m.side.who.replace("keras:", "keras_impl on ")
    )
