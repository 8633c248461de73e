"""The 1000 classes of ImageNet (ILSVRC 2012) in the order in which torchvision, timm, Transformers, keras.applications
and KerasHub have them: that of their WordNet numbers.

The names are torchvision's categories: the first word of WordNet's synset, but for "crane bird" and "maillot tank
suit", which would otherwise be two cranes and two maillots. tests/test_imagenet.py holds them against torchvision's and
timm's lists.
"""

from functools import cache
from pathlib import Path

from common.checkpoints.libraries import AKAMASTER, KUANGLIU, LIBRARIES
from common.checkpoints.recognised import Recognised


@cache
def classes() -> tuple[tuple[str, str], ...]:
    """(WordNet number, name) of each class: ("n01440764", "tench")."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    return tuple((wnid, name) for wnid, _, name in (line.partition(" ") for line in lines))


def known(found: Recognised) -> bool:
    """Whether a checkpoint's classes are ImageNet's by its library's convention: it has 1000, and says nothing else."""
    conventional = {library.name for library in LIBRARIES} - {AKAMASTER.name, KUANGLIU.name}
    return found.library.name in conventional and found.arch.num_classes == len(classes()) and not found.labels
