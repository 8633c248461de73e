"""A training step of ours against a plain loop over torchvision's and timm's ResNet-50 and against keras.applications'
`train_on_batch`; what loading takes of a step; memory over an epoch.

    PYTHONPATH=benchmarks python benchmarks/train.py [--rounds 9] [--json benchmarks/results/train-cpu.json]

Each side is given whole: ours as `rosetta train` runs it, from arrays, with loss and correct answers read back.
"""

import dataclasses
import statistics
import subprocess
import sys
import time

import numpy as np
from peers import CONSOLE, Runs, command, conclude, keras_peer, measure, report_of, speeds, torch_peers

from common.parity.rules import Rule
from common.training import recipe
from common.training.data import Batches, load

RULE = Rule("SGD", 1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)


def pytorch(batch: int, size: int) -> dict[str, Runs]:
    import torch

    import torch_impl
    from torch_impl.train import Trainer

    x, y = np.random.randn(batch, 3, size, size).astype(np.float32), np.random.randint(0, 1000, batch)
    how = dataclasses.replace(recipe.get("imagenet"), rule=RULE)
    ours = {n: Trainer(torch_impl.create_model("resnet50"), how) for n in ("ours", "ours again")}

    def plain(model, optimizer):
        def step():
            model.train()
            logits = model(torch.from_numpy(x))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item(), int((logits.argmax(1) == torch.from_numpy(y)).sum())

        return step

    runs = {"ours": lambda: ours["ours"].step(x, y, 1e-3)}
    for name, model in torch_peers().items():
        runs[name] = plain(model, torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=1e-4, nesterov=True))
    runs["ours again"] = lambda: ours["ours again"].step(x, y, 1e-3)
    return {"PyTorch training step": runs}


def tensorflow(batch: int, size: int) -> dict[str, Runs]:
    import keras

    import keras_impl
    from keras_impl.train import Trainer

    x, y = np.random.randn(batch, 3, size, size).astype(np.float32), np.random.randint(0, 1000, batch)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    how = dataclasses.replace(recipe.get("imagenet"), rule=RULE)
    ours = {n: Trainer(keras_impl.create_model("resnet50_keras"), how) for n in ("ours", "ours again")}
    theirs = keras_peer()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.SGD(1e-3, 0.9, nesterov=True, weight_decay=1e-4), loss, metrics=["accuracy"])
    runs = {
        "ours, v1": lambda: ours["ours"].step(x, y, 1e-3),
        "keras.applications, train_on_batch": lambda: theirs.train_on_batch(last, y),
        "ours, v1 again": lambda: ours["ours again"].step(x, y, 1e-3),
    }
    four = np.concatenate([last] * 4), np.concatenate([y] * 4)

    def steps(trainer):
        return lambda: [trainer.step(x, y, 1e-3) for _ in range(4)]

    fits = {
        "ours, v1": steps(ours["ours"]),
        "keras.applications, fit": lambda: theirs.fit(*four, batch_size=batch, shuffle=False, verbose=0),
        "ours, v1 again": steps(ours["ours again"]),
    }
    return {"Keras training step on TensorFlow": runs, "four of them": fits}


def loading(steps: int) -> dict[str, float]:
    """Milliseconds of making a batch of 128 of Fashion-MNIST, of waiting for one beside the net, and of its step."""
    import torch_impl
    from torch_impl.train import Trainer

    data = load("fashion-mnist")
    how = recipe.get("cifar")
    batches = Batches(data.train, 128, data.preprocessing, channels=1, seed=0, how=data.augment)
    order = np.arange(len(data.train))
    made = []
    for k in range(50):
        start = time.perf_counter()
        batches.batch(0, k, order)
        made.append(time.perf_counter() - start)
    trainer = Trainer(torch_impl.create_model("cifar_resnet20", in_channels=1, num_classes=10), how)
    waited, stepped, coming = [], [], batches.epoch()
    for _ in range(steps):
        start = time.perf_counter()
        x, y = next(coming)
        middle = time.perf_counter()
        trainer.step(x, y, 0.1)
        waited.append(middle - start)
        stepped.append(time.perf_counter() - middle)
    make, wait, step = (1e3 * statistics.median(v) for v in (made, waited[2:], stepped[2:]))
    return {
        "make_ms": make,
        "wait_ms": wait,
        "step_ms": step,
        "make_over_step": make / step,
        "wait_over_step": wait / step,
    }


def memory(framework: str) -> dict[str, float]:
    """Resident MiB of a run of cifar_resnet20 on digits after 2 epochs and at the end of 40."""
    code = f"""
import pathlib, tempfile
from common.training import loop, recipe, record, run as training
folder = pathlib.Path(tempfile.mkdtemp()) / "run"
spec = training.prepare({framework!r}, "float32")
run, data = training.plan("cifar_resnet20", "digits", recipe.get("short", epochs=40), {{"depths": (1, 1, 1)}},
                          framework=spec)
record.new(folder, run)
now = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
seen = {{}}
def listen(what, p):
    if what == "epoch" and p.epoch in (2, 40):
        seen[p.epoch] = now()
loop.train(folder, listener=listen, data=data, save_every=1e9)
print("MEMORY", seen[2], seen[40])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = map(float, done.stdout.split("MEMORY")[1].split())
    return {"after_2_epochs_mib": early, "after_40_epochs_mib": late}


@command(rounds=9)
def main(batch: int, size: int, rounds: int, file: str | None) -> None:
    """Ours against the peers, in one run."""
    report, table = report_of(batch=batch, size=size, rounds=rounds), speeds()
    report["loading"] = found = loading(40)
    for make in (pytorch, tensorflow):
        measure(report, make(batch, size), table)
    report["memory"] = {f: memory(f) for f in ("torch", "keras:tensorflow")}
    CONSOLE.print(table)
    CONSOLE.print(
        f"loading: a batch of 128 takes {found['make_ms']:.2f} ms to make, {found['wait_ms']:.2f} ms to wait for, and "
        f"a step of cifar_resnet20 {found['step_ms']:.0f} ms: {found['make_over_step']:.1%} and "
        f"{found['wait_over_step']:.1%}"
    )
    for framework, m in report["memory"].items():
        CONSOLE.print(f"memory, {framework}: {m['after_2_epochs_mib']:.0f} MiB after 2 epochs, "
                      f"{m['after_40_epochs_mib']:.0f} after 40")  # fmt: skip
    conclude(report, file)


if __name__ == "__main__":
    main()
