"""Data: the same batches whatever the workers and the restart, and clear words for what is no data."""

import gzip
import http.server
import io
import tarfile
import threading
from functools import partial

import numpy as np
import pytest
from conftest import ROOT  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError
from common.training import data as datasets
from common.training.data import Batches, Examples, augment, counters, download, folder, sources
from common.training.data.augment import Augment
from common.training.data.examples import held_out

PLAIN = Preprocessing((0.0,), (1.0,), scale=1.0)


def examples(n=37, shape=(1, 9, 7)) -> Examples:
    x = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    return Examples(np.arange(n, dtype=np.int64), x)


def epoch(workers=1, start=0, number=0, **kwargs):
    how = Augment("pad", 2, flip=True)
    return list(
        Batches(examples(), 8, PLAIN, channels=1, seed=3, how=how, workers=workers, **kwargs).epoch(number, start)
    )


def test_batches_depend_on_seed_epoch_and_number_alone():
    whole = epoch()
    for workers, start in ((1, 2), (3, 0), (4, 3)):
        for (x, y), (a, b) in zip(whole[start:], epoch(workers, start), strict=True):
            assert np.array_equal(x, a) and np.array_equal(y, b)
    assert sorted(np.concatenate([y for _, y in whole])) == list(range(37))
    assert not np.array_equal(whole[0][1], epoch(number=1)[0][1])


def test_what_is_drawn_never_changes():
    """Runs of last year are to be repeated: Philox's raw numbers are numpy's promise, what is made of them ours."""
    assert counters.raw(2, 5, counters.AUGMENT, 1, 2).tolist() == [9883722841766589021, 16683568341380906759]
    assert counters.permutation(6, 0, 0).tolist() == [0, 2, 1, 5, 4, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.booleans(), st.integers(1, 2), st.integers(0, 99))
def test_augmented_images_are_shifted_and_mirrored_ones(pad, flip, dims, seed):
    x = examples(5, (2, 6, 5)[: dims + 1]).x
    found = augment.augment(x, Augment("pad", pad, flip), seed, 1, 2)
    assert found.shape == x.shape
    padded = np.pad(x, ((0, 0), (0, 0), *((pad, pad),) * dims))
    views = np.lib.stride_tricks.sliding_window_view(padded, x.shape[2:], tuple(range(2, 2 + dims)))
    for i, y in enumerate(found):
        places = np.moveaxis(views[i].reshape(x.shape[1], -1, *x.shape[2:]), 1, 0)
        mirrored = [places[..., ::-1]] if flip else []
        assert any((p == y).all() for of in (places, *mirrored) for p in of)


def test_both_kinds_of_augmentation_happen():
    x = np.broadcast_to(np.arange(8, dtype=np.uint8), (400, 1, 8, 8))
    found = augment.augment(x, Augment("", 0, flip=True), 0, 0, 0)
    assert 0.4 < (found[:, 0, 0, 0] == 7).mean() < 0.6
    found = augment.augment(x, Augment("pad", 2), 0, 0, 0)
    assert set(found[:, 0, 4, 4]) == {2, 3, 4, 5, 6}


def test_parts_of_images_are_within_and_as_large_as_said():
    areas = []
    for seed in range(300):
        left, top, right, bottom = augment.part(60, 40, counters.raw(30, seed, 1))
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40
        areas.append((right - left) * (bottom - top) / 2400)
    assert min(areas) < 0.15 and max(areas) > 0.8
    assert augment.part(1, 1000, counters.raw(30, 0, 1)) == (0, 499, 1, 500)  # ten tries in vain


def test_pixels_are_scaled_as_the_preprocessing_says():
    how = Preprocessing((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    x = examples(4, (3, 5, 5))
    ((scaled, _),) = Batches(x, 4, how, dtype="float64").epoch()
    mean, std = (np.array(v)[:, None, None] for v in (how.mean, how.std))
    assert np.array_equal(scaled, (x.x / 255 - mean) / std)
    wide = Examples(x.labels, x.x.astype(np.float32))
    ((same, _),) = Batches(wide, 4, how, dtype="float64").epoch()
    assert np.abs(scaled - same).max() < 1e-6


def test_a_last_batch_of_one_is_left_out_of_training():
    assert len(Batches(examples(17), 8, PLAIN, seed=0)) == 2
    assert len(Batches(examples(18), 8, PLAIN, seed=0)) == 3
    assert len(Batches(examples(17), 8, PLAIN)) == 3


def test_digits_and_signals():
    digits = datasets.load("digits")
    assert digits.shape == (1, 8, 8) and (len(digits.train), len(digits.test)) == (1438, 359)
    ecg = datasets.load("ecg")
    assert ecg.shape == (1, 1000) and ecg.train.x.dtype == np.float32 and len(ecg.classes) == 4
    assert np.bincount(ecg.test.labels).tolist() == [200] * 4


@pytest.fixture
def server(tmp_path):
    """(folder, address): what lies in the folder is served."""
    root = tmp_path / "served"
    root.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=root)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def fashion(monkeypatch):
    """Fashion-MNIST's four files, of which the sums are those of a small set in the same format."""
    rng, files = np.random.default_rng(0), {}
    for which, n in (("train", 20), ("t10k", 10)):
        images = b"\0\0\x08\x03" + b"".join(k.to_bytes(4, "big") for k in (n, 28, 28)) + rng.bytes(n * 784)
        labels = b"\0\0\x08\x01" + n.to_bytes(4, "big") + bytes(i % 10 for i in range(n))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{which}-{kind}-ubyte"
            files[name] = gzip.compress(content)
            monkeypatch.setitem(sources._FASHION, name, sources.hashlib.sha256(content).hexdigest())
    return files


def test_fashion_mnist_from_the_network_and_from_a_folder(server, fashion, monkeypatch, tmp_path):
    root, address = server
    for name, content in fashion.items():
        (root / f"{name}.gz").write_bytes(content)
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "none")
    monkeypatch.setattr(sources, "FASHION_URL", address)
    monkeypatch.setenv("RESNET_ROSETTA_CACHE", str(tmp_path / "cache"))
    data = datasets.load("fashion-mnist")
    assert data.train.x.shape == (20, 1, 28, 28) and data.test.labels.tolist() == list(range(10))
    (root / "train-images-idx3-ubyte.gz").unlink()  # it is in the cache now
    assert np.array_equal(datasets.load("fashion-mnist").train.x, data.train.x)
    for deeper in ("cache/fashion-mnist", "cache", "."):  # torchvision's are in FashionMNIST/raw
        here = datasets.load("fashion-mnist", tmp_path / deeper)
        assert np.array_equal(here.train.x, data.train.x)
    with pytest.raises(RosettaError, match="no such file: .*train-images-idx3-ubyte.gz, nor train-images"):
        datasets.load("fashion-mnist", root / "nothing")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("missing", "404"), ("other", "checksum"), ("short", "came damaged"), ("nobody", "can't download")],
)
def test_a_download_that_fails_leaves_nothing(server, fashion, monkeypatch, tmp_path, fault, expected):
    root, address = server
    if fault == "nobody":
        address = "http://127.0.0.1:9"
    for name, content in fashion.items() if fault != "missing" else ():
        kept = content if fault != "short" else content[: len(content) // 2]
        (root / f"{name}.gz").write_bytes(kept if fault != "other" else gzip.compress(b"another file"))
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "none")
    monkeypatch.setattr(sources, "FASHION_URL", address)
    monkeypatch.setenv("RESNET_ROSETTA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RosettaError, match=expected):
        datasets.load("fashion-mnist")
    assert not any(p.is_file() for p in (tmp_path / "cache").rglob("*"))


def test_the_real_fashion_mnist():
    if not sources._DEBIAN.is_dir():
        pytest.skip("Fashion-MNIST isn't there: Debian's package dataset-fashion-mnist has it")
    data = datasets.load("fashion-mnist")
    assert len(data.train) == 60_000 and len(data.test) == 10_000
    assert data.train.x.mean() / 255 == pytest.approx(data.preprocessing.mean[0], abs=1e-4)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_the_binary_format(name, server, monkeypatch, tmp_path):
    root, address = server
    rng, coarse = np.random.default_rng(0), name == "cifar100"
    x, y = rng.integers(0, 256, (30, 3, 32, 32), np.uint8), np.arange(30, dtype=np.uint8) % 10
    rows = [np.full((30, 1), 7, np.uint8)] * coarse + [y[:, None], x.reshape(30, -1)]
    content = np.concatenate(rows, 1).tobytes()
    url, _, train, test, *stats = sources._CIFAR[name]
    with tarfile.open(root / "archive.tar.gz", "w:gz") as tar:
        files = {
            **dict.fromkeys([*train, test], content),
            "fine_label_names.txt": b"\n".join(b"c%d" % i for i in range(100)),
        }
        for file, what in files.items():
            info = tarfile.TarInfo(f"../../out/{file}")  # an archive's paths lead nowhere
            info.size = len(what)
            tar.addfile(info, io.BytesIO(what))
    md5 = sources.hashlib.md5((root / "archive.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setitem(sources._CIFAR, name, (f"{address}/archive.tar.gz", md5, train, test, *stats))
    monkeypatch.setenv("RESNET_ROSETTA_CACHE", str(tmp_path / "cache"))
    data = datasets.load(name)
    assert np.array_equal(data.test.x, x) and np.array_equal(data.test.labels, y)
    assert len(data.train) == 30 * len(train) and len(data.classes) == (100 if coarse else 10)
    assert np.array_equal(datasets.load(name, tmp_path / "cache" / name).test.x, x)
    (tmp_path / "cache" / name / test).write_bytes(content[:-5])
    with pytest.raises(RosettaError, match="an image each"):
        datasets.load(name, tmp_path / "cache" / name)
    (tmp_path / "cache" / name / test).write_bytes(content[:coarse] + b"\xc8" + content[coarse + 1 :])
    with pytest.raises(RosettaError, match=f"{test} has labels up to 200"):
        datasets.load(name, tmp_path / "cache" / name)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_torchvisions_pickles(name, protocol, tmp_path):
    """cifar-10-batches-py: read by stand-ins for what they name."""
    import pickle

    rng, coarse = np.random.default_rng(0), name == "cifar100"
    x, y = rng.integers(0, 256, (30, 3072), np.uint8), (np.arange(30) % 10).tolist()
    row = {
        b"data": x,
        b"fine_labels" if coarse else b"labels": y,
        b"coarse_labels": [3] * 30,
        b"filenames": [b"a"] * 30,
    }
    folder = tmp_path / "data" / "cifar-batches-py"
    folder.mkdir(parents=True)
    names = ["train", "test"] if coarse else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for file in names:
        (folder / file).write_bytes(pickle.dumps(row, protocol))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"c%d" % i for i in range(100)]}, protocol))
    if protocol == 0:  # words of another age, which these files haven't
        with pytest.raises(RosettaError, match="is no batch of CIFAR: it has the word"):
            datasets.load(name, tmp_path)
        return
    data = datasets.load(name, tmp_path)
    assert np.array_equal(data.test.x, x.reshape(30, 3, 32, 32)) and data.test.labels.tolist() == y
    assert len(data.train) == 30 * (len(names) - 1) and data.classes[1] == ("c1" if coarse else "automobile")


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("was run",)


# a dictionary whose key is a tuple of the same tuple twice, sixty deep: to hash it takes for ever
NESTED = b"\x80\x02})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x00s."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Evil(), "it names (posix|nt).mkdir"),
        ({b"data": Evil()}, "it names (posix|nt).mkdir"),
        (np.zeros(3), "it is a _Array, no dictionary"),
        ({b"data": np.zeros((3, 3072)), b"labels": [0, 1, 2]}, "3072 bytes"),
        ({b"data": np.zeros(3, object)}, "'O8'"),
        ([1, 2], "no batch of CIFAR"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, "and labels"),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 10]}, "labels from 0 to 9"),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1]}, "expected 3 labels"),
        ({b"data": np.zeros((3, 30), np.uint8), b"labels": [0, 1, 2]}, "3072"),
        (NESTED, "a key that is no word"),
        ({bytearray(9).decode(): bytearray(9)}, "names .*bytearray"),
    ],
)
def test_pickles_that_are_not_cifars(tmp_path, monkeypatch, content, expected):
    import pickle

    monkeypatch.chdir(tmp_path)
    for file in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 2))
    with pytest.raises(RosettaError, match=f"batch.*{expected}"):
        datasets.load("cifar10", tmp_path)
    assert not (tmp_path / "was run").exists()


@pytest.fixture
def images(tmp_path):
    """A folder of two classes, of images that differ in size."""
    rng = np.random.default_rng(0)
    for half, n in (("train", 4), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "pictures" / half / name).mkdir(parents=True)
            for i in range(n):
                size = (40 + 7 * i, 50, 3)
                pixels = rng.integers(0, 100, size).astype(np.uint8) + np.uint8(100 * label)
                Image.fromarray(pixels).save(tmp_path / "pictures" / half / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_folder_of_images(images):
    data = datasets.load(f"folder:{images}", size=32)
    assert data.classes == ("cat", "dog") and data.train.labels.tolist() == [0] * 4 + [1] * 4
    (x, y), *_ = Batches(data.train, 8, data.preprocessing, seed=0, how=data.augment, workers=2).epoch()
    assert x.shape == (8, 3, 32, 32) and x[y == 1].mean() > x[y == 0].mean()
    again, *_ = Batches(data.train, 8, data.preprocessing, seed=0, how=data.augment).epoch()
    assert np.array_equal(x, again[0])


def test_corrupt_images_are_named_counted_and_skipped_only_if_asked(images):
    (images / "train" / "cat" / "1.png").write_bytes(b"no image")
    whole = (images / "train" / "dog" / "2.png").read_bytes()
    (images / "train" / "dog" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RosettaError, match=r"2 images that can't be read(?s:.*)cat/1.png(?s:.*)dog/2.png"):
        datasets.load(f"folder:{images}")
    data = datasets.load(f"folder:{images}", skip_corrupt=True)
    assert len(data.train) == 6 and "left out 2 images" in data.notes[0]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: [f.unlink() for f in (p / "train" / "cat").iterdir()], "train/cat has no image"),
        (lambda p: (p / "val").rename(p / "elsewhere"), "no folder val: .*--hold-out"),
        (lambda p: (p / "train").rename(p / "train2"), "no folder train"),
        (lambda p: (p / "val" / "cat").rename(p / "val" / "cow"), "lacks: cow"),
        (lambda p: [(p / h / "cat").rename(p / f"{h}cat") for h in ("train", "val")], "1 folders of a class"),
        (lambda p: p.rename(p.with_name("elsewhere")), "no such folder"),
    ],
    ids=["empty class", "no val", "no train", "strange class", "one class", "nothing"],
)
def test_a_folder_that_is_no_data(images, spoil, expected):
    spoil(images)
    with pytest.raises(RosettaError, match=expected):
        datasets.load(f"folder:{images}")


def test_a_folder_needs_no_val_to_hold_out(images):
    (images / "val").rename(images / "elsewhere")
    data = held_out(datasets.load(f"folder:{images}", hold_out=True), 0.25, 0)
    assert (len(data.train), len(data.test)) == (6, 2) and "held-out" in data.part
    assert not set(data.train.files) & set(data.test.files)


def test_a_class_that_val_lacks_is_noted(images):
    (images / "val" / "cat" / "0.png").unlink()
    (images / "val" / "cat" / "1.png").unlink()
    data = datasets.load(f"folder:{images}")
    assert data.test.labels.tolist() == [1, 1] and "val has no image of cat" in data.notes[0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_named_data_are_resized_to_what_is_asked(interpolation, referees):
    """Batch by batch, antialiased, to torchvision's bit; and what the net sees is what preprocessing and shape say."""
    import dataclasses

    from torchvision.transforms import InterpolationMode, Resize

    data = datasets.load("digits", size=20)
    assert data.shape == (1, 20, 20) and (data.preprocessing.size, data.preprocessing.resize) == (20, 20)
    assert data.train.x.shape[2:] == (8, 8)  # they take no more memory
    how = dataclasses.replace(data.preprocessing, interpolation=interpolation)
    ((x, y), *_) = Batches(data.test, 50, how, channels=1, dtype="float64").epoch()
    assert x.shape == (50, 1, 20, 20)
    transform = Resize(20, InterpolationMode(interpolation))
    for i in range(50):
        seen = np.asarray(transform(Image.fromarray(data.test.x[i, 0])), np.float64)
        assert np.array_equal(x[i, 0], (seen / 255 - how.mean[0]) / how.std[0])
    half = held_out(data, 0.5, 0)
    ((x, _), *_) = Batches(half.train, 8, how, channels=1, seed=0, how=data.augment).epoch()
    assert x.shape == (8, 1, 20, 20)
    assert datasets.load("digits", size=8).train.size is None


def test_what_has_no_size_says_so(tmp_path):
    with pytest.raises(RosettaError, match="signals of 1000 places: --size is for images"):
        datasets.load("ecg", size=20)
    with pytest.raises(RosettaError, match="at most 4096"):
        datasets.load("digits", size=10**9)
    x = np.random.default_rng(0).standard_normal((6, 9, 12, 3)).astype(np.float32)
    npz(tmp_path / "a.npz", x_train=x, x_test=x)
    data = datasets.load(str(tmp_path / "a.npz"), size=9)  # the middle of what isn't square, as of a photograph
    ((seen, _),) = Batches(data.test, 6, Preprocessing((0.0,) * 3, (1.0,) * 3, 1.0, 9, 9), dtype="float64").epoch()
    assert np.array_equal(seen, np.moveaxis(x, -1, 1)[..., 2:11])


def npz(path, **changes):
    x = np.zeros((6, 5, 5, 3), np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(6) % 3, "x_test": x, "y_test": np.arange(6) % 3} | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_a_npz(tmp_path):
    npz(tmp_path / "a.npz", classes=np.array(["x", "y", "z"]))
    data = datasets.load(str(tmp_path / "a.npz"))
    assert data.shape == (3, 5, 5) and data.classes == ("x", "y", "z")
    npz(tmp_path / "b.npz", x_train=np.zeros((6, 50, 2)), x_test=np.zeros((6, 50, 2)))
    assert datasets.load(str(tmp_path / "b.npz")).shape == (2, 50)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"y_train": np.arange(6) * 0}, "1 class:"),
        ({"y_test": np.arange(6)}, "labels from 0 to 5: expected 0 to 2"),
        ({"y_test": np.arange(6) - 1}, "labels from -1"),
        ({"y_train": np.arange(5)}, "for 6 examples"),
        ({"y_train": np.arange(6) / 2}, "expected integers; y.astype"),
        ({"y_train": np.array(list("abcabc"))}, "expected integers; .*return_inverse"),
        ({"y_train": np.eye(6)}, r"y_train \(6, 6\), which looks one-hot: .*argmax"),
        ({"y_train": np.arange(6) % 3 * 1000}, "3 different labels, up to 2000: expected 0 to 2; .*return_inverse"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 10**9])}, "4 different labels, up to 1000000000"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 2**63], np.uint64)}, "labels from 0 to 9223372036854775808"),
        ({"y_train": np.arange(6) % 3 - 1}, "labels from -1 to 1"),
        ({"classes": np.array(["a", "b", "c\x1b[2J"])}, "can't be printed"),
        ({"classes": np.zeros((3, 2))}, "a name for each class"),
        ({"x_train": np.zeros((6, 5, 5, 3), int)}, "astype.numpy.uint8"),
        ({"x_train": np.full((6, 5, 5, 3), 1e300)}, "number 0 is not finite"),
        ({"x_train": np.zeros((6, 0, 5, 3), np.uint8)}, "none of them 0"),
        ({"x_train": np.full((6, 5, 5, 3), np.nan)}, "finite"),
        ({"x_test": np.zeros((6, 4, 5, 3), np.uint8)}, "one shape"),
        ({"x_train": np.array([{}] * 6)}, "plain arrays"),
    ],
)
def test_a_npz_that_is_no_data(tmp_path, changes, expected):
    npz(tmp_path / "a.npz", **changes)
    with pytest.raises(RosettaError, match=expected):
        datasets.load(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("shape", [(1, 9), (2, 512), (12, 5000), (3, 32, 32), (1, 28, 28), (4, 60, 90), (13, 64, 64)])
def test_axes_that_look_swapped_are_asked_about(tmp_path, shape):
    """PyTorch's layout, which was trained as so many channels of a few places."""
    x = np.random.default_rng(0).standard_normal((6, *shape)).astype(np.float32)
    npz(tmp_path / "a.npz", x_train=x, x_test=x)
    with pytest.raises(RosettaError, match=f"{shape[-1]} channels.*--layout channels-first"):
        datasets.load(str(tmp_path / "a.npz"))
    data = datasets.load(str(tmp_path / "a.npz"), layout="channels-first")
    assert data.shape == shape and np.array_equal(data.train.x, x)
    data = datasets.load(str(tmp_path / "a.npz"), layout="channels-last")
    assert data.shape == (shape[-1], *shape[:-1])


@pytest.mark.parametrize("shape", [(9, 1), (512, 2), (5000, 12), (100, 100), (32, 32, 3), (28, 28, 1), (64, 64, 13)])
def test_axes_that_are_plain_are_taken_as_they_are(tmp_path, shape):
    x = np.random.default_rng(0).standard_normal((6, *shape)).astype(np.float32)
    npz(tmp_path / "a.npz", x_train=x, x_test=x)
    data = datasets.load(str(tmp_path / "a.npz"))
    assert data.shape == (shape[-1], *shape[:-1]) and np.array_equal(data.train.x, np.moveaxis(x, -1, 1))


def test_a_layout_is_said_on_the_command_line_and_kept(tmp_path):
    """N C L trained a net of 512 channels and 2 positions."""
    from click.testing import CliRunner

    from common.cli import cli
    from common.training import run as training

    x = np.random.default_rng(0).standard_normal((12, 2, 64)).astype(np.float32)
    npz(tmp_path / "a.npz", x_train=x, x_test=x, y_train=np.arange(12) % 3, y_test=np.arange(12) % 3)

    def run(*args):
        return CliRunner().invoke(cli, [str(a) for a in args])

    line = (
        "train",
        "resnet18_1d",
        "--data",
        tmp_path / "a.npz",
        "--steps",
        1,
        "--set",
        "depths=[1,1]",
        "--hold-out",
        0.25,
        "--out",
    )
    line += (tmp_path / "run", "--set", "widths=[8,8]")
    refused = run(*line)
    assert refused.exit_code == 2 and "--layout channels-first" in refused.stderr
    done = run(*line, "--layout", "channels-first")
    assert done.exit_code == 0, done.output
    loaded = training.Run.load(tmp_path / "run")
    assert loaded.layout == "channels-first" and loaded.load_data().shape == (2, 64)
    assert loaded.arch.in_channels == 2
    assert done.exit_code == 0 and (tmp_path / "run" / "last.safetensors").exists()
    said = run("evaluate", tmp_path / "run").stdout
    assert "on a: 3 examples, the held-out part of the training examples" in said
    with pytest.raises(RosettaError, match="layout .* can't be for digits"):
        datasets.load("digits", layout="channels-first")


def test_a_class_without_an_example_is_noted(tmp_path):
    npz(tmp_path / "a.npz", y_train=np.arange(6) % 3 + 1, y_test=np.arange(6) % 3 + 1)
    data = datasets.load(str(tmp_path / "a.npz"))
    assert data.notes == ["no training example is of class 0: labels begin at 0, and these at 1"]
    npz(tmp_path / "a.npz", classes=np.array(["x", "y", "z", "w"]))
    assert datasets.load(str(tmp_path / "a.npz")).notes == ["no training example is of class w"]


def test_files_that_are_no_npz(tmp_path):
    whole = tmp_path / "a.npz"
    npz(whole)
    content = whole.read_bytes()
    at = content.index(b"NUMPY")
    damaged = {
        "text": b"x_train, y_train", "half": content[: len(content) // 2], "empty": b"",
        "a member cut": content.replace(b"\x93NUMPY", b"\x93NUMP", 1),
        "bit": content[: at + 200] + b"!" + content[at + 201 :],
    }  # fmt: skip
    for kind, what in damaged.items():
        whole.write_bytes(what)
        with pytest.raises(RosettaError, match=r"a\.npz") as error:
            datasets.load(str(whole))
        assert "pickle" not in str(error.value), kind
    whole.unlink()
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(whole)
    with pytest.raises(RosettaError, match="numpy.savez"):
        datasets.load(str(whole))


def test_a_npz_that_claims_more_than_it_has(tmp_path):
    """Neither a header of terabytes nor zeros packed a thousandfold reach the memory."""
    import zipfile

    npz(tmp_path / "a.npz")
    head = b"\x93NUMPY\x01\0\x76\0{'descr': '|u1', 'fortran_order': False, 'shape': (6, 9000000, 9000, 3), }"
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("x_train.npy", head.ljust(127) + b"\n")
    with pytest.raises(RosettaError, match="1,458,000,000,000 bytes by its header, and 0 are there"):
        datasets.load(str(tmp_path / "a.npz"))
    x = np.zeros((6, 6000, 1000, 3), np.uint8)
    np.savez_compressed(tmp_path / "b.npz", x_train=x, y_train=np.arange(6) % 2, x_test=x[:1], y_test=[0])
    with pytest.raises(RosettaError, match="claims 1.* unpacked, more than 100 times"):
        datasets.load(str(tmp_path / "b.npz"))


def test_unknown_data(tmp_path):
    with pytest.raises(RosettaError, match="did you mean.*fashion-mnist"):
        datasets.load("fasion-mnist")
    with pytest.raises(RosettaError, match="no such file"):
        datasets.load("missing.npz")
    with pytest.raises(RosettaError, match=f"that is a folder: --data folder:{tmp_path}"):
        datasets.load(str(tmp_path))
    npz(tmp_path / "a.npz")
    with pytest.raises(RosettaError, match=f"a.npz is a file: --data {tmp_path}"):
        datasets.load(f"folder:{tmp_path / 'a.npz'}")


def test_the_cache_is_where_it_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.delenv("RESNET_ROSETTA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache() == tmp_path / "resnet-rosetta"


def test_what_has_nothing_to_measure_on_can_hold_out(tmp_path):
    npz(tmp_path / "a.npz", x_test=None, y_test=None)
    with pytest.raises(RosettaError, match="lacks x_test, y_test: .*--hold-out"):
        datasets.load(str(tmp_path / "a.npz"))
    data = held_out(datasets.load(str(tmp_path / "a.npz"), hold_out=True), 0.34, 0)
    assert (len(data.train), len(data.test)) == (4, 2)
    with pytest.raises(RosettaError, match="0.01 of 6 training examples can't be held out"):
        held_out(datasets.load(str(tmp_path / "a.npz"), hold_out=True), 0.01, 0)


def test_held_out_examples_are_of_the_training_ones():
    data = datasets.load("digits")
    part = held_out(data, 0.1, seed=0)
    assert (len(part.train), len(part.test)) == (1438 - 144, 144)
    rows = np.concatenate([part.train.x, part.test.x]).reshape(1438, -1)
    assert np.array_equal(np.unique(rows, axis=0), np.unique(data.train.x.reshape(1438, -1), axis=0))


def test_images_are_found_by_their_suffixes(images):
    (images / "notes.txt").write_text("no image")
    assert len(list(folder.images(images))) == 12
