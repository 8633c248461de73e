"""The one error that the project raises for bad input, and the words that go with it."""

import difflib
import re
from collections.abc import Iterable

LONGEST = 2000  # characters of a message
# of control, halves of characters, ends of lines, and what turns the direction of a text around
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class RosettaError(ValueError):
    """Bad input: what was wrong, what was expected, what to do. The command line prints it alone.

    What it tells of a file may be of any length and hold any character: what a terminal would obey is escaped, and the
    middle is left out.
    """

    def __init__(self, message: object):
        lines = "\n".join(printable(line) for line in str(message).split("\n"))
        if (more := len(lines) - LONGEST) > 0:
            lines = f"{lines[:1300]}\n... ({more + 100:,} characters are left out) ...\n{lines[more + 1400 :]}"
        super().__init__(lines)


def printable(text: str) -> str:
    """A text of a file's in one line, with escapes for what a terminal would obey or can't show."""
    return _UNPRINTABLE.sub(lambda c: c[0].encode("unicode_escape").decode(), text)


# what others call it: the first of these that is known is meant
ALIASES = {
    "pytorch": "torch", "tf": "keras:tensorflow", "tensorflow": "keras:tensorflow", "jax": "keras:jax",
    "onnx": "onnx:torch onnxruntime", "ort": "onnxruntime",
    "hf": "transformers", "huggingface": "transformers", "hugging-face": "transformers", "tv": "torchvision",
    "keras_applications": "keras.applications", "keras_hub": "keras-hub", "kerashub": "keras-hub",
    "fp64": "float64", "double": "float64", "fp32": "float32", "single": "float32", "bf16": "bfloat16 mixed_bfloat16",
    "fp16": "float16 mixed_float16", "half": "float16", "amp": "mixed_bfloat16",
    "cuda": "gpu", "mps": "gpu", "lr": "rate", "learning_rate": "rate", "learning-rate": "rate",
    "wd": "weight_decay", "batch_size": "batch", "batch-size": "batch", "bs": "batch", "optimizer": "kind",
    "label_smoothing": "smoothing", "pretrained": "init", "output": "out", "mnist": "fashion-mnist digits",
    "info": "inspect", "describe": "inspect", "convert": "port", "eval": "evaluate", "test": "evaluate",
    "infer": "predict", "benchmark": "bench", "fit": "train", "plot": "curves", "diff": "compare",
}  # fmt: skip


def nearest(name: str, known: Iterable[object], n: int = 3) -> str:
    """`; did you mean a or b?` for the `n` known names nearest to `name`, or nothing.

    What others call a thing comes first and alone; then names of which a net's name, which ends in a number, is a part
    (cifar_resnet20 for resnet20); then those that begin like it; then those that are spelt alike.
    """
    names, asked = [str(k) for k in known], name.lower()
    found = [meant for meant in ALIASES.get(asked, "").split() if meant in names][:1]
    if not found and asked:
        part = re.compile(rf"(^|[^a-z0-9]){re.escape(asked)}($|[^a-z0-9])")
        found = [k for k in names if asked[-1].isdigit() and part.search(k.lower())]
        found += [k for k in names if len(asked) > 2 and k.lower().startswith(asked)]
        found += difflib.get_close_matches(name, names, n=n, cutoff=0.5)
    close = list(dict.fromkeys(found))[:n]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def hint(name: str, known: Iterable[str]) -> str:
    """What `nearest` says, or else `; there are a, b`, all of them."""
    return nearest(name, known) or "; there are " + ", ".join(known)
