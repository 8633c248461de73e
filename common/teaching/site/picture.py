"""A net as a drawing: stem, stages and head from left to right, blocks with their shortcuts."""

from common.names import sections
from common.plan import Block, make_plan
from common.row import Arch

HEIGHT, TOP = 150, 34
WORDS = {"identity": "identity", "project": "projection", "pad": "zeros (option A)", "none": "no shortcut"}
FEW = 4  # blocks of a stage that are all drawn


class _Drawing:
    """Boxes from left to right; `x` is where the next one goes."""

    def __init__(self) -> None:
        self.x, self.parts = 26, list[str]()

    def box(self, width: int, height: int, kind: str, title: str) -> int:
        """Gives the box's upper edge."""
        y = TOP + (HEIGHT - TOP - height) // 2
        place = f'x="{self.x}" y="{y}" width="{width}" height="{height}" rx="3"'
        self.parts.append(f'<rect class="{kind}" {place}><title>{title}</title></rect>')
        self.x += width + 5
        return y

    def text(self, x: int, y: int, words: str, soft: bool = False) -> None:
        kind = ' class="soft"' if soft else ""
        self.parts.append(f'<text{kind} x="{x}" y="{y}">{words}</text>')

    def label(self, begin: int, words: str, below: str) -> None:
        middle = (begin + self.x - 5) // 2
        self.text(middle, HEIGHT + 12, words)
        self.text(middle, HEIGHT + 26, below, soft=True)

    def block(self, block: Block, height: int) -> None:
        """The block with its shortcut above."""
        begin, kind = self.x - 3, block.shortcut.kind
        y = self.box(24, height, "block", f"{block.name}: {len(block.convs)} convolutions; shortcut: {WORDS[kind]}")
        if kind != "none":
            end = self.x - 2
            bow = f"M{begin} {y + 8}C{begin} {y - 16} {end} {y - 16} {end} {y + 8}"
            self.parts.append(f'<path class="{kind}" d="{bow}"/>')


def net_picture(arch: Arch) -> str:
    """SVG. A block is a box; above it its shortcut: a line for the identity, dashed for zeros, thick for a projection.
    Long stages are drawn with their first and last blocks and how many are between; of several trunks one is drawn."""
    plan, drawing = make_plan(arch), _Drawing()
    size = {s.name: "×".join(map(str, s.output)) for s in sections(arch)}

    begin = drawing.x
    for conv in plan.stem.convs:
        drawing.box(14, 92, "stem", f"{conv.kernel} wide, {conv.out_channels} channels, stride {conv.stride}")
    for pool in plan.stem.pools:
        drawing.box(8, 70, "pool", f"{pool.kind} pooling {pool.kernel}, stride {pool.stride}")
    drawing.label(begin, "stem", size["stem"])
    drawing.x += 14
    for i, stage in enumerate(plan.trunks[0].stages):
        begin, height = drawing.x, max(28, 84 - 16 * i)
        left_out = len(stage.blocks) - 3 if len(stage.blocks) > FEW else 0
        for block in (*stage.blocks[:2], stage.blocks[-1]) if left_out else stage.blocks:
            if left_out and block is stage.blocks[-1]:
                drawing.text(drawing.x + 12, (HEIGHT + TOP) // 2 + 4, f"+{left_out}", soft=True)
                drawing.x += 28
            drawing.block(block, height)
        drawing.label(begin, stage.name, size[stage.name])
        drawing.x += 18
    begin = drawing.x
    drawing.box(10, 40, "pool", "mean over all positions")
    if plan.fc:
        drawing.box(14, 56, "fc", f"linear, {plan.fc.in_features} to {plan.fc.out_features}")
    drawing.label(begin, "head", size["head"])
    said = ", ".join(f"{s.name} with {len(s.blocks)} blocks" for s in plan.trunks[0].stages)
    more = f" Of {len(plan.trunks)} trunks one is drawn." if len(plan.trunks) > 1 else ""
    view = f'viewBox="0 {TOP - 14} {drawing.x + 16} {HEIGHT + 48 - TOP}"'
    return f'<svg class="net" {view} role="img" aria-label="Stem, {said}, head.{more}">{"".join(drawing.parts)}</svg>'
