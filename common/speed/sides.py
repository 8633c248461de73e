"""Who takes part in a benchmark: ours by framework, mode, dtype and engine, and the peers."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.arch import Arch, get
from common.errors import RosettaError, hint
from common.names import multiply_adds
from common.parity.backends import BACKENDS
from common.speed import runners
from common.speed.contender import KERAS_APPLICATIONS, MODES, PEERS
from common.tools.frameworks import require

INFERENCE = ("eager", "optimised")
TF32 = "tf32"  # a dtype of GPUs: float32 whose products they make in fewer bits
COSTS = {"eager": 1, "optimised": 1, "train": 3, "train-optimised": 3}  # forward passes in one run


@dataclass(frozen=True)
class Side:
    """One line of a benchmark."""

    who: str
    mode: str
    dtype: str
    ours: bool
    multiply_adds: int  # of one image, forward; or three times that in training
    engine: str = runners.COMPILER  # of ours, optimised

    @property
    def how(self) -> str:
        """The mode, and the engine unless it is the framework's own."""
        return self.mode if self.engine == runners.COMPILER else f"{self.mode} by {self.engine}"

    def __str__(self) -> str:
        return f"{self.who}, {self.how}, {self.dtype}"


def holds(peer: str, name: str) -> bool:
    """Whether a peer has a net of that name."""
    from common.checkpoints.libraries import LIBRARIES
    from common.checkpoints.writers import cannot_hold

    if peer in ("onnxruntime", "openvino"):
        return True
    if peer == "keras.applications":
        return name in KERAS_APPLICATIONS
    if name.startswith("cifar"):  # which neither has under any name
        return False
    return any(lib.name == peer and not cannot_hold(lib, get(name)) for lib in LIBRARIES)


def sides_of(
    name: str, arch: Arch, changed: bool, backends: Sequence[str], against: Sequence[str], modes: Sequence[str],
    dtypes: Sequence[str], size: tuple[int, ...], engines: Sequence[str] | None = (runners.COMPILER,),
) -> list[Side]:  # fmt: skip
    """Who takes part; `engines` are those of ours, optimised, None all that are there. Raises RosettaError for a peer,
    a mode or an engine that is unknown, isn't installed, or can't take part."""
    for mode in modes:
        if mode not in MODES:
            raise RosettaError(f"unknown mode {mode!r}{hint(mode, MODES)}")
    for engine in engines or ():
        runners.check_name(engine)
    own = multiply_adds(arch, size)
    found = []
    for spec in backends:
        spec = {"keras": "keras:tensorflow"}.get(spec, spec)
        if spec not in BACKENDS or spec.startswith("onnx"):
            known = [b for b in BACKENDS if not b.startswith("onnx")]
            raise RosettaError(f"unknown backend {spec!r}{hint(spec, known)}")
        require(f"the backend {spec}", *BACKENDS[spec])
        found += [
            Side(spec, mode, dtype, True, own * COSTS[mode], engine)
            for mode in modes for dtype in dtypes
            for engine in (_engines(spec, dtype, engines) if mode == "optimised" else (runners.COMPILER,))
        ]  # fmt: skip
    for peer in against:
        if peer not in PEERS:
            raise RosettaError(f"unknown peer {peer!r}{hint(peer, PEERS)}")
        packages, offers = PEERS[peer]
        require(f"measuring against {peer}", packages, "")
        if not holds(peer, name) or (changed and peer not in runners.DTYPES):
            raise RosettaError(f"{peer} has no {name}{' with other fields' if changed else ''} to measure against")
        theirs = own
        if peer == "keras.applications" and not name.endswith("keras"):  # its nets are v1, whatever ours is
            theirs = multiply_adds(get(f"{name.removesuffix('_v1')}_keras"), size)
        takes = [
            Side(peer, mode, dtype, False, theirs * COSTS[mode])
            for mode in modes if mode in offers
            for dtype in dtypes if dtype in runners.DTYPES.get(peer, dtypes)
        ]  # fmt: skip
        if not takes:
            raise RosettaError(
                f"{peer} has none of {', '.join(modes)} in {', '.join(dtypes)}: it has {', '.join(offers)} in "
                f"{', '.join(runners.DTYPES.get(peer, ('float32', 'bfloat16')))}"
            )
        found += takes
    return sorted(found, key=lambda s: (list(MODES).index(s.mode), list(dtypes).index(s.dtype), not s.ours))


def _engines(spec: str, dtype: str, asked: Sequence[str] | None) -> Sequence[str]:
    """Of a side of ours, optimised. Raises RosettaError for one that is asked for and can't be."""
    framework = spec.split(":")[0]
    if asked is None:
        return runners.installed(framework, dtype) if spec in runners.EXPORTS else (runners.COMPILER,)
    for engine in set(asked) & set(runners.DTYPES):
        runners.check(engine, framework, dtype, "cpu")
        if spec not in runners.EXPORTS:
            raise RosettaError(f"{engine} runs what {' and '.join(runners.EXPORTS)} export, and not {spec}")
    return asked
