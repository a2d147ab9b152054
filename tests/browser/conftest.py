"""Headless Chromium for the tests of the page.

Playwright's sync API keeps an asyncio loop of its own running in this thread, so the browser lives for this package's
tests only: other packages run loops of theirs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route, expect, sync_playwright

from handlers.console import PAGE_HEADERS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CHROMIUM = "/usr/bin/chromium"
# The machine may be busy with other things: what is waited for is an event, and this only ends a wait for nothing.
DEADLINE_MS = 20_000
expect.set_options(timeout=DEADLINE_MS)
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# No server is behind it: the files are given to the browser as the gateway would give them. Under `.localhost`, because
# elsewhere plain http is no secure context.
ORIGIN = "http://console.localhost"
CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# What a page logs that loses its server on purpose.
LOST_SERVER = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    executable = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if executable is None:
        missing = "Chromium is missing; on Debian: apt-get install -y chromium"
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Complaints:
    """Everything a page complains about: errors, warnings, uncaught exceptions, refused content."""

    texts: list[str] = field(default_factory=list)

    def hear(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.texts.append(f"uncaught: {error}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.texts.append(f"{message.type}: {message.text}")

    def without_lost_server(self) -> list[str]:
        """Those that a server which went away does not explain."""
        return [text for text in self.texts if not any(known in text for known in LOST_SERVER)]


REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(DEADLINE_MS)
    context.add_init_script(REPORT_VIOLATIONS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, complaints: Complaints) -> Page:
    page = context.new_page()
    complaints.hear(page)
    return page


def serve_console(context: BrowserContext, api: dict[str, Any] | None = None) -> None:
    """Serve the page at ORIGIN from the working tree; `api` maps a path to (status, headers, body)."""

    def fulfil(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
        if api is not None and path in api:
            status, headers, body = api[path]
            route.fulfill(status=status, headers=headers, body=body)
            return
        file = {"/": REPOSITORY / "console/index.html", "/harness.js": REPOSITORY / "tests/browser/harness.js"}.get(
            path, REPOSITORY / path.lstrip("/")
        )
        if not file.is_file():
            route.fulfill(status=404, body="")
            return
        headers = {**PAGE_HEADERS, "content-type": CONTENT_TYPES[file.suffix]}
        route.fulfill(status=200, headers=headers, body=file.read_text(encoding="utf-8"))

    context.route(f"{ORIGIN}/**", fulfil)


@pytest.fixture(scope="module")
def modules(chromium: Browser) -> Iterator[Page]:
    """A page that does nothing itself, where `await import("/console/x.js")` gives a module of the console."""
    context = chromium.new_context()
    serve_console(context)
    page = context.new_page()
    # A plain file of the origin: the page proper would start its own client.
    page.goto(f"{ORIGIN}/console/favicon.svg")
    yield page
    context.close()


def run(page: Page, body: str, argument: Any = None) -> Any:
    """What the JavaScript `body` returns; it has the harness and the client in scope, and `argument`."""
    script = f"""async (argument) => {{
      const {{ setup, settle, outcome }} = await import("/harness.js");
      const {{ GatewayClient, GatewayError, backoffMs }} = await import("/console/gateway-client.js");
      const late = new Promise((_, reject) => setTimeout(() => reject(new Error("still waiting")), 5000));
      return Promise.race([late, (async () => {{ {body} }})()]);
    }}"""
    return page.evaluate(script, argument)
