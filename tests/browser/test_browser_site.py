"""What a reader of the site sees: equations, figures, tables, search, dark mode, three widths."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from noted import ADDRESS, note_problems
from PIL import Image

from hstlib.book.paper import EQUATIONS

if TYPE_CHECKING:
    from playwright.sync_api import ElementHandle, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
WIDTHS = (390, 768, 1280)
TYPESET = "() => window.MathJax && MathJax.startup.promise.then(() => true)"

# Not ours: the theme's bars, and what Pygments, MathJax and the bibliography's extension make.
OTHERS = (".highlight", "mjx-container", ".citation-list")
OURS = {"include": [".bd-article"], "exclude": [[selector] for selector in OTHERS]}
AXE = """async ([context, rules]) => {
    const options = {preload: false, resultTypes: ["violations"]};
    if (rules) options.runOnly = {type: "rule", values: rules};
    const {violations} = await axe.run(context, options);
    return violations
        .filter((v) => ["serious", "critical"].includes(v.impact))
        .flatMap((v) => v.nodes.map((node) => `${v.id}: ${node.html.slice(0, 200)}`));
}"""
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    const wide = (element) => element.getBoundingClientRect().right > width + 1;
    const elements = [...document.querySelectorAll(".bd-article *")].filter(wide);
    const excess = document.documentElement.scrollWidth - width;
    return excess > 0 ? [excess, elements.slice(0, 3).map((e) => e.outerHTML.slice(0, 200))] : [];
}"""
DARK = """(theme) => Object.assign(document.documentElement.dataset, {theme, mode: theme})"""


@dataclass
class Opened:
    """A page of the site, and what went wrong while it loaded."""

    name: str
    page: Page
    problems: list[str]


@pytest.fixture(scope="module", params=PAGES)
def opened(request, context) -> Iterator[Opened]:
    """Each page of the table of contents, once for all tests."""
    page = context.new_page()
    problems = note_problems(page)
    page.goto(f"{ADDRESS}/{request.param}.html")
    page.evaluate(TYPESET)
    yield Opened(request.param, page, problems)
    page.close()


def test_page_loads_without_an_error_or_a_request_that_leaves_it(opened):
    assert opened.problems == []


def test_equations_are_typeset(opened):
    sources = opened.page.locator(".bd-article .math").count()
    assert opened.page.locator(".bd-article .math mjx-container").count() == sources
    assert opened.page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_numbered_equations_show_the_papers_numbers(opened):
    labelled = opened.page.locator("div.amsmath[id^=eq-]")
    ids = labelled.evaluate_all("all => all.map((e) => e.id)")
    numbers = labelled.locator("mjx-assistive-mml mlabeledtr > mtd:first-child").all_text_contents()
    expected = [e.number for e in EQUATIONS if f"notebooks/{e.notebook}" == opened.name]
    assert ids == [f"eq-{number}" for number in expected]
    assert numbers == [f"({number})" for number in expected]
    assert all(box["width"] > 0 for box in map(box_of, labelled.locator("mjx-label").all()))


def box_of(element: Locator) -> dict:
    return element.bounding_box() or {"width": 0}


def test_figures_are_not_blank(opened):
    for figure in opened.page.query_selector_all(".bd-article img, .bd-article svg[role=img]"):
        if figure.is_visible():
            assert contrast(figure) > 5, figure.evaluate("e => e.outerHTML.slice(0, 300)")


def contrast(figure: ElementHandle) -> float:
    """Standard deviation of the pixels on the screen, in grey levels of 0 to 255."""
    return float(np.std(Image.open(io.BytesIO(figure.screenshot())).convert("L")))


def stored_rows(name: str) -> int:
    """The rows of the tables in a notebook's stored outputs."""
    path = ROOT / f"{name}.ipynb"
    cells = json.loads(path.read_text())["cells"] if path.is_file() else []
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return sum(len(re.findall(r"<tr\b", "".join(data.get("text/html", "")))) for data in outputs)


def test_tables_have_their_rows(opened):
    assert opened.page.locator(".cell_output tr").count() >= stored_rows(opened.name)
    for table in opened.page.locator(".bd-article table").all():
        texts = table.locator("tbody tr").evaluate_all("all => all.map((e) => e.textContent)")
        assert texts and all(text.strip() for text in texts), table.inner_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_not_wider_than_the_window(opened, width):
    opened.page.set_viewport_size({"width": width, "height": 900})
    assert opened.page.evaluate(TOO_WIDE) == []


def load_axe(page: Page) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install '.[browser]'")
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe.AXE_SCRIPT)


@pytest.mark.parametrize(("theme", "rules"), [("light", None), ("dark", ["color-contrast"])])
def test_our_markup_has_no_serious_finding_of_axe(opened, theme, rules):
    load_axe(opened.page)
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    opened.page.evaluate(DARK, theme)
    assert opened.page.evaluate(AXE, [OURS, rules]) == []


def test_axe_finds_what_it_should(context):
    page = context.new_page()
    page.goto(f"{ADDRESS}/index.html")
    load_axe(page)
    page.evaluate(
        "() => document.querySelector('.bd-article').insertAdjacentHTML('beforeend',"
        '\'<img src="_static/predictions.png"><p style="color: #eee; background: #fff">pale</p>\')'
    )
    found = {line.partition(":")[0] for line in page.evaluate(AXE, [OURS, None])}
    assert {"image-alt", "color-contrast"} <= found
    page.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("SVN", "notebooks/02_reformer.html"),
        ("Eq. 17", "readings.html"),
        ("leakage", "notebooks/08_splits.html"),
        ("Slurm", "run.html"),
    ],
)
def test_search_finds(context, words, expected):
    page = context.new_page()
    problems = note_problems(page)
    page.goto(f"{ADDRESS}/index.html")
    page.evaluate("() => document.querySelector('.search-button__button').click()")
    page.locator("dialog input[name=q], .search-button__wrapper input[name=q]").first.fill(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    results = page.locator("#search-results ul.search li > a")
    page.locator("#search-results p", has_text="finished").wait_for()
    targets = results.evaluate_all("all => all.map((e) => e.getAttribute('href'))")
    assert expected in {target.partition("?")[0].partition("#")[0] for target in targets}
    results.first.click()
    page.locator(".bd-article h1").wait_for()
    assert problems == []
    page.close()


def test_dark_mode_is_dark_and_stays_so_on_the_next_page(context):
    page = context.new_page()
    page.goto(f"{ADDRESS}/index.html")
    button = page.locator("button.theme-switch-button:visible").first
    for _ in range(3):
        if page.evaluate("() => document.documentElement.dataset.mode") == "dark":
            break
        button.click()
    page.goto(f"{ADDRESS}/paper.html")
    colour = "e => getComputedStyle(document.body)[e].match(/\\d+/g).slice(0, 3).map(Number)"
    background, text = (page.evaluate(colour, name) for name in ("backgroundColor", "color"))
    assert max(background) < 60 and min(text) > 150
    page.evaluate("() => localStorage.clear()")
    page.close()


def test_the_table_of_claims_can_be_filtered(context):
    page = context.new_page()
    page.goto(f"{ADDRESS}/claims.html")
    page.get_by_label("Verdict").select_option(label="contradicted")
    shown = page.locator(".claim:visible .claim-head .verdict").all_inner_texts()
    assert shown and set(shown) == {"contradicted"}
    assert page.locator(".claims-filter output").inner_text().startswith(f"{len(shown)} of ")
    page.close()


def test_the_site_opens_from_disk(browser, site):
    page = browser.new_page()
    problems = note_problems(page)
    page.goto((site / "notebooks/02_reformer.html").as_uri())
    page.evaluate(TYPESET)
    assert page.locator("#eq-3 mjx-container").is_visible()
    assert problems == []
    page.close()
