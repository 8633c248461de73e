"""Somebody's file, executed: in a process of its own, with a time limit, nothing of hers written.

`diagnose_file` starts `python -m common.diagnosis.hers` and gives it the job; there the file is imported under its own
name and not as `__main__`, its folder importable, and the net is what NAME is, gives when called, or what an expression
such as "build(num_classes=10)" gives. What the file prints goes nowhere; sockets are closed to it, since a net that is
diagnosed needs nobody's weights.
"""

import importlib.util
import inspect
import json
import os
import pkgutil
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from common.errors import RosettaError, hint
from common.tools.frameworks import declare_operators, load

LIMIT = 300  # seconds


def named(net: str) -> tuple[str, str | None] | None:
    """(file, name) of FILE.py:NAME or FILE.py; None of anything else."""
    file, _, name = net.rpartition(":") if not net.endswith(".py") else (net, "", "")
    return (file, name or None) if file.endswith(".py") else None


def diagnose_file(
    file: str, name: str | None, call: str | None = None, like: str | None = None, limit: float = LIMIT,
    weights: str | None = None, reference: str | None = None,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """(the text, the JSON) of a diagnosis of what `file` defines. Executes the file. `weights` are loaded into its net
    first, and each of its arrays is held against those of the checkpoint `reference`.

    Raises what `run_file` does, and all that `diagnose` raises.
    """
    paths = {"weights": weights, "reference": reference}
    given = {"like": like, **{k: v and str(Path(v).resolve()) for k, v in paths.items()}}
    if missing := [v for v in paths.values() if v and not Path(v).exists()]:
        raise RosettaError(f"no such file: {missing[0]}")
    found = run_file(file, name, "common.diagnosis.hers:diagnosed", given, call, limit)
    return found["text"], found["json"]


def diagnosed(net: Any, like: str | None, weights: str | None = None, reference: str | None = None) -> dict[str, Any]:
    """The answer to `diagnose_file`, in the file's process."""
    from common.diagnosis import tensors
    from common.diagnosis.examine import diagnose, living

    if weights:
        tensors.load_into(net, Path(weights))
    found = diagnose(net, like)
    said = tensors.against(found, living(net).arrays(), reference) if reference and found.pairs else []
    lines = [found.text(), *(f"{'weights' if not i else '':<12} {line}" for i, line in enumerate(said))]
    return {"text": "\n".join(lines), "json": {**found.as_json(), "weights": said}}


def run_file(
    file: str, name: str | None, do: str, arguments: dict[str, Any], call: str | None = None, limit: float = LIMIT
) -> Any:
    """What `do`, a "module:function", says of the net that `file` defines, and of `arguments`, as JSON can say it.
    Executes the file.

    Raises RosettaError where there is no such file or name, where the file raises (with its exception and its line),
    where it takes more than `limit` seconds, and a RosettaError that `do` raises.
    """
    path = Path(file)
    if not path.is_file():
        raise RosettaError(f"no such file: {file}")
    if path.suffix != ".py":
        raise RosettaError(f"{file} is no Python file: expected FILE.py:NAME")
    job = {"file": str(path.resolve()), "name": name, "call": call, "do": do, "arguments": arguments}
    # whatever engine she has: a net of Keras is the same on TensorFlow, where it can be recorded
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "KERAS_BACKEND": "tensorflow"}
    ours = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, env.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "common.diagnosis.hers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                          start_new_session=True) as worker:  # fmt: skip
        try:
            out, err = worker.communicate(json.dumps(job).encode(), timeout=limit)
        except BaseException as e:
            _end(worker)
            if isinstance(e, subprocess.TimeoutExpired):
                raise RosettaError(f"{path.name} was still running after {limit:g} s: --limit gives it more") from None
            raise
    try:
        reply = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        last = (err.decode(errors="replace").strip().splitlines() or ["without a word"])[-1]
        raise RosettaError(f"{path.name} ended its process (exit code {worker.returncode}): {last}") from None
    if "error" in reply:
        raise RosettaError(reply["error"])
    return reply["found"]


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """The process with all that it started."""
    try:
        os.killpg(worker.pid, 9)
    except (AttributeError, ProcessLookupError, PermissionError):
        worker.kill()
    worker.wait()


def find(file: str, name: str | None, call: str | None) -> Any:
    """What the file's NAME or the expression is: a net. Raises RosettaError."""
    from common.diagnosis.examine import said

    path = Path(file)
    sys.path.insert(0, str(path.parent))
    sys.argv = [path.name]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    if "torchvision" in path.read_text(errors="replace") and importlib.util.find_spec("torchvision"):
        declare_operators()
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as e:
        raise RosettaError(
            f"{path.name} can't be imported: {said(e)}; install that, or put it beside the file"
        ) from None
    except BaseException as e:  # SystemExit, too
        raise RosettaError(f"{path.name} can't be imported: {said(e)}") from None
    if call:
        try:
            return eval(compile(call, "<--call>", "eval"), vars(module))  # her own expression in her own file
        except SyntaxError as e:
            raise RosettaError(f"--call {call!r} is no expression: {e.msg}") from None
        except BaseException as e:
            raise RosettaError(f"{call} can't be made: {said(e)}") from None
    made = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == path.stem]
    if name is None:
        such = made[-1] if made else "resnet50"
        raise RosettaError(f"{path.name} needs a name, such as {path.name}:{such}; there are {', '.join(made)}")
    if not hasattr(module, name):
        raise RosettaError(f"{path.name} has no {name!r}{hint(name, made)}")
    value = getattr(module, name)
    if not inspect.isclass(value) and not inspect.isroutine(value):
        return value
    try:
        wanted = [
            p.name for p in inspect.signature(value).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]  # fmt: skip
    except (TypeError, ValueError):
        wanted = []
    if wanted:
        given = ", ".join(f"{w}=..." for w in wanted)
        raise RosettaError(f'{name} wants {", ".join(wanted)}: give them by --call "{name}({given})"')
    try:
        return value()
    except BaseException as e:
        raise RosettaError(f"{name}() can't be made: {said(e)}") from None


class Closed(OSError):
    """What her file gets for a socket."""


def _closed(*args: Any, **kwargs: Any) -> NoReturn:
    raise Closed("this net wants to download something when it is made: build it without (pretrained=False)")


def main() -> None:
    """One job from stdin, one line of JSON to stdout; what her file prints goes nowhere."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    job = json.loads(sys.stdin.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    socket.socket.connect = socket.getaddrinfo = _closed  # type: ignore[method-assign]
    reply: dict[str, Any]
    try:
        do = pkgutil.resolve_name(job["do"])
        if re.search(r"^\s*(import|from)\s.*(keras|tensorflow)", Path(job["file"]).read_text("utf-8", "replace"), re.M):
            load("keras", "recorder").note_lines()
        reply = {"found": do(find(job["file"], job["name"], job["call"]), **job["arguments"])}
    except RosettaError as e:
        reply = {"error": str(e)}
    except RecursionError:
        reply = {"error": "the net can't be followed: it is nested too deeply"}
    replies.write(f"{json.dumps(reply)}\n")
    replies.flush()
    os._exit(0)  # whatever threads of hers still run


if __name__ == "__main__":
    main()
