"""Everything that this project has to show on a GPU, by one command, in the order of its worth.

    python benchmarks/gpu.py [--minutes 9] [--data FOLDER]        or: make gpu

What a part has found is in a file as soon as it is done; started again, it goes on with what is missing. A part that
fails is named at the end and leaves the others. No part of a library is needed that isn't installed: neither TensorFlow
nor torchvision. `--rehearse` runs every part on a CPU, on small nets, and marks what it writes: those are no results.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

import click

# whether the project is installed or not, and before its first import (ruff's E402 is off for this file)
sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import atlas
from gpu_parts import PEERS, ROOT, Part, Place, parts

from common.errors import RosettaError, nearest
from common.tools.files import atomic
from common.tools.refusals import refusal


def keep(part: Part, found: Any, place: Place) -> None:
    """What a part found, into its file."""
    results = place.results(part.stem)
    report = atlas.load(results, place.rehearsal)
    report.setdefault("parts", {})[part.name] = {"date": date.today().isoformat(), "on": place.about, **found}
    results.parent.mkdir(parents=True, exist_ok=True)
    with atomic(results) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


def attempt(part: Part, place: Place, seconds: float) -> str:
    """Runs a part in a process of its own. Why it failed, or nothing."""
    command = [sys.executable, __file__, "--part", part.name, *(["--rehearse"] if place.rehearsal else [])]
    command += ["--root", str(place.root), *(["--data", place.data] if place.data else [])]
    # one process a part: an error of CUDA's stays with the process that made it; and its children end with it
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        said, _ = process.communicate()
        return f"took more than {seconds:.0f} s; last: {([''] + said.strip().splitlines())[-1]}"
    except BaseException:
        os.killpg(process.pid, 9)
        raise
    if process.returncode == 0:
        return ""
    return ([f"ended with code {process.returncode}"] + said.strip().splitlines())[-1]


def one(name: str, place: Place) -> None:
    """A part, in this process."""
    (part,) = [p for p in parts(place) if p.name == name]
    os.environ["KERAS_BACKEND"] = "jax"  # of the tests; the processes of a part have environments of their own
    place.results(part.stem).parent.mkdir(parents=True, exist_ok=True)
    try:
        found = part.run(place, **part.arguments)
    except Exception as e:  # whatever a library raises: the last line is what is told
        if (said := refusal(e)) is not None:
            raise SystemExit(" ".join(str(said).split())) from None
        traceback.print_exc()
        raise SystemExit(f"{type(e).__name__}: {' '.join(str(e).split())[:600]}") from None
    if found is not None:
        keep(part, found, place)


def written(place: Place) -> str:
    """What was measured, as a page. Raises RosettaError where a rehearsal's figures are taken for results."""
    found = {
        stem: atlas.load(place.results(stem), place.rehearsal) for stem in ("device", "speed", "race", "tests", "atlas")
    }
    lines = ["# On a GPU", "", *atlas.marked(found["device"]), "Written by `make gpu` from what it measured.", ""]
    for about in found["device"].get("parts", {}).values():
        packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
        products = ", ".join(f"{d} {max(v.values()) / 1e12:.4g}" for d, v in about["products"].items())
        lines += [
            f"{about['name']} ({about['driver, memory, clock, power']}), {about['processor']}; {packages}; "
            f"{about['date']}.",
            f"A matrix product makes, in 10^12 multiply-adds a second: {products}. A copy moves "
            f"{about['bytes a second, read and written'] / 1e9:.0f} GB a second.", "",
            *(f"Left out is {who}: {why}.\n" for who, why in about["without"].items()),
        ]  # fmt: skip
    for kind in ("passed", "skipped"):
        if names := [n for part in found["tests"].get("parts", {}).values() for n in part[kind]]:
            lines += [f"`pytest -m gpu`: {len(names)} {kind}.", ""]
    if runs := sum(len(of) for of in found["atlas"].get("variants", {}).values()):
        bad = atlas.not_rounding(found["atlas"])
        lines += [f"Parity: {runs} runs, {len(bad)} with more than rounding ([atlas](atlas-gpu.md)).", ""]
    for part in found["race"].get("parts", {}).values():
        ends = "; ".join(f"{b}: test loss {loss:.4g}, {right:.2%}" for b, (loss, right) in part["test"].items())
        same = "the same training, to rounding" if part["equal"] else f"not the same: {part['first_over']}"
        said = f"{part['steps']} steps on {part['data']}: {same}. {ends}. {part['note']}"
        drawn = place.file("docs", "race", ".png").exists()
        lines += [*([f"![Curves]({part['picture']})", ""] if drawn else []), said, ""]
    if timed := found["speed"].get("parts", {}):
        lines += ["| net, batch | side | images/s | of a product | times as fast as | |", "|---|---|--:|--:|---|--:|"]
        for part in timed.values():
            for side in part["sides"]:
                peers = {o: r for o, r in side["times_as_fast_as"].items() if o.split(", ")[0] in PEERS}
                said = "; ".join(f"{o.rsplit(', ', 1)[0]}: {r['median']:.2f}" for o, r in peers.items())
                share = side["fraction_of_product"]
                lines.append(
                    f"| {part['name']}, {part['input'][0]} | {side['who']}, {side['mode']}, {side['dtype']} | "
                    f"{side['images_per_second']:.4g} | {f'{share:.0%}' if share else ''} | {said} | |"
                )
            lines += [f"| {part['name']} | {side}: {why} | | | | |" for side, why in part["failed"].items()]
    return "\n".join(lines) + "\n"


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--minutes", default=9.0, show_default=True, help="No part goes on for longer.")
@click.option("--data", metavar="FOLDER", help="Of Fashion-MNIST's files, where they aren't in the usual place.")
@click.option("--rehearse", is_flag=True, help="Every part on the CPU, on small nets; marked as no results.")
@click.option("--again", is_flag=True, help="Forget what was measured before.")
@click.option("--list", "listing", is_flag=True, help="The parts, and which are done.")
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, hidden=True)
@click.option("--part", help="This part alone.")
def main(minutes: float, data: str | None, rehearse: bool, again: bool, listing: bool, root: Path, part: str | None):
    begin = time.monotonic()
    place = Place(rehearse, root, data)
    known = {p.name: p for p in parts(place)}
    try:
        if part is not None and part not in known:
            raise RosettaError(f"unknown part {part!r}{nearest(part, known) or '; --list has them'}")
        if not place.about:  # which raises where there is no GPU
            return
        if part is not None:
            return one(part, place)
        if again and not listing:
            for stem in {p.stem for p in known.values()}:
                place.results(stem).unlink(missing_ok=True)
        left = [p for p in known.values() if not p.done(place)]
    except Exception as e:
        if (said := refusal(e)) is None:
            raise
        click.echo(str(said), err=True)
        raise SystemExit(2) from None
    if listing:
        return click.echo("\n".join(f"{'to do' if p in left else 'done '}  {p.name}" for p in known.values()))
    failed: dict[str, str] = {}
    unbegun = []
    for p in left:
        remaining = minutes * 60 - (time.monotonic() - begin)
        if remaining < 10:
            unbegun.append(p.name)
            continue
        since, limit = time.monotonic(), min(p.most, remaining)
        why = attempt(p, place, limit)
        if why and limit == remaining and time.monotonic() - since >= limit:
            unbegun.append(p.name)  # it had too little time
        elif why:
            failed[p.name] = why
        what = "cut off" if p.name in unbegun else "FAILED" if why else "done"
        click.echo(f"{time.monotonic() - begin:5.0f} s  {what}: {p.name} ({time.monotonic() - since:.0f} s)")
    page = place.file("docs", "performance", ".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(written(place))
    done = [p.name for p in known.values() if p.name not in {*failed, *unbegun}]
    click.echo(f"{'REHEARSAL: ' if rehearse else ''}{len(done)} of {len(known)} parts are done; {page} has the figures")
    if unbegun:
        click.echo(f"not finished in {minutes:g} minutes, start it again to go on: {'; '.join(unbegun)}")
    for name, why in failed.items():
        click.echo(f"failed: {name}: {why}")
    raise SystemExit(1 if failed or (rehearse and unbegun) else 0)  # a rehearsal is of all parts


if __name__ == "__main__":
    main()
