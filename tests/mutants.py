"""Faults in the project itself, one at a time, each against the tests that should see it: `make mutants`.

A test suite is worth what it catches. tests/faults.py puts a mistake into one twin and asks the comparison; here are
mistakes that both twins share, or that training, data, files and the comparison itself could have, where nothing but a
witness from outside helps. Each is a row below: what it is called, what a user would get, which tests should see it, and
the edits. `python tests/mutants.py` copies the tree, makes the edits, runs those tests in a process of its own and keeps
the answer in docs/mutants.json, from which it goes on; docs/mutants.md is written from that. A fault that was caught
isn't tried again; one that survived is, as soon as one of its tests has changed.

Tools that mutate by themselves (mutmut, cosmic-ray) change one place of one file at a time and don't know what a change
means: "in both twins alike" needs two edits, and most of what they make is no mistake that anybody would make.

`test_mutants.py` holds the table against the sources, in the suite: every edit must still find its place.
"""

import argparse
import concurrent.futures
import datetime
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "docs" / "mutants.json", ROOT / "docs" / "mutants.md"
LIMIT = 400  # seconds for the tests of one fault; a hang is no catch
FOLDERS = ("common", "torch_impl", "keras_impl", "tests", "docs", "benchmarks")  # what is copied, and pyproject.toml

Edit = tuple[str, str, str]  # file, what is there once, what is there then


@dataclass(frozen=True)
class Mutant:
    """One fault. `tests` are pytest's arguments, names of files without the folder."""

    name: str
    does: str  # what a user would get
    tests: str
    edits: tuple[Edit, ...]
    audit: str = ""  # what became of it in the audit of 22 November 2026: "caught" or "survived"

    @property
    def files(self) -> list[str]:
        return [file for file, *_ in self.edits]

    @property
    def shared(self) -> bool:
        """Whether both frameworks have it alike, so that comparing them says nothing."""
        packages = {file.split("/")[0] for file in self.files}
        return "common" in packages or packages == {"torch_impl", "keras_impl"}

    @property
    def kind(self) -> str:
        if not self.shared:
            return "one framework alone"
        parts = {Path(file).stem for file in self.files} | {Path(file).parent.name for file in self.files}
        return next(kind for kind, modules in KINDS.items() if parts & modules)

    @property
    def arguments(self) -> list[str]:
        return [place(word) if word.startswith("test_") else word for word in shlex.split(self.tests)]

    def key(self, with_tests: bool) -> str:
        """What an answer is good for: the edits and which tests; of one that survived, what those say, too."""
        said = [self.edits, self.tests]
        if with_tests:
            said += [(ROOT / file).read_text() for file in test_files(self)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


KINDS = {
    "the comparison": {"comparison", "difference", "lockstep", "checks", "backends", "differentiated", "fast", "race"},
    "data and scores": {"data", "examples", "scores", "preprocessing", "images", "evaluation"},
    "training": {"run", "record", "loop", "curves", "recipe", "rules", "kept", "train", "optim", "autodiff"},
    "files": {"checkpoints", "libraries", "tools", "weights", "text", "errors"},
    "the net": {
        "parts",
        "plan",
        "names",
        "arch",
        "row",
        "init",
        "noise",
        "fold",
        "blocks",
        "resnet",
        "layers",
        "model",
        "engines",
    },
}

MUTANTS: dict[str, Mutant] = {}


def place(test: str) -> str:
    """The test with its folder, which is its wing's."""
    file, *names = test.split("::")
    found = next(ROOT.glob(f"tests/**/{file}"), ROOT / "tests" / file)
    return "::".join([str(found.relative_to(ROOT)), *names])


# ruff: noqa: E501 (code is quoted line by line)


def mutant(name: str, does: str, tests: str, *edits: Edit, audit: str = "") -> None:
    """Registers a fault. A file of "*_impl/" is both twins'."""
    assert name not in MUTANTS, name
    each = [
        (file.replace("*", package), old, new)
        for file, old, new in edits
        for package in (("torch", "keras") if "*" in file else ("",))
    ]
    MUTANTS[name] = Mutant(name, does, tests, tuple(each), audit)


def test_files(m: Mutant) -> list[str]:
    return sorted({word.split("::")[0] for word in m.arguments if word.startswith("tests/")})


def misplaced(m: Mutant) -> str:
    """What of a fault doesn't fit the sources any more; empty where everything does."""
    for file, text in edited(m, ROOT).items():
        if text.startswith("!"):
            return f"{file}: {text[1:]}"
    for word in m.arguments:
        if word.startswith("tests/"):
            file, *names = word.split("::")
            if not (ROOT / file).is_file():
                return f"no file {file}"
            for name in names:
                if not re.search(rf"^ *def {re.escape(name.split('[')[0])}\(", (ROOT / file).read_text(), re.M):
                    return f"no test {name} in {file}"
    return ""


def edited(m: Mutant, root: Path) -> dict[str, str]:
    """{file: its text with the fault}; a text that begins with "!" says why there is none."""
    texts: dict[str, str] = {}
    for file, old, new in m.edits:
        text = texts[file] if file in texts else (root / file).read_text()
        if text.startswith("!"):
            continue
        n = text.count(old)
        texts[file] = text.replace(old, new) if n == 1 and old != new else f"!{n} times {old!r}"
    return texts


def copy(root: Path) -> None:
    """The tree, without what was built or measured in it."""
    ignore = shutil.ignore_patterns(".git", "*.egg-info", "results", ".hypothesis", ".pytest_cache")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for file in ("pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md", "constraints.txt"):
        shutil.copy2(ROOT / file, root / file)


def pytest(root: Path, arguments: list[str], limit: float) -> tuple[int | None, str]:
    """(exit code, output) of pytest in a copy; None where it took too long."""
    words = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", "-rfE"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(
            [*words, *arguments], cwd=root, env=env, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = running.wait(limit)
        except BaseException as e:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            code = None
        said.seek(0)
        return code, said.read()


def attempt(m: Mutant, limit: float = LIMIT) -> dict:
    """What becomes of a fault: "caught" by a test; "survived"; "no time"; or "no test", where none could run."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        copy(root)
        for file, text in edited(m, root).items():
            assert not text.startswith("!"), (m.name, text)
            (root / file).write_text(text)
        code, said = pytest(root, m.arguments, limit)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(?:\w+/)?(\S+?::.+?)(?: - .*)?$", said, re.M)
    ran = re.search(r"\b\d+ passed", said)
    if code == 1 and failed:
        result = {"result": "caught", "by": failed[1]}
    elif code == 0 and ran:
        result = {"result": "survived"}
    else:
        result = {"result": "no time" if code is None else "no test", "said": said.strip()[-600:]}
    return {
        **result, "key": m.key(result["result"] != "caught"), "seconds": round(time.perf_counter() - begun, 1),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("numpy", "torch", "keras", "tensorflow-cpu", "tensorflow", "jax", "pytest"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> dict[str, dict]:
    return json.loads(RESULTS.read_text())["mutants"] if RESULTS.is_file() else {}


def store(found: dict[str, dict]) -> None:
    kept = {name: found[name] for name in MUTANTS if name in found}
    text = json.dumps({"versions": versions(), "mutants": kept}, indent=1) + "\n"
    temporary = RESULTS.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, RESULTS)
    PAGE.write_text(page(kept))


def done(m: Mutant, found: dict[str, dict]) -> bool:
    row = found.get(m.name)
    return row is not None and row["key"] == m.key(row["result"] != "caught") and row["result"] != "no time"


def clean(found: dict[str, dict], names: list[str]) -> list[str]:
    """Of the tests that caught something, those that fail without any fault: they prove nothing."""
    by = sorted({found[n]["by"] for n in names if found.get(n, {}).get("by")})
    if not by:
        return []
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy(Path(folder))
        _, said = pytest(Path(folder), ["--maxfail=1000", *map(place, by)], 60 * len(by) + 600)
    failed = set(re.findall(r"^(?:FAILED|ERROR) tests/(?:\w+/)?(\S+?::.+?)(?: - .*)?$", said, re.M))
    if "passed" not in said:
        raise SystemExit(f"the tests don't run without a fault either:\n{said[-2000:]}")
    return sorted(failed & set(by))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="also what was caught")
    parser.add_argument("--list", action="store_true", help="what there is to do, and write the page")
    chosen = parser.parse_args()
    found = load()
    todo = [m for m in MUTANTS.values() if not chosen.names or any(part in m.name for part in chosen.names)]
    todo = [m for m in todo if chosen.again or not done(m, found)]
    todo.sort(key=lambda m: m.name in found)  # those never tried come first
    if wrong := [f"{m.name}: {why}" for m in todo if (why := misplaced(m))]:
        raise SystemExit("these fit the sources no more:\n" + "\n".join(wrong))
    print(f"{len(todo)} of {len(MUTANTS)} to do")
    if chosen.list:
        print(*(f"  {m.name}" for m in todo), sep="\n")
        store(found)
        return
    lock = threading.Lock()

    def run(m: Mutant) -> None:
        row = attempt(m)
        with lock:
            found.update(load() | {m.name: row})
            store(found)
            print(f"{row['result']:9} {row['seconds']:6.1f} s  {m.name}  {row.get('by', '')}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        for job in concurrent.futures.as_completed([pool.submit(run, m) for m in todo]):
            job.result()
    failing = clean(found, [m.name for m in todo])
    for name in [m.name for m in todo if found[m.name].get("by") in failing]:
        found[name] = {**found[name], "result": "no test", "said": f"{found[name]['by']} fails without a fault, too"}
    store(found)
    print(score(found))
    sys.exit(bool([m for m in todo if found[m.name]["result"] != "caught"]))


def score(found: dict[str, dict]) -> str:
    caught = sum(found.get(name, {}).get("result") == "caught" for name in MUTANTS)
    return f"{caught} of {len(MUTANTS)} faults caught, {100 * caught / len(MUTANTS):.1f} %"


def page(found: dict[str, dict]) -> str:
    """docs/mutants.md."""

    def tally(rows: list[Mutant]) -> str:
        caught = sum(found.get(m.name, {}).get("result") == "caught" for m in rows)
        return f"{len(rows)} | {caught} | {100 * caught / len(rows):.0f} %" if rows else "0 | 0 | "

    every = list(MUTANTS.values())
    groups = {kind: [m for m in every if m.kind == kind] for kind in dict.fromkeys(m.kind for m in every)}
    groups |= {
        "**all**": every, "alike in both frameworks": [m for m in every if m.shared],
        "of the audit's, that the suite then caught": [m for m in every if m.audit == "caught"],
        "of the audit's, that then survived": [m for m in every if m.audit == "survived"],
    }  # fmt: skip
    dates = sorted({row["date"] for row in found.values()})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "not yet"
    lines = [
        "# Mutants", "",
        "Written by `make mutants` from `docs/mutants.json`; the table of faults is `tests/mutants.py`. Each fault is put",
        "into a copy of the project by itself, and the tests that should see it run there. No third-party data is there,",
        "as on any machine but a developer's.", "",
        f"Measured {when}, {', '.join(f'{k} {v}' for k, v in versions().items())}.", "",
        f"**{score(found)}**", "", "| | faults | caught | |", "|---|--:|--:|--:|",
        *(f"| {kind} | {tally(rows)} |" for kind, rows in groups.items()), "",
    ]  # fmt: skip
    left = [m for m in every if found.get(m.name, {}).get("result") != "caught"]
    survivors = [m for m in left if found.get(m.name, {}).get("result") == "survived"]
    for title, rows in (("Survivors", survivors), ("Without an answer", [m for m in left if m not in survivors])):
        if rows:
            lines += [f"## {title}", "", "| fault | what a user would get | |", "|---|---|---|"]
            lines += [f"| {m.name} | {m.does} | {found.get(m.name, {}).get('result', 'not tried')} |" for m in rows]
            lines += [""]
    for kind in dict.fromkeys(m.kind for m in every):
        lines += [f"## {kind[0].upper()}{kind[1:]}", "", "| fault | what a user would get | seen by |", "|---|---|---|"]
        for m in groups[kind]:
            row = found.get(m.name, {})
            lines += [f"| {m.name} | {m.does} | {row.get('by', '').replace('|', chr(92) + '|') or '**nothing**'} |"]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


# fmt: off

# ---- the net, alike in both frameworks

NET, PAPERS, MASKS = "test_referees.py", "test_papers.py", "test_masks.py"
SEEN = "survived"  # what the audit found that nothing saw
PLAN, TWINS, LAYERS = "common/plan.py", "*_impl/blocks.py", "*_impl/layers.py"

mutant("option A behind", "the zero channels of option A all come after the others, so that akamaster's weights say nothing",
       f"{PAPERS} -k cifar_resnet20",
       (PLAN, "before=extra // 2, after=extra - extra // 2", "before=0, after=extra"), audit="caught")
mutant("option A's other pixels", "option A takes the odd pixels where the paper takes the even ones",
       f"{PAPERS} -k cifar_resnet20",
       ("torch_impl/layers.py", "slice(None, None, self.stride)", "slice(self.stride - 1, None, self.stride)"),
       ("keras_impl/layers.py", "slice(None, None, self.stride)", "slice(self.stride - 1, None, self.stride)"), audit="caught")
mutant("option A reads the pre-activation", "the shortcuts of cifar_preresnet110 are no identities",
       f"{PAPERS} -k cifar_preresnet110",
       (PLAN, 'Shortcut("pad", stride, before', 'Shortcut("pad", stride, of_preactivation=a.preact, before'), audit=SEEN)
mutant("option A's odd channel in front", "an odd surplus of channels goes before and not behind, against DESIGN.md",
       f"{PAPERS} -k odd",
       (PLAN, "before=extra // 2, after=extra - extra // 2", "before=extra - extra // 2, after=extra // 2"), audit=SEEN)
mutant("option C without a norm", "projections everywhere, and none has its BatchNorm",
       "test_counts.py::test_published_counts_are_exact",
       (PLAN, "normed = a.shortcut_norm and not a.preact\n",
        'normed = a.shortcut_norm and not a.preact and a.shortcut != "project_all"\n'), audit="caught")
mutant("parallel trunks unstrided", "msresnet_1d keeps its length from stage to stage",
       f"{PAPERS} -k msresnet",
       (PLAN, "stride = 1 if b else (", "stride = 1 if b or len(a.kernels) > 1 else ("), audit="caught")
mutant("parallel trunks joined backwards", "msresnet_1d's classifier reads kernel 7's features where kernel 3's belong",
       f"{PAPERS} -k msresnet",
       ("*_impl/resnet.py", "for trunk in self.plan.trunks])", "for trunk in reversed(self.plan.trunks)])"), audit=SEEN)
mutant("stage 1 of parallel trunks unstrided", "msresnet_1d's first stage doesn't halve",
       f"{PAPERS} -k msresnet",
       (PLAN, "(a.first_stride if s == 0 else 2)", "(1 if s == 0 else 2)"))
mutant("a dropped block too early", "stochastic depth never drops the first block, and the last too rarely",
       "test_arch.py::test_stochastic_depth_is_linear_in_depth",
       (PLAN, "rate = a.drop_path * done / sum(a.depths)", "rate = a.drop_path * (done - 1) / sum(a.depths)"), audit="caught")
mutant("stochastic depth alike everywhere", "every block has the last one's rate",
       "test_arch.py::test_stochastic_depth_is_linear_in_depth",
       (PLAN, "rate = a.drop_path * done / sum(a.depths)", "rate = a.drop_path"))
mutant("stochastic depth on the sum", "whole examples become zero instead of skipping a block",
       f"{PAPERS} -k 'sd or masks'",
       (TWINS, "y = self.se(self.bn2(self.conv2(self.dropout(self.antialias(y)))))\n        return relu(add(self.drop_path(y), self.downsample(x)))",
        "y = self.se(self.bn2(self.conv2(self.dropout(self.antialias(y)))))\n        return relu(self.drop_path(add(y, self.downsample(x))))"), audit="caught")
mutant("dropout after the last convolution", "wide nets drop what a block gives, not what its second convolution reads",
       f"{PAPERS} -k wrn28",
       (TWINS, "y = self.se(self.conv2(self.dropout(self.antialias(y))))", "y = self.dropout(self.se(self.conv2(y)))"), audit=SEEN)
mutant("a wide net's stride in the second convolution", "cifar_wrn and cifar_preresnet110 compute something else with the same weights",
       f"{PAPERS} -k wrn16",
       (PLAN, "sizes = [(cin, cout, kernel, own, 1, dilation), (cout, cout, kernel, 1, 1, more)]",
        "late = a.preact and not a.stem.pool\n            sizes = [(cin, cout, kernel, 1 if late else own, 1, 1), "
        "(cout, cout, kernel, own if late else 1, 1, 1)]"), audit=SEEN)
mutant("squeeze-and-excitation without ReLU", "SE nets of others give other logits",
       f"{PAPERS} -k SE",
       (TWINS, "sigmoid(self.fc2(relu(self.fc1(s))))", "sigmoid(self.fc2(self.fc1(s)))"), audit="caught")
mutant("squeeze-and-excitation rounded down", "odd widths get another squeeze than timm's",
       f"{PAPERS} -k squeezed",
       (PLAN, "int(channels / ratio + 4) // 8 * 8", "int(channels / ratio) // 8 * 8"), audit=SEEN)
mutant("squeeze-and-excitation on the sum", "a pre-activation SE net scales its shortcut, too",
       PAPERS,
       (TWINS, "y = self.se(self.conv2(self.dropout(self.antialias(y))))\n        return add(self.drop_path(y), self.downsample(p if self.of_preactivation else x))",
        "y = self.conv2(self.dropout(self.antialias(y)))\n        return self.se(add(self.drop_path(y), self.downsample(p if self.of_preactivation else x)))"), audit=SEEN)
mutant("the squeeze over one axis", "SE of images takes the mean over rows alone",
       f"{PAPERS} -k SE",
       ("torch_impl/layers.py", "mean = x.mean(tuple(range(2, dims + 2)), keepdim=True)",
        "mean = x.mean((2,) if keepdims and dims == 2 else tuple(range(2, dims + 2)), keepdim=True)"),
       ("keras_impl/layers.py", "return engines.mean(x, tuple(range(1, dims + 1)), keepdims)",
        "return engines.mean(x, (1,) if keepdims and dims == 2 else tuple(range(1, dims + 1)), keepdims)"))
mutant("running statistics too slow", "statistics take ten times as many steps as PyTorch's",
       f"{PAPERS} -k plain18",
       ("common/parts.py", "MOMENTUM = 0.1", "MOMENTUM = 0.01"), audit="caught")
mutant("the stem without ReLU", "every ResNet of others gives other logits",
       f"{PAPERS} -k plain18",
       ("*_impl/resnet.py", "x = relu(self.bn1(x))", "x = self.bn1(x)"), audit="caught")
mutant("the last ReLU of a pre-activation net lost", "timm's resnetv2 gives other logits",
       f"{PAPERS} -k wrn16",
       ("*_impl/resnet.py", "x = relu(getattr(self, trunk.norm.name)(x))", "x = getattr(self, trunk.norm.name)(x)"))
mutant("a pre-activation projection reads the input", "timm's resnetv2 gives other logits",
       f"{PAPERS} -k preresnet164",
       (PLAN, "of_preactivation=a.preact, dims", "of_preactivation=False, dims"))
mutant("ResNet-D strides after its pooling", "resnet18d to resnet200d take one pixel of four instead of their mean",
       f"{PAPERS} -k vd",
       (PLAN, "cin, stride) if pooled", "cin, 1) if pooled"), (PLAN, "(1, 1) if pooled", "(1, stride) if pooled"), audit="caught")
mutant("ResNet-D leaves out the edge", "at odd sizes the shortcut loses the last row and column",
       f"{PAPERS} -k vd",
       ("torch_impl/layers.py", "(p.kernel, p.stride, 0, p.ceil, False)", "(p.kernel, p.stride)"),
       ("keras_impl/layers.py", 'padding = "same" if p.ceil else "valid"', 'padding = "valid"'))
mutant("max pooling rounds up", "at even sizes there is one row and one column too many",
       f"{PAPERS} -k plain18",
       ("torch_impl/layers.py", "(p.kernel, p.stride, p.padding)\n", "(p.kernel, p.stride, p.padding, ceil_mode=True)\n"),
       ("keras_impl/layers.py", "((p.padding + p.zeros,) * 2,) * p.dims", "((p.padding + p.zeros, p.padding + 1),) * p.dims"), audit="caught")
mutant("version 1 and 1.5 exchanged", "the stride is on the other convolution: same shapes, other logits",
       f"{PAPERS} -k resnet50_v1",
       (PLAN, "(own, 1, more) if a.stride_in == 1 else", "(own, 1, more) if a.stride_in == 2 else"))
mutant("groups ignored by the width", "resnext101_64x4d is as narrow as 32x4d",
       "test_counts.py::test_published_counts_are_exact",
       ("common/row.py", "self.widths[stage] * self.width_per_group // 64 * self.groups",
        "self.widths[stage] * self.width_per_group // 64 * min(self.groups, 32)"))
mutant("keras' V2 strides in the first block", "keras.applications' ResNet50V2 gives other logits",
       f"{NET}::test_keras_applications[resnet50v2_keras]",
       (PLAN, "halves = b == depth - 1 and s < len(a.depths) - 1", "halves = b == 0 and s < len(a.depths) - 1"))
mutant("one epsilon for all", "keras.applications' nets get PyTorch's 1e-5",
       f"{NET}::test_keras_applications[resnet50_keras]",
       (PLAN, "return Norm(name, channels, a.norm_eps, ", "return Norm(name, channels, 1e-5, "))
mutant("the vd shortcut projects everywhere", "resnet18_vd has parameters that KerasHub's doesn't",
       f"{PAPERS} -k vd",
       (PLAN, '(a.shortcut == "pool_first" and first)', 'a.shortcut == "pool_first"'))
mutant("the last stage isn't strided", "the last stage sees twice the resolution",
       f"{PAPERS} -k plain18",
       (PLAN, "(a.first_stride if s == 0 else 2)", "(a.first_stride if s == 0 else 2 if s < 3 else 1)"))

# rows of the table
mutant("wide nets without dropout", "cifar_wrn28_10 trains without the paper's dropout",
       f"{PAPERS} -k wrn28",
       ("common/arch.py", "(28, 10, 0.3)", "(28, 10, 0.0)"))
mutant("stochastic depth of 0.2", "cifar_resnet110_sd drops less than the paper's half",
       "test_arch.py::test_stochastic_depth_is_linear_in_depth",
       ("common/arch.py", "depths=_cifar(110), drop_path=0.5)", "depths=_cifar(110), drop_path=0.2)"))
mutant("a ResNeXt for CIFAR of half the width", "cifar_resnext29_8x64d has a quarter of the parameters",
       "test_counts.py::test_the_papers_counts",
       ("common/arch.py", "Arch(_cifar(29, 3), widths=(64, 128, 256)", "Arch(_cifar(29, 3), widths=(32, 64, 128)"))
mutant("resnet152 of another depth", "two blocks are in the wrong stage",
       "test_counts.py::test_published_counts_are_exact",
       ("common/arch.py", "152: (3, 8, 36, 3)", "152: (3, 10, 34, 3)"))
mutant("the deep stem's first convolution wider", "ResNet-D has 64 channels where the paper has 32",
       "test_counts.py::test_published_counts_are_exact",
       ("common/arch.py", "_D = Stem(((32, 3, 2), (32, 3, 1)", "_D = Stem(((64, 3, 2), (32, 3, 1)"))
mutant("biases left out of Dive into Deep Learning", "resnet18_d2l doesn't take the book's weights",
       f"{NET}::test_dive_into_deep_learning",
       ("common/arch.py", "replace(a, conv_bias=True, shortcut_norm=False", "replace(a, conv_bias=False, shortcut_norm=False"))

# names and costs
mutant("the stem's pooling costs nothing", "multiply-adds are four times the papers'",
       "test_counts.py::test_the_papers_multiply_adds",
       ("common/names.py", "x = pool(p, x)\n    if len", "pool(p, x)\n    if len"))
mutant("the projection costs nothing", "multiply-adds leave out the shortcuts",
       "test_counts.py::test_published_counts_are_exact",
       ("common/names.py", "if isinstance(layer, Conv | Linear):", 'if isinstance(layer, Conv | Linear) and ".downsample" not in name:'))
mutant("a last norm that belongs to the stem", "`--freeze head` leaves the last norm of a pre-activation net learning",
       "test_by_hand.py",
       ("common/names.py", '"head" if top in ("fc", "logits") or top.startswith("norm") else "stem"', '"head" if top in ("fc", "logits") else "stem"'))

# initial weights, folding, masks
mutant("initialisation by fan-in", "nets begin with other gradients than the paper's",
       "test_parity.py::test_initialisation_is_he_fan_out_untruncated",
       ("common/init.py", "2 / (shape[0] * math.prod(shape[2:]))", "2 / math.prod(shape[1:])"), audit="caught")
mutant("the classifier by fan-out", "the loss of ten classes begins at 7.7 where ln 10 is 2.3",
       "test_parity.py::test_initialisation_is_he_fan_out_untruncated",
       ("common/init.py", "1 / shape[1] if isinstance(layer, Linear)", "2 / shape[0] if isinstance(layer, Linear)"))
mutant("all layers drawn alike", "every layer begins with the same numbers, from one stream",
       "test_by_hand.py",
       ("common/init.py", "default_rng([seed, zlib.crc32(name.encode())])", "default_rng([seed])"))
mutant("one seed for all", "every net begins with the same weights, whatever the seed",
       "test_parity.py::test_a_seed_is_a_net_and_the_frameworks_own_seeds_govern_without_one",
       ("common/init.py", "default_rng([seed, zlib.crc32(name.encode())])", "default_rng([0, zlib.crc32(name.encode())])"))
mutant("running variance begins at 0", "a fresh net divides by the root of epsilon in evaluation",
       "test_parity.py::test_initialisation_is_he_fan_out_untruncated",
       ("common/init.py", 'leaf in ("weight", "running_var"), np.float32)', 'leaf == "weight", np.float32)'))
mutant("fold without epsilon", "a folded net gives other logits",
       "test_fold.py::test_a_norm_of_its_own_folds_by_hand",
       ("common/fold.py", "np.sqrt(variance + norm.eps)", "np.sqrt(variance)"), audit="caught")
mutant("fold forgets the convolution's bias", "folded nets with biases give other logits",
       "test_fold.py::test_a_norm_of_its_own_folds_by_hand",
       ("common/fold.py", "beta + (bias - mean)", "beta + (0 - mean)"))
mutant("shared masks unscaled", "in the comparison, dropout doesn't scale what survives",
       PAPERS,
       ("common/noise.py", ">= rate) / (1 - rate)", ">= rate) * 1.0"), audit=SEEN)
mutant("shared masks drop the others", "in the comparison, dropout drops 70 % for 30 %",
       PAPERS,
       ("common/noise.py", ">= rate) / (1 - rate)", "< rate) / (1 - rate)"))
mutant("dropout drops the others", "a rate of 0.3 drops 70 %, in training too",
       MASKS,
       (LAYERS, "return Dropout(rate) if rate else identity", "return Dropout(1 - rate) if rate else identity"), audit=SEEN)
mutant("stochastic depth by element", "in training single numbers are dropped, and no block is ever skipped",
       MASKS,
       ("torch_impl/layers.py", "return x * F.dropout(x.new_ones(shape), rate)", "return F.dropout(x, rate)"),
       ("keras_impl/layers.py", "return x * keras.random.dropout(ops.ones(shape, x.dtype), self.rate, seed=self.seed_generator)",
        "return keras.random.dropout(x, self.rate, seed=self.seed_generator)"), audit=SEEN)
mutant("stochastic depth by batch", "in training a block is skipped for all examples or for none",
       MASKS,
       ("torch_impl/layers.py", "x * F.dropout(x.new_ones(shape), rate)", "x * F.dropout(x.new_ones(1), rate)"),
       ("keras_impl/layers.py", "keras.random.dropout(ops.ones(shape, x.dtype), self.rate, seed=self.seed_generator)",
        "keras.random.dropout(ops.ones((1,), x.dtype), self.rate, seed=self.seed_generator)"))
mutant("survivors of stochastic depth unscaled", "in training blocks weigh less than in evaluation",
       MASKS,
       ("torch_impl/layers.py", "x * F.dropout(x.new_ones(shape), rate)", "x * F.dropout(x.new_ones(shape), rate).sign()"),
       ("keras_impl/layers.py", "x * keras.random.dropout(ops.ones(shape, x.dtype), self.rate, seed=self.seed_generator)",
        "x * ops.sign(keras.random.dropout(ops.ones(shape, x.dtype), self.rate, seed=self.seed_generator))"))

# ---- one framework alone

TRAIN, RECIPES = "test_training.py", "test_recipes.py"
mutant("Keras' running variance biased in large batches", "a net trained in Keras has other statistics from 4,096 values on",
       "test_backends.py::test_tensorflows_own_batch_norm_is_what_float64_has_without_it",
       ("keras_impl/layers.py", "mean, variance * n / (n - 1)\n", "mean, (variance * n / (n - 1) if not isinstance(n, int) or n <= 4096 else variance)\n"), audit="caught")
mutant("several processes' running variance biased", "a net trained by torchrun has other statistics",
       f"{TRAIN}::test_two_processes_or_devices_are_one[torchrun]",
       ("torch_impl/train.py", "self.running_var.lerp_(variance * n / (n - 1), self.momentum)", "self.running_var.lerp_(variance, self.momentum)"), audit="caught")
mutant("half a bias in float32", "Keras' logits are off by half of the classifier's bias",
       "test_parity.py::test_variant[cifar_resnet20]",
       ("keras_impl/layers.py", "ops.convert_to_tensor(self.kernel) + ops.convert_to_tensor(self.bias)",
        'ops.convert_to_tensor(self.kernel) + ops.convert_to_tensor(self.bias) * (0.5 if self.compute_dtype == "float32" else 1)'), audit="caught")
mutant("many groups backwards in float32", "Keras' ResNeXts give other logits on TensorFlow",
       "test_parity.py::test_small_variant[resnext50_32x4d]",
       ("keras_impl/engines.py", "return tf.nn.convolution(x, kernel, strides, padding, dilations=dilation)",
        "return tf.nn.convolution(x, kernel[..., ::-1] if groups > 8 else kernel, strides, padding, dilations=dilation)"), audit="caught")
mutant("no gradient for many groups", "Keras' ResNeXts don't learn their grouped kernels in float64",
       "test_gradients.py::test_gradients[resnext50_32x4d]",
       ("keras_impl/engines.py", "tf.nn.convolution(a, k, strides, padding, dilations=dilation) for a, k in pairs",
        "tf.nn.convolution(a, tf.stop_gradient(k) if groups > 8 else k, strides, padding, dilations=dilation) for a, k in pairs"), audit="caught")
mutant("JAX's statistics still", "nets trained on keras:jax keep their first statistics",
       "test_backends.py::test_backend[jax]",
       ("keras_impl/train.py", "        put(others, other)\n", ""), audit="caught")
mutant("a tensor not imported", "Keras' nets keep one of their own statistics",
       "test_parity.py::test_tiny_inputs_work_as_long_as_something_is_left[resnet18]",
       ("keras_impl/weights.py", "        variable.assign(source[name]())\n",
        '        if name != "layer1.0.bn1.running_var":\n            variable.assign(source[name]())\n'), audit="caught")
mutant("Adam's step lost", "a training with Adam that goes on corrects its moments as at the first step",
       f"{TRAIN} -k 'restored_training_goes_on and adamw'",
       ("torch_impl/optim.py", 'torch.tensor(float(steps))', 'torch.tensor(0.0)'), audit="caught")
mutant("frozen norms move", "the statistics of frozen sections drift in PyTorch",
       f"{TRAIN}::test_frozen_sections_keep_everything_and_the_others_move[torch]",
       ("torch_impl/train.py", "            m.eval()\n", "            pass\n"), audit="caught")
mutant("doubled gradients on keras:torch", "training on Keras' torch engine takes twice the rate",
       "test_backends.py::test_backend[torch]",
       ("keras_impl/train.py", "torch.autograd.grad(loss * weight, ", "torch.autograd.grad(2 * loss * weight, "), audit=SEEN)
mutant("gradients clipped in float32", "on Keras' torch engine a float64 training clips by a factor of 7 digits",
       "test_backends.py::test_backend[torch]",
       ("keras_impl/train.py", "times = clip / (clip + ops.relu(norm - clip))", "times = ops.minimum(clip / norm, 1.0)"))
mutant("one mask for all of Keras' layers", "in Keras every dropout drops the same places",
       MASKS,
       ("keras_impl/train.py", "np.array([seed, i << 16], ", "np.array([seed, 0], "), audit=SEEN)
mutant("clipped before the loss' scale is out", "in float16 PyTorch's gradients are clipped 65,536 times too much",
       f"{RECIPES}::test_gradients_in_float16_are_clipped_after_their_scale_is_out",
       ("torch_impl/train.py", "        if self._unscaled(scale):\n            if self.recipe.clip:\n                torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)\n",
        "        if self.recipe.clip:\n            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)\n        if self._unscaled(scale):\n"), audit=SEEN)
mutant("a large batch's parts in another order", "optimized nets give one image's logits for another's",
       "test_fast.py::test_a_batch_in_parts_gives_the_same_logits",
       ("torch_impl/fast.py", "for part in x.tensor_split(self.parts)])",
        "for part in x.tensor_split(self.parts)][:: -1 if len(x) > 4 else 1])"), audit=SEEN)
mutant("Keras' logits in training mode", "what a Keras net is measured by moves with the batch",
       f"{TRAIN}::test_a_run_goes_on_in_the_other_framework[keras]",
       ("keras_impl/train.py", "tf.function(lambda x: t.model(x, training=False))", "tf.function(lambda x: t.model(x, training=True))"))
mutant("Nesterov without its look ahead", "Keras' Nesterov is plain momentum",
       "test_optimizers.py::test_steps",
       ("keras_impl/optim.py", "g = g + self.momentum * v if self.nesterov else v", "g = v"))
mutant("Keras' AdamW couples its decay", "AdamW in Keras is Adam with L2",
       "test_optimizers.py::test_steps",
       ("keras_impl/optim.py", "    coupled = False\n", "    coupled = True\n"))
mutant("Keras' momentum isn't restored", "a training that goes on in Keras begins with no momentum",
       f"{TRAIN} -k 'restored_training_goes_on and keras'",
       ("keras_impl/optim.py", "            if id(variable) in places and f\"{name} {kind}\" in kept:\n                getattr",
        "            if False:\n                getattr"))
mutant("bfloat16 without its sign", "weights of a bfloat16 net come out of PyTorch as their absolute values",
       "test_real_models.py::test_half_precision_goes_through_both",
       ("torch_impl/model.py", "(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)", "(tensor.float().abs() if tensor.dtype == torch.bfloat16 else tensor)"))

# ---- training, which both frameworks share

TRAINING, RECORD, STEPS = "common/training/run.py", "common/training/record.py", "common/training/loop.py"
RECIPE = "common/training/recipe.py"
LOOP = "test_loop.py"
mutant("parts of a batch weigh alike", "with --accumulate the last, smaller part weighs too much",
       f"{RECIPES}::test_a_trainers_steps_are_those_of_a_plain_loop_with_torch_optim",
       ("*_impl/train.py", "share = self.share(labels[rows], labels)", "share = 1 / self.recipe.accumulate"), audit="caught")
mutant("measured on training examples", "test accuracy is that of what was trained on",
       LOOP,
       (TRAINING, "Batches(data.test, max(self.recipe.batch, 250)", "Batches(data.train.subset(np.arange(len(data.test))), max(self.recipe.batch, 250)"), audit="caught")
mutant("label smoothing ignored", "--with smoothing does nothing",
       f"{TRAIN}::test_every_option_does_something",
       ("torch_impl/autodiff.py", "label_smoothing=smoothing", "label_smoothing=0.0"),
       ("keras_impl/autodiff.py", "if smoothing:", "if False:"), audit="caught")
mutant("label smoothing over the other classes", "the true class gets less than Szegedy et al. give it",
       "test_by_hand.py",
       ("torch_impl/autodiff.py", "label_smoothing=smoothing", "label_smoothing=smoothing * logits.shape[1] / (logits.shape[1] - 1)"),
       ("keras_impl/autodiff.py", "    if smoothing:\n", "    if smoothing:\n        smoothing = smoothing * logits.shape[1] / (logits.shape[1] - 1)\n"))
mutant("warm-up takes twice as long", "the rate rises too slowly",
       f"{RECIPES}::test_rates_are_those_of_torchs_schedulers",
       (RECIPE, "self.warmup * steps_per_epoch\n", "2 * self.warmup * steps_per_epoch\n"), audit="caught")
mutant("warm-up from nothing", "`warmup_from` is ignored: cifar110 begins at almost 0 and not at a tenth",
       f"{RECIPES}::test_rates_are_those_of_torchs_schedulers",
       (RECIPE, "(self.warmup_from + (1 - self.warmup_from) * (step + 1) / ramp)", "((step + 1) / ramp)"))
mutant("masks alike at every step", "dropout drops the same places in every step of a run",
       LOOP,
       (RECORD, "counters.MASKS, self.step)[0]", "counters.MASKS, 0)[0]"), audit=SEEN)
mutant("the next step's rate", "every rate comes a step too early",
       LOOP,
       (RECORD, "self.run.recipe.rate(self.step, self.steps_per_epoch)", "self.run.recipe.rate(self.step + 1, self.steps_per_epoch)"), audit=SEEN)
mutant("the best is the worst", "best.safetensors is the net that measured worst",
       LOOP,
       (RECORD, "if found.accuracy > p.best:", "if p.best < 0 or found.accuracy < p.best:"), audit=SEEN)
mutant("the best is the last", "best.safetensors is the net of the last epoch",
       LOOP,
       (RECORD, "if found.accuracy > p.best:", "if True:"))
mutant("raw weights measured", "with an average of weights, metrics are those of the weights that it replaces",
       LOOP,
       (RECORD, "            with self.trainer.averaged():\n                found = measure", "            with contextlib.nullcontext():\n                found = measure"), audit=SEEN)
mutant("the average's decay complemented", "an average with decay 0.999 is the last weights, a thousandth aside",
       f"{RECIPES}::test_the_average_of_weights_is_torchs",
       ("torch_impl/train.py", "lerp_(tensor, 1 - self.recipe.ema)", "lerp_(tensor, self.recipe.ema)"),
       ("keras_impl/train.py", "(1 - self.recipe.ema) * (variable", "self.recipe.ema * (variable"), audit=SEEN)
mutant("the loss' scale lost", "a float16 training that goes on begins with the first scale, and is another one",
       f"{RECIPES}::test_the_loss_scale_goes_on",
       ("common/training/kept.py", "            self.scale.restore(state[\"steps\"][1:])\n", "            pass\n"), audit=SEEN)
mutant("the raw weights lost", "a training with an average that goes on trains the average",
       f"{TRAIN}::test_restored_training_goes_on_to_the_bit",
       ("common/training/kept.py", "import_weights(self.model, now or weights)", "import_weights(self.model, weights)"))
mutant("the cosine a straight line", "the rate falls evenly",
       f"{RECIPES}::test_rates_are_those_of_torchs_schedulers",
       (RECIPE, "0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))", "(1 - (step - ramp) / max(1, total - ramp))"), audit=SEEN)
mutant("the cosine ends early", "the rate is that of the whole training, warm-up too, and never comes down",
       f"{RECIPES}::test_rates_are_those_of_torchs_schedulers",
       (RECIPE, "(step - ramp) / max(1, total - ramp)", "(step - ramp) / max(1, total)"))
mutant("drops a step late", "the rate falls a step after the paper's",
       LOOP,
       (RECIPE, "sum(step >= d * total", "sum(step > d * total"))
mutant("biases decay all the same", "`decay_norms=false` leaves biases decaying",
       f"{RECIPES}::test_no_decay_of_norms_and_biases_is_timms",
       (RECIPE, '(leaf == "bias" or layer in norms)', "(layer in norms)"), audit=SEEN)
mutant("rates of sections ignored", "`--times head=10` does nothing",
       f"{TRAIN}::test_rates_multiply",
       (RECIPE, "(rates or {}).get(section, 1.0)", "1.0"))
mutant("an epoch's sums never reset", "training loss and accuracy are those of all epochs together",
       LOOP,
       (RECORD, "        p.loss = p.right = p.seen = 0.0\n", "        pass\n"), audit=SEEN)
mutant("batches weigh alike in the training loss", "a small last batch counts as much as a whole one",
       LOOP,
       (STEPS, "progress.loss += loss * len(x)", "progress.loss += loss * run.recipe.batch"))
mutant("Adam forgets faster", "Adam's second moment has another decay than PyTorch's default",
       f"{RECIPES}::test_defaults_of_the_rules_are_pytorchs",
       ("common/parity/rules.py", "beta_2: float = 0.999", "beta_2: float = 0.99"), audit=SEEN)
mutant("ImageNet's first drop late", "the imagenet recipe divides its rate at 45 epochs and not at 30",
       f"{RECIPES}::test_a_papers_recipe_has_the_papers_numbers",
       (RECIPE, '"imagenet": Recipe(batch=256, epochs=90, drops=(1 / 3, 2 / 3))', '"imagenet": Recipe(batch=256, epochs=90, drops=(1 / 2, 2 / 3))'), audit=SEEN)
mutant("a wide net's rate a tenth", "the wrn recipe divides by ten and not by five",
       f"{RECIPES}::test_a_papers_recipe_has_the_papers_numbers",
       (RECIPE, "drops=(0.3, 0.6, 0.8), factor=0.2", "drops=(0.3, 0.6, 0.8), factor=0.1"))
mutant("a ResNeXt's weight decay", "the resnext_cifar recipe has another weight decay than the paper's",
       f"{RECIPES}::test_a_papers_recipe_has_the_papers_numbers",
       (RECIPE, "weight_decay=5e-4), epochs=300", "weight_decay=1e-4), epochs=300"))
mutant("transfer leaves out a stage", "--init draws layer3 anew, without a word",
       f"{RECIPES}::test_a_run_begins_with_all_of_a_checkpoint",
       (TRAINING, "if n in weights and w.shape == weights[n].shape}", 'if n in weights and w.shape == weights[n].shape and not n.startswith("layer3")}'), audit=SEEN)
mutant("the best forgotten", "a run that goes on replaces its best net by a worse one",
       LOOP,
       (RECORD, '_KEPT = ("step", "loss", "right", "seen", "best", "seconds", "last")', '_KEPT = ("step", "loss", "right", "seen", "seconds", "last")'))
mutant("the epoch's sums forgotten", "after a stop in mid-epoch the training loss is that of the rest",
       LOOP,
       (RECORD, '_KEPT = ("step", "loss", "right", "seen", "best", "seconds", "last")', '_KEPT = ("step", "best", "seconds", "last")'))
mutant("metrics twice", "lines after the checkpoint stay when a run goes on, and come again",
       LOOP,
       (RECORD, 'if row["step"] <= step]', "if True]"))
mutant("a run begins its epoch anew", "a run that goes on in mid-epoch sees its first batches again",
       LOOP,
       (STEPS, "batches.epoch(progress.epoch, done)", "batches.epoch(progress.epoch, 0)"))
mutant("the loss' scale doubles too soon", "float16 trainings overflow every 200 steps",
       f"{TRAIN}::test_the_scale_doubles_after_so_many_good_steps",
       (RECIPE, "elif self.good == 2000:", "elif self.good == 200:"))
mutant("--no-augment ignored", "images are shifted and mirrored all the same",
       LOOP,
       (TRAINING, "how = data.augment if self.augment else NOTHING", "how = data.augment"))

# ---- data and scores

DATA, SOURCES = "test_data.py", "common/training/data/sources.py"
SCORES, IMAGES, DRAWN = "test_scores.py", "test_images.py", "test_augmentation.py"
AUGMENT, BATCHES = "common/training/data/augment.py", "common/training/data/batches.py"
mutant("every epoch augmented alike", "an image is shifted and mirrored the same way in every epoch",
       f"{DRAWN}::test_every_epoch_and_batch_is_drawn_anew",
       (AUGMENT, "counters.AUGMENT, epoch, batch)", "counters.AUGMENT, 0, batch)"), audit=SEEN)
mutant("every batch augmented alike", "the n-th image of each batch is shifted and mirrored alike",
       f"{DRAWN}::test_every_epoch_and_batch_is_drawn_anew",
       (AUGMENT, "counters.AUGMENT, epoch, batch)", "counters.AUGMENT, epoch, 0)"), audit=SEEN)
mutant("both axes shifted alike", "images move along the diagonal alone",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "counters.below(draws[i], 2 * how.pad + 1)", "counters.below(draws[0], 2 * how.pad + 1)"), audit=SEEN)
mutant("crops at the top left", "every image is shifted into the same corner",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "counters.below(draws[i], 2 * how.pad + 1)[:, None]", "(counters.below(draws[i], 2 * how.pad + 1) * 0)[:, None]"), audit=SEEN)
mutant("shifts to one side alone", "images move by 0 to `pad` positions, not both ways",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "counters.below(draws[i], 2 * how.pad + 1)", "counters.below(draws[i], how.pad + 1)"))
mutant("mirrored upside down", "flips are vertical",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "x[..., ::-1], x)", "x[..., ::-1, :] if x.ndim == 4 else x[..., ::-1], x)"))
mutant("three of four mirrored", "images are mirrored too often",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "(draws[2] & np.uint64(1)).astype(bool)", "(draws[2] & np.uint64(3)).astype(bool)"))
mutant("mirrored as shifted", "whether an image is mirrored follows from where it is shifted",
       f"{DRAWN}::test_every_shift_and_mirror_image_is_as_likely_as_any_other",
       (AUGMENT, "(draws[2] & np.uint64(1))", "(draws[1] % np.uint64(2 * how.pad + 1) & np.uint64(1))"))
mutant("small parts never cut", "random parts are at least half of an image, where Szegedy et al. have 8 %",
       f"{DRAWN}::test_random_parts_are_torchvisions",
       (AUGMENT, "(0.08 + 0.92 * area)", "(0.5 + 0.5 * area)"))
mutant("long parts cut", "random parts are up to 3 : 1",
       f"{DRAWN}::test_random_parts_are_torchvisions",
       (AUGMENT, "np.log(4 / 3)", "np.log(3)"))
mutant("one order for all epochs", "every epoch has the same batches",
       f"{DATA}::test_batches_depend_on_seed_epoch_and_number_alone",
       (BATCHES, "counters.permutation(n, self.seed, epoch)", "counters.permutation(n, self.seed, 0)"), audit="caught")
mutant("floats undivided", "float data aren't divided by their scale",
       f"{DATA}::test_pixels_are_scaled_as_the_preprocessing_says",
       (BATCHES, "scaled = x / self.preprocessing.scale", "scaled = x"), audit="caught")
mutant("labels in file order", "labels belong to other images than those of their batch",
       LOOP,
       (BATCHES, "self.examples.labels[rows]\n", "self.examples.labels[np.sort(rows)]\n"))
mutant("test examples augmented", "what a net is measured on is shifted, too",
       f"{DRAWN}::test_batches_are_augmented_in_training_alone",
       (BATCHES, "        if self.seed is not None:\n            x = augment(x, self.how, self.seed, epoch, k)", "        if True:\n            x = augment(x, self.how, self.seed or 0, epoch, k)"))
mutant("the largest random number is 1", "uniform numbers are twice as large",
       f"{DRAWN}::test_uniform_and_normal_numbers",
       ("common/training/data/counters.py", "* 2.0**-53", "* 2.0**-52"))
mutant("hold-out leaks", "what is measured on is trained on, too",
       f"{DATA}::test_held_out_examples_are_of_the_training_ones",
       ("common/training/data/examples.py", "train=data.train.subset(order[:kept])", "train=data.train.subset(order)"), audit="caught")
mutant("Fashion-MNIST's halves swapped", "nets train on the 10,000 and are measured on the 60,000",
       f"{DATA}::test_fashion_mnist_from_the_network_and_from_a_folder",
       (SOURCES, 'for which in ("train", "t10k"):', 'for which in ("t10k", "train"):'), audit="caught")
mutant("digits' labels reversed", "a net learns 9 for 0",
       f"{DRAWN}::test_digits_are_scikit_learns",
       (SOURCES, "Examples(found.target[rows]", "Examples(9 - found.target[rows]"), audit=SEEN)
mutant("digits' images sideways", "images are transposed",
       f"{DRAWN}::test_digits_are_scikit_learns",
       (SOURCES, "(found.images[:, None] *", "(found.images.swapaxes(1, 2)[:, None] *"))
mutant("CIFAR's mean in BGR", "CIFAR-10 is normalised with red's mean for blue's",
       f"{DRAWN}::test_cifars_classes_and_channels",
       (SOURCES, "(0.4914, 0.4822, 0.4465), (0.247,", "(0.4465, 0.4822, 0.4914), (0.247,"), audit=SEEN)
mutant("CIFAR's channels last", "CIFAR's images are scrambled",
       f"{DATA}::test_cifar_in_the_binary_format",
       (SOURCES, "every[:, 1 + coarse :].reshape(-1, 3, 32, 32)", "every[:, 1 + coarse :].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)"))
mutant("CIFAR-100's coarse classes", "twenty classes for a hundred",
       f"{DATA}::test_cifar_in_the_binary_format",
       (SOURCES, "every[:, coarse].astype", "every[:, 0].astype"))
mutant("CIFAR's classes in another order", "cats are called birds",
       f"{DRAWN}::test_cifars_classes_and_channels",
       ("common/checkpoints/preprocessing.py", '"bird", "cat", "deer"', '"cat", "bird", "deer"'))
mutant("a .npz sideways", "images of a .npz are transposed",
       f"{DATA}::test_axes_that_are_plain_are_taken_as_they_are",
       ("common/training/data/npz.py", 'x = x if layout == "channels-first" else np.moveaxis(x, -1, 1)', 'x = x if layout == "channels-first" else np.swapaxes(x, -1, 1)'))
mutant("a folder's classes backwards", "classes are not in the order of their names, as other libraries have them",
       f"{DATA}::test_a_folder_of_images",
       ("common/training/data/folder.py", 'not p.name.startswith(".")))\n\n\ndef pixels', 'not p.name.startswith(".")))[::-1]\n\n\ndef pixels'))
mutant("blue for red", "`channel_order` BGR is ignored: keras.applications' nets see red where blue should be",
       "test_transfer.py::test_arrays_are_prepared_as_files_are",
       ("common/training/data/folder.py", 'found if how.channel_order == "RGB" else found[..., ::-1]', "found"), audit=SEEN)
mutant("interpolation ignored", "bicubic nets get bilinear images",
       IMAGES,
       ("common/training/data/folder.py", "method.get(how.interpolation, Image.Resampling.BICUBIC)", "Image.Resampling.BILINEAR"), audit=SEEN)
mutant("no centre crop", "images are squeezed into a square",
       IMAGES,
       ("common/training/data/folder.py", "middle(image, how.resize, (how.size, how.size), resample)", "image.resize((how.size, how.size), resample)"), audit=SEEN)
mutant("the crop off the centre", "the upper left part is cut, and not the middle",
       IMAGES,
       ("common/training/data/images.py", "round((image.width - width) / 2), round((image.height - height) / 2)", "round((image.width - width) / 4), round((image.height - height) / 4)"))
mutant("no margin around the crop", "images are resized to the net's size, and nothing is cut",
       f"{DRAWN}::test_imagenets_numbers_are_timms_and_torchvisions",
       ("common/checkpoints/preprocessing.py", "resize=round(size * 8 / 7)", "resize=size"))
mutant("ImageNet's deviation in BGR", "photographs are divided by blue's deviation for red's",
       f"{DRAWN}::test_imagenets_numbers_are_timms_and_torchvisions",
       ("common/checkpoints/preprocessing.py", "(0.229, 0.224, 0.225)", "(0.225, 0.224, 0.229)"))
mutant("EXIF's orientation ignored", "photographs of telephones lie on their side",
       f"{IMAGES}::test_photographs_stand_upright",
       ("common/training/data/images.py", "ImageOps.exif_transpose(image, in_place=True)", "image.getexif()"))
mutant("16 bits cut to white", "16-bit grey images are all white",
       f"{IMAGES}::test_more_bits_than_eight_are_scaled_and_kept",
       ("common/training/data/images.py", "white = 2.0 ** (tags.get(258) or (16,))[0] - 1", "white = 255.0"))
mutant("white is zero ignored", "some TIFFs are negatives",
       f"{IMAGES}",
       ("common/training/data/images.py", "255 - x if tags.get(262) == 0 else x", "x"))
mutant("a strip made large", "a strip's ends are resized, too, into a thousand times its memory",
       f"{IMAGES}::test_a_strip_costs_no_more_than_its_middle",
       ("common/training/data/images.py", "side = LONGEST * min(image.size)", "side = 200 * LONGEST * min(image.size)"))
mutant("variance for deviation", "data of one's own are divided by the variance",
       f"{DRAWN}::test_digits_are_scikit_learns",
       (SOURCES, "std = np.sqrt(np.sum([(a * a).sum(axes) for a in apart], 0) / count)", "std = np.sum([(a * a).sum(axes) for a in apart], 0) / count / scale"))

mutant("top-5 counts four", "top-5 accuracy is top-4", SCORES,
       ("common/training/scores.py", "[:, :5] ==", "[:, :4] =="), audit=SEEN)
mutant("recall for precision", "the two columns of `evaluate` are exchanged", SCORES,
       ("common/training/scores.py", "hits / of if of else None, hits / said if said else None", "hits / said if said else None, hits / of if of else None"), audit=SEEN)
mutant("loss of the wrong class", "test loss is that of other labels", SCORES,
       ("common/training/scores.py", "logits[np.arange(len(labels)), labels]", "logits[np.arange(len(labels)), labels - 1]"), audit=SEEN)
mutant("confusion transposed", "who was taken for whom is the wrong way round", SCORES,
       ("common/training/scores.py", "labels * k + said", "said * k + labels"), audit=SEEN)
mutant("probabilities of squares", "`predict` prints probabilities that are sharper than the net's", SCORES,
       ("common/training/scores.py", "np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))", "np.exp(2 * (logits.astype(np.float64) - logits.max(1, keepdims=True)))"))
mutant("a loss that overflows", "large logits give an infinite test loss", "test_by_hand.py",
       ("common/training/scores.py", "top = logits.max(1, keepdims=True)\n", "top = 0 * logits.max(1, keepdims=True)\n"))
mutant("always the same class", "`evaluate --framework both` never finds that the frameworks differ",
       f"{DRAWN}::test_how_far_two_frameworks_logits_are_apart",
       ("common/training/evaluation.py", "(said == said[0]).all(0).sum()", "(said[:1] == said[0]).all(0).sum()"), audit=SEEN)
mutant("one backend's difference", "`apart` is always 0",
       f"{DRAWN}::test_how_far_two_frameworks_logits_are_apart",
       ("common/training/evaluation.py", "np.abs(a - b).max() / np.abs(a).max()", "np.abs(a - a).max() / np.abs(a).max()"))
mutant("the data's preprocessing before the weights' own", "a checkpoint that says how its images were scaled isn't listened to",
       f"{DRAWN}::test_a_checkpoints_own_preprocessing_comes_first",
       ("common/training/evaluation.py", "    how = found.preprocessing\n", "    how = preprocessing or found.preprocessing\n"))

# ---- files

PORT, UNTRUSTED = "test_port.py", "test_untrusted.py"
mutant("grey from the mean", "a stem for grey images gets a third of its weights",
       f"{PORT}::test_heads_and_channels",
       ("common/checkpoints/port.py", "weights[stem].sum(1,", "weights[stem].mean(1,"), audit="caught")
mutant("bfloat16 shifted by one bit too few", "bfloat16 checkpoints are read as other numbers",
       f"{PORT}::test_bfloat16_is_widened_exactly",
       ("common/checkpoints/containers.py", ".astype(np.uint32) << 16)", ".astype(np.uint32) << 15)"), audit="caught")
mutant("labels lost on the way", "a ported net doesn't know its classes",
       f"{PORT}::test_labels_and_images_travel_through_every_container",
       ("common/checkpoints/port.py", "labels = found.labels if", "labels = () if"), audit="caught")
mutant("the probe never fails", "`port` says that both frameworks agree whatever they give",
       f"{PORT}::test_a_probe_that_frameworks_answer_otherwise_fails",
       ("common/checkpoints/port.py", 'return "; ".join(f"{d}: {result.why', 'return "" and "; ".join(f"{d}: {result.why'), audit=SEEN)
mutant("the folded net's probe never fails", "a wrong fold is kept",
       "test_fold.py::test_port_proves_what_it_folds",
       ("common/checkpoints/port.py", 'return "" if apart <= allowed else f"folding', 'return "" if True else f"folding'))
mutant("the source library's probe never fails", "--verify-with-source verifies nothing",
       f"{PORT}::test_what_is_not_the_same_is_not_kept",
       ("common/checkpoints/port.py", 'return "" if apart <= 1e-12 else', 'return "" if apart <= 1e-3 else'))
mutant("running variances not read back", "a file with other variances is kept",
       f"{PORT}::test_every_tensor_is_read_back",
       ("common/checkpoints/port.py", "        if not canonical.same(value, weights[slot.canonical]):", '        if not slot.canonical.endswith("var") and not canonical.same(value, weights[slot.canonical]):'), audit=SEEN)
mutant("nothing read back", "a file that was written wrong is kept",
       f"{PORT}::test_an_error_in_writing_is_found_when_the_file_is_read_back",
       ("common/checkpoints/port.py", "        _read_back(temporary, path, place, new, weights)\n", ""))
mutant("a head from another seed", "--num-classes --seed draws another classifier than the same seed elsewhere",
       f"{PORT}::test_heads_and_channels",
       ("common/checkpoints/port.py", "classifier(new, seed).items()", "classifier(new, seed + 1).items()"))
mutant("a detector's dilation unread", "Transformers' DETR with dilation is taken for the plain net",
       "test_claims.py",
       ("common/checkpoints/libraries/transformers.py", '(16 if config.get("dilation") else 32)', "32"))
mutant("segmenters not dilated", "torchvision's FCN is taken for the plain net",
       "test_names.py -k FCN",
       ("common/checkpoints/recognise.py", "net.arch = get(net.arch, output_stride=8)", "net.arch = get(net.arch, output_stride=16)"))
mutant("Caffe's norms with a variance of 1", "detectron2's R-50.pkl is off by epsilon in each norm",
       "test_names.py -k MSRA",
       ("common/checkpoints/libraries/detectron2.py", "1 - 1e-5", "1.0"))
mutant("a stage too many", "features() computes stages that nobody asked for",
       "test_stages.py",
       ("common/names.py", "[stages[:end] for stages, end", "[stages for stages, end"))
mutant("a stride of the size of another input", "feature_info says other strides",
       "test_stages.py",
       ("common/names.py", "size // s.output[1])", "size // s.output[1] // 2)"))
mutant("a head from the old generator", "reset_classifier's seed is another than create_model's",
       "test_stages.py",
       ("common/init.py", '_drawn([fc] if fc else [], seed, "he")', '_drawn([fc] if fc else [], seed + 1, "he")'))
mutant("saved unverified", "a checkpoint that was written wrong is kept",
       f"{PORT}::test_what_is_saved_is_compared_with_what_was_to_be_saved",
       ("common/weights.py", "        verify(temporary, plain)\n", ""), audit=SEEN)
mutant("alike in value is alike", "float32 for float64 passes as the same bits",
       "test_by_hand.py",
       ("common/weights.py", "        a.dtype == b.dtype\n        and a.shape == b.shape\n        and bool((a.reshape(-1).view(np.uint8) == b.reshape(-1).view(np.uint8)).all())",
        "        a.shape == b.shape\n        and bool((a == b).all())"))
mutant("our checksum not computed over arrays", "a damaged file of ours is read without a word",
       "test_by_hand.py",
       ("common/weights.py", "        crc = zlib.crc32(np.ascontiguousarray(array)", "        zlib.crc32(np.ascontiguousarray(array)"))
mutant("a training's state unchecked", "a damaged checkpoint is gone on with",
       f"{TRAIN}::test_a_damaged_checkpoint_is_not_gone_on_with",
       ("common/weights.py", 'if meta.get("training_crc32") != checksum(', "if False and checksum("))
mutant("written in place", "a full disk leaves half a checkpoint",
       "test_weights.py::test_an_interrupted_write_leaves_nothing",
       ("common/tools/files.py", '        temporary = beside / path.name.encode("utf-8", "replace").decode()', "        temporary = path"))
mutant("one export probe", "a graph that takes one batch size alone is handed out",
       f"{PORT}::test_a_graph_that_is_wrong_at_one_size_is_not_kept",
       ("common/checkpoints/export.py", "for x in probes:", "for x in probes[:1]:"), audit=SEEN)
mutant("an export that differs", "a graph whose logits are a thousandth off is handed out",
       "test_cli.py::test_export_keeps_nothing_that_differs",
       ("common/checkpoints/export.py", "if not row.relative <= allowed:", "if not row.relative <= 1e3 * allowed:"))
mutant("caffe's mean in RGB", "keras.applications' nets get red's mean for blue's",
       f"{DRAWN}::test_keras_applications_numbers_are_its_own",
       ("common/checkpoints/libraries/keras_applications.py", "(103.939, 116.779, 123.68)", "(123.68, 116.779, 103.939)"), audit=SEEN)
mutant("Hugging Face's labels by alphabet", "class 0 has the name that comes first in the alphabet",
       f"{UNTRUSTED}::test_labels_and_names_of_a_file_are_shown_without_what_a_terminal_obeys",
       ("common/checkpoints/pictures.py", "labels = tuple(rows[str(i)] for i in range(len(rows)))", "labels = tuple(sorted(rows.values()))"), audit=SEEN)
mutant("a .pt's checksum unread", "a damaged .pt of ours is read without a word",
       f"{PORT}::test_a_changed_value_in_a_file_of_ours_has_another_checksum",
       ("common/checkpoints/torch_files.py", 'Container(path, "PyTorch checkpoint", entries, metadata, ours,', 'Container(path, "PyTorch checkpoint", entries, metadata, {},'), audit=SEEN)
mutant("downsample_in_first_stage unread", "a Hugging Face net that strides in its first stage is another net",
       f"{PORT}::test_transformers_stride_in_the_first_stage",
       ("common/checkpoints/shapes.py", 'said["first_stride"] = 2 if config["downsample_in_first_stage"] else 1', 'said["first_stride"] = 1'), audit=SEEN)
mutant("downsample_in_bottleneck upside down", "a Hugging Face net of version 1 is taken for 1.5",
       f"{PORT}::test_pytorch_libraries_there_and_back[transformers]",
       ("common/checkpoints/shapes.py", 'said["stride_in"] = 1 if config["downsample_in_bottleneck"] else 2', 'said["stride_in"] = 2 if config["downsample_in_bottleneck"] else 1'))
mutant("timm's crop ignored", "a timm net's images are cut with another margin than it was trained with",
       "test_transfer.py::test_frozen_features_are_the_librarys_own_from_the_file_on[timm]",
       ("common/checkpoints/pictures.py", 'resize = int(side / part)', "resize = int(side / 0.875)"))
mutant("NaN let in", "a checkpoint with NaN is loaded",
       f"{UNTRUSTED}::test_safetensors_that_lie",
       ("common/checkpoints/recognised.py", "                if not np.isfinite(value).all():\n", "                if False:\n"))
mutant("another net than was named", "`load(path, into=net)` takes weights of a net with other strides",
       "test_by_hand.py",
       ("common/checkpoints/recognise.py", "found.arch != arch and (said is not None or parameters(arch) != parameters(found.arch))", "found.arch != arch and parameters(arch) != parameters(found.arch)"))
mutant("a name's checksum unread", "a file that isn't what its name says is loaded",
       "test_by_hand.py",
       ("common/checkpoints/files.py", "if not found.hexdigest().startswith(said[1]):", "if False:"))
mutant("JSON's last key counts", "a header with a key twice is read as its last word has it",
       f"{UNTRUSTED}::test_safetensors_that_lie",
       ("common/checkpoints/containers.py", "if len(made) != len(pairs):", "if False:"))
mutant("a pickle may make any dtype", "117 KB of PyTorch file take 4 GB",
       f"{UNTRUSTED}::test_a_pickle_asks_for_nothing_that_a_checkpoint_has_no_use_for",
       ("common/checkpoints/pickles.py", "args[:1] in ((t,) for t in _NUMPY) and args[1:] in ((), (False, True))", "len(args) > 0"))
mutant("numbers of a pickle without a value", "730 bytes of PyTorch file end the process",
       f"{UNTRUSTED}::test_a_pickle_asks_for_nothing_that_a_checkpoint_has_no_use_for",
       ("common/checkpoints/pickles.py", 'len(args) == 2 and getattr(args[0], "name", "") == "numpy.dtype"', 'getattr(args[0], "name", "") == "numpy.dtype"'))
mutant("a storage of another size than its record", "weights are read from what lies beside them in the archive",
       f"{UNTRUSTED}::test_a_storage_is_a_record_of_its_size",
       ("common/checkpoints/torch_files.py", 'if (there := sizes.get(f"{top}/data/{s.key}")) != s.nbytes:', 'if (there := sizes.get(f"{top}/data/{s.key}")) is None:'))
mutant("HDF5 that was written over isn't opened anew", "the weights are those of the file that was there before",
       f"{UNTRUSTED}::test_hdf5_written_over_is_read_anew_whatever_its_times_say",
       ("common/checkpoints/hdf5.py", "if anew or key != self.key:", "if key != self.key:"))
mutant("a projection before the whole branch", "a .weights.h5 for keras.applications has two layers exchanged",
       f"{PORT} -k 'keras_libraries_there_and_back and keras.applications'",
       ("common/checkpoints/keras_files.py", "for a, b in zip(short, branch[-tail:], strict=True):", "for a, b in zip(short, branch[:tail], strict=True):"))

# ---- the comparison

CHECKER = "test_tolerances.py"
PARITY, FOUND, STEP = (f"common/parity/{room}.py" for room in ("difference", "comparison", "lockstep"))
mutant("evaluation ten times as loose", "1e-12 passes as equal in float64", CHECKER,
       (PARITY, '"forward": 1e-13,', '"forward": 1e-12,'))
mutant("training ten times as loose", "logits in training mode may differ by 1e-9 in float64", CHECKER,
       (PARITY, '"train": 1e-10,', '"train": 1e-9,'), audit=SEEN)
mutant("statistics ten times as loose", "running statistics may differ by 1e-10 in float64", CHECKER,
       (PARITY, '("train", "statistics"): 1e-11', '("train", "statistics"): 1e-10'), audit=SEEN)
mutant("gradients ten times as loose", "gradients may differ by 1e-9 in float64", CHECKER,
       (PARITY, '"gradients": 1e-10,', '"gradients": 1e-9,'))
mutant("steps ten times as loose", "parameters after a step may differ by 1e-7 in float64", CHECKER,
       (PARITY, '"steps": 1e-8', '"steps": 1e-7'), audit=SEEN)
mutant("graphs ten times as loose", "ONNX graphs may differ by 1e-11", CHECKER,
       (PARITY, "GRAPH = 1e-12", "GRAPH = 1e-11"))
mutant("deep nets ten times as loose", "gradients of a thousand layers may differ by 1e-8", CHECKER,
       (PARITY, "DEEPER = 1000, 10.0", "DEEPER = 1000, 100.0"))
mutant("deep begins at 100 layers", "gradients of resnet101 may differ by 1e-9", CHECKER,
       (PARITY, "DEEPER = 1000, 10.0", "DEEPER = 100, 10.0"))
mutant("90 floors are rounding", "in float32 layers may differ by 90 times the framework's own noise", CHECKER,
       (PARITY, '"": 10.0}', '"": 90.0}'), audit=SEEN)
mutant("30 floors of logits are rounding", "in float32 logits may differ by 30 times the framework's own noise", CHECKER,
       (PARITY, '{"logits": 3.0,', '{"logits": 30.0,'))
mutant("logits in float32 ten times as loose", "1e-4 passes in float32 where the net is noisy", CHECKER,
       (PARITY, 'LOGITS = {"float32": 1e-5}', 'LOGITS = {"float32": 1e-4}'))
mutant("1000 floors are fewer bits", "another function passes for the same in fewer bits", CHECKER,
       (PARITY, "MANY_FLOORS = 100.0", "MANY_FLOORS = 1000.0"))
mutant("a faint difference of 1e-4", "another function is called suspicious and not different", CHECKER,
       (PARITY, "FAINT = 1e-5", "FAINT = 1e-4"))
mutant("the input moved further", "a larger drift excuses larger differences", CHECKER,
       (PARITY, "MOVED = 1e-15", "MOVED = 1e-14"))
mutant("gradients a thousandth are zero", "a small layer's gradient is measured by the largest of all", CHECKER,
       (PARITY, "NOTHING = 1e-12", "NOTHING = 1e-9"))
mutant("evaluation excused by drift", "another function in evaluation passes where the framework drifts", CHECKER,
       (STEP, 'd.check != "forward" and math.isfinite(d.relative) for d in over', "math.isfinite(d.relative) for d in over"))
mutant("drift excuses nothing", "deep plain nets are called different where they are the same", CHECKER,
       (PARITY, "verdict=ROUNDING if d.relative <= allowed else d.verdict", "verdict=d.verdict"), audit="caught")
mutant("drift excuses everything", "whatever comes after an excused difference is equal", CHECKER,
       (PARITY, "verdict=ROUNDING if d.relative <= allowed else d.verdict", "verdict=ROUNDING"))
mutant("NaN is equal", "a net that gives NaN passes", "test_compare.py::test_nothing_is_equal_to_what_is_not_finite",
       (PARITY, "    if not math.isfinite(largest):\n        return math.nan\n", "    if not math.isfinite(largest):\n        return 0.0\n"))
mutant("reshaped to fit", "arrays of another shape with as many elements are compared", "test_compare.py::test_what_one_side_lacks_is_a_difference",
       (PARITY, "if b is None or a.shape != b.shape:", "if b is not None and a.size == b.size:\n        b = b.reshape(a.shape)\n    if b is None or a.shape != b.shape:"))
mutant("what one side has more is ignored", "a layer that only the other backend has isn't seen", "test_compare.py::test_what_one_side_lacks_is_a_difference",
       (STEP, "rows += [(_between(i, None, i.value), 0.0) for i in surplus.get(key, ())]", "rows += []"))
mutant("counts ignored", "nets of other sizes are equal", "test_compare.py::test_counts_and_weights_that_change_are_a_difference",
       (FOUND, "if not self.same_counts or not all(self.exact.values()):", "if not all(self.exact.values()):"))
mutant("changed weights ignored", "a backend that changes weights on the way in is equal", "test_compare.py::test_counts_and_weights_that_change_are_a_difference",
       (FOUND, "if not self.same_counts or not all(self.exact.values()):", "if not self.same_counts:"))
mutant("judged by the mean", "a single wrong element is lost in a large array", CHECKER,
       (PARITY, "absolute, largest = float(gap.flat[worst])", "absolute, largest = float(gap.mean())"))
mutant("every step has the first one's images", "the comparison's steps see one batch",
       CHECKER,
       ("common/parity/checks.py", "np.roll(self.x, 3 * step, -1)", "self.x"))
mutant("the rate never changes in the proof", "rules that part where the rate changes agree",
       CHECKER,
       ("common/parity/rules.py", "(0.1 if step >= max(1, steps - steps // 3) else 1.0)", "1.0"))
mutant("a fast net 100 floors off", "`optimize` hands out a net with a tenth of its digits", CHECKER,
       ("common/speed/fast.py", "FLOORS = 10 ", "FLOORS = 100 "))
mutant("a fast net that gives NaN", "`optimize` hands it out", CHECKER,
       ("common/speed/fast.py", "    if not apart <= limit:\n        raise RosettaError(\n            f\"the fast net", "    if apart > limit:\n        raise RosettaError(\n            f\"the fast net"))
mutant("a fast net in float64 by float32's measure", "`optimize` in float64 hands out 1e-5", CHECKER,
       ("common/speed/fast.py", "limit = TOLERANCE[\"forward\"] if exact else", "limit = 1e-5 if exact else"))
mutant("a race's first steps ten times as loose", "losses of the first steps may differ by 1e-7 in float64", CHECKER,
       ("common/training/race.py", 'TOLERANCE = {"float64": 1e-8,', 'TOLERANCE = {"float64": 1e-7,'))
mutant("a race's drift a hundredfold", "trainings that part are called the same", CHECKER,
       ("common/training/race.py", "DRIFTS, LEAST = 10.0,", "DRIFTS, LEAST = 100.0,"))
mutant("a race's least ten times as loose", "single losses may differ by 1e-12 in float64", CHECKER,
       ("common/training/race.py", '{"float64": 1e-13, "float32": 1e-5}', '{"float64": 1e-12, "float32": 1e-4}'))
mutant("a race's drift of the future", "a step is excused by what the frameworks do later", CHECKER,
       ("common/training/race.py", "most = np.maximum.accumulate(np.max([self.drift(b) for b in self.losses], 0))",
        "most = np.full(self.steps, np.max([self.drift(b) for b in self.losses]))"))
mutant("a race with NaN is even", "a training that ended in NaN is called the same", CHECKER,
       ("common/training/race.py", "far = ~(self.apart(backend) <= self.allowed())", "far = self.apart(backend) > self.allowed()"))

# ---- what had none: each by the tests of its own room

mutant("a pickle's set of anything", "a file asks for the elements of a set that a number fills: any amount of memory",
       f"{UNTRUSTED} -k 'a_pickle_asks or keys_that_go_deep'",
       ("common/checkpoints/pickles.py", "isinstance(args[0], list) and _keys(*args[0]),", "isinstance(args[0], list),"))
mutant("an archive with two ends", "a file that has two directories is read by one, and by others otherwise",
       f"{UNTRUSTED} -k 'an_archive_is_one or storage_is_a_record'",
       ("common/checkpoints/torch_files.py", "for m in members) or not _ends_in_directory(f, len(members), z.start_dir):", "for m in members):"))
mutant("a run's folder locked for all", "two processes train one run, and each writes over the other",
       "test_runs.py::test_a_second_process_is_refused_while_the_first_trains",
       (RECORD, "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"))
mutant("unprintable as it is", "a file's names rule the terminal",
       f"{UNTRUSTED} -k 'rules_the_terminal or a_terminal_obeys'",
       ("common/errors.py", "return _UNPRINTABLE.sub(lambda c: c[0].encode(\"unicode_escape\").decode(), text)", "return text"))
mutant("white excuses a hundredfold", "in float32 another function passes where a picture has white areas",
       "test_compare.py -k 'white_areas or what_sums_can_be_off'",
       ("common/parity/difference.py", "worst = max(worst, float(", "worst = max(worst, 100 * float("))
mutant("multiply-adds by channels twice", "`show` counts each layer's multiply-adds times its channels",
       "test_counts.py",
       ("common/names.py", 'madds = math.prod(shapes["weight"]) * math.prod(output[1:])', 'madds = math.prod(shapes["weight"]) * math.prod(output)'))
mutant("a curve's worst epoch", "`curves` calls the worst epoch the best",
       "test_curves.py::test_curves_of_two_nets",
       ("common/training/curves.py", "return max(self.rows,", "return min(self.rows,"))
mutant("a curve's last epoch alone", "`curves --json` leaves out all epochs but one",
       "test_curves.py::test_curves_of_two_nets",
       ("common/training/curves.py", '"epochs": self.rows}', '"epochs": self.rows[-1:]}'))
mutant("epsilon left out of a row", "a file's net has another epsilon than the one that was saved",
       "test_properties.py::test_any_row_survives_json_and_costs_something",
       ("common/row.py", "return json.dumps(dataclasses.asdict(self))", 'return json.dumps({k: v for k, v in dataclasses.asdict(self).items() if k != "norm_eps"})'))
mutant("arrays in RGB always", "a net that was trained on BGR sees arrays in RGB",
       "test_transfer.py::test_arrays_are_prepared_as_files_are",
       ("common/training/data/batches.py", 'return x[:, ::-1] if self.preprocessing.channel_order == "BGR" else x', "return x"))
mutant("data as they come for --init", "a training that begins from a checkpoint scales its images otherwise than that was trained",
       "test_transfer.py -k 'prepared_as'",
       (TRAINING, "            found = prepared(found, run.preprocessing, str(run.init))\n", "            found.notes.append(str(run.init))\n"))
mutant("a missing moment is zero", "a training goes on from a damaged checkpoint without its momentum",
       "test_runs.py::test_a_folder_that_is_no_whole_run_is_refused",
       ("common/training/kept.py", "            if name not in state:\n                raise", "            if name not in state:\n                continue\n                raise"))
# fmt: on


if __name__ == "__main__":
    main()
