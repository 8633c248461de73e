"""`rosetta learn`: who is answered, and what is asked of `rosetta compare`."""

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from threading import Thread
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner
from conftest import ROOT

from common.cli import cli
from common.teaching.learn import Learn, words_of


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Learn(tmp_path_factory.mktemp("site"), variants=["resnet18"])
    Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server, path, form=None, **headers):
    """(status, text) of a request to the server."""
    data = urlencode(form, doseq=True).encode() if form is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def test_the_pages_are_served_with_the_live_one(server):
    assert server.server_address[0] == "127.0.0.1"
    for page, word in (
        ("index.html", "Twelve lessons"),
        ("live.html", 'value="same padding"'),
        ("style.css", "--paper"),
    ):
        status, text = ask(server, f"/{server.token}/{page}")
        assert status == 200 and word in text and (page == "style.css" or 'href="live.html"' in text)
    assert ask(server, f"/{server.token}/live.html", Host=f"localhost:{server.server_port}")[0] == 200
    assert "<!-- told -->" in ask(server, f"/{server.token}/live.html")[1]


@pytest.mark.parametrize(
    "path", ["/live.html", "/", "/wrong/live.html", "/%s", "//live.html", "//[x/live.html", "/é/live.html"]
)
def test_without_the_token_nothing_is_answered(server, path):
    path = path.replace("%s", server.token[:-1]).replace("é", "%C3%A9")
    assert ask(server, path)[0] == 403 and ask(server, path, {"row": "resnet18"})[0] == 403


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "127.0.0.1:1", "", "localhost.example.com:80"])
def test_another_name_of_the_machine_is_refused(server, host):
    assert ask(server, f"/{server.token}/live.html", Host=host)[0] == 403


@pytest.mark.parametrize("name", ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..", "", "made.html", "live.html/x"])
def test_nothing_beside_the_pages_is_served(server, name):
    assert ask(server, f"/{server.token}/{name}")[0] == 404


def asked_raw(server, method, page, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, f"/{server.token}/{page}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse().status


def test_other_methods_and_long_forms(server):
    assert [asked_raw(server, method, "live.html") for method in ("PUT", "DELETE", "HEAD")] == [501] * 3
    assert asked_raw(server, "POST", "index.html", Content_Length="0") == 404
    for length in ("10000", "-1", "x", "1e3"):
        assert asked_raw(server, "POST", "live.html", Content_Length=length) == 413
    assert asked_raw(server, "POST", "live.html") == 413


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"row": "resnet81"}, "unknown variant &#x27;resnet81&#x27;; did you mean resnet18"),
        ({"row": "../x.safetensors"}, "unknown variant"),
        ({"row": ""}, "unknown variant"),
        ({"fault": ["same padding", "epsilon 1e3"]}, "did you mean epsilon 1e-3"),
        ({"fault": "<script>"}, "unknown fault &#x27;&lt;script&gt;&#x27;"),
        ({"size": "0"}, "expected 1 to 999 pixels"),
        ({"size": "1e3"}, "expected 1 to 999 pixels"),
        ({"side": "kears"}, "did you mean keras"),
    ],
)
def test_a_bad_form_says_what_was_meant(server, form, said, monkeypatch):
    monkeypatch.setattr(server, "compare", lambda words: pytest.fail("nothing is to be run"))
    status, text = ask(server, f"/{server.token}/live.html", {"row": "resnet18", "side": "keras", **form})
    assert status == 400 and said in text and "<form" in text


@pytest.fixture
def instead(monkeypatch):
    """Lets another program run for `rosetta compare`; the processes."""
    started, real = [], subprocess.Popen

    def run(program):
        def popen(command, **options):
            assert command[1:4] == ["-m", "common.cli", "compare"] and options["stdin"] == subprocess.DEVNULL
            started.append(real([sys.executable, "-c", program, *command[4:]], **options))
            return started[-1]

        monkeypatch.setattr("common.teaching.learn.subprocess.Popen", popen)
        return started

    return run


def test_what_a_comparison_says_is_shown_escaped(server, instead):
    form = {"row": "resnet18", "size": "64", "side": "torch", "fault": ["same padding", "hard sigmoid"]}
    for code, status in ((0, 200), (1, 200), (2, 400), (3, 500)):
        where = "stdout" if status == 200 else "stderr"
        instead(f"import sys; print('<b>', sys.argv[1:], file=sys.{where}); sys.exit({code})")
        got, text = ask(server, f"/{server.token}/live.html", form)
        assert got == status and "<b>" not in text and "&lt;b&gt; [&#x27;resnet18&#x27;, &#x27;--size" in text
        faults = "--with-fault &#x27;same padding&#x27; --with-fault &#x27;hard sigmoid&#x27;"
        assert f"$ rosetta compare resnet18 --size 64 {faults} --side torch\n" in text
    assert words_of({"row": ["resnet18"], "size": [""], "side": ["torch"]}) == ["resnet18"]


def test_one_at_a_time_that_ends_at_the_limit_and_with_the_server(tmp_path, monkeypatch, instead):
    server, started = Learn(tmp_path, variants=[]), instead("import time; time.sleep(60)")
    monkeypatch.setattr("common.teaching.learn.LIMIT", 0.05)
    assert server.compare(["resnet18"]) == (500, "The comparison was ended after 0.05 s: a smaller size takes less.")
    assert started[0].returncode == -signal.SIGKILL
    monkeypatch.setattr("common.teaching.learn.LIMIT", 60)
    found = []
    waiting = Thread(target=lambda: found.append(server.compare(["resnet18"])))
    waiting.start()
    while len(started) < 2:
        time.sleep(0.001)
    status, text = server.compare(["resnet18"])
    assert status == 503 and "one is made at a time" in text and len(started) == 2
    server.server_close()
    waiting.join(10)
    assert found == [(500, "It ended with code -9.")] and started[1].returncode == -signal.SIGKILL
    assert server.compare(["resnet18"]) == (503, "The server has ended.")


def test_a_port_in_use_is_one_line(server):
    out = CliRunner().invoke(cli, ["learn", "--no-browser", "--port", str(server.server_port)])
    assert out.exit_code == 2 and out.stderr.count("\n") == 1, out.output
    assert f"can't serve on port {server.server_port}: Address already in use; --port 0" in out.stderr


@pytest.mark.slow
def test_a_real_comparison(server):
    form = {"row": "cifar_resnet20", "size": "16", "side": "keras", "fault": ["same padding", "gamma and beta swapped"]}
    status, text = ask(server, f"/{server.token}/live.html", form)
    assert status == 200 and "first over tolerance: bn1" in text and "not equal" in text
    status, text = ask(server, f"/{server.token}/live.html", {**form, "fault": "hard sigmoid"})
    assert status == 400 and "does nothing to cifar_resnet20 here" in text


@pytest.mark.slow
def test_ctrl_c_ends_the_command():
    command = [sys.executable, "-m", "common.cli", "learn", "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:  # fmt: skip
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err
