"""A backend's framework, imported and set up: versions, device, full precision."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

from common.errors import RosettaError
from common.tools.frameworks import load
from common.tools.memory import cpus

_MODULES = ("trace", "autodiff", "optim")


def implementation(spec: str, modules: tuple[str, ...] = _MODULES) -> Any:
    """torch_impl or keras_impl, with these of its modules: by default those that a check uses."""
    framework = "torch" if spec == "torch" else "keras"
    package = load(framework)
    for module in modules:
        load(framework, module)
    return package


def versions(spec: str, device: str, default: bool = True) -> dict[str, str]:
    """{package: version} of what runs a net, and "device". `device` is "cpu", "gpu" or "auto", a GPU where there is
    one. Raises RosettaError where the device isn't there.

    Makes the device PyTorch's own, unless `default` is false; hides from TensorFlow a GPU that isn't to be used, which
    is the environment's task for JAX (backends.py). Switches off what would compute a float32 product in fewer bits:
    TF32 in PyTorch, TensorFlow and JAX. XLA's fast math is off by default on both devices.
    """
    found: dict[str, str] = {}
    engine = spec.split(":")[-1]
    engine = "tensorflow" if spec == "onnx:keras" else engine
    if spec.endswith(":torch") or spec == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        name = "CPU"
        if device == "gpu" and not torch.cuda.is_available():
            raise RosettaError(
                f"{spec} finds no GPU: PyTorch {torch.__version__} sees no CUDA device{_said(torch.cuda.init)}"
            )
        if device != "cpu" and torch.cuda.is_available():
            if spec == "torch" and default:
                torch.set_default_device("cuda")
            name = torch.cuda.get_device_name()
        found |= {"torch": torch.__version__, "device": name}
    elif engine == "tensorflow":
        load("keras")
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
        if device == "cpu":
            with contextlib.suppress(RuntimeError):  # it has begun with what it sees
                tf.config.set_visible_devices([], "GPU")
        cards = tf.config.list_physical_devices("GPU") if device != "cpu" else []
        if device == "gpu" and not cards:
            raise RosettaError(f"{spec} finds no GPU: TensorFlow {tf.__version__} sees none{_without(tf)}")
        name = tf.config.experimental.get_device_details(cards[0])["device_name"] if cards else "CPU"
        found |= {"tensorflow": tf.__version__, "device": name}
    else:
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jaxlib without CUDA, where there is a card
            kind = jax.devices()[0]
        if device == "gpu" and kind.platform == "cpu":
            raise RosettaError(f"{spec} finds no GPU: JAX {jax.__version__} sees CPUs only{_said(jax.devices, 'cuda')}")
        found |= {"jax": jax.__version__, "device": "CPU" if kind.platform == "cpu" else kind.device_kind}
    if "keras" in spec:
        load("keras")
        import keras

        found = {"keras": keras.__version__, **found}
    if spec.startswith("onnx"):
        import onnx
        import onnxruntime

        found = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, **found}
    return found


def _said(ask: Callable[..., object], *given: object) -> str:
    """Why a framework sees no GPU, in its words, when it is asked for one: a driver that is too old, a build without
    CUDA; or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ask(*given)
    except (RuntimeError, AssertionError) as e:
        return f" ({str(e).strip().splitlines()[0]})"
    return ""


def _without(tf: Any) -> str:
    return "" if tf.test.is_built_with_cuda() else " (it is a build without CUDA)"


def fewer_bits(spec: str) -> None:
    """Lets a GPU make products of float32 from inputs that it cuts to TF32, which `versions` switched off."""
    engine = spec.split(":")[-1]
    if engine == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    elif engine == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(True)


def threads(spec: str) -> str:
    """How many threads a net's layers are computed in: sums come in another order in others."""
    if spec == "torch" or spec.endswith(":torch"):
        import torch

        return str(torch.get_num_threads())
    if spec.endswith(":tensorflow"):
        import tensorflow as tf

        return str(tf.config.threading.get_intra_op_parallelism_threads() or cpus())
    return str(cpus())
