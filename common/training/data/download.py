"""Files from the network, into a cache, checked before anybody reads them."""

import hashlib
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from common.errors import RosettaError
from common.tools.files import atomic

TIMEOUT = 30.0  # seconds without an answer


def cache() -> Path:
    """RESNET_ROSETTA_CACHE, or resnet-rosetta in the user's cache."""
    said = os.environ.get("RESNET_ROSETTA_CACHE")
    home = os.environ.get("XDG_CACHE_HOME")
    if said or home:
        return Path(said) if said else Path(str(home)) / "resnet-rosetta"
    try:
        return Path.home() / ".cache" / "resnet-rosetta"
    except RuntimeError:
        raise RosettaError("there is no home to keep files in: set RESNET_ROSETTA_CACHE to a folder") from None


def cached(url: str, name: str, digest: str, content: Callable[[Path], bytes] | None = None) -> Path:
    """The file of `url`, as `name` in the cache; downloaded if it isn't there.

    `digest` is its SHA-256 or MD5 in hexadecimal, or that of what `content` makes of the file. Raises RosettaError
    where there is no network or no answer, or what came is another file; then nothing is kept.
    """
    path = cache() / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RosettaError(f"can't write {path}: {e.strerror}") from None
    with atomic(path) as temporary:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "resnet-rosetta"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(temporary, "wb") as f:
                expected = int(answer.headers.get("Content-Length") or 0)
                while piece := answer.read(1 << 20):
                    f.write(piece)
                if expected and f.tell() != expected:
                    raise RosettaError(f"{url} broke off after {f.tell():,} of {expected:,} bytes; nothing was kept")
        except (urllib.error.URLError, TimeoutError, ConnectionError) as e:
            reason = e if isinstance(e, urllib.error.HTTPError) else getattr(e, "reason", None) or e
            if isinstance(e, urllib.error.HTTPError):
                e.close()
            raise RosettaError(
                f"can't download {url}: {reason}. With the files at hand, name their folder with --data-dir"
            ) from None
        kind = hashlib.sha256 if len(digest) == 64 else hashlib.md5
        try:
            found = kind(content(temporary) if content else temporary.read_bytes()).hexdigest()
        except RosettaError:
            raise RosettaError(f"{url} came damaged; nothing was kept") from None
        if found != digest:
            raise RosettaError(
                f"{url} is not the file that was expected: checksum {found}, not {digest}; nothing was kept"
            )
    return path


def unpacked(url: str, name: str, digest: str) -> Path:
    """The folder that a .tar.gz of `url` was unpacked to, in the cache."""
    folder = cache() / name
    if folder.is_dir():
        return folder
    archive = cached(url, f"{name}.tar.gz", digest)
    with atomic(folder, folder=True) as temporary:
        temporary.mkdir()
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.isfile():  # flat: a name in an archive leads nowhere else
                        source = tar.extractfile(member)
                        assert source is not None
                        (temporary / Path(member.name).name).write_bytes(source.read())
        except (tarfile.TarError, EOFError, ValueError) as e:
            raise RosettaError(f"{archive} is damaged: {e}; remove it, and it is downloaded anew") from None
    return folder
