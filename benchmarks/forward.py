"""Throughput of both implementations against torchvision's, timm's and keras.applications' ResNet, in one run.

python benchmarks/forward.py [--rounds 15] [--json benchmarks/results/forward-cpu.json]
"""

import statistics
import time
import tracemalloc

import click
import numpy as np
from peers import CONSOLE, Runs, conclude, keras_peer, measure, report_of, speeds, torch_peers


def pytorch(batch: int, size: int) -> dict[str, Runs]:
    import torch

    import torch_impl

    models = {"ours": torch_impl.create_model("resnet50"), **torch_peers()}
    models["ours again"] = torch_impl.create_model("resnet50")
    x, y = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))

    def forward(model):
        with torch.inference_mode():
            return model.eval()(x)

    def step(model, optimizer):
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    optimizers = {n: torch.optim.SGD(m.parameters(), 1e-4, momentum=0.9) for n, m in models.items()}
    return {
        "PyTorch forward, eager": {n: lambda m=m: forward(m) for n, m in models.items()},
        "PyTorch training step, eager": {n: lambda m=m, o=optimizers[n]: step(m, o) for n, m in models.items()},
    }


def tensorflow(batch: int, size: int) -> dict[str, Runs]:
    import keras

    import keras_impl

    # the same net, v1 with biases; and ours as torchvision has it, v1.5, which is 6 % more multiply-adds
    models = {"ours, v1": keras_impl.create_model("resnet50_keras"), "keras.applications": keras_peer()}
    models |= {"ours": keras_impl.create_model("resnet50"), "ours, v1 again": keras_impl.create_model("resnet50_keras")}
    x, y = np.random.randn(batch, size, size, 3).astype(np.float32), np.random.randint(0, 1000, batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model in models.values():
        model.compile(keras.optimizers.SGD(1e-4, 0.9), loss)
    tensor = keras.ops.convert_to_tensor(x)

    def building(depth: int):
        ours = lambda: keras_impl.create_model(f"resnet{depth}_keras")  # noqa: E731
        return {"ours, v1": ours, "keras.applications": lambda: keras_peer(depth), "ours, v1 again": ours}

    return {
        "Keras forward, called eagerly": {n: lambda m=m: m(tensor) for n, m in models.items()},
        "Keras predict_on_batch": {n: lambda m=m: m.predict_on_batch(x) for n, m in models.items()},
        "Keras train_on_batch": {n: lambda m=m: m.train_on_batch(x, y) for n, m in models.items()},
        "Keras building ResNet-50": building(50),
        "Keras building ResNet-152": building(152),
    }


def moving_weights() -> dict[str, float]:
    """Seconds and extra memory, as a multiple of the weights, of ResNet-152's weights from PyTorch into Keras."""
    import keras_impl
    import torch_impl

    source, target = torch_impl.create_model("resnet152", seed=0), keras_impl.create_model("resnet152")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        keras_impl.import_weights(target, torch_impl.export_weights(source))
        seconds.append(time.perf_counter() - start)
    total = sum(w.nbytes for w in torch_impl.export_weights(source).values())
    tracemalloc.start()  # numpy's arrays; TensorFlow's own buffer of one tensor at a time comes on top
    keras_impl.import_weights(target, torch_impl.export_weights(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": statistics.median(seconds), "extra_memory_over_weights": peak / total}


@click.command()
@click.option("--batch", default=8, show_default=True)
@click.option("--size", default=224, show_default=True, help="Pixels.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False), help="Write the figures.")
def main(batch: int, size: int, rounds: int, file: str | None) -> None:
    """Ours against the peers, in one run."""
    report, table = report_of(batch=batch, size=size, rounds=rounds), speeds()
    for make in (pytorch, tensorflow):
        measure(report, make(batch, size), table)
    report["moving ResNet-152's weights, PyTorch to Keras"] = moved = moving_weights()
    CONSOLE.print(table)
    CONSOLE.print(
        f"ResNet-152's weights from PyTorch into Keras: {moved['seconds']:.2f} s, "
        f"{moved['extra_memory_over_weights']:.2f} times the weights in extra memory"
    )
    conclude(report, file)


if __name__ == "__main__":
    main()
