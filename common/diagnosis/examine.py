"""The whole way: a live net recorded, the nearest row, the edits, and the proof."""

import math
import re
import sysconfig
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import arch as rows
from common.arch import Arch, get
from common.diagnosis.align import Aligner, Change, Pair
from common.diagnosis.capture import OtherAtSize, OtherInTraining, capture, of_both
from common.diagnosis.edits import NOWHERE, Edit, Explained
from common.diagnosis.explain import explain
from common.diagnosis.guess import edges
from common.diagnosis.parse import Chain, Join, Layer, Net, Unparsed, layers, unknown
from common.diagnosis.plans import KERAS, tree
from common.diagnosis.proof import Proof, Prover
from common.diagnosis.tape import Live
from common.diagnosis.values import scatter
from common.errors import RosettaError, printable
from common.tools.frameworks import load

SIZES = (64, 224, 32, 28, 96, 128, 299)  # tried one after the other: the first is two positions in the last stage
BATCH = 3
MOST = 0.35  # of both nets that can differ before it is no net of ours any more
SHORTLIST = 5


@dataclass(frozen=True)
class Diagnosis:
    """What `rosetta diagnose` prints. `edits` are proven; where `unexplained` isn't empty, nothing is."""

    row: str
    arch: Arch
    edits: tuple[Edit, ...]
    proof: Proof | None
    unexplained: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    net: Chain = field(default=(), repr=False)
    pairs: tuple[Pair, ...] = field(default=(), repr=False)  # the row's tree and hers, aligned

    @property
    def same(self) -> bool:
        """Whether it is the row itself."""
        return self.proof is not None and self.proof.holds and not self.edits and not self.unexplained

    def as_json(self) -> dict[str, Any]:
        edits = [
            {"name": e.name, "kind": e.kind, "says": e.says, "matters": e.matters or "everywhere", "where": e.where,
             "layers": e.theirs, "fields": {k: _plain(v) for k, v in e.fields.items()}}
            for e in self.edits
        ]  # fmt: skip
        proof = self.proof and {"holds": self.proof.holds, "worst": self.proof.worst, "sizes": self.proof.sizes}
        return {"row": self.row, "same": self.same, "classes": self.arch.num_classes, "channels": self.arch.in_channels,
                "edits": edits, "proof": proof, "unexplained": self.unexplained, "remarks": self.remarks}  # fmt: skip

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """In lines, as the command prints it."""
        usual = rows.VARIANTS.get(self.row, self.arch)
        fields = {k: v for e in self.edits for k, v in e.fields.items()}
        for name in ("num_classes", "in_channels"):
            if getattr(self.arch, name) != getattr(usual, name):
                fields[name] = getattr(self.arch, name)
        said = ", ".join(f"{k} = {_plain(v)}" for k, v in fields.items())
        lines = [f"nearest row  {self.row}{f' with {said}' if said else ''}"]
        width = max((len(e.kind) for e in self.edits), default=0)
        for i, e in enumerate(self.edits, 1):
            notes = "; ".join(filter(None, (e.matters, e.where)))
            lines.append(f"{i} {e.kind:<{width}}  {e.says}{f'  ({notes})' if notes else ''}")
        lines += [f"unexplained  {what}" for what in self.unexplained]
        lines += [f"beside       {what}" for what in self.remarks]
        if self.proof and self.proof.holds:
            sizes = ", ".join("x".join(map(str, s)) for s in self.proof.sizes)
            n = len(self.edits)
            all_of = "" if not n else " with 1" if n == 1 else f" with 1-{n}"
            needed = [i for i, e in enumerate(self.edits, 1) if e.shows and e.changes]
            those = "any one of them" if len(needed) == n > 1 else "it" if n == 1 else _numbers(needed)
            without = f"; without {those} it isn't" if needed else ""
            lines.append(
                f"proof        {self.row}{all_of} is your net: evaluation and training at {sizes}, float64, "
                f"{self.proof.worst:.1e}{without}"
            )
        return "\n".join(map(printable, lines))


def _numbers(values: list[int]) -> str:
    """1, any one of 1, 2 and 4."""
    *first, last = map(str, values or [0])
    return f"any one of {', '.join(first)} and {last}" if first else last


def _plain(value: Any) -> Any:
    return value.text() if isinstance(value, rows.Stem) else value


def diagnose(model: Any, like: str | Arch | None = None) -> Diagnosis:
    """Which row a live net is (an nn.Module or a Keras model, which is left as it was), and what is different.

    `like` is the row to hold it against; without, the one with the fewest edits. Raises RosettaError for an unknown
    row, a net that can't run (with its exception and its line), and what is no ResNet.
    """
    wanted = None if like is None else get(like)
    live = living(model)
    batches, net = run_once(live)
    told = sorted({f"{x.op.lstrip('?')} ({x.where}) isn't understood" for x in unknown(net.chain)})[:5]
    try:
        name, explained = nearest(net.chain, wanted, like if isinstance(like, str) else None)
    except RosettaError:
        if told:  # it may be one
            raise RosettaError(f"{'; '.join(told)}, so which net this is can't be told") from None
        raise
    remarks = tuple(_remarks(net, batches, explained.keras))
    if told:
        return Diagnosis(name, explained.base, (), None, tuple(told), remarks, net.chain)
    scatter(live, net.chain, batches)
    try:
        proof = Prover(live, explained, batches).prove()
    except NotImplementedError as e:
        return Diagnosis(name, explained.base, (), None, (f"{e} isn't understood",), remarks, net.chain)
    if not proof.holds:
        away = f"{proof.worst:.1e} away from your net" if math.isfinite(proof.worst) else "not your net"
        return Diagnosis(name, explained.base, (), proof, (f"what was recorded is {away}, so nothing is said of it",),
                         remarks, net.chain)  # fmt: skip
    silent = [e for e in proof.edits if e.matters == NOWHERE and all(map(_of_sizes_alone, e.changes))]
    remarks += tuple(f"{e.says} ({e.matters})" for e in silent)
    outputs = [f"the net gives a further output: {words}" for words in net.outputs]
    further = [Edit("second output", "head", says, frozenset(), {}, "beside the first") for says in outputs]
    edits = (*(e for e in proof.edits if e not in silent), *further)
    return Diagnosis(name, explained.base, edits, proof, (), remarks, net.chain, explained.pairs)


def _of_sizes_alone(change: Change) -> bool:
    """Whether it can only change a size: where the net runs at no size at which it would, it is no difference."""
    one = isinstance(change.item, Layer) and change.op == "flatten" and change.item.attributes["at"] is None
    return (one and change.kind in ("add", "drop")) or change.what == "ceil"


def living(model: Any) -> Live:
    """The recorder of the model's framework around it. Raises RosettaError for anything else."""
    homes = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    for home, framework in (("torch", "torch"), ("keras", "keras"), ("tf_keras", "keras")):
        if home in homes and callable(model):
            try:
                live: Live = load(framework, "tape").Live(model)
                return live
            except RosettaError:
                raise
            except Exception as e:
                raise RosettaError(f"the net can't run in float64: {said(e)}") from None
    raise RosettaError(f"{type(model).__name__} is no net: expected a torch.nn.Module or a Keras model")


def run_once(live: Live) -> tuple[tuple[np.ndarray, ...], Net]:
    """Batches that the net takes, at an even, an odd and a non-square size where it runs at all three, and the net."""
    arrays = live.arrays()
    weights = [a.shape for a in arrays.values() if a.ndim in (3, 4)]
    kernels = [shape for shape in weights if len(shape) == 4] or weights
    if not kernels:
        raise RosettaError("this is no ResNet: it has no convolution")
    (_, channels, *kernel), failure = kernels[0], None
    wanted = getattr(live, "size", None) or (channels,)
    rng = np.random.default_rng(5)

    def batch(*size: int) -> np.ndarray:
        size = tuple(s or n for s, n in zip(wanted[1:], size, strict=True)) if wanted[1:] else size
        return rng.standard_normal((BATCH, wanted[0], *size))

    for s in SIZES:
        try:
            net = capture(live, first := batch(*[s] * len(kernel)))
            break
        except Unparsed as e:
            raise RosettaError(f"this is no net of blocks: {e}") from None
        except OtherInTraining:
            raise RosettaError("the net is another graph in training mode, which isn't understood") from None
        except RosettaError:
            raise
        except Exception as e:
            failure = failure or e
    else:
        assert failure is not None
        raise RosettaError(f"the net can't run, at none of {', '.join(map(str, SIZES))} pixels: {said(failure)}")
    small = max(16, 4 * stride(net.chain))
    for side in [small, s] if small < s == SIZES[0] else [s]:
        found = [x for x in _sized(side, len(kernel), batch) if _runs(live, x)]
        if len(found) > 1:
            try:
                return tuple(found), of_both(net if side == s else capture(live, found[0]), capture(live, found[1]))
            except OtherAtSize:
                if side == s:
                    raise RosettaError(f"the net is another graph at {s + 1} pixels, which isn't understood") from None
    return (first,), net


def _sized(s: int, axes: int, batch: Any) -> Iterator[np.ndarray]:
    """Batches of these sizes, each once, where the net says its own."""
    sizes = [s] * axes, [s + 1] * axes, [*[s] * (axes - 1), s - s // 4 // 2 * 2]
    yield from {x.shape: x for x in (batch(*size) for size in sizes)}.values()


def _runs(live: Live, x: np.ndarray) -> bool:
    try:
        live.run(x)
        return True
    except Exception:
        return False


def stride(chain: Chain) -> int:
    """Positions of the input to one of the last stage, along an axis."""
    total = 1
    for item in chain:
        if isinstance(item, Join):
            total *= stride(item.branches[0]) if item.op == "add" else 1
        elif "stride" in item.attributes:
            total *= max(item.attributes["stride"])
    return total


# what would mend a net that can't run, by what its exception says
MENDS = {"cannot be built because it has no layers": "keras.layers.Identity() is what an empty Sequential is meant for"}


def said(e: BaseException) -> str:
    """An exception of hers in a line, with the innermost line of her own file."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if _hers(f.filename)]
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = re.sub(r"\x1b\[\d*m", "", str(e))  # Keras prints in bold
    text = text.rpartition("Error encountered:")[2].partition("Arguments received by")[0]  # around the cause
    text = " ".join(text.split())[:300]
    mend = "".join(f"; {words}" for sign, words in MENDS.items() if sign in text)
    return f"{type(e).__name__}{f': {text}' if text else ''}{at}{mend}"


_ROOT = Path(__file__).parents[2]
_NOT_HERS = (*(_ROOT / p for p in ("common", "torch_impl", "keras_impl")),
             *(Path(sysconfig.get_path(p)) for p in ("stdlib", "purelib", "platlib")))  # fmt: skip


def _hers(filename: str) -> bool:
    return "<" not in filename and not any(Path(filename).is_relative_to(p) for p in _NOT_HERS)


def nearest(theirs: Chain, wanted: Arch | None, name: str | None) -> tuple[str, Explained]:
    """The row with the fewest edits, or `wanted`. Raises RosettaError where hers is no ResNet."""
    aligner, free = Aligner(), edges(theirs)
    if not any(x.op == "conv" for x in layers(theirs)):
        raise RosettaError("this is no ResNet: it has no convolution")
    if wanted is not None:
        return name or rows.nearly(wanted), explain(_fitted(wanted, free), theirs, aligner)
    hers, near = _features(theirs), list[tuple[int, str, Arch]]()
    for row, arch in rows.VARIANTS.items():
        if arch.dims == free["dims"] and not arch.folded:
            arch = _fitted(arch, free)
            ours = _features(tree(arch))
            near.append((sum(((hers - ours) + (ours - hers)).values()), row, arch))
    near.sort(key=lambda n: n[0])
    tried = [(row, explain(arch, theirs, aligner)) for _, row, arch in near[:SHORTLIST]]
    row, best = min(tried, key=lambda t: (len(t[1].edits), aligner.table(t[1].ours, theirs)[0][-1][-1]))
    cost = aligner.table(best.ours, theirs)[0][-1][-1]
    whole = sum(aligner.cost(item) for chain in (best.ours, theirs) for item in chain)
    if cost > MOST * whole:
        raise RosettaError(f"this is no ResNet: {_seen(theirs)}; the nearest row, {row}, is too far away")
    return row, best


def _fitted(arch: Arch, free: dict[str, int]) -> Arch:
    return get(arch, **{k: v for k, v in free.items() if k != "dims"})


def _features(chain: Chain) -> Counter[tuple[Any, ...]]:
    return Counter((x.op, x.attributes.get("out"), x.attributes.get("kernel"), x.attributes.get("stride"),
                    x.attributes.get("groups"), x.attributes.get("bias")) for x in layers(chain))  # fmt: skip


def _seen(chain: Chain) -> str:
    """What a net consists of, in words."""
    count = Counter(x.op.lstrip("?").replace("_", " ") for x in layers(chain))
    sums = sum(1 for item in chain if isinstance(item, Join) and item.op == "add")
    return f"{', '.join(f'{n} {op}' for op, n in count.most_common(5))}, and {sums} sums along its way"


def _remarks(net: Net, batches: Iterable[np.ndarray], keras: float | None) -> Iterator[str]:
    if keras is not None:
        share = f"{1 - keras:g} of the old ones, and " if keras == KERAS else ""
        yield f"norms keep statistics as Keras' do by themselves: {share}the batch's biased variance"
    if net.unread:
        more = f" and {len(net.unread) - 3} more" if len(net.unread) > 3 else ""
        yield f"no call reads {', '.join(net.unread[:3])}{more}"
    sizes = [x.shape[2:] for x in batches]
    if len(sizes) == 1:
        yield f"it runs at {' x '.join(map(str, sizes[0]))} alone, of the sizes that were tried"
