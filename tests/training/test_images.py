"""Photographs: what is read from a file, against Pillow's and torchvision's own; what is refused, and at what cost."""

import dataclasses
import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib

import hostile
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

from common.arch import get
from common.checkpoints.preprocessing import IMAGENET, Preprocessing
from common.errors import RosettaError
from common.plan import make_plan
from common.training import evaluation
from common.training.data import folder, images

WHOLE = Preprocessing((0.0,), (1.0,), size=16, resize=16)


def noise(height, width, channels=3, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return Image.fromarray(x if channels > 1 else x[..., 0])


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def deep(tmp_path, kind):
    """The ramp of 0 to 255 in a file with more bits than 8."""
    path = tmp_path / f"a.{kind.split()[0]}"
    if kind == "png":
        Image.fromarray(RAMP * 257).save(path)
    elif kind == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + (RAMP * 257).astype(">u2").tobytes())
    elif kind == "tif":
        Image.fromarray(RAMP * 257).save(path)
    elif kind == "tif white is zero":
        Image.fromarray(65535 - RAMP * 257).save(path, tiffinfo={262: 0})
    elif kind == "tif of 0 to 1":
        Image.fromarray(RAMP.astype(np.float32) / 255).save(path)
    elif kind == "tif of 0 to 255":
        Image.fromarray(RAMP.astype(np.float32)).save(path)
    return path


@pytest.mark.parametrize(
    "kind", ["png", "pgm", "tif", "tif white is zero", "tif of 0 to 1", "tif of 0 to 255"]
)  # fmt: skip
def test_more_bits_than_eight_are_scaled_and_kept(tmp_path, kind):
    """Pillow's own convert("L") cuts them off: a ramp of 16 bits comes out white."""
    path = deep(tmp_path, kind)
    for channels in (1, 3):
        found = folder.pixels(path, WHOLE, channels)
        assert found.shape == (channels, 16, 16) and np.abs(found - RAMP).max() < 1e-4
    plan = make_plan(get("cifar_resnet20", in_channels=1))
    x = images.read([path], plan, 16)[0, 0] * np.mean(images.STD) + np.mean(images.MEAN)
    assert 0.9 < x.max() <= 1 and x.min() < 0.15 and np.unique(x).size > 200


def test_between_the_steps_of_eight_bits_nothing_is_lost(tmp_path):
    x = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(x).save(tmp_path / "a.png")
    how = Preprocessing((0.0,), (1.0,), size=64, resize=64)
    found = folder.pixels(tmp_path / "a.png", how, 1)[0]
    assert np.unique(found).size == 4096 and np.allclose(found, x / 257)


def twelve_bits(tmp_path):
    """A TIFF of 12 bits, 2 x 1, black and white, by hand."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 12) + bytes([0x00, 0x0F, 0xFF, 0])  # where the tags are, and the two pixels
    path = tmp_path / "twelve.tif"
    path.write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_twelve_bits_have_their_own_white(tmp_path):
    found = images.photograph(twelve_bits(tmp_path), True)
    assert np.array_equal(np.asarray(found), [[0, 255]])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.full((16, 16), 300, np.float32), "floats from 300 to 300"),
        (np.full((16, 16), -0.1, np.float32), "floats from -0.1"),
        (np.full((16, 16), np.nan, np.float32), "floats from nan"),
        (np.full((16, 16), 7, np.int32), "32 bits"),
    ],
)
def test_numbers_without_a_white_are_refused_everywhere(tmp_path, x, expected):
    path = tmp_path / "a.tif"
    Image.fromarray(x).save(path)
    assert expected in images.fault(path)
    with pytest.raises(RosettaError, match=f"a.tif .*{expected}"):
        folder.pixels(path, WHOLE, 1)
    with pytest.raises(RosettaError, match=f"a.tif .*{expected}"):
        evaluation.pictures([path])
    with pytest.raises(RosettaError, match=f"a.tif .*{expected}"):
        images.read([path], make_plan(get("cifar_resnet20")), 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_photographs_stand_upright(tmp_path, orientation, suffix):
    """A phone writes what its sensor saw, and how it was held."""
    picture = noise(40, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert upright.size == ((24, 40) if orientation < 5 else (40, 24))
    assert np.array_equal(images.photograph(path, False), upright)
    upright.save(tmp_path / "upright.png")
    for how in (WHOLE, IMAGENET):
        assert np.array_equal(folder.pixels(path, how, 3), folder.pixels(tmp_path / "upright.png", how, 3))
    plan = make_plan(get("cifar_resnet20"))
    assert np.array_equal(images.read([path], plan), images.read([tmp_path / "upright.png"], plan))


def test_exif_that_cannot_be_read_is_no_fault(tmp_path):
    noise(8, 8).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(40)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, which says so
        assert images.photograph(tmp_path / "a.jpg", False).size == (8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_ordinary_modes_are_what_pillow_makes_of_them(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    noise(16, 16, 4).convert("RGB").convert(mode).save(path)
    for grey, to in ((True, "L"), (False, "RGB")):
        with Image.open(path) as opened:
            assert np.array_equal(images.photograph(path, grey), opened.convert(to))


def test_a_palette_with_transparency_is_read_without_a_word(tmp_path):
    noise(16, 16).convert("P").save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.photograph(tmp_path / "a.png", False).mode == "RGB"


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("how", [IMAGENET, Preprocessing((0.0,) * 3, (1.0,) * 3, size=32, resize=33)])
def test_resized_and_cropped_as_torchvision_does(tmp_path, referees, method, how):
    """To the bit, whichever side is longer, odd or even."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    steps = Compose([Resize(how.resize, InterpolationMode(method)), CenterCrop(how.size)])
    how = dataclasses.replace(how, interpolation=method)
    for i, (h, w) in enumerate([(427, 640), (640, 427), (300, 301), (50, 61), (97, 33), (40, 159)]):
        picture = noise(h, w, seed=i)
        picture.save(tmp_path / "a.png")
        found = folder.pixels(tmp_path / "a.png", how, 3)
        assert np.array_equal(np.moveaxis(found, 0, -1), steps(picture)), (h, w)


def png(width, height, path):
    """A grey PNG of zeros, as small as it can be."""
    packer, content = zlib.compressobj(9), b""
    rows = bytes((1 + width) * min(height, max(1, 2**20 // (1 + width))))
    for at in range(0, height, len(rows) // (1 + width)):
        content += packer.compress(rows[: (1 + width) * (height - at)])
    content += packer.flush()
    chunk = lambda kind, what: struct.pack(">I", len(what)) + kind + what + struct.pack(">I", zlib.crc32(kind + what))  # noqa: E731
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b""))
    return path


BOUNDED = """
import resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from common.training.data import images
from common.arch import get
from common.training.data import folder
from common.plan import make_plan
from common.checkpoints.preprocessing import IMAGENET
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    for draws in (None, np.zeros(30, np.uint64)):
        assert folder.pixels(path, IMAGENET, 3, draws).shape == (3, 224, 224)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_strip_costs_no_more_than_its_middle(tmp_path):
    """118 bytes took 5.6 GB: the shorter side of 1 x 20,000 pixels was made 256."""
    files = [png(1, 20_000, tmp_path / "a.png"), png(65_000, 1, tmp_path / "b.png")]
    assert files[0].stat().st_size < 130
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, *map(str, files)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(done.stdout) < 100  # MiB
    strip = np.zeros((16, 400), np.uint8)
    strip[:, 192:208] = np.arange(16)
    Image.fromarray(strip).save(tmp_path / "c.png")
    assert np.array_equal(folder.pixels(tmp_path / "c.png", WHOLE, 1)[0], strip[:, 192:208])


@pytest.mark.parametrize("size", [(5000, 5000), (14_000, 14_000)])
def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path, size):
    path = png(*size, tmp_path / "a.png")
    assert "pixels" in images.fault(path) and "smaller" in images.fault(path)
    with pytest.raises(RosettaError, match="a.png has"):
        images.photograph(path, False)


def test_a_large_photograph_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PIXELS", 1000)
    noise(60, 60).save(tmp_path / "a.jpg")
    assert images.fault(tmp_path / "a.jpg") == ""


def test_names_that_begin_with_a_dot_are_no_images_and_no_classes(tmp_path):
    for half in ("train", "val"):
        for name in ("cat", "dog", ".ipynb_checkpoints"):
            (tmp_path / half / name / ".thumbs").mkdir(parents=True)
            noise(8, 8).save(tmp_path / half / name / "a.png")
            noise(8, 8).save(tmp_path / half / name / ".thumbs" / "a.png")
            (tmp_path / half / name / "._a.png").write_bytes(b"\0\5\x16\7")
            for junk in (".DS_Store", "Thumbs.db", "desktop.ini"):
                (tmp_path / half / name / junk).write_bytes(b"junk")
    data = folder.read(tmp_path, 8)
    assert data.classes == ("cat", "dog") and len(data.train) == len(data.test) == 2
    examples, notes = evaluation.pictures([tmp_path / "train"])
    assert [f.parent.name for f in examples.files] == ["cat", "dog"] and not notes


def test_other_formats_are_not_opened(tmp_path):
    """Pillow would hand PostScript to another program."""
    out = io.BytesIO()
    noise(8, 8).save(out, "EPS")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    assert "not an image" in images.fault(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"std": (0.0,) * 3}, "std"), ({"std": (-1.0,) * 3}, "std"), ({"std": (1.0,)}, "std"), ({"mean": ()}, "mean"),
        ({"mean": (float("nan"),) * 3}, "mean"), ({"mean": ("a",) * 3}, "mean"), ({"mean": (10**400,) * 3}, "mean"),
        ({"scale": 0}, "scale"), ({"scale": float("inf")}, "scale"), ({"scale": None}, "scale"),
        ({"size": 10**9}, "size"), ({"size": 0}, "size"), ({"size": -5}, "size"), ({"size": 224.0}, "size"),
        ({"size": 257}, "resize"), ({"resize": 10**9}, "resize"), ({"interpolation": "lanczos"}, "interpolation"),
        ({"channel_order": "GBR"}, "channel_order"), ({"flavour": 3}, "can't be read"),
    ],
)  # fmt: skip
def test_preprocessing_that_cannot_be_is_refused_with_its_file(tmp_path, changes, expected):
    """std 0 gave "nan%" and exit code 0; a size of 10^9 ended the process."""
    from common import weights
    from common.checkpoints import port
    from common.init import randomised

    arch = get("cifar_resnet20", depths=(1,), widths=(16,))
    said = json.dumps(dataclasses.asdict(IMAGENET) | changes)
    weights.save(tmp_path / "a.safetensors", arch, randomised(arch), {"preprocessing": said})
    with pytest.raises(RosettaError, match=f"a.safetensors: .*preprocessing.*{expected}"):
        port.inspect(tmp_path / "a.safetensors")


def damage(kinds, first, count, where):
    """So many damaged files of each kind, in a process of their own."""
    done = subprocess.run(
        [sys.executable, hostile.__file__, ",".join(kinds), str(first), str(count), str(where)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}"},
    )  # fmt: skip
    at = [f.read_text() for f in where.glob("*/at")]
    assert done.returncode == 0, f"at one of {at}, ended with {done.returncode}: {done.stderr[-2000:]}"
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["kind"] for row in rows] == list(kinds)
    for row in rows:
        assert row["refused"] > count // 10 and row["read"] and row["grown"] < 300, row  # MiB


HOSTILE = {"images": (hostile.IMAGES, 30), "arrays": (hostile.ARRAYS, 130), "cifar": (hostile.CIFAR, 150)}


@pytest.mark.parametrize("kinds", HOSTILE)
def test_hostile_files(tmp_path, kinds):
    """420 images, 390 arrays, 300 of CIFAR's: read or refused, in a bounded time and memory, in a sentence."""
    damage(*[HOSTILE[kinds][0], 0, HOSTILE[kinds][1]], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", HOSTILE)
def test_many_hostile_files(tmp_path, kinds):
    """9,000 of them."""
    damage(HOSTILE[kinds][0], 10_000, 3000 // len(HOSTILE[kinds][0]), tmp_path)


def test_preprocess_input_of_keras_from_file_to_array(tmp_path):
    """Red, green and blue turned round, their means taken off in that order, from a file as from Keras' own loader."""
    from common.checkpoints.libraries.keras_applications import CAFFE, HALVES
    from common.training.data import Batches, Examples

    keras = pytest.importorskip("keras")
    picture = noise(224, 224)
    picture.save(tmp_path / "a.png")
    given = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "a.png"))[None]
    for how, module in ((CAFFE, keras.applications.resnet), (HALVES, keras.applications.resnet_v2)):
        expected = np.moveaxis(module.preprocess_input(given.copy(), data_format="channels_last"), -1, 1)
        ((x, _),) = Batches(Examples(np.zeros(1, np.int64), None, [tmp_path / "a.png"]), 1, how).epoch()
        assert x.dtype == np.float32 and np.abs(x - expected).max() < 2e-5


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_predict_sees_what_torchvisions_transforms_make(tmp_path, referees, method):
    """ImageNet's evaluation, from file to array: Resize, CenterCrop, ToTensor, Normalize."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    from common.training.data import Batches

    steps = Compose([Resize(256, InterpolationMode(method)), CenterCrop(224), ToTensor(),
                     Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])  # fmt: skip
    noise(301, 450).save(tmp_path / "a.png")
    noise(333, 250, seed=1).save(tmp_path / "b.jpg")
    how = dataclasses.replace(IMAGENET, interpolation=method)
    examples, _ = evaluation.pictures([tmp_path])
    ((x, _),) = Batches(examples, 2, how).epoch()
    for seen, file in zip(x, examples.files, strict=True):
        with Image.open(file) as opened:
            assert np.abs(seen - steps(opened).numpy()).max() < 1e-6
