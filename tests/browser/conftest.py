"""Chromium without a network, on the site that `make site` built; `make test-browser` does both.

A small server gives the site to the browser, which can resolve no other name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"


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
    arguments = [OFFLINE, *(["--no-sandbox"] if os.getuid() == 0 else [])]
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


class QuietHandler(SimpleHTTPRequestHandler):
    """Files of a folder, to be kept by the browser, without a line per request."""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # asked for by browsers, named by no page
            return self.send_error(HTTPStatus.NO_CONTENT)
        super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    """The address of the site."""
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def context(browser) -> Iterator[BrowserContext]:
    """One profile for all pages of the site, so that what they share is read once."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    yield context
    context.close()
