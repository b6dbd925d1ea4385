"""The pages in a real browser: nothing cut, nothing from outside, everything drawn, and controls
that move what they should.
"""

import json
import os
import shutil
from dataclasses import replace
from importlib.resources import files
from itertools import product

import pytest

from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.protocol import Protocol
from scorefield.report.page import write_report
from scorefield.runs.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Where everything is installed, a missing browser is a failure.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="not installed: chromium"
    ),
]

WIDTHS = (360, 768, 1024, 1280, 1400, 1920, 2560)
PROTOCOL = Protocol(nfes=(4, 8), samples=48, pairs=3, sigmas=(0.5, 2.0), points=8, draws=2)
TOY = (
    "train.steps=20",
    "train.log_every=2",
    "train.batch_size=32",
    "train.checkpoint_every=10",
    "train.keep=null",
    "optim.warmup=1",
    "field.network.depth=1",
)
DIGITS = ("train.steps=2", "train.batch_size=8", "optim.warmup=1", "field.network.channels=8")


def make(root, name, overrides, protocol=PROTOCOL):
    run = Run.create(load_config(name, overrides), root)
    run.train(quiet=True)
    evaluate(run, protocol=protocol)
    return run.folder


def demo(root):
    """Five models with two seeds and checkpoints on one data set, two models on another."""
    for number, seed in product(range(5), (0, 1)):
        overrides = (*TOY, f"seed={seed}")
        make(root, f"toy/m{number}", overrides, replace(PROTOCOL, along=8))
    for number in (0, 2):
        make(root, f"digits/m{number}", DIGITS, replace(PROTOCOL, points=2))


def one(root):
    folder = make(root, "toy/m0", TOY[:3])
    assert main(["likelihood", str(folder), "--n", "4", "--rtol", "1e-2"]) == 0


def twenty(root):
    for k in range(20):
        make(root, "toy/m0", (*TOY[:3], f"field.network.hidden={8 + k}"))


def images(root):
    for number in (0, 2):
        make(root, f"digits/m{number}", DIGITS, replace(PROTOCOL, points=2))


def atoms(root):
    small = (*TOY[:3], "field.network.hidden=8", "field.network.depth=1")
    protocol = replace(PROTOCOL, nfes=(8,), sigmas=(0.05, 0.2))
    for name, seed in product(("no_regularizer", "analytical_regression"), (0, 1)):
        make(root, f"atoms/{name}", (*small, f"seed={seed}"), protocol)


REPORTS = {f.__name__: f for f in (demo, one, twenty, images, atoms)}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, shared):
    """Opens a report, or the page of a check, and fails at its end if anything went wrong there."""
    wrong, pages = [], []

    def fill(folder, name):
        if name == "check":
            run = make(folder / "runs", "toy/m0", TOY[:3])
            assert main(["check", str(run), "--budget", "10s", "--out", str(folder / "out")]) == 0
        else:
            REPORTS[name](folder / "runs")
            write_report(folder / "runs", folder / "out")

    def open_page(name, prepare=lambda page: None, **settings):
        folder = shared(f"browser-{name}", lambda folder: fill(folder, name))
        page = browser.new_page(**settings)
        pages.append(page)
        page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("request", lambda r: r.url.startswith("http") and wrong.append(r.url))
        prepare(page)
        page.goto((folder / "out" / "index.html").as_uri())
        if name != "check":
            page.wait_for_function("document.documentElement.dataset.drawn", timeout=120_000)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


@pytest.mark.parametrize("name", [*REPORTS, "check"])
def test_nothing_is_cut_and_everything_is_drawn(visit, name):
    page = visit(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        # Figures are drawn again at the new width, one after the other.
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        cut = page.evaluate(
            """() => [...document.querySelectorAll("p, h1, h2, h3, h4, dd, figcaption, code")]
            .filter((e) => e.checkVisibility() && !e.closest(".scroll, aside")
                && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.textContent)"""
        )
        assert not cut, (width, cut)
    shown = page.evaluate(
        """() => ({
            plots: document.querySelectorAll("script[data-plot]").length,
            drawn: [...document.querySelectorAll(".js-plotly-plot")]
                .filter((e) => e.querySelector(".plot path, .plot .point")).length,
            broken: [...document.images].filter((i) => !i.complete || !i.naturalWidth).length,
            images: document.images.length,
        })"""
    )
    assert shown["plots"] == shown["drawn"]
    assert shown["plots"] > 5 or name == "check"
    assert shown["images"] > 0
    assert shown["broken"] == 0


@pytest.mark.parametrize("name", [*REPORTS, "check"])
def test_a_page_is_drawn_in_two_seconds(visit, name):
    """In seconds of the processor, of scripts, layout and painting, until all figures are drawn.
    Others on the machine make it slower, if less so than the clock: of five times the least.
    """
    seconds = []
    while len(seconds) < 5 and min(seconds, default=2) >= 2:
        sessions = []

        def measure(page, sessions=sessions):
            sessions.append(page.context.new_cdp_session(page))
            sessions[0].send("Performance.enable", {"timeDomain": "threadTicks"})

        visit(name, measure, viewport={"width": 1400, "height": 900})
        found = sessions[0].send("Performance.getMetrics")["metrics"]
        seconds += [m["value"] for m in found if m["name"] == "TaskDuration"]
    assert 0.01 < min(seconds) < 2, seconds


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*REPORTS, "check"])
def test_the_page_is_readable_for_all(visit, name, scheme):
    """By axe-core: contrast of at least 4.5, names of controls, headings, tables."""
    page = visit(name, color_scheme=scheme, viewport={"width": 1400, "height": 900})
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in serious]


def test_the_first_screen_has_the_verdict_the_table_and_six_pictures(visit):
    page = visit("demo", viewport={"width": 1400, "height": 900})
    seen = page.evaluate(
        """() => {
            const seen = (e) => { const r = e.getBoundingClientRect();
                return r.top >= 0 && r.bottom <= innerHeight && r.width > 100; };
            const all = (s) => [...document.querySelectorAll(s)];
            return {
                verdicts: all(".verdict").filter(seen).length,
                rows: all("#toy .overview tbody tr").filter(seen).length,
                columns: document.querySelector("#toy .overview thead tr").cells.length,
                marks: all("#toy .mark").filter(seen).length,
                pictures: all(".film img").filter(seen).length,
            };
        }"""
    )
    assert seen["verdicts"] == 2
    assert seen["rows"] == 5
    assert seen["columns"] <= 7
    assert seen["marks"] > 5
    assert seen["pictures"] >= 6


def test_a_slider_moves_all_models_and_a_film_plays(visit):
    page = visit("demo")
    film = page.locator("#toy-film-fields")
    sources = "(film) => [...film.querySelectorAll('img')].map((i) => i.src)"
    before, where = film.evaluate(sources), film.locator("output").text_content()
    assert len(before) == 6
    slider = film.locator("input")
    slider.focus()
    slider.press("Home" if slider.input_value() != "0" else "End")
    after = film.evaluate(sources)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert film.locator("output").text_content() != where
    assert slider.get_attribute("aria-valuetext") == film.locator("output").text_content()
    slider.press("Home" if slider.input_value() != "0" else "End")
    assert film.evaluate(sources) == before
    film.locator(".play").click()
    page.wait_for_function(
        "(old) => document.querySelector('#toy-film-fields img').src !== old", arg=before[0]
    )
    film.locator(".play").click()


def test_the_legend_hides_a_model_everywhere(visit):
    page = visit("demo", viewport={"width": 1400, "height": 900})
    state = """() => ({
        parts: [...document.querySelectorAll('[data-model="M2"]')].map((e) => e.hidden),
        traces: [...document.querySelectorAll(".js-plotly-plot")].flatMap((p) =>
            p.data.filter((t) => t.legendgroup === "M2").map((t) => t.visible)),
        others: [...document.querySelectorAll(".js-plotly-plot")].flatMap((p) =>
            p.data.filter((t) => t.legendgroup === "M0").map((t) => t.visible)),
    })"""
    button = page.locator('[data-toggle="M2"]')
    assert not any(page.evaluate(state)["parts"])
    button.press("Enter")
    hidden = page.evaluate(state)
    assert len(hidden["parts"]) > 10
    assert all(hidden["parts"])
    assert len(hidden["traces"]) > 10
    assert not any(hidden["traces"])
    assert all(hidden["others"])
    assert button.get_attribute("aria-pressed") == "false"
    button.press("Enter")
    shown = page.evaluate(state)
    assert not any(shown["parts"])
    assert all(shown["traces"])


def test_tables_are_sorted_saved_and_copied_with_their_provenance(visit):
    page = visit("demo", viewport={"width": 1400, "height": 900})
    table = page.locator("#toy .overview")
    values = "(t) => [...t.tBodies[0].rows].map((r) => Number(r.cells[1].dataset.value))"
    heading = table.locator(".sort").first
    heading.click()
    assert table.evaluate(values) == sorted(table.evaluate(values))
    heading.click()
    assert table.evaluate(values) == sorted(table.evaluate(values), reverse=True)
    with page.expect_download() as download:
        page.locator('[data-file="toy-overview.csv"].csv').click()
    assert download.value.suggested_filename == "toy-overview.csv"
    lines = page.evaluate("document.documentElement.dataset.saved").splitlines()
    assert lines[0].startswith('"model","sliced Wasserstein')
    assert len(lines) == 6
    row = json.loads(f"[{lines[1]}]")
    assert float(row[2]) <= float(row[1]) <= float(row[3])
    table.locator(".number").first.click()
    page.wait_for_function("document.documentElement.dataset.copied")
    copied = page.evaluate("document.documentElement.dataset.copied")
    for part in ("toy, ", "95 % interval", "seeds 0, 1", "protocol: ", "versions: ", "torch "):
        assert part in copied
    assert copied.count("scorefield eval ") == 2


def test_on_a_narrow_screen_the_contents_are_a_menu(visit):
    page = visit("one", viewport={"width": 360, "height": 740})
    link = page.locator('nav a[href$="-levels"]')
    assert not link.is_visible()
    page.locator("#menu").click()
    link.click()
    page.wait_for_function(
        "document.querySelector('#toy-levels').getBoundingClientRect().top < 400"
    )
    assert not link.is_visible()


def test_a_print_has_all_figures_in_light_colours(visit):
    page = visit("one", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("aside").is_visible()
    assert page.locator("#toy-likelihood table").is_visible()
