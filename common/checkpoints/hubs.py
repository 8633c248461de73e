"""Checkpoints by name: "hf:timm/resnet50.a1_in1k", "torchvision:resnet50", "keras:ResNet50V2". Each is fetched into the
cache that its own tools have, is checked by its hash, also when it was there already, and says where it is from."""

import contextlib
import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import RosettaError, nearest
from common.tools.files import atomic
from common.tools.frameworks import load, peer, require

_NAME = re.compile(r"(hf|hf-hub|hf_hub|torchvision|keras):/{0,2}(.+)")  # a Path has made one slash of two
# what is fetched of a repository: what says what it is, and the first of what holds weights
_SAYS = ("config.json", "preprocessor_config.json", "task.json")
_HOLDS = (
    ("model.safetensors",), ("model.safetensors.index.json",), ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json",), ("task.weights.h5", "model.weights.h5"), ("model.weights.h5",),
)  # fmt: skip
_SECONDS = 30  # without an answer
_KERAS = {f"ResNet{depth}{v}": f"resnet{depth}{v.lower()}" for v in ("", "V2") for depth in (50, 101, 152)}


def named(source: object) -> bool:
    """Whether this is the name of a checkpoint of a hub."""
    return _NAME.fullmatch(str(source)) is not None and not os.path.exists(str(source))


def hint(source: object) -> str:
    """What to add where there is no such file: the hub that its name seems to mean."""
    hub, colon, _ = str(source).partition(":")
    return (nearest(hub, ("hf", "torchvision", "keras")) or "; hubs are hf:, torchvision: and keras:") if colon else ""


def fetch(source: object) -> tuple[Path, str]:
    """(the file or folder in the cache, where it is from, with its commit and SHA-256) of a name.

    Raises RosettaError where there is no such thing, it can't be fetched, or isn't what its hash says.
    """
    hub, name = _NAME.fullmatch(str(source)).groups()  # type: ignore[union-attr]
    return {"torchvision": _torchvision, "keras": _keras}.get(hub, _hugging_face)(name)


def sha256(path: Path, kind: str = "sha256") -> str:
    """A file's digest, read a piece at a time."""
    found = hashlib.new(kind)
    with open(path, "rb") as f:
        while piece := f.read(2**20):
            found.update(piece)
    return found.hexdigest()


# -- Hugging Face


def _hugging_face(name: str) -> tuple[Path, str]:
    require("hf: (a checkpoint of Hugging Face's hub)", ("huggingface_hub",), "hub")
    name, _, revision = name.partition("@")
    org, repository, file = ([*name.split("/", 2), "", ""])[:3]
    repo = f"{org}/{repository}"
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9][\w.-]*", repo):
        raise RosettaError(f"hf:{name} is no name of a repository: expected hf:org/name or hf:org/name@revision")
    asked = f"hf:{repo}" + (f"@{revision}" if revision else "")
    if file:
        path = _file(asked, repo, revision, file)
        if path is None:
            raise RosettaError(f"{asked} has no file {file}")
        return path, _said(asked, [path])
    config = [path for path in (_file(asked, repo, revision, each) for each in _SAYS) if path]
    for files in _HOLDS:
        found = [_file(asked, repo, revision, each) for each in files]
        if all(found):
            paths = [path for path in found if path]
            if files[0].endswith("index.json"):
                from common.checkpoints.containers import shards

                more = [_file(asked, repo, revision, each) for each in shards(paths[0])]
                paths += [path for path in more if path]
            return (paths[0].parent if config else paths[0]), _said(asked, paths)
    raise RosettaError(f"{asked} has no weights that are known here: expected {', '.join(f[0] for f in _HOLDS)}")


def _file(asked: str, repo: str, revision: str, file: str) -> Path | None:
    """A file of a repository in the cache; None where there is none."""
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import logging as logs

    level = logs.get_verbosity()
    logs.set_verbosity_error()  # it says whenever it tries again, and what comes of it is said here
    try:
        path = Path(huggingface_hub.hf_hub_download(
            repo, file, revision=revision or None, endpoint=os.environ.get("HF_ENDPOINT") or None
        ))  # fmt: skip
    except errors.GatedRepoError:
        raise RosettaError(f"{asked} is gated: accept its conditions on its page, and set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise RosettaError(f"{asked}: the repository has no such revision") from None
    except errors.RepositoryNotFoundError:
        raise RosettaError(f"{asked}: no such repository, or it is private, and HF_TOKEN is not set or wrong") from None
    except errors.LocalEntryNotFoundError:
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        if offline and file != "config.json" and _cached(repo):
            return None  # what was fetched is there, and this wasn't
        why = "HF_HUB_OFFLINE is set" if offline else "the hub can't be reached"
        raise RosettaError(f"{asked}: {file} is not in the cache, and {why}") from None
    except errors.EntryNotFoundError:
        return None
    except Exception as e:  # of whatever library is beneath: httpx', OSError of a size that isn't the one announced
        reason = re.sub(r"\s+", " ", str(e)).strip()[:200] or type(e).__name__
        raise RosettaError(f"{asked}: {file} can't be fetched: {reason}") from None
    finally:
        logs.set_verbosity(level)
    blob = Path(os.path.realpath(path))
    if re.fullmatch("[0-9a-f]{64}", blob.name) and (found := sha256(blob)) != blob.name:
        blob.unlink(missing_ok=True)  # else it would be taken for the true one for ever, by everybody
        raise RosettaError(
            f"{asked}: {file} came damaged, and is removed from the cache: its SHA-256 is {found[:12]}..., and should "
            f"be {blob.name[:12]}..."
        )
    return path


def _cached(repo: str) -> bool:
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots").is_dir()


def _said(asked: str, paths: list[Path]) -> str:
    commit = next((p.name for p in paths[0].parents if p.parent.name == "snapshots"), "")
    hashes = ", ".join(f"{p.name} SHA-256 {sha256(p)}" for p in paths if not p.name.endswith(".json"))
    return f"{asked.partition('@')[0]}@{commit}: {hashes}"


# -- torchvision's and Keras' own weights


def _torchvision(name: str) -> tuple[Path, str]:
    models = peer("torchvision").models
    group, _, entry = name.partition(".")
    if entry:
        kinds = {n: getattr(models, n) for n in dir(models) if n.endswith("_Weights")}
        known = {n: kind for n, kind in kinds.items() if hasattr(kind, "__members__")}
        members: Any = dict(known[group].__members__) if group in known else {}
        if entry not in members:
            hint = nearest(name, [f"{g}.{m}" for g, w in known.items() for m in w.__members__ if "Res" in g])
            raise RosettaError(f"torchvision has no weights {name!r}{hint}")
        weights = members[entry]
    else:
        names = [n for n in models.list_models() if re.search("resne", n)]
        if name not in names:
            raise RosettaError(f"torchvision has no ResNet {name!r}{nearest(name, names)}")
        weights = models.get_model_weights(name).DEFAULT
    torch_home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    path = Path(torch_home).expanduser() / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    _fetched(f"torchvision:{name}", weights.url, path, "sha256", digits[1] if digits else "")
    return path, f"torchvision:{weights}: {weights.url}, SHA-256 {sha256(path)}"


def _keras(name: str) -> tuple[Path, str]:
    if name not in _KERAS:
        raise RosettaError(f"keras.applications has no ResNet {name!r}{nearest(name, _KERAS)}")
    require(f"keras:{name}", ("keras",), "keras")
    load("keras")
    from keras.src.applications import resnet

    file = f"{_KERAS[name]}_weights_tf_dim_ordering_tf_kernels.h5"
    url, md5 = resnet.BASE_WEIGHTS_PATH + file, resnet.WEIGHTS_HASHES[_KERAS[name]][0]
    path = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / file
    _fetched(f"keras:{name}", url, path, "md5", md5)
    return path, f"keras:{name}: {url}, SHA-256 {sha256(path)}"


def _fetched(asked: str, url: str, path: Path, kind: str, digits: str) -> None:
    """Sees to it that `path` is the file whose hash begins with these digits. Raises RosettaError where it can't be."""
    if path.is_file():
        if not sha256(path, kind).startswith(digits):
            raise RosettaError(f"{asked}: {path} is damaged: its {kind.upper()} is another than {digits}. Remove it")
        return
    with _clear(asked, url):
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            with atomic(path, size) as temporary:
                with open(temporary, "wb") as out:
                    done = 0
                    while piece := answer.read(2**20):
                        out.write(piece)
                        done += len(piece)
                        if sys.stderr.isatty():
                            print(f"\r{asked}: {done / 1e6:.0f} of {size / 1e6:.0f} MB", end="", file=sys.stderr)
                if done != size and size:
                    raise RosettaError(f"{asked}: {url} ended after {done:,} of {size:,} bytes")
                if not (found := sha256(temporary, kind)).startswith(digits):
                    raise RosettaError(f"{asked}: {url} gave another file: its {kind.upper()} is {found}, not {digits}")


@contextlib.contextmanager
def _clear(asked: str, url: str) -> Iterator[None]:
    try:
        yield
    except RosettaError:
        raise
    except urllib.error.HTTPError as e:
        raise RosettaError(f"{asked}: {url} answers {e.code} {e.reason}") from None
    except TimeoutError:
        raise RosettaError(f"{asked}: {url} gives no answer within {_SECONDS} s") from None
    except (OSError, ValueError, EOFError) as e:
        reason = getattr(e, "reason", None) or e
        raise RosettaError(f"{asked} is not in the cache, and {url} can't be fetched: {reason}") from None
