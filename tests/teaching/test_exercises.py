"""Every skeleton fails at its named array, every solution passes, and every mistake is called by its own name."""

import importlib.util
import json
import re
import sys

import pytest
from click.testing import CliRunner
from conftest import ROOT

from common.cli import cli
from common.errors import RosettaError
from common.teaching.exercises import EXERCISES, by_number, order, sgd
from common.teaching.exercises.asked import begun, check_file
from common.teaching.exercises.blind import CANDIDATES, Unknown, mistake
from common.teaching.exercises.checked import checked
from common.teaching.faults import FAULTS

# Keras' nets take a second each to build, and a faulty one for each answer: two of them by default
CASES = [
    pytest.param(e, f, id=f"{e.number}-{f}", marks=[] if f == "torch" or e.number in (1, 4) else [pytest.mark.slow])
    for e in EXERCISES if e.kind == "net" for f in ("torch", "keras")
]  # fmt: skip


def answer(text: str, path, number: int, framework: str) -> dict:
    """What `checked` says of a file with that text, in this process."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("answered", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["answered"] = module
    spec.loader.exec_module(module)
    return checked(module.ResNet, number, framework)


@pytest.mark.parametrize(("exercise", "framework"), CASES)
def test_an_exercise(exercise, framework, tmp_path):
    def said(text):
        return answer(text, tmp_path / "a.py", exercise.number, framework)

    begun = said(exercise.skeleton(framework))
    assert not begun["passed"]
    if exercise.first:
        assert begun["first"] == exercise.first
    else:
        assert begun["what"].startswith(f"exercise {exercise.number}: ") and begun["what"].endswith(" is yours")
    assert said(exercise.solution(framework)) == {"passed": True}
    assert exercise.wrong[framework]
    for fault in exercise.wrong[framework]:
        found = said(exercise.answer(framework, fault))
        assert not found["passed"] and found.get("fault") == fault, (fault, found)


def test_the_mistakes_are_faults_and_the_texts_are_whole():
    for exercise in EXERCISES:
        assert exercise.hints and exercise.lesson and exercise.task
        for framework in ("torch", "keras") if exercise.kind == "net" else ():
            assert set(exercise.wrong[framework]) <= set(FAULTS)
            assert f"rosetta exercise check {exercise.number} FILE" in exercise.skeleton(framework)
    document = (ROOT / "docs" / "exercises.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", document, re.M)
    assert rows == [(str(e.number), e.title) for e in EXERCISES]


def test_parameters_of_ones_own_are_named(tmp_path):
    text = by_number(1).solution("torch")
    more = text.replace(
        "self.bn2 = nn.BatchNorm2d(out)", "self.bn2 = nn.BatchNorm2d(out)\n        self.bn3 = nn.BatchNorm2d(out)"
    )
    assert (
        answer(more, tmp_path / "a.py", 1, "torch")["what"]
        == "the net has layer1.0.bn3.weight, which the reference hasn't"
    )
    wide = text.replace("nn.Linear(16, classes)", "nn.Linear(16, 6)")
    assert answer(wide, tmp_path / "a.py", 1, "torch")["what"].startswith("fc.weight is 6 x 16, and should be 5 x 16")
    nan = answer(text.replace("return self.fc(x)", "return self.fc(x) * float('nan')"), tmp_path / "a.py", 1, "torch")
    assert nan["what"] == "fc at 16x12 differs" or nan["what"] == "logits at 16x12 differs"
    leaves = text.replace("return self.fc(x)", "raise SystemExit(0)")
    assert "SystemExit" in answer(leaves, tmp_path / "a.py", 1, "torch")["what"]
    crash = text.replace("return self.fc(x)", "return self.fc(x + unknown)")
    assert "NameError" in answer(crash, tmp_path / "a.py", 1, "torch")["what"]


def test_from_start_to_solved_by_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(cli, ["exercise", *map(str, words)])

    assert all(e.title in run("list").output for e in EXERCISES)
    assert run("start", 5).exit_code == 0
    again = run("start", 5)
    assert again.exit_code == 2 and "is there already; --force" in again.stderr
    assert "1 more" not in run("hint", 5).output and "2 more with --all" not in run("hint", 1).output
    file = tmp_path / "exercise_05_torch.py"
    file.write_text(by_number(5).answer("torch", "option A at the end"))
    out = run("check", 5, file, "--json")
    assert out.exit_code == 1 and json.loads(out.output)["fault"] == "option A at the end"
    file.write_text(f"def state_dict(arrays):\n{order.SOLUTION}")  # of numpy alone, which takes no seconds to import
    out = run("check", 10, file)
    assert out.exit_code == 0 and "solved" in out.output, out.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("", "imports neither torch nor keras"),
        ("import numpy\n", "imports neither torch nor keras"),
        ("raise SystemExit(3)\nimport torch\n", "can't be imported: SystemExit"),
        ("import missing_module\nimport torch\n", "missing_module"),
        ('"""\nimport torch\n"""\n\nclass Net: pass\n', "ResNet"),
    ],
)
def test_bad_files(text, said, tmp_path):
    file = tmp_path / "a.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RosettaError, match=said):
        check_file(str(file), 1)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (order.SOLUTION, 0, None),
        ('    print(\'{"found": {"passed": true}}\')\n    return {}\n', 1, "there is no conv1.weight"),
        ("    raise SystemExit(0)\n", 1, "state_dict can't run: SystemExit: 0"),
        ("    import os\n    os._exit(0)\n", 2, "ended its process (exit code 0)"),
        ("    while True: pass\n", 2, "still running after 1 s"),
        ("    (\n", 2, "can't be imported: SyntaxError"),
    ],
)
def test_what_a_grader_gets(body, code, said, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(f"def state_dict(arrays):\n{body}")
    limit = "1" if "while" in body else "60"
    out = CliRunner().invoke(cli, ["exercise", "check", "10", str(file), "--json", "--limit", limit])
    found = json.loads(out.stdout)
    assert out.exit_code == code and found["passed"] == (code == 0) and found["exercise"] == 10
    assert said is None or said in found["what" if code == 1 else "error"]
    assert code < 2 or said in " ".join(out.stderr.split())


def test_an_unknown_exercise():
    out = CliRunner().invoke(cli, ["exercise", "start", "99"])
    assert out.exit_code == 2 and f"there are 1 to {len(EXERCISES)}" in out.stderr


def test_the_blind_diagnosis(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({mistake(seed).name for seed in range(100)}) >= 10
    out = CliRunner().invoke(cli, ["exercise", "start", "8", "a.py", "--seed", "3"])
    assert out.exit_code == 0
    text = (tmp_path / "a.py").read_text()
    compile(text, "a.py", "exec")
    net = Unknown(3, "torch")
    differ = [name for name in net.layers if net.apart(name) > 1e-12]
    assert differ[0] == mistake(3).first[1] and net.asked == len(net.layers)
    with pytest.raises(RosettaError, match="no array 'logit'.*logits"):
        net.apart("logit")
    for answer, code, said in (
        ("", 1, "ANSWER is empty"), ("same paddin", 2, "did you mean same padding"),
        (next(f.name for f in CANDIDATES if f is not mistake(3)), 1, "hasn't that mistake"),
        (mistake(3).name, 0, f"solved. It is {mistake(3).name}"),
    ):  # fmt: skip
        (tmp_path / "a.py").write_text(text.replace('ANSWER = ""', f"ANSWER = {answer!r}"))
        out = CliRunner().invoke(cli, ["exercise", "check", "8", "a.py"])
        assert out.exit_code == code and said in out.output, out.output


def test_the_update_rule(tmp_path):
    """PyTorch's own SGD is the solution; each other rule is called by its name."""
    import torch

    def torchs_own(p, g, v, rate, momentum, decay):
        parameter = torch.nn.Parameter(torch.from_numpy(p.copy()))
        parameter.grad = torch.from_numpy(g.copy())
        optimizer = torch.optim.SGD([parameter], rate, momentum, weight_decay=decay)
        optimizer.state[parameter]["momentum_buffer"] = torch.from_numpy(v.copy())
        optimizer.step()
        return parameter.detach().numpy(), optimizer.state[parameter]["momentum_buffer"].numpy()

    assert sgd.checked(torchs_own) == {"passed": True}
    begun_with = begun(by_number(9), "torch")
    hole = '    raise NotImplementedError("exercise 9: step is yours")\n'

    def said(body):
        space: dict = {}
        exec(begun_with.replace(hole, body), space)
        return sgd.checked(space["step"])

    assert said(hole)["what"] == "exercise 9: step is yours" and said(sgd.SOLUTION) == {"passed": True}
    for name, (_, body) in sgd.WRONG.items():
        assert said(body)["fault"] == name
    assert said(sgd.WRONG["momentum holds the rate"][1])["first"] == "step 3"  # at which the rate changes
    assert "step can't run: ZeroDivisionError" in said("    1 / 0\n")["what"]
    assert "differs after step 1" in said("    return p * float('nan'), v\n")["what"]
    (tmp_path / "a.py").write_text(begun_with.replace(hole, sgd.SOLUTION))
    assert check_file(str(tmp_path / "a.py"), 9) == {"passed": True}


def test_the_file_without_names(tmp_path):
    begun_with = begun(by_number(10), "torch")
    hole = '    raise NotImplementedError("exercise 10: state_dict is yours")\n'

    def said(body):
        space: dict = {}
        exec(begun_with.replace(hole, body), space)
        return order.checked(space["state_dict"])

    assert said(hole)["what"] == "exercise 10: state_dict is yours"
    assert said(order.SOLUTION) == {"passed": True}
    for fault, (old, new) in order.WRONG.items():
        assert old in order.SOLUTION
        found = said(order.SOLUTION.replace(old, new))
        assert not found["passed"] and found.get("fault") == fault, (fault, found)
    for old, new, what in (
        ("layer1.0.downsample.1 layer1.0.bn2", "layer1.0.bn2 layer1.0.downsample.1",
         "layer1.0.bn2.weight differs: it holds layer1.0.downsample.1.weight"),
        ("else array.T", "else array", "fc.weight differs: it holds fc.weight with its axes in the order 1, 0"),
        ("3, 2, 0, 1", "3, 2, 1, 0", "conv1.weight differs: it holds conv1.weight with its axes in the order 0, 1, 3"),
        ("next(arrays)", "next(arrays) * 2", "conv1.weight differs"),
        ("(3, 2, 0, 1)", "(2, 3, 0, 1)", "conv1.weight has another shape"),
        ("{layer}.{leaf}", "{layer}/{leaf}", "PyTorch's net has no conv1/weight"),
        ("    return found\n", "    found.pop('fc.bias')\n    return found\n", "there is no fc.bias"),
        ("    return found\n", "    pass\n", "state_dict can't run: AttributeError"),
    ):  # fmt: skip
        assert said(order.SOLUTION.replace(old, new))["what"].startswith(what)
    (tmp_path / "a.py").write_text(begun_with.replace(hole, order.SOLUTION))
    assert check_file(str(tmp_path / "a.py"), 10) == {"passed": True}


def test_the_order_is_that_of_keras():
    import keras
    from keras import layers

    images = keras.Input((8, 8, 3))
    stem = layers.ReLU()(layers.BatchNormalization(name="bn1")(layers.Conv2D(8, 3, name="conv1")(images)))
    shortcut = layers.Conv2D(8, 1, name="layer1.0.downsample.0")(stem)  # made first, as keras.applications makes it
    shortcut = layers.BatchNormalization(name="layer1.0.downsample.1")(shortcut)
    x = layers.BatchNormalization(name="layer1.0.bn1")(layers.Conv2D(8, 3, padding="same", name="layer1.0.conv1")(stem))
    x = layers.Conv2D(8, 3, padding="same", name="layer1.0.conv2")(layers.ReLU()(x))
    x = layers.ReLU()(layers.Add()([shortcut, layers.BatchNormalization(name="layer1.0.bn2")(x)]))
    net = keras.Model(images, layers.Dense(8, name="fc")(layers.GlobalAveragePooling2D()(x)))
    assert tuple(layer.name for layer in net.layers if layer.weights) == order.ORDER
    leaves = [v.path.split("/")[1] for v in net.get_layer("bn1").weights]
    assert leaves == ["gamma", "beta", "moving_mean", "moving_variance"]
    of_layers = [v.path for layer in net.layers for v in layer.weights]
    assert [v.path for v in net.weights] == of_layers  # which get_weights() gives
