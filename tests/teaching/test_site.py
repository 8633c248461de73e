"""The site: the same to the byte when made twice, and whole without a net."""

import html
import html.parser
import json
import re
import sys
from dataclasses import fields
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from conftest import ROOT

from common.arch import VARIANTS, Arch, get
from common.cli import cli
from common.errors import RosettaError
from common.teaching import site
from common.teaching.exercises import blind
from common.teaching.faults import FAULTS
from common.teaching.site import versus
from common.teaching.site.tutorials import meaning
from common.teaching.site.twins import plain

sys.path.append(str(ROOT / "benchmarks"))
import tutorials

NAMES = ("resnet18", "resnet50", "resnet50d", "cifar_resnet20")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.build(folder, NAMES)
    return folder


def test_made_twice_it_is_the_same(pages, tmp_path):
    site.build(tmp_path, NAMES)
    made = sorted(p.name for p in pages.iterdir())
    assert made == sorted(p.name for p in tmp_path.iterdir())
    assert all((pages / name).read_bytes() == (tmp_path / name).read_bytes() for name in made)
    site.build(tmp_path, [])  # over itself


def test_it_stands_alone_and_is_small(pages):
    """Every link leads to a page of the site, or of one that has all variants; nothing is fetched from elsewhere."""
    everything = {p.name for p in pages.iterdir()} | {f"variant-{name}.html" for name in VARIANTS}
    for page in pages.glob("*.html"):
        text = page.read_text()
        for address in re.findall(r'(?:href|src)="([^"]*)"', text):
            assert address == "data:," or (address.split("#")[0] or page.name) in everything, (page.name, address)
        assert "://" not in re.sub(r"<td>.*?</td>|<code>.*?</code>", "", text), page.name
        assert page.stat().st_size <= 300_000, page.name
        Whole().feed(text)
    assert (pages / "script.js").stat().st_size <= 40_000


class Whole(html.parser.HTMLParser):
    """Raises where a tag isn't closed."""

    ALONE = {"meta", "link", "input", "rect", "path", "img"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.ALONE:
            assert self.open and self.open.pop() == tag, (tag, self.getpos())


def test_each_line_has_its_twin_and_what_is_known_of_it(pages):
    rows = plain(get("resnet18"))["rows"]
    known = {k["name"]: k for _, _, k in rows if k}
    assert known["layer1"]["first"] == (64, 56, 56) and known["layer1"]["first_last"] == (56, 56, 64)
    assert known["conv1"]["parameters"] and known["fc"]["parameters"] == 513_000
    text = (pages / "variant-resnet18.html").read_text()
    assert "fc: linear; 1000 in PyTorch, 1000 in Keras; 513,000 parameters" in text
    assert text.count('<th scope="row"><button') == len(rows)


def test_two_variants_compared(pages):
    """Where their rows differ, by name, meaning and both values, and what each stage costs."""
    found = versus.rows(ROOT, NAMES)
    assert [*found["fields"]] == [f.name for f in fields(Arch)] and found["fields"]["depths"] == "blocks per stage"
    assert not re.search(r"\[\d", "".join(found["fields"].values()))  # papers have their names
    pair = versus.versus(found, "resnet50", "resnet50d")
    assert [(name, *values) for name, _, *values in pair["fields"]] == [
        ("shortcut", "project (option B of He et al. 2015)", "pool"),
        ("stem", "64@7x7/2, max pool 3/2", "32@3x3/2 32@3x3/1 64@3x3/1, max pool 3/2"),
    ]
    costs = {stage: (one, other) for stage, one, other in pair["stages"]}
    assert [*costs] == ["stem", "layer1", "layer2", "layer3", "layer4", "head", "in all"]
    assert costs["layer4"][0] == costs["layer4"][1] and costs["in all"][0][2] == 25_557_032
    assert {name for *pair, _ in versus.PAIRS for name in pair} <= {*VARIANTS}  # else a pair is left out
    lacking = versus.versus(found, "cifar_resnet20", "resnet18")["stages"]
    assert [stage for stage, one, _ in lacking if one is None] == ["layer4"] and lacking[-1][0] == "in all"
    text = (pages / "compare.html").read_text()
    assert text.count("<figure>") == 2 * 2 and "25,576,264" in text  # the template's, and those of this pair
    assert json.loads(re.search(r'id="compared">(.*)</script>', text)[1])["variants"].keys() == {*NAMES}
    for name in NAMES:
        assert ElementTree.parse(pages / f"net-{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_every_trap_is_there_with_its_first_red_layer(pages):
    text = (pages / "traps.html").read_text()
    assert text.count('<section class="card"') == len(FAULTS)
    for fault in FAULTS.values():
        card = re.search(rf"<h2>{re.escape(html_of(fault.name))}</h2>.*?</section>", text, re.DOTALL)[0]
        if fault.first and fault.first[0] == "forward" and fault.verdict == "different":
            red = re.search(r'data-red="([^"]*)"', card)[1]
            assert red == fault.first[1] or fault.first[1] in ("logits", "norm"), fault.name
        elif fault.first and fault.first[0] != "forward":  # red all the same: what training sees
            assert re.search(r'data-red="([^"]*)"', card)[1] == html_of(": ".join(fault.first)), fault.name


def html_of(text):
    return text.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&#34;")


def test_lessons(pages):
    """Twelve, each with a fault of the table, and an exercise that refers to it; no figure is typed."""
    from common.teaching.exercises import EXERCISES
    from common.teaching.site.lessons import FOLDER

    sources = sorted(FOLDER.glob("*.md"))
    assert len(sources) == 12
    for i, source in enumerate(sources, 1):
        text, made = source.read_text(), (pages / f"lesson-{i}.html").read_text()
        assert re.search(r"^fault: (.*)$", text, re.M)[1] in FAULTS
        assert "{{" not in made and "<details>" in made
        typed = re.findall(r"(?<![\w.])\d+\.\d+e-\d+", re.sub(r"1\.001e-5", "", text))
        assert not typed, (source.name, typed)
    lessons_of = {e.number: e.lesson for e in EXERCISES}
    for i, source in enumerate(sources, 1):
        exercise = int(re.search(r"^exercise: (\d+)$", source.read_text(), re.M)[1])
        assert exercise == 0 or lessons_of[exercise] == i, source.name


def test_teachers_find_the_answers_and_students_dont(pages):
    from common.teaching.exercises import EXERCISES

    of_students, of_teachers = (
        html.unescape(re.sub("<[^>]*>", "", (pages / f"{name}.html").read_text())) for name in ("exercises", "teachers")
    )
    for exercise in EXERCISES:
        assert exercise.title in of_students and exercise.title in of_teachers
    for answer in ("return torch.relu(y + self.downsample(x))", "v = momentum * v + g\n", "It is shown by"):
        assert answer in of_teachers and answer not in of_students
    assert (pages / "teachers.html").read_text().count("<details>") == 12 + len(EXERCISES)
    assert f"7: {blind.mistake(7).name};" in of_teachers


def test_tutorials_are_told_as_they_were_measured(pages):
    """Each edit that diagnose names has a meaning, and the table in docs/diagnosis.md is that of the JSON."""
    nets, text = json.loads((ROOT / "docs/tutorials.json").read_text())["nets"], (pages / "tutorials.html").read_text()
    assert text.count('<section class="card"') == len(nets) > 20
    names = {e["name"] for net in nets for e in net.get("edits", ())}
    assert all(meaning(name) for name in names) and "same padding" in names
    for net in nets:
        for edit in net.get("edits", ()):
            assert html_of(edit["says"]) in text and (edit["name"] not in FAULTS or f">{edit['name']}</a>" in text)
    assert (ROOT / "docs/diagnosis.md").read_text() == tutorials.page(nets, (ROOT / "docs/diagnosis.md").read_text())


def test_of_a_tutorial_only_definitions_are_run():
    """Nothing is trained or downloaded; an import that can't be had is left out; constants are kept."""
    cut = tutorials.definitions(
        "import os, nowhere\nfrom ..a import b\nN, wide = 3, (1, 2)\nx = open('data')\nfor i in x: train()\n"
        "def f():\n    return os.sep\nif True: f()\nclass A: n = N\ng = partial(f)\n"
    )
    names: dict = {"partial": lambda f: f, "__name__": "cut", "__package__": ""}
    exec(cut, names)
    assert names["g"]() == names["os"].sep and names["A"].n == 3 and names["wide"] == (1, 2)
    assert "x" not in names and "i" not in names and "nowhere" not in names


def test_bad_folders_and_names(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RosettaError, match="isn't empty, and isn't a site"):
        site.build(tmp_path)
    for name, said in (("", "has no name"), (str(tmp_path / "mine.txt"), "it is no folder")):
        out = CliRunner().invoke(cli, ["site", name])
        assert out.exit_code == 2 and said in out.stderr
    out = CliRunner().invoke(cli, ["site", str(tmp_path / "new"), "--only", "resnet81"])
    assert out.exit_code == 2 and "resnet18" in out.stderr and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_all_of_it(tmp_path):
    site.build(tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 8 * 2**20
    assert all(p.stat().st_size <= 300_000 for p in tmp_path.iterdir())
