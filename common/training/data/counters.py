"""Random numbers by counter: what is drawn for batch k of epoch e depends on the seed, k and e alone.

So it is the same for any number of workers, for either framework, and after a restart. Philox's raw output is what
numpy promises to keep; its distributions may change from version to version, so those used are made here.
"""

import numpy as np

ORDER, AUGMENT, SIGNALS, MASKS = range(4)  # purposes, each with a stream of its own


def raw(n: int, seed: int, purpose: int, *counter: int) -> np.ndarray:
    """n uint64, uniform. `counter` is at most three numbers."""
    words = [0, *reversed(counter)]
    return np.random.Philox(key=[seed % 2**64, purpose], counter=words + [0] * (4 - len(words))).random_raw(n)


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n examples in an epoch."""
    return np.argsort(raw(n, seed, ORDER, epoch), kind="stable")


def below(values: np.ndarray, n: int | np.ndarray) -> np.ndarray:
    """Integers of 0 .. n - 1 from raw ones; for n up to a few thousand the bias is under 1e-15."""
    return (values % np.asarray(n, np.uint64)).astype(np.int64)


def uniform(values: np.ndarray) -> np.ndarray:
    """Numbers of [0, 1) in float64 from raw ones."""
    return (values >> np.uint64(11)) * 2.0**-53


def normal(n: int, seed: int, purpose: int, *counter: int) -> np.ndarray:
    """n numbers of the standard normal distribution (Box and Muller 1958)."""
    u = uniform(raw(2 * n, seed, purpose, *counter))
    return np.sqrt(-2 * np.log1p(-u[:n])) * np.cos(2 * np.pi * u[n:])
