"""A Keras net from a file. The twin of torch_impl/files.py."""

from concurrent.futures import ThreadPoolExecutor

from common.arch import get
from common.checkpoints.port import edited, inspect
from common.errors import RosettaError
from common.plan import make_plan

from .model import construct
from .resnet import ResNet
from .weights import import_weights


def load(
    path, *, dtype: str | None = None, folded: bool = False, into: ResNet | None = None,
    num_classes: int | None = None, seed: int = 0, **options,
) -> ResNet:  # fmt: skip
    """A net with the weights of a checkpoint: of torchvision, timm, Hugging Face Transformers, keras.applications,
    KerasHub, akamaster or kuangliu, or our own, in any container (common/checkpoints/port.py).

    Like every new net, PyTorch's is in training mode: call its eval() before it predicts, or its statistics move.
    `dtype` is by default the file's; `folded` puts the norms into the convolutions (common/fold.py), for inference;
    `into` is a net that takes the weights in its own dtype, and stays as it is if they don't fit; `num_classes` gives
    the net a fresh classifier, drawn from `seed`, or none with 0. `options` are those of
    `common.checkpoints.port.inspect`. Raises RosettaError for a file that is damaged or unknown.
    """
    if into is not None and num_classes is not None:
        raise RosettaError("a net that is there has its classifier: num_classes can't be given with into")
    if into is not None and not into.plan.arch.folded:  # a folded net takes a file with norms, too
        options = {"arch": into.plan.arch, **options}
    found = inspect(path, **options)
    if into is not None:
        import_weights(into, found.weights("mapped"))
        return into
    headed = found.arch if num_classes is None else get(found.arch, num_classes=num_classes)
    arch = get(headed, folded=folded or headed.folded)
    with ThreadPoolExecutor(1) as beside:  # the file is read while the net is built
        weights = beside.submit(lambda: edited(found.arch, headed, found.weights("together"), seed)[0])
        return construct(ResNet, make_plan(arch), dtype or found.read_as, weights=weights.result, copy=False)
