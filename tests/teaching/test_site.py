"""The site: the same to the byte when made twice, whole without a net, and in a real browser where there is one."""

import html.parser
import json
import re
import shutil
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from conftest import ROOT

from common.arch import VARIANTS, Arch, get
from common.cli import cli
from common.errors import RosettaError
from common.teaching import site
from common.teaching.faults import FAULTS
from common.teaching.site import versus
from common.teaching.site.twins import plain

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
    lacking = versus.versus(found, "cifar_resnet20", "resnet18")["stages"]
    assert [stage for stage, one, _ in lacking if one is None] == ["layer4"] and lacking[-1][0] == "in all"
    text = (pages / "compare.html").read_text()
    assert text.count("<figure>") == 2 * 2 and "25,576,264" in text  # the template's, and those of this pair
    assert json.loads(re.search(r'id="rows">(.*)</script>', text)[1])["variants"].keys() == {*NAMES}
    for name in NAMES:
        assert ElementTree.parse(pages / f"net-{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_every_trap_is_there_with_its_first_red_layer(pages):
    text = (pages / "traps.html").read_text()
    assert text.count('<section class="card"') == len(FAULTS)
    for fault in FAULTS.values():
        card = re.search(rf"<h3>{re.escape(html_of(fault.name))}</h3>.*?</section>", text, re.DOTALL)[0]
        if fault.first and fault.first[0] == "forward" and fault.verdict == "different":
            red = re.search(r'data-red="([^"]*)"', card)[1]
            assert red == fault.first[1] or fault.first[1] in ("logits", "norm"), fault.name


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


def test_bad_folders_and_names(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RosettaError, match="isn't empty, and isn't a site"):
        site.build(tmp_path)
    out = CliRunner().invoke(cli, ["site", str(tmp_path / "new"), "--only", "resnet81"])
    assert out.exit_code == 2 and "resnet18" in out.stderr and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_all_of_it(tmp_path):
    site.build(tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 8 * 2**20
    assert all(p.stat().st_size <= 300_000 for p in tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright isn't installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium here")
    with playwright.sync_playwright() as p:
        made = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking", "--disable-quic"]
        )
        yield made
        made.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(params=["file", "http"])
def address(request, pages):
    if request.param == "file":
        yield f"file://{pages}"
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pages)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong, asked = [], []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    for name in (
        "index",
        "lessons",
        "lesson-4",
        "variants",
        "variant-resnet18",
        "compare",
        "traps",
        "one-text",
        "layers",
    ):
        page.goto(f"{address}/{name}.html")
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider}"
    page.goto(f"{address}/variant-resnet18.html")
    page.keyboard.press("Tab")
    line = page.locator("tr.known button").first  # by the keyboard alone
    line.focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.lit td").count() == 2 and "parameters" in page.locator("#said").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("tr.lit").count() == 0
    page.goto(f"{address}/traps.html")
    page.locator("#every").click()
    assert page.locator("details[open]").count() == len(FAULTS)
    red = page.locator("#same-padding li.over span").first.inner_text()
    assert red.startswith("layer2.0.conv1")
    page.goto(f"{address}/compare.html#resnet50,resnet50d")
    chosen, pair = (page.locator(f"section#{name}") for name in ("chosen", "resnet50-resnet50d"))
    for table in (".fields", ".stages"):  # what the script fills in is what the page has of the same two
        assert chosen.locator(table).inner_text() == pair.locator(table).inner_text()
    page.locator("select").nth(1).select_option("cifar_resnet20")
    assert "layer4\tresnet50\t2048 × 7 × 7" in chosen.inner_text() and page.url.endswith("#resnet50,cifar_resnet20")
    assert chosen.locator("img").nth(1).evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert not wrong and all(url.startswith(address) or url == "data:," for url in asked), (wrong, asked)
    page.close()


@pytest.mark.slow
def test_without_a_script_the_text_is_there(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{pages}/variant-resnet18.html")
    assert "class BasicBlock(nn.Module):" in page.inner_text("body") and "layers.Layer" in page.inner_text("body")
    page.goto(f"file://{pages}/traps.html")
    assert page.locator("details").count() == len(FAULTS)
    context.close()
