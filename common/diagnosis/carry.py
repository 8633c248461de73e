"""Her weights into a checkpoint of ours, whatever her names are: by the alignment of her net with the row that it is.

The diagnosis has proven, in float64 and with arrays that were drawn, that her net is the row. So each tensor of the row
has its own in hers: that which stands in the same place of the tree. What is carried over is then run: with her own
weights her net and ours have to give the same numbers.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.arch import Arch, nearly
from common.checkpoints import port, writers
from common.diagnosis.align import Aligner
from common.diagnosis.edits import MASKS, NOWHERE
from common.diagnosis.examine import Diagnosis, diagnose, living, run_once
from common.diagnosis.hers import LIMIT, run_file
from common.diagnosis.plans import tree
from common.diagnosis.proof import EQUAL
from common.diagnosis.tensors import joined, load_into, names_of
from common.errors import RosettaError
from common.names import parameters
from common.tools.frameworks import load
from common.weights import Weights

IN_TRAINING = ("in training alone", MASKS, NOWHERE)  # where an edit matters that no weights of a net in use are about
SOFTMAX = ("softmax in the net", "log-softmax in the net")


def port_file(
    file: str, target: str | os.PathLike, name: str | None = None, *, call: str | None = None,
    weights: str | os.PathLike | None = None, like: str | None = None, limit: float = LIMIT,
    progress: Callable[[str], None] = lambda step: None, **how: Any,
) -> port.Ported:  # fmt: skip
    """Converts the net that the Python file `file` defines, with `weights` of its own names, to `target`.

    Executes the file, in a process of its own, as `diagnose_file` does; `how` is what `port` takes. Raises what both
    raise, and RosettaError where her net isn't a row, or one with edits that fields of a row can't say.
    """
    port.spare(Path(file), Path(target), how.get("force", False))
    if weights is not None and not Path(weights).exists():
        raise RosettaError(f"no such file: {weights}")
    with tempfile.TemporaryDirectory() as folder:
        progress(f"executing {Path(file).name} and diagnosing its net")
        given = {"weights": None if weights is None else str(Path(weights).resolve()), "like": like, "folder": folder}
        found = run_file(file, name, "common.diagnosis.carry:carried", given, call, limit)
        done = port.port(found["file"], target, progress=progress, **how)
    made = f"{file}:{name}" if name else f"{call} of {file}"
    done.source.held = dataclasses.replace(done.source.held, path=Path(made), kind="a live net, executed")
    done.source.claim, done.source.told, done.source.unused = f"{found['row']}, as was proven", {}, {}
    done.rows = [dataclasses.replace(r, source=found["names"].get(r.canonical, r.source)) for r in done.rows]
    done.notes = found["notes"] + done.notes
    done.probes.insert(0, ("the net itself against ours of its framework, float64", found["apart"], None))
    return done


def carried(net: Any, weights: str | None, like: str | Arch | None, folder: str) -> dict[str, Any]:
    """The answer to `port_file`, in the file's process; the checkpoint is a file in `folder`."""
    if weights is not None:
        load_into(net, Path(weights))
    found = diagnose(net, like)
    arch, notes = _row(found)
    names = dict(names_of(Aligner().pairs(tree(arch), found.net)))
    live = living(net)
    hers, shapes = live.arrays(), parameters(arch)
    arrays = {canonical: joined(hers, names[canonical], shape) for canonical, shape in shapes.items()}
    exact = all(np.array_equal(a.astype(np.float32), a, equal_nan=True) for a in arrays.values())
    arrays = {canonical: a.astype(np.float32) if exact else a for canonical, a in arrays.items()}
    framework = type(live).__module__.split("_")[0]
    apart = _apart(live, found, framework, arch, arrays)
    path = Path(folder) / ("hers.pt" if framework == "torch" else "hers.weights.h5")
    source = "a net of somebody's own" + (f", with {Path(weights).name}" if weights else ", with the weights it has")
    writers.write(path, writers.target_of(path, None, arch), arch, arrays, source=source)
    notes.append("its weights are those it is made with: --weights gives others" if weights is None else
                 f"its weights are those of {Path(weights).name}")  # fmt: skip
    row = found.text().partition("\n")[0].removeprefix("nearest row").strip()
    return {"file": str(path), "row": row, "names": names, "notes": notes, "apart": apart}


def _row(found: Diagnosis) -> tuple[Arch, list[str]]:
    """(the row that it is, what a user should know). Raises RosettaError where no row is."""
    if found.proof is None or not found.proof.holds or found.unexplained:
        raise RosettaError(f"it can't be carried over, since it isn't known what it is:\n{found.text()}")
    fields = {name: value for e in found.edits for name, value in e.fields.items()}
    others = [e for e in found.edits if not e.fields]
    remain = [e for e in others if e.matters not in IN_TRAINING and e.name not in (*SOFTMAX, "second output")]
    if remain:
        says = "\n".join(f"  {e.kind}: {e.says}" for e in remain)
        raise RosettaError(
            f"it can't be carried over: it is {found.row} with what no field of a row can say. Mend in it what "
            f"follows, and ask `rosetta diagnose` what is left:\n{says}"
        )
    notes = [f"{e.says}{f' ({e.matters})' if e.matters else ''}: that isn't in the file" for e in others]
    return dataclasses.replace(found.arch, **fields), [*notes, *found.remarks]


def _apart(live: Any, found: Diagnosis, framework: str, arch: Arch, arrays: Weights) -> float:
    """How far our net with what was carried over is from hers. Raises RosettaError where that is more than rounding."""
    (x, *_), net = run_once(live)
    theirs = live.run(x).output
    if net.chain[-1].op in ("softmax", "log_softmax"):
        theirs = live.play(net.chain[:-1], live.arrays(), x).output
    doubled = {name: a.astype(np.float64) for name, a in arrays.items()}
    ours = load(framework, "trace").trace(load(framework).create_model(arch, dtype="float64", weights=doubled), x)
    apart = float(np.abs(ours.reshape(-1) - theirs.reshape(-1)).max() / np.abs(ours).max())
    if not apart <= EQUAL[False]:
        raise RosettaError(f"with its weights the net is {apart:.1e} away from {nearly(arch)}: nothing is carried over")
    return apart
