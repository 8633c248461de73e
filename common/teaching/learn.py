"""The site over HTTP on this machine alone, with one page more, on which a comparison is made live: `rosetta learn`.

Whoever can ask for that page can make this machine work: nothing is answered without the random word in its address, or
where a browser was told another name of this machine.
"""

import contextlib
import html
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs

from common.arch import get
from common.errors import RosettaError, hint
from common.teaching.faults import SIDES, named
from common.teaching.site import build

LIMIT = 600  # seconds of a comparison
ROOT = Path(__file__).parents[2]
TYPES = {"": "text/plain", ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
         ".ipynb": "application/x-ipynb+json"}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'"
)
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Security-Policy": POLICY}


class Learn(ThreadingHTTPServer):
    """Serves the site, which it makes in `folder`, on a port of 127.0.0.1, of which 0 is any; closed, it ends what it
    runs. Raises RosettaError where the port can't be had, and as `build` does."""

    def __init__(self, folder: str | Path, port: int = 0, variants: Sequence[str] | None = None):
        self.folder, self.token = Path(folder), secrets.token_urlsafe(16)
        self.starting, self.closed = Lock(), False
        self.running: subprocess.Popen[str] | None = None
        try:
            super().__init__(("127.0.0.1", port), Answer)
        except OSError as e:
            raise RosettaError(f"can't serve on port {port}: {e.strerror}; --port 0 takes one that is free") from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.address = f"http://127.0.0.1:{self.server_port}/{self.token}/live.html"
        self.pages = {path.name: path for path in build(folder, variants, live=True)}

    def compare(self, words: list[str]) -> tuple[int, str]:
        """The status of what `rosetta compare` says of these words, and that. One runs at a time, for LIMIT at most."""
        with self.starting:
            if self.closed:
                return 503, "The server has ended."
            if self.running and self.running.poll() is None:
                return 503, "Another comparison is running: one is made at a time."
            self.running = subprocess.Popen(
                [sys.executable, "-m", "common.cli", "compare", *words], cwd=self.folder, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        with self.running as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                return 500, f"The comparison was ended after {LIMIT} s: a smaller size takes less."
            finally:
                end(process)
        status = {0: 200, 1: 200, 2: 400}.get(process.returncode, 500)
        return status, out if status == 200 else err or f"It ended with code {process.returncode}."

    def server_close(self) -> None:
        super().server_close()
        with self.starting:
            self.closed = True
            if self.running:
                end(self.running)


def end(process: "subprocess.Popen[str]") -> None:
    """The process with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()


def words_of(form: dict[str, list[str]]) -> list[str]:
    """What a form asks of `rosetta compare`. Raises RosettaError for a row, size, side or fault that isn't one."""
    row, size, side = (form.get(field, [""])[0].strip() for field in ("row", "size", "side"))
    get(row)
    if size and not re.fullmatch("[1-9][0-9]{0,2}", size):
        raise RosettaError(f"size {size!r} can't be: expected 1 to 999 pixels, or nothing for the net's own")
    if side not in SIDES:
        raise RosettaError(f"unknown side {side!r}{hint(side, SIDES)}")
    faults = [named(fault).name for fault in dict.fromkeys(form.get("fault", []))]
    words = [row, *(["--size", size] if size else []), *(word for fault in faults for word in ("--with-fault", fault))]
    return [*words, *(["--side", side] if faults else [])]


class Answer(BaseHTTPRequestHandler):
    """Of one request."""

    server: Learn
    timeout = 60  # seconds that a socket may say nothing

    def do_GET(self) -> None:
        if page := self.asked():
            self.say(200, page.read_text("utf-8"), page.suffix)

    def do_POST(self) -> None:
        if not (page := self.asked()):
            return
        if page.name != "live.html":
            return self.say(404, "There is nothing here that takes a form.\n")
        if not re.fullmatch("[0-9]{1,4}", length := self.headers.get("Content-Length", "")):  # all faults are 2,000
            return self.say(413, "A form of up to 9999 bytes is expected.\n")
        try:
            words = words_of(parse_qs(self.rfile.read(int(length)).decode(errors="replace"), max_num_fields=200))
            status, text = self.server.compare(words)
            text = f"$ {shlex.join(['rosetta', 'compare', *words])}\n{text}"
        except ValueError as e:  # a RosettaError among them
            status, text = 400, f"rosetta: {e}"
        told = f'<pre class="wide" id="told">{html.escape(text)}</pre>'
        self.say(status, page.read_text("utf-8").replace("<!-- told -->", told), ".html")

    def asked(self) -> Path | None:
        """The page that the request is for; None where there is none, which is answered."""
        _, token, name = (*self.path.partition("?")[0].split("/", 2), "", "")[:3]
        if self.headers.get("Host") not in self.server.hosts:
            self.say(403, "This is no name of this server.\n")
        elif not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self.say(403, "The address is the one that `rosetta learn` printed, with its random word.\n")
        elif name not in self.server.pages:
            self.say(404, "There is no such page.\n")
        else:
            return self.server.pages[name]
        return None

    def say(self, status: int, text: str, suffix: str = "") -> None:
        body, kind = text.encode(), f"{TYPES[suffix]}; charset=utf-8"
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # nobody waits any more
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
