"""Keras' recorder, on nets of ours and on nets as people write them."""

import numpy as np
import pytest
from test_controls import KINDS

from common.arch import get
from common.diagnosis import diagnose
from common.diagnosis.examine import living
from common.errors import RosettaError

keras_impl = pytest.importorskip("keras_impl")
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

QUICK = {"pre-activation"}  # the rest is slow
GROUPS = get("resnext50_32x4d", widths=(16, 32), depths=(1, 1), groups=4, width_per_group=16, num_classes=5)
OURS = {**KINDS, "groups": GROUPS}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in QUICK else [pytest.mark.slow]) for k in OURS]
)  # fmt: skip
def test_a_net_of_ours_is_its_row(kind):
    net = keras_impl.create_model(OURS[kind], seed=1)
    before = [np.array(v) for v in net.variables]
    found = diagnose(net, OURS[kind])
    assert found.same, found.text()
    assert net.dtype_policy.name == keras.config.floatx() == "float32"
    assert all(v.dtype != "float64" and np.array_equal(v, w) for v, w in zip(net.variables, before, strict=True))


TINY = get("resnet18", widths=(8, 12), depths=(1, 1), num_classes=5)
INNOCENT = dict(momentum=0.9, epsilon=1e-5)


def functional(norm=INNOCENT, same=False, last="channels_last", size=None, softmax=None):
    """A ResNet of two blocks as a tutorial builds it."""
    axis = -1 if last == "channels_last" else 1

    def conv(x, c, k, s):
        if not same and k > 1:
            x, padding = layers.ZeroPadding2D(k // 2, data_format=last)(x), "valid"
        else:
            padding = "same"
        x = layers.Conv2D(c, k, s, padding, use_bias=False, data_format=last)(x)
        return norm(axis)(x) if callable(norm) else layers.BatchNormalization(axis=axis, **norm)(x)

    x = inputs = keras.Input((size, size, 3) if axis == -1 else (3, size, size))
    x = layers.Activation("relu")(conv(x, 64, 7, 2))
    if same:
        x = layers.MaxPooling2D(3, 2, "same", data_format=last)(x)
    else:
        x = layers.MaxPooling2D(3, 2, data_format=last)(layers.ZeroPadding2D(1, data_format=last)(x))
    for c, s in ((8, 1), (12, 2)):
        y = conv(layers.ReLU()(conv(x, c, 3, s)), c, 3, 1)
        x = layers.ReLU()(layers.add([y, conv(x, c, 1, s)]))
    x = layers.GlobalAveragePooling2D(data_format=last)(x)
    return keras.Model(inputs, layers.Dense(5, activation=softmax)(x))


class Block(layers.Layer):
    def __init__(self, c, s):
        super().__init__()
        self.convs = [layers.Conv2D(c, 3, s, "same", use_bias=False), layers.Conv2D(c, 3, 1, "same", use_bias=False)]
        self.norms = [layers.BatchNormalization() for _ in range(3)]
        self.short = layers.Conv2D(c, 1, s, use_bias=False)

    def call(self, x, training=None):
        y = tf.nn.relu(self.norms[0](self.convs[0](x), training=training))
        y = self.norms[1](self.convs[1](y), training=training)
        return tf.nn.relu(y + self.norms[2](self.short(x), training=training))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = layers.Conv2D(64, 7, 2, "same", use_bias=False), layers.BatchNormalization()
        self.one, self.two, self.head = Block(8, 1), Block(12, 2), layers.Dense(5)

    def call(self, x, training=None):
        x = tf.nn.max_pool2d(tf.nn.relu(self.norm(self.conv(x), training=training)), 3, 2, "SAME")
        x = self.two(self.one(x, training=training), training=training)
        return tf.nn.softmax(self.head(tf.reduce_mean(x, [1, 2])))


def told(model, row=TINY):
    found = diagnose(model, row)
    assert found.proof and found.proof.holds, found.text()
    return [e.name for e in found.edits], found


ROW = get(TINY, shortcut="project_all")


def test_keras_own_statistics_are_no_difference():
    for momentum, words in (
        (0.99, "0.99 of the old ones, and the batch's biased"),
        (0.9, "themselves: the batch's biased"),
    ):
        _, found = told(functional(dict(epsilon=1e-5, momentum=momentum)), ROW)
        assert found.same and words in found.text()


SAME = ["epsilon 1e-3", "same padding", "softmax in the net"]
WRITTEN = {
    "of another momentum": (lambda: functional(dict(epsilon=1e-5, momentum=0.5)), ["momentum 0.5"]),
    "functional": (lambda: functional({}, same=True, softmax="softmax"), SAME),
    "subclassed": (Subclassed, SAME),
    "channels first": (lambda: functional(dict(epsilon=1e-5), last="channels_first"), []),
    "of one size": (lambda: functional(dict(epsilon=1e-5), size=64), []),
    "sequential with a lambda": (
        lambda: keras.Sequential([layers.Lambda(lambda x: x[..., ::-1]), functional(dict(epsilon=1e-5))]),
        ["channels the other way round"],
    ),
}


@pytest.mark.parametrize(
    ("make", "names"),
    [pytest.param(*case, id=name, marks=[] if name == "sequential with a lambda" else [pytest.mark.slow])
     for name, case in WRITTEN.items()],
)  # fmt: skip
def test_nets_as_people_write_them(make, names):
    assert told(make(), ROW)[0] == names


def test_a_pooling_that_overlaps_pads():
    """At stride 1 a window of 2 with "same" padding has a border behind; at stride 2 the last one hangs over."""
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5))
    for stride, after, ceil in ((1, (1, 1), False), (2, (0, 0), True)):
        image = keras.Input((5, 5, 2))
        pooled = layers.MaxPooling2D(2, stride, "same")(layers.Conv2D(2, 1)(image))
        (pool,) = [c for c in living(keras.Model(image, pooled)).record(x).calls if c.op == "max_pool"]
        assert (pool.attributes["before"], pool.attributes["after"]) == ((0, 0), after)
        assert pool.attributes["ceil"] is ceil


def test_lines_of_her_file():
    names, found = told(Subclassed(), ROW)
    where = next(e.where for e in found.edits if e.name == "softmax in the net")
    assert names == SAME and where.startswith("test_keras.py:"), where


def test_where_a_graph_was_written(monkeypatch):
    """A functional net runs without a line of hers, so where its layers were called is kept while it is built."""
    from keras_impl import recorder

    monkeypatch.setattr(keras.layers.Layer, "__call__", keras.layers.Layer.__call__)
    recorder.note_lines()
    calls = recorder_calls(functional(size=32))
    assert {c.where.split(":")[0] for c in calls} == {"test_keras.py"} and len({c.where for c in calls}) > 5


def recorder_calls(model):
    from keras_impl.tape import Live

    return Live(model).record(np.zeros((1, 3, 32, 32))).calls


def test_another_engine_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RosettaError, match="Keras runs on jax here.*KERAS_BACKEND=tensorflow"):
        diagnose(functional())


def test_her_exception_is_the_answer():
    class Broken(keras.Model):
        def __init__(self):
            super().__init__()
            self.shortcut = keras.Sequential()

        def call(self, x):
            return x + self.shortcut(x)

    with pytest.raises(RosettaError, match=r"no layers.*\(test_keras.py:\d+\); keras.layers.Identity"):
        diagnose(Broken())
