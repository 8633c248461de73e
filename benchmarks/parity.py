"""`rosetta compare` for every variant on the two photographs, for the README's table.

    make parity

Goes on where it stopped: a variant that the results have with the same versions is not run again.
"""

import json
from datetime import date
from pathlib import Path

import click
from forward import processor
from rich.progress import track

from common import images, parity
from common.arch import FAMILIES, VARIANTS
from common.names import multiply_adds
from common.plan import make_plan

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "parity.json"
BEGIN, END = "<!-- parity table: make parity -->", "<!-- end of parity table -->"


def measure(name: str) -> dict[str, object]:
    """The worst layer and the logits of one variant, in both dtypes."""
    arch = VARIANTS[name]
    found = parity.compare(arch, images.read(images.photographs(), make_plan(arch)), name=name)
    row: dict[str, object] = {"equal": found.equal, "input": found.input_shape, "parameters": found.parameters}
    row |= {"multiply_adds": multiply_adds(arch), "bit_exact": found.round_trip, "versions": found.versions}
    for dtype, layers in found.layers.items():
        row[dtype] = {
            "logits": found.logits[dtype].relative,
            "worst_layer": max(d.relative for d in layers),
            "noise_floor": found.logits[dtype].floor,
        }
    return row


def table(rows: dict[str, dict]) -> str:
    """Markdown: a variant a row, family by family."""
    lines = ["| variant | parameters | multiply-adds | float64 | float32 | noise floor |", "|---|--:|--:|--:|--:|--:|"]
    for family, variants in FAMILIES.items():
        lines.append(f"| **{family}** | | | | | |")
        for name in variants:
            r = rows[name]
            numbers = (r["float64"]["logits"], r["float32"]["logits"], r["float32"]["noise_floor"])
            figures = " | ".join(f"{n:.1e}" for n in numbers)
            lines.append(f"| `{name}` | {r['parameters']['spec']:,} | {r['multiply_adds']:,} | {figures} |")
    return "\n".join(lines)


@click.command()
@click.option("--again", is_flag=True, help="Measure every variant anew.")
def main(again: bool) -> None:
    """Measure what is missing, and write the table."""
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() and not again else {"variants": {}}
    rows = report["variants"]
    for name in track([n for n in VARIANTS if n not in rows], description="variants"):
        rows[name] = measure(name)
        report |= {"device": processor(), "date": date.today().isoformat()}
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    versions = next(iter(rows.values()))["versions"]
    assert all(r["equal"] and r["versions"] == versions for r in rows.values()), "not equal, or of several versions"
    caption = (
        f"Two photographs, random BatchNorm statistics, {report['date']}, PyTorch {versions['torch']} against Keras "
        f"{versions['keras']} on {versions['backend']}, {report['device']}. float64 and float32: largest difference of "
        "the logits over their largest element. Noise floor: PyTorch's float32 against its float64, the worst layer."
    )
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{caption}\n\n{table(rows)}\n{END}{after}")


if __name__ == "__main__":
    main()
