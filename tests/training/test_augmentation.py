"""What becomes of data before a net sees them, against counts worked out by hand, scikit-learn, torchvision and timm.

An image whose every pixel says where it was tells how it was shifted and mirrored. Bounds are six standard deviations.
"""

import math
import types

import numpy as np
import pytest

from common.checkpoints.libraries import LIBRARIES
from common.checkpoints.preprocessing import CIFAR10, IMAGENET, Preprocessing, imagenet
from common.training import data as datasets
from common.training import evaluation
from common.training.data import Batches, Examples, augment, counters, sources
from common.training.data.augment import Augment

SIDE, PAD, N = 15, 2, 6000
PLACES = np.arange(1, 1 + SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)  # where a pixel was; 0 is padding
HOW = Augment("pad", PAD, flip=True)


def drawn(epoch: int = 0, batch: int = 0, n: int = N) -> np.ndarray:
    """(down, right, mirrored) of each of n images, as the pixels say."""
    x = np.broadcast_to(PLACES, (n, 1, SIDE, SIDE))
    y = augment.augment(x, HOW, 5, epoch, batch)[:, 0].astype(int) - 1
    c = SIDE // 2
    mirrored = y[:, c, c + 1] < y[:, c, c]
    row, column = np.divmod(y[:, c, c], SIDE)
    found = np.stack([row - c, np.where(mirrored, c - column, column - c), mirrored], 1)
    for image, (down, right, flip) in zip(y[:50], found[:50], strict=True):  # and all the other pixels with them
        padded = np.pad(PLACES.astype(int), PAD)[PAD + down : PAD + down + SIDE]
        at = PAD + (-right if flip else right)
        cut = padded[:, at : at + SIDE]
        assert np.array_equal(cut[:, ::-1] if flip else cut, image + 1)
    return found


def even(counts: np.ndarray, n: int) -> None:
    """Whether n draws fell on so many places alike."""
    p = 1 / counts.size
    assert np.abs(counts - n * p).max() < 6 * math.sqrt(n * p * (1 - p)), counts


def table(*columns: np.ndarray) -> np.ndarray:
    """How often each combination was drawn; the first two are shifts, the third 0 or 1."""
    sizes = [2 if set(np.unique(c)) <= {0, 1} and i == len(columns) - 1 else 2 * PAD + 1 for i, c in enumerate(columns)]
    counts = np.zeros(sizes, int)
    np.add.at(counts, tuple(c + PAD if s > 2 else c for c, s in zip(columns, sizes, strict=True)), 1)
    return counts


def test_every_shift_and_mirror_image_is_as_likely_as_any_other():
    """He et al. 2015, section 4.2: 4 pixels padded on each side, a random crop of it or of its mirror image."""
    down, right, mirrored = drawn().T
    assert set(down) == set(right) == set(range(-PAD, PAD + 1))
    even(np.bincount(mirrored), N)
    even(table(down, right, mirrored), N)  # so each is independent of the others


def test_a_signal_is_shifted_along_its_axis():
    x = np.broadcast_to(np.arange(1, 201, dtype=np.uint8), (N, 1, 200))
    y = augment.augment(x, Augment("pad", 3), 0, 0, 0)[:, 0].astype(int)
    moved = y[:, 100] - 101
    even(np.bincount(moved + 3), N)
    assert all(np.array_equal(np.pad(x[0, 0], 3)[3 + m : 203 + m], row) for m, row in zip(moved[:30], y, strict=False))


def test_every_epoch_and_batch_is_drawn_anew():
    n = 600
    found = {(e, b): drawn(e, b, n) for e in range(3) for b in range(3)}
    assert all(np.array_equal(drawn(e, b, n), f) for (e, b), f in found.items())  # and the same again
    keys = list(found)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            for u, v in zip(found[a].T, found[b].T, strict=True):
                assert abs(np.corrcoef(u, v)[0, 1]) < 6 / math.sqrt(n), (a, b)


def test_batches_are_augmented_in_training_alone():
    x = np.broadcast_to(PLACES, (40, 1, SIDE, SIDE)).copy()
    examples, plain = Examples(np.arange(40) % 2, x), Preprocessing((0.0,), (1.0,), scale=1.0)
    trained = np.concatenate([b for b, _ in Batches(examples, 16, plain, channels=1, seed=1, how=HOW).epoch()])
    tested = np.concatenate([b for b, _ in Batches(examples, 16, plain, channels=1, how=HOW).epoch()])
    assert np.array_equal(tested, x) and (trained != x).any((1, 2, 3)).mean() > 0.8


def test_random_parts_are_torchvisions(referees):
    """Area, shape and place of RandomResizedCrop, by their distributions (Kolmogorov and Smirnov)."""
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    n, width, height = 4000, 300, 200
    image = torch.zeros(1, height, width)
    ours = np.array([augment.part(width, height, counters.raw(30, 3, 1, i)) for i in range(n)])
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)])
    left, top, right, bottom = ours.T
    theirs = theirs[:, [1, 0, 3, 2]]  # top, left, height, width
    ours = np.stack([left, top, right - left, bottom - top], 1)

    def said(found):
        x, y, w, h = found.T.astype(float)
        return {"area": w * h, "aspect": w / h, "across": (x + w / 2), "down": (y + h / 2)}

    a, b = said(ours), said(theirs)
    for key in a:
        values = np.sort(np.concatenate([a[key], b[key]]))
        steps = [np.searchsorted(np.sort(of[key]), values, "right") / n for of in (a, b)]
        assert np.abs(steps[0] - steps[1]).max() < 2.2 * math.sqrt(2 / n), key  # one in 30,000 by chance


def test_uniform_and_normal_numbers():
    n = 100_000
    u, z = counters.uniform(counters.raw(n, 1, 2, 3)), counters.normal(n, 1, 2, 3)
    assert 0 <= u.min() and u.max() < 1
    even(np.histogram(u, 20, (0, 1))[0], n)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # and the variance of z ** power
        assert abs((z**power).mean() - moment) < 6 * math.sqrt(spread / n)


# -- which data


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), datasets.load("digits")
    last = np.arange(1797) % 5 == 4
    for part, rows in ((ours.train, ~last), (ours.test, last)):
        assert np.array_equal(part.labels, theirs.target[rows])
        assert np.abs(part.x[:, 0] * (16 / 255) - theirs.images[rows]).max() <= 16 / 255 / 2
    assert ours.classes == tuple(map(str, theirs.target_names))
    x = np.concatenate([ours.train.x, ours.test.x]) / 255
    assert ours.preprocessing.mean[0] == pytest.approx(x.mean(), abs=6e-5)
    assert ours.preprocessing.std[0] == pytest.approx(x.std(), abs=6e-5)


def test_cifars_classes_and_channels():
    """Krizhevsky's page lists the classes in this order; the means are those of red, green and blue as everybody has
    them, of which red's is the largest: skies are not in the majority, animals and earth are."""
    assert CIFAR10 == tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    for name, red, green, blue in (("cifar10", 0.4914, 0.4822, 0.4465), ("cifar100", 0.5071, 0.4865, 0.4409)):
        *_, mean, std = sources._CIFAR[name]
        assert mean == (red, green, blue) and red > green > blue and std[2] > std[0] > std[1]


def test_imagenets_numbers_are_timms_and_torchvisions(referees):
    models, _ = referees
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    assert (IMAGENET.mean, IMAGENET.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    theirs = models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    for ours in (IMAGENET, imagenet(224)):
        assert ours.mean == tuple(theirs.mean) and ours.std == tuple(theirs.std) and ours.scale == 255
        assert [ours.resize] == theirs.resize_size and [ours.size] == theirs.crop_size
        assert ours.interpolation == theirs.interpolation.value and ours.channel_order == "RGB"
    assert imagenet(112).resize == 128


def test_keras_applications_numbers_are_its_own():
    """What `preprocess_input` makes of an array of pixels, for both of its families."""
    keras = pytest.importorskip("keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    libraries = {lib.traits: lib.preprocessing for lib in LIBRARIES if lib.name == "keras.applications"}
    assert len(libraries) == 2
    for traits, how in libraries.items():
        v2 = any("preact" in t for t in traits)
        theirs = keras.applications.resnet_v2 if v2 else keras.applications.resnet
        expected = theirs.preprocess_input(pixels.astype(np.float64), data_format="channels_last")
        examples = Examples(np.zeros(2, int), np.moveaxis(pixels, -1, 1))
        ((found, _),) = Batches(examples, 2, how, dtype="float64").epoch()
        assert np.abs(np.moveaxis(found, 1, -1) - expected).max() < 1e-5


# -- what a net says of them


def test_a_checkpoints_own_preprocessing_comes_first(monkeypatch):
    own, datas = Preprocessing((0.5,), (0.25,)), Preprocessing((0.1,), (0.2,))
    jobs = []

    class Fake:
        def __init__(self, spec, device):
            self.spec = spec

        def run(self, job):
            jobs.append(job)
            return iter([types.SimpleNamespace(value=np.eye(3)[:2])])

        def close(self):
            pass

    monkeypatch.setattr(evaluation, "Elsewhere", Fake)
    arch = types.SimpleNamespace(num_classes=3, in_channels=1)
    found = types.SimpleNamespace(notes=[], told={}, preprocessing=own, arch=arch, weights=dict)
    examples = Examples(np.zeros(2, int), np.zeros((2, 1, 4, 4), np.uint8))
    assert evaluation.answers(found, examples, preprocessing=datas).preprocessing == own == jobs[-1].preprocessing
    found.preprocessing = None
    assert evaluation.answers(found, examples, preprocessing=datas).preprocessing == datas == jobs[-1].preprocessing


def test_how_far_two_frameworks_logits_are_apart():
    """By hand: the largest difference is 3, the first one's largest number 4; of three examples one has another
    class."""
    logits = {"torch": np.array([[1.0, 4], [2, 0], [-4, -1]]), "keras": np.array([[1.0, 2], [2, 3], [-4, -1]])}
    got = evaluation.Answers(None, logits, None, [])
    assert got.apart == 0.75 and got.same_classes == 2
    assert evaluation.Answers(None, {"torch": logits["torch"]}, None, []).apart is None
