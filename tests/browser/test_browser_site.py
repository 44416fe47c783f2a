"""What a reader of the site sees: equations, figures, tables, search, dark mode, three widths."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from noted import note_problems
from PIL import Image
from scripts import AXE, CUT, DARK, DULL, ONLY_OURS, PALE, SCROLLING, SETTLED, TOO_WIDE, TYPESET

from hstlib.book.paper import EQUATIONS

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ElementHandle, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
WIDTHS = (390, 768, 1200)
DARK_PAGES = (
    *("claims", "equations", "glossary", "notebooks/02_reformer", "notebooks/04_hybrid_attention"),
    *("notebooks/06_ablation", "notebooks/11_real_video", "notebooks/15_audit", "run"),
)
"""Pages that axe reads in the dark; diagrams and players are read in both themes on every page."""

# Not ours: the theme's bars, and what Pygments, MathJax and the bibliography's extension make.
OTHERS = (".highlight", "mjx-container", ".citation-list")
OURS = {"include": [".bd-article"], "exclude": [[selector] for selector in OTHERS]}


@dataclass
class Opened:
    """A page of the site, and what went wrong while it loaded."""

    name: str
    page: Page
    problems: list[str]


@pytest.fixture(scope="module", params=PAGES)
def opened(request, context, address) -> Iterator[Opened]:
    """Each page of the table of contents, once for all tests."""
    with visited(context, f"{address}/{request.param}.html", "load") as (page, problems):
        page.evaluate(TYPESET)
        yield Opened(request.param, page, problems)


@contextmanager
def visited(
    context: BrowserContext, url: str, until: str = "domcontentloaded"
) -> Iterator[tuple[Page, list[str]]]:
    """A page, and the list of what goes wrong on it."""
    page = context.new_page()
    problems = note_problems(page)
    try:
        page.goto(url, wait_until=until)
        yield page, problems
    finally:
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
    assert opened.page.evaluate(DULL) == []
    for drawing in opened.page.query_selector_all(".bd-article svg[role]"):
        if drawing.is_visible():
            assert contrast(drawing) > 5, drawing.evaluate("e => e.outerHTML.slice(0, 300)")


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
    opened.page.evaluate(SETTLED)
    assert opened.page.evaluate(TOO_WIDE) == []
    assert opened.page.evaluate(CUT) == []
    assert width < max(WIDTHS) or opened.page.evaluate(SCROLLING) == []


def load_axe(page: Page) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install '.[browser]'")
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe.AXE_SCRIPT)


def test_players_play(opened):
    for player in opened.page.locator(".hst-player").all():
        output = player.locator("output")
        assert output.inner_text().startswith("frame 1 of")
        player.locator("button").click()
        expect_text(opened.page, output, "frame 2 of")
        player.locator("button").click()
        player.locator("input[type=range]").fill("5")
        assert output.inner_text().startswith("frame 5 of")
        moved = player.locator("img").first.evaluate("e => e.style.transform")
        assert moved == f"translateX({-100 * 4 / int(player.get_attribute('data-steps')):g}%)"


def expect_text(page: Page, element: Locator, start: str) -> None:
    arguments = [element.element_handle(), start]
    page.wait_for_function("([e, start]) => e.textContent.startsWith(start)", arg=arguments)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_diagrams_and_players_can_be_read(opened, theme):
    opened.page.evaluate(DARK, theme)
    assert opened.page.evaluate(PALE) == []


def test_our_markup_has_no_serious_finding_of_axe(opened):
    """The last test of a page: it removes the rest of it."""
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    opened.page.evaluate(DARK, "dark" if opened.name in DARK_PAGES else "light")
    opened.page.evaluate(ONLY_OURS, OTHERS)
    load_axe(opened.page)
    assert opened.page.evaluate(AXE, OURS) == []


def test_axe_finds_what_it_should(context, address):
    with visited(context, f"{address}/index.html") as (page, _):
        load_axe(page)
        page.evaluate(
            "() => document.querySelector('.bd-article').insertAdjacentHTML('beforeend',"
            "'<img src=\"_static/predictions.png\">' +"
            "'<p style=\"color: #eee; background: #fff\">pale</p>')"
        )
        found = {line.partition(":")[0] for line in page.evaluate(AXE, OURS)}
        assert {"image-alt", "color-contrast"} <= found


def test_a_blank_picture_is_found(context, address):
    with visited(context, f"{address}/glossary.html") as (page, _):
        assert page.evaluate(DULL) == []
        page.evaluate(
            """async () => {
                const image = document.createElement("img");
                image.src = Object.assign(document.createElement("canvas"), {width: 9, height: 9})
                    .toDataURL();
                document.querySelector(".bd-article").append(image);
                await image.decode();
            }"""
        )
        assert len(page.evaluate(DULL)) == 1


@pytest.fixture(scope="module")
def search(context, address) -> Iterator[Callable[[str], set[str]]]:
    """A function from words to the pages that the search of the site finds."""
    start = f"{address}/glossary.html"
    with visited(context, start) as (page, problems):

        def pages_with(words: str) -> set[str]:
            page.goto(start, wait_until="domcontentloaded")
            page.evaluate("() => document.querySelector('.search-button__button').click()")
            page.locator("dialog input[name=q], .search-button__wrapper input[name=q]").first.fill(
                words
            )
            page.keyboard.press("Enter")
            page.wait_for_url(lambda url: "search.html" in url and words[:3] in url)
            page.locator("#search-results p", has_text="finished").wait_for()
            results = page.locator("#search-results ul.search li > a")
            targets = results.evaluate_all("all => all.map((e) => e.getAttribute('href'))")
            assert problems == []
            return {target.partition("?")[0].partition("#")[0] for target in targets}

        yield pages_with


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("SVN", "notebooks/02_reformer.html"),
        ("Eq. 17", "readings.html"),
        ("leakage", "notebooks/08_splits.html"),
        ("Slurm", "run.html"),
    ],
)
def test_search_finds(search, words, expected):
    assert expected in search(words)


def test_dark_mode_is_dark_and_stays_so_on_the_next_page(context, address):
    with visited(context, f"{address}/glossary.html") as (page, _):
        button = page.locator("button.theme-switch-button:visible").first
        for _ in range(3):
            if page.evaluate("() => document.documentElement.dataset.mode") == "dark":
                break
            button.click()
        page.goto(f"{address}/bibliography.html", wait_until="domcontentloaded")
        colour = "e => getComputedStyle(document.body)[e].match(/\\d+/g).slice(0, 3).map(Number)"
        background, text = (page.evaluate(colour, name) for name in ("backgroundColor", "color"))
        page.evaluate("() => localStorage.clear()")
        assert max(background) < 60 and min(text) > 150


@pytest.mark.parametrize(
    ("button", "opened_part"),
    [
        (".primary-toggle", "#pst-primary-sidebar-modal"),
        (".secondary-toggle", "#pst-secondary-sidebar-modal"),
        (".search-button", "#pst-search-dialog"),
    ],
)
def test_a_button_of_a_narrow_page_opens_its_part(context, address, button, opened_part):
    with visited(context, f"{address}/index.html", "load") as (page, _):
        page.set_viewport_size({"width": min(WIDTHS), "height": 900})
        page.locator(f".bd-header-article {button}").click()
        page.locator(opened_part).wait_for()


def test_the_table_of_claims_can_be_filtered(context, address):
    with visited(context, f"{address}/claims.html") as (page, _):
        page.get_by_label("Verdict").select_option(label="contradicted")
        shown = page.locator(".claim:visible .claim-head .verdict").all_inner_texts()
        assert shown and set(shown) == {"contradicted"}
        assert page.locator(".claims-filter output").inner_text().startswith(f"{len(shown)} of ")


def test_the_site_opens_from_disk(context, site):
    with visited(context, (site / "notebooks/02_reformer.html").as_uri()) as (page, problems):
        page.evaluate(TYPESET)
        assert page.locator("#eq-3 mjx-container").is_visible()
        assert problems == []


def test_a_request_that_leaves_the_site_is_noted(context, address):
    with visited(context, f"{address}/glossary.html") as (page, problems):
        page.evaluate("() => fetch('http://example.org/').catch(() => null)")
        assert any("example.org" in problem for problem in problems)
