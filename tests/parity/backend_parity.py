"""Run by test_backends.py in a process of its own, for a Keras backend: keras_impl there against torch_impl, in
float64.

Prints a JSON object {check: largest relative difference}.
"""

import json
import sys

import keras
import numpy as np
import torch
from conftest import relative

import keras_impl
import keras_impl.train
import torch_impl
import torch_impl.train
from common import noise
from common.arch import get
from common.init import randomised
from common.names import STATISTICS
from common.training import recipe

# one of each thing that a backend could do otherwise
NETS = ("resnet18d", "resnetv2_50x1_bit", "cifar_resnet110_sd", "resnext50_32x4d", "seresnet18", "msresnet_1d")


def pair(name: str):
    """A stage as it begins and one that strides, narrow: more of them are more of the same."""
    arch = get(name)
    widths = (16, 32) if arch.shortcut == "pad" else (32, 64)
    arch = get(name, depths=(1, 1), widths=widths, num_classes=5)
    weights = randomised(arch)
    ours, twin = torch_impl.create_model(arch, dtype="float64"), keras_impl.create_model(arch, dtype="float64")
    torch_impl.import_weights(ours, weights)
    keras_impl.import_weights(twin, weights)
    return arch, ours, twin


def statistics(ours, twin) -> float:
    a, b = torch_impl.export_weights(ours), keras_impl.export_weights(twin)
    assert list(a) == list(b)
    return max((relative(a[n], b[n]) for n in a if n.endswith(STATISTICS)), default=0.0)  # of groups there are none


def run(twin, x: np.ndarray, training: bool) -> np.ndarray:
    return keras.ops.convert_to_numpy(twin(np.moveaxis(x, 1, -1), training=training))


def main() -> None:
    found = {"backend": keras.backend.backend()}
    rng = np.random.default_rng(0)
    for name in NETS:
        arch, ours, twin = pair(name)
        # 4 of the smallest images: the last stage has few values a channel, where the two variances differ most
        x = rng.standard_normal((4, arch.in_channels, *(17, 10)[: arch.dims]))
        with torch.no_grad():
            found[f"{name} evaluation"] = relative(ours.eval()(torch.from_numpy(x)).numpy(), run(twin, x, False))
            with noise.shared(1):
                y = ours.train()(torch.from_numpy(x)).numpy()
            with noise.shared(1):
                found[f"{name} training"] = relative(y, run(twin, x, True))
            found[f"{name} statistics"] = statistics(ours, twin)
            found[f"{name} evaluation after training"] = relative(
                ours.eval()(torch.from_numpy(x)).numpy(), run(twin, x, False)
            )

    # compiled: fit, with a last batch that is smaller, against a plain loop over the same batches at rate 0
    arch, ours, twin = pair("cifar_resnet20")
    x, y = (
        rng.standard_normal((10, 3, 16, 16), np.float32).astype(np.float64),
        rng.integers(0, 5, 10),
    )  # `fit` feeds float32
    twin.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    twin.fit(np.moveaxis(x, 1, -1), y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    ours.train()
    with torch.no_grad():
        for _ in range(2):
            for i in range(0, 10, 4):
                ours(torch.from_numpy(x[i : i + 4]))
    found["statistics after fit"] = statistics(ours, twin)

    # frozen: a layer that is not trainable keeps its statistics and normalises by them, also in training mode
    arch, ours, twin = pair("cifar_resnet20")
    twin.layer1.trainable = False
    before = keras_impl.export_weights(twin)
    ours.train()
    for module in ours.layer1.modules():
        module.eval()
    with torch.no_grad():
        found["frozen training"] = relative(ours(torch.from_numpy(x)).numpy(), run(twin, x, True))
    after = keras_impl.export_weights(twin)
    found["frozen statistics"] = statistics(ours, twin)
    assert all(np.array_equal(w, before[n]) for n, w in after.items() if n.startswith("layer1"))
    assert all(
        not np.array_equal(w, before[n]) for n, w in after.items() if n.startswith("layer2") and n.endswith(STATISTICS)
    )
    twin.layer1.trainable = True  # and thawed, they move again
    run(twin, x, True)
    thawed = keras_impl.export_weights(twin)
    assert all(not np.array_equal(w, before[n]) for n, w in thawed.items() if n.endswith(STATISTICS))

    # trained: three steps of the Trainer, the batch in parts and all gradients clipped, against PyTorch's
    arch, ours, twin = pair("cifar_resnet20")
    how = recipe.get("cifar", precision="float64", accumulate=2, clip=0.5)
    trainers = torch_impl.train.Trainer(ours, how), keras_impl.train.Trainer(twin, how)
    for step in range(3):
        x, y = rng.standard_normal((6, 3, 13, 10)), rng.integers(0, 5, 6)
        (a, _), (b, _) = (t.step(x, y, how.rate(step, 3)) for t in trainers)
        found[f"loss at step {step + 1} of a training"] = abs(a - b) / a
    after, after_twin = (t.weights() for t in trainers)
    found["weights after training"] = max(relative(after[n], after_twin[n]) for n in after)
    (a, b), tests = (t.logits for t in trainers), rng.standard_normal((4, 3, 13, 10))
    found["logits after training"] = relative(a(tests), b(tests))

    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
