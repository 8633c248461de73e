"""Pictures and tables of runs and of confusions."""

import json
import warnings

import numpy as np
from click.testing import CliRunner
from PIL import Image

from common.arch import get
from common.cli import cli
from common.tools.figures import figure
from common.training import evaluation, recipe, record
from common.training import run as training
from common.training.scores import scores


def rosetta(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args])


def made_run(folder, name, accuracies, framework="torch"):
    record.new(folder, training.Run(name, get(name, in_channels=1), "digits", recipe.get("small"), framework))
    with open(folder / "metrics.jsonl", "w") as f:
        f.write(json.dumps({"step": 10, "epoch": 0, "loss": 2.3, "rate": 0.1}) + "\n")
        for epoch, accuracy in enumerate(accuracies, 1):
            row = {
                "step": 45 * epoch, "epoch": epoch, "rate": 0.1, "train_loss": 1 - accuracy, "train_accuracy": accuracy,
                "test_loss": 1.0, "test_accuracy": accuracy, "test_top5": 1.0, "seconds": 1.5 * epoch,
            }  # fmt: skip
            f.write(json.dumps(row) + "\n")
    return folder


def test_curves_of_two_nets(tmp_path):
    plain = made_run(tmp_path / "a", "cifar_plain56", [0.1, 0.2, 0.25, 0.2])
    residual = made_run(tmp_path / "b", "cifar_resnet56", [0.5, 0.9])
    out = rosetta("curves", plain, residual, "--out", tmp_path / "c.png")
    assert out.exit_code == 0, out.output
    head, one, two, three, four, _, _, a, b, _ = out.output.splitlines()
    assert head.split() == ["test", "error", "by", "epoch", "cifar_plain56", "cifar_resnet56"]
    assert one.split() == ["1", "90.00", "%", "50.00", "%"] and two.split() == ["2", "80.00", "%", "10.00", "%"]
    assert four.split() == ["4", "80.00", "%"]  # the other run has ended
    assert "20.00%" in a and "25.00%" in a and "90.00%" in b  # at the end, and best
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20
    said = json.loads(rosetta("curves", plain, residual, "--json").stdout)
    assert [r["label"] for r in said] == ["cifar_plain56", "cifar_resnet56"] and len(said[0]["epochs"]) == 4


def test_what_tells_runs_apart_is_their_label(tmp_path):
    from common.training.curves import epochs_shown, read

    a = made_run(tmp_path / "a", "cifar_resnet20", [0.5] * 100)
    b = made_run(tmp_path / "b", "cifar_resnet20", [0.6], "keras:tensorflow")
    c = made_run(tmp_path / "c", "cifar_resnet20", [0.6], "keras:tensorflow")
    assert [x.label for x in read([a, b])] == ["cifar_resnet20, torch", "cifar_resnet20, keras:tensorflow"]
    assert [x.label for x in read([b, c])] == [str(b), str(c)]
    shown = epochs_shown(read([a, b]))
    assert len(shown) == 12 and shown[0] == 1 and shown[-1] == 100


def test_curves_refuse_what_has_none(tmp_path):
    begun = made_run(tmp_path / "begun", "cifar_resnet20", [])
    for args, words in (
        ([begun], "no epoch that is over"),
        ([tmp_path / "absent"], "is no run"),
        ([made_run(tmp_path / "a", "cifar_resnet20", [0.5]), "--out", tmp_path / "no" / "c.png"], "can't write"),
        ([], "RUN"),
    ):
        out = rosetta("curves", *args)
        assert out.exit_code == 2 and words in out.stderr and "Traceback" not in out.output, out.output


def test_a_confusion_of_many_classes_has_their_names(tmp_path, monkeypatch):
    """Beyond 40 classes every label was lost. Up to 100 are all drawn, of more those with the most errors."""
    rng = np.random.default_rng(0)
    drawn = []
    monkeypatch.setattr(evaluation, "figure", lambda *a, **k: _Seen(figure(*a, **k), drawn))
    for classes in (60, 130):
        labels = np.repeat(np.arange(classes), 5)
        logits = np.eye(classes)[labels]
        logits[-50:] = np.eye(classes)[rng.integers(0, classes, 50)]  # the last ten classes are confused
        names = [f"class {i:03}" for i in range(classes)]
        notes = evaluation.draw_confusion(tmp_path / "c.png", scores(logits, labels), names, "title")
        shown = [t.get_text() for t in drawn.pop().get_yticklabels()]
        assert len(shown) == min(classes, 100) and set(names[-10:]) <= set(shown) and shown == sorted(shown)
        assert notes == [] if classes < 100 else "the 100 of 130 classes with the most errors" in notes[0]
        with Image.open(tmp_path / "c.png") as picture:
            assert picture.width / len(shown) > 28  # pixels a class, where a label is 14 high


class _Seen:
    def __init__(self, inner, drawn):
        self.inner, self.drawn = inner, drawn

    def __enter__(self):
        made, axes = self.inner.__enter__()
        self.drawn.append(axes)
        return made, axes

    def __exit__(self, *exc):
        return self.inner.__exit__(*exc)


def test_labels_in_any_script(tmp_path):
    """A font of this machine that has the characters, or one sentence; Python's warnings are errors here."""
    labels = np.array([0, 1, 2])
    only_stix, nobody = "\ue000", "\U0010fffd"  # of private use: STIX, which matplotlib ships, has the first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for names, boxes in ((["cat", "Füchse", only_stix], ""), (["cat", "dog", nobody], nobody)):
            notes = evaluation.draw_confusion(tmp_path / "c.png", scores(np.eye(3), labels), names, "t")
            assert (f"no font of this machine has {boxes}" in "".join(notes)) == bool(boxes), notes
        notes = evaluation.draw_confusion(tmp_path / "c.png", scores(np.eye(3), labels), ["猫", "犬", "नमस्ते"], "t")
        assert len(notes) <= 1


def test_a_run_with_a_loss_that_is_not_finite_is_drawn(tmp_path):
    from common.training.curves import draw, read

    run = made_run(tmp_path / "a", "cifar_resnet20", [0.5, 0.6])
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"train_loss": 0.4', '"train_loss": NaN'))
    draw(tmp_path / "c.png", read([run]))
