"""Building Keras nets and calling them eagerly, against keras.applications; weights from one framework to the other.

python benchmarks/building.py [--rounds 15] [--json benchmarks/results/building-cpu.json]
"""

import statistics
import time
import tracemalloc

import numpy as np
from peers import CONSOLE, Runs, command, conclude, keras_peer, measure, report_of, speeds


def tensorflow(batch: int, size: int) -> dict[str, Runs]:
    import keras

    import keras_impl

    # the same net, v1 with biases
    models = {"ours, v1": keras_impl.create_model("resnet50_keras"), "keras.applications": keras_peer()}
    models["ours, v1 again"] = keras_impl.create_model("resnet50_keras")
    tensor = keras.ops.convert_to_tensor(np.random.randn(batch, size, size, 3).astype(np.float32))

    def building(depth: int):
        ours = lambda: keras_impl.create_model(f"resnet{depth}_keras")  # noqa: E731
        return {"ours, v1": ours, "keras.applications": lambda: keras_peer(depth), "ours, v1 again": ours}

    return {
        "Keras forward, called eagerly": {n: lambda m=m: m(tensor) for n, m in models.items()},
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


@command(rounds=15)
def main(batch: int, size: int, rounds: int, file: str | None) -> None:
    """Ours against the peers, in one run."""
    report, table = report_of(batch=batch, size=size, rounds=rounds), speeds()
    measure(report, tensorflow(batch, size), table)
    report["moving ResNet-152's weights, PyTorch to Keras"] = moved = moving_weights()
    CONSOLE.print(table)
    CONSOLE.print(
        f"ResNet-152's weights from PyTorch into Keras: {moved['seconds']:.2f} s, "
        f"{moved['extra_memory_over_weights']:.2f} times the weights in extra memory"
    )
    conclude(report, file)


if __name__ == "__main__":
    main()
