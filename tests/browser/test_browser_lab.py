"""JupyterLab as `make lab` opens it: notebooks run, links lead on, and stored outputs stay."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
SAVE_EVERY_SECOND = {"autosaveInterval": 1}
TOKEN = "token"
RUN_ALL = """() => {
    window.finished = null;
    jupyterapp.shell.currentWidget.sessionContext.ready
        .then(() => jupyterapp.commands.execute("notebook:run-all-cells"))
        .then((ran) => { window.finished = ran ? "ran" : "a cell failed"; },
              (error) => { window.finished = String(error); });
}"""
TOGGLE_AUTOSAVE = "() => jupyterapp.commands.execute('docmanager:toggle-autosave')"
SHOW_CELL = """(text) => {
    const {content} = jupyterapp.shell.currentWidget;
    const hasText = (cell) => cell.model.sharedModel.source.includes(text);
    content.activeCellIndex = content.widgets.findLastIndex(hasText);
    return content.scrollToItem(content.activeCellIndex);
}"""
OTHER_PICTURES = """([cell, before]) => {
    const pictures = [...cell.querySelectorAll(".hst-player img")].map((e) => e.src);
    return pictures.length === before.length && pictures.every((src, i) => src !== before[i]);
}"""


@dataclass
class Lab:
    """A running JupyterLab: its address, its folder, and a page of the browser."""

    address: str
    folder: Path
    page: Page

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}/lab/tree/{path}?token={TOKEN}&reset")
        self.page.locator(".jp-Notebook:visible, .jp-MarkdownViewer:visible").first.wait_for()

    def run_all(self, seconds: int) -> None:
        """Run all cells of the open notebook, once its kernel is ready."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("() => window.finished", timeout=1000 * seconds)
        assert self.page.evaluate("() => window.finished") == "ran"

    def cell(self, text: str) -> Locator:
        """Scroll to the last cell of the open notebook that has a text in its source."""
        self.page.evaluate(SHOW_CELL, text)
        return self.page.locator(".jp-Cell.jp-mod-active:visible")

    def wait(self, condition: str, cell: Locator, before: object) -> None:
        self.page.wait_for_function(condition, arg=[cell.element_handle(), before])


def pictures_of(cell: Locator) -> list[str]:
    return cell.locator(".hst-player img").evaluate_all("all => all.map((e) => e.src)")


def recipe() -> list[str]:
    """The words of the command in `make lab`."""
    done = subprocess.run(
        ["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "jupyter lab" in line]
    return line.split()


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a copy of the chapters; if it saves by itself, then every second."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "book", "workflow"):
        ignored = shutil.ignore_patterns("_build", ".*")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    plugin = folder / "user/@jupyterlab/docmanager-extension/plugin.jupyterlab-settings"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(json.dumps(SAVE_EVERY_SECOND))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *arguments = recipe()
    arguments += ["--no-browser", "--expose-app-in-browser"]
    arguments += [f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "user")}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [ROOT / program, *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    try:
        wait_until(lambda: answers(port), lambda: process.poll() is None, folder / "log.txt")
        yield Lab(f"http://127.0.0.1:{port}", folder, page)
    finally:
        page.close()
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], lives: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert lives() and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextmanager
def untouched(path: Path) -> Iterator[None]:
    """Check that a file has its bytes afterwards, when autosave would have replaced them."""
    before = path.read_bytes()
    yield
    time.sleep(2.5)
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_finishes_and_does_not_touch_the_file(lab, name):
    with untouched(lab.folder / "notebooks" / name):
        lab.open(f"notebooks/{name}")
        lab.run_all(seconds=600)
    assert lab.page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def test_a_link_of_a_chapter_opens_the_page_that_it_names(lab):
    lab.open("notebooks/03_spatial_attention.ipynb")
    lab.cell("Next: [")
    lab.page.locator(".jp-MarkdownCell a", has_text="Hybrid spatial-temporal").last.click()
    lab.page.wait_for_function(
        "path => jupyterapp.shell.currentWidget?.context?.path === path",
        arg="notebooks/04_hybrid_attention.ipynb",
    )


def test_a_parameter_of_the_drawn_clip_and_another_clip_change_the_pictures(lab):
    name = "notebooks/01_data_and_flow.ipynb"
    with untouched(lab.folder / name):
        lab.open(name)
        lab.run_all(seconds=600)
    cell = lab.cell("widgets.explore(")
    cell.locator(".hst-player .controls").wait_for()  # its script ran
    before = pictures_of(cell)
    assert len(before) == 4
    cell.locator("select").first.select_option("open")
    lab.wait(OTHER_PICTURES, cell, before)
    before = pictures_of(cell)
    cell.locator(".noUi-handle").first.press("ArrowRight")
    lab.wait(OTHER_PICTURES, cell, before)
    cell = lab.cell("widgets.choose_clip(")
    before = pictures_of(cell)
    with lab.page.expect_file_chooser() as chooser:
        cell.get_by_role("button", name="Your clip").click()
    chooser.value.set_files(next(ROOT.glob("data/demo/hmdb51/hmdb51_org/disc/*.avi")))
    lab.wait(OTHER_PICTURES, cell, before)
    cell.get_by_label("or its path").fill("notes.txt")
    cell.get_by_label("or its path").press("Enter")
    cell.locator("pre", has_text="notes.txt").wait_for()


def test_another_reading_shows_its_maps_logits_and_published_accuracy(lab):
    lab.open("notebooks/04_hybrid_attention.ipynb")
    lab.run_all(seconds=600)
    cell = lab.cell("widgets.draw_reading")
    cell.locator("select").select_option("text-of-equation-17")
    cell.locator(".hst-lines p", has_text="text-of-equation-17: Eq. (17)").wait_for()
    text = cell.locator(".hst-lines").inner_text()
    assert "logits: " in text and "top-1 on J-HMDB" in text


def test_with_autosave_the_file_changes(lab):
    """The control: what the tests above would see if `make lab` left autosave on."""
    path = lab.folder / "notebooks/03_spatial_attention.ipynb"
    before = path.read_bytes()
    lab.open("notebooks/03_spatial_attention.ipynb")
    lab.page.evaluate(TOGGLE_AUTOSAVE)
    try:
        lab.page.locator(".jp-CodeCell .cm-content").first.click()
        lab.page.keyboard.type("# ")
        wait_until(lambda: path.read_bytes() != before, lambda: True, lab.folder / "log.txt")
    finally:
        lab.page.evaluate(TOGGLE_AUTOSAVE)
