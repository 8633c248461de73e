"""Examples as batches: drawn, augmented and scaled ahead of the net by other threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from common.checkpoints.preprocessing import Preprocessing
from common.training.data import counters
from common.training.data.augment import NOTHING, Augment, augment
from common.training.data.examples import Examples

AHEAD = 2  # batches a worker


class Batches:
    """Batches (x, labels) of examples: x is N C *S in `dtype`, scaled.

    With a `seed` the order and the augmentation of each epoch are drawn from it, and a last batch of one is left out,
    which batch normalisation can't take; without one the examples come as they are.
    """

    def __init__(
        self, examples: Examples, size: int, preprocessing: Preprocessing, *, channels: int = 3, dtype: str = "float32",
        seed: int | None = None, how: Augment = NOTHING, workers: int = 1,
    ):  # fmt: skip
        self.examples, self.size, self.dtype, self.seed, self.how = examples, size, dtype, seed, how
        self.preprocessing, self.channels, self.workers = preprocessing, channels, max(1, workers)
        n = len(examples)
        self.count = n // size if seed is not None and n % size == 1 and n > 1 else -(-n // size)
        p = preprocessing
        channel = np.arange(channels) if examples.x is None else np.arange(examples.x.shape[1])
        mean, std = (np.asarray(v)[channel % len(v)] for v in (p.mean, p.std))
        self.mean, self.std = mean, std
        pixel = np.arange(256)[None] / p.scale
        self.table = ((pixel - mean[:, None]) / std[:, None]).astype(dtype)  # C 256

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches from number `start` on."""
        order = self.order(epoch)
        pool = ThreadPoolExecutor(self.workers)
        waiting: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        try:
            for k in range(start, self.count):
                waiting.append(pool.submit(self.batch, epoch, k, order))
                if len(waiting) > AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def order(self, epoch: int) -> np.ndarray:
        """The examples' numbers in the order of an epoch."""
        n = len(self.examples)
        return np.arange(n) if self.seed is None else counters.permutation(n, self.seed, epoch)

    def batch(self, epoch: int, k: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Batch `k` of an epoch."""
        rows = order[k * self.size : (k + 1) * self.size]
        x = self._raw(rows, epoch, k)
        if self.seed is not None:
            x = augment(x, self.how, self.seed, epoch, k)
        if self.examples.size is not None:  # after it, so that it moves images by parts of them as large
            from common.training.data.images import resized

            x = resized(np.ascontiguousarray(x), self.examples.size, self.preprocessing.interpolation)
        return self.scaled(x), self.examples.labels[rows]

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Pixels (N C *S) as the net takes them."""
        if x.dtype != np.uint8:
            shape = (-1, *(1,) * (x.ndim - 2))
            scaled = x / self.preprocessing.scale
            return ((scaled - self.mean.reshape(shape)) / self.std.reshape(shape)).astype(self.dtype)
        return np.stack([self.table[c][x[:, c]] for c in range(x.shape[1])], 1)

    def _raw(self, rows: np.ndarray, epoch: int, k: int) -> np.ndarray:
        if self.examples.x is not None:  # red, green and blue, as images are
            x = self.examples.x[rows]
            return x[:, ::-1] if self.preprocessing.channel_order == "BGR" else x
        from common.training.data.folder import pixels

        draws: np.ndarray | None = None
        if self.seed is not None and self.how.crop == "resized":
            draws = counters.raw(len(rows) * 30, self.seed, counters.AUGMENT, epoch, k, 1).reshape(len(rows), 30)
        return np.stack(
            [
                pixels(self.examples.files[i], self.preprocessing, self.channels, None if draws is None else draws[j])
                for j, i in enumerate(rows)
            ]
        )
