"""Headless Chromium for the tests of the page.

Playwright's sync API keeps an asyncio loop of its own running in this thread, so the browser lives for this package's
tests only: other packages run loops of theirs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.browser.fake_gateway import INSTRUMENTS, FakeGateway
from tests.browser.serving import ORIGIN, RESTING_PLACE, served_files

# Debian's. The shell is Chromium without its windows, which take half of the time of a test; either will do.
CHROMIUM = ("chromium-headless-shell", "chromium")
# The machine may be busy with other things: what is waited for is an event, and this only ends a wait for nothing.
DEADLINE_MS = 20_000
expect.set_options(timeout=DEADLINE_MS)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What Playwright gives to it in place of a server's files counts as from elsewhere.
    "--disable-features=LocalNetworkAccessChecks",
]
# What a page logs that loses its server on purpose.
LOST_SERVER = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        missing = "Chromium is missing; on Debian: apt-get install -y chromium-headless-shell"
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with served_files() as switch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*ARGUMENTS, switch])
        yield browser
        browser.close()


@dataclass
class Complaints:
    """Everything a page complains about: errors, warnings, uncaught exceptions, refused content."""

    texts: list[str] = field(default_factory=list)

    def hear(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)

    def hear_no_more(self, page: Page) -> None:
        page.remove_listener("console", self._on_console)
        page.remove_listener("pageerror", self._on_error)

    def _on_error(self, error: Error) -> None:
        self.texts.append(f"uncaught: {error}")

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


WINDOW: ViewportSize = {"width": 1440, "height": 900}


def _new_context(chromium: Browser) -> BrowserContext:
    context = chromium.new_context(viewport=WINDOW)
    context.set_default_timeout(DEADLINE_MS)
    context.add_init_script(REPORT_VIOLATIONS)
    return context


@pytest.fixture(scope="module")
def kept_page(chromium: Browser) -> Iterator[Page]:
    """What the tests of a module use one after the other: two processes begin with a page, for half of a test's time."""
    context = _new_context(chromium)
    yield context.new_page()
    context.close()


@pytest.fixture
def alone() -> None:
    """For a test that does to its page what only its end undoes: a clock, a script, sockets that lead elsewhere."""


@pytest.fixture
def context(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[BrowserContext]:
    """A browser profile with nothing in it."""
    if "alone" in request.fixturenames:
        context = _new_context(chromium)
        yield context
        context.close()
        return
    kept: Page = request.getfixturevalue("kept_page")
    yield kept.context
    # The page goes before what it is answered by.
    if kept.url.startswith("http"):
        kept.goto(urljoin(kept.url, RESTING_PLACE))
        kept.evaluate("localStorage.clear(); sessionStorage.clear()")
    kept.context.unroute_all()
    kept.context.clear_cookies()
    kept.mouse.move(0, 0)
    kept.set_viewport_size(WINDOW)


@pytest.fixture
def page(request: pytest.FixtureRequest, context: BrowserContext, complaints: Complaints) -> Iterator[Page]:
    page = context.new_page() if "alone" in request.fixturenames else request.getfixturevalue("kept_page")
    complaints.hear(page)
    yield page
    complaints.hear_no_more(page)


@pytest.fixture
def start(context: BrowserContext, page: Page) -> Callable[..., FakeGateway]:
    def begin(instruments: list[dict[str, str]] | None = None, address: str = "/", **more: object) -> FakeGateway:
        gateway = FakeGateway(context, page, INSTRUMENTS if instruments is None else instruments, **more)
        gateway.open(address)
        return gateway

    return begin


@pytest.fixture
def gateway(page: Page, start: Callable[..., FakeGateway]) -> FakeGateway:
    gateway = start()
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    return gateway


@pytest.fixture(scope="module")
def modules(chromium: Browser) -> Iterator[Page]:
    """A page that does nothing itself, where `await import("/console/x.js")` gives a module of the console."""
    context = chromium.new_context()
    page = context.new_page()
    # The page proper would start its own client.
    page.goto(ORIGIN + RESTING_PLACE)
    yield page
    context.close()


def run(page: Page, body: str, argument: Any = None) -> Any:
    """What the JavaScript `body` returns; it has the harness and the client in scope, and `argument`."""
    script = f"""async (argument) => {{
      const {{ setup, settle, outcome }} = await import("/harness.js");
      const {{ GatewayClient, GatewayError, backoffMs }} = await import("/console/client/gateway-client.js");
      const late = new Promise((_, reject) => setTimeout(() => reject(new Error("still waiting")), {DEADLINE_MS}));
      return Promise.race([late, (async () => {{ {body} }})()]);
    }}"""
    return page.evaluate(script, argument)
