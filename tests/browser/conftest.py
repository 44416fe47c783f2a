"""Chromium without a network, on the site that `make site` built; `make test-browser` does both.

Every request is answered from disk; one that would leave the site is refused and noted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from noted import ADDRESS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Route

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--install", action="store_true", help="install a missing Chromium by apt-get")
    parser.addoption("--site", type=Path, default=ROOT / "book/_build/html", help="built site")


@pytest.fixture(scope="session")
def chromium(request) -> str:
    """The path of the browser."""
    if not any(map(shutil.which, PROGRAMS)) and request.config.getoption("install"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-qq", "--no-install-recommends", "chromium"]
        subprocess.run(command, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return path or pytest.skip("no Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(request) -> Path:
    """The folder of the built site."""
    folder = request.config.getoption("site").resolve()
    assert (folder / "index.html").is_file(), f"no site in {folder}: run make site"
    return folder


@pytest.fixture(scope="module")
def context(browser, site) -> Iterator[BrowserContext]:
    """Pages of the site, as a web server shows them; there is no other network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        path = (site / unquote(url.path).lstrip("/")).resolve()
        here = f"{url.scheme}://{url.netloc}" == ADDRESS and path.is_relative_to(site)
        if here and path.is_file():
            route.fulfill(path=path)
        else:
            route.abort()

    context.route("**/*", answer)
    yield context
    context.close()
