"""The site in a real browser, where there is one: Debian's Chromium, by Playwright. `make test-slow` runs it."""

import shutil
from threading import Thread

import pytest

from common.teaching import site
from common.teaching.faults import FAULTS
from common.teaching.learn import Learn

pytestmark = pytest.mark.slow
NAMES = ("resnet18", "resnet50", "resnet50d", "cifar_resnet20")
KINDS = (
    "index", "lessons", "lesson-4", "exercises", "variants", "variant-resnet18", "compare", "traps", "one-text",
    "layers", "tutorials", "teachers",
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.build(folder, NAMES, live=True)
    return folder


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


@pytest.fixture(params=["file", "http"])
def address(request, pages, tmp_path):
    """Of the folder, and of `rosetta learn`, whose headers forbid more than another server's."""
    if request.param == "file":
        yield f"file://{pages}"
        return
    with Learn(tmp_path, variants=NAMES) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.address.removesuffix("/live.html")
        server.shutdown()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong, asked = [], []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    for name in (*KINDS, "live"):
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
    lit = page.locator(".code th button").evaluate_all(
        "all => all.map(b => (b.click(), [...document.querySelectorAll('.lit')].map(row => row.cells.length)))"
    )
    assert len(lit) > 50 and all(cells == [3] for cells in lit)  # each line with its twin, and one at a time
    page.goto(f"{address}/traps.html")
    page.locator("#every").click()
    assert page.locator("details[open]").count() == len(FAULTS)
    red = page.locator("#same-padding li.over span").first.inner_text()
    assert red.startswith("layer2.0.conv1")
    page.goto(f"{address}/variants.html")
    page.get_by_label("Only names with").fill("50d")
    assert page.locator("tbody tr").locator("visible=true").count() == 1
    page.goto(f"{address}/compare.html#resnet50,resnet50d")
    chosen, pair = (page.locator(f"section#{name}") for name in ("chosen", "resnet50-resnet50d"))
    for table in (".times", ".fields", ".stages"):  # what the script fills in is what the page has of the same two
        assert chosen.locator(table).inner_text() == pair.locator(table).inner_text()
    page.locator("select").nth(1).select_option("cifar_resnet20")
    assert "layer4\tresnet50\t2048 × 7 × 7" in chosen.inner_text() and page.url.endswith("#resnet50,cifar_resnet20")
    assert chosen.locator("img").nth(1).evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert not wrong and all(url.startswith(address) or url == "data:," for url in asked), (wrong, asked)
    page.close()


def test_without_a_script_the_text_is_there(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{pages}/variant-resnet18.html")
    assert "class BasicBlock(nn.Module):" in page.inner_text("body") and "layers.Layer" in page.inner_text("body")
    for name, words in {
        "compare": "25,576,264",
        "lesson-4": "another at even sizes",
        "variants": "11,689,512",
        "tutorials": "option A at the end",
        "exercises": "Where are the two ReLUs?",
        "teachers": "Answers to the exercises",
    }.items():
        page.goto(f"file://{pages}/{name}.html")
        assert words in page.inner_text("main")
        assert not page.locator("input, select, main button:not(.code button)").locator("visible=true").count(), name
    page.goto(f"file://{pages}/traps.html")
    assert page.locator("details").count() == len(FAULTS)
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, pages, width, scheme):
    """As it is, and with all that is folded open; what axe can't decide (a contrast over a picture) is no finding."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for name in (*KINDS, "live"):
        page.goto(f"file://{pages}/{name}.html")
        page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        found = axe.Axe().run(page)
        assert not found.violations_count, f"{name}: {found.generate_report()}"
    page.close()


def test_a_strangers_walk(browser, pages):
    """Three clicks from the start to the first measured difference, as docs/exercises.md says: the last predicts."""
    page = browser.new_page()
    page.goto(f"file://{pages}/index.html")
    page.get_by_role("link", name="Twelve lessons").click()
    page.get_by_role("link", name='Is padding="same" padding=1?').click()
    assert not page.locator(".bars").is_visible()  # first a prediction
    page.get_by_role("button", name="another at even sizes").click()
    assert page.get_by_role("status").inner_text() == "Yes, c."
    assert page.locator(".bars li.over span").first.inner_text() == "layer2.0.conv1 ✗"
    assert page.locator(".bars li.over span").first.is_visible()
    page.close()


def test_a_page_prints_open(browser, pages):
    """What is folded is printed, and what leads to other pages isn't; with and without the script."""
    for script in (True, False):
        context = browser.new_context(java_script_enabled=script)
        page = context.new_page()
        for name in ("teachers", "lesson-4"):
            page.goto(f"file://{pages}/{name}.html")
            page.emulate_media(media="print")
            inside = page.locator("details > p, details > pre, details > ol")
            assert inside.count() and all(inside.nth(i).is_visible() for i in range(inside.count()))
            assert not page.locator("nav").is_visible()
        context.close()
