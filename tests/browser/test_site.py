"""The site that `make docs` has made: drawings and APIs are drawn, the search finds, and no other host is asked."""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import Complaints
from tests.support.gateway import REPOSITORY

SITE = REPOSITORY / ".docs" / "site"
ORIGIN = "http://site.localhost"


@pytest.fixture
def elsewhere() -> list[str]:
    """What was asked of other hosts."""
    return []


@pytest.fixture
def reader(chromium: Browser, complaints: Complaints, elsewhere: list[str]) -> Iterator[Page]:
    """Somebody who has the site's files, and nothing else."""
    if not (SITE / "index.html").is_file():
        if os.environ.get("REQUIRE_SITE") == "1":
            pytest.fail("there is no site: make docs", pytrace=False)
        pytest.skip("there is no site: make docs")

    def answer(route: Route) -> None:
        if not route.request.url.startswith(ORIGIN):
            elsewhere.append(route.request.url)
            route.abort()
            return
        file = SITE / unquote(urlsplit(route.request.url).path).lstrip("/")
        kind = "text/javascript" if file.suffix in (".js", ".mjs") else mimetypes.guess_type(file.name)[0]
        if file.is_file():
            route.fulfill(status=200, content_type=kind or "application/octet-stream", body=file.read_bytes())
        else:
            route.fulfill(status=404, body="")

    context = chromium.new_context()
    context.route("**/*", answer)
    page = context.new_page()
    complaints.hear(page)
    yield page
    context.close()


def test_site_draws_the_rooms(reader: Page, complaints: Complaints, elsewhere: list[str]) -> None:
    reader.goto(f"{ORIGIN}/docs/architecture.html")
    expect(reader.locator(".mermaid svg")).to_contain_text("core/market")
    assert (elsewhere, complaints.texts) == ([], [])


@pytest.mark.parametrize("name", ["openapi", "openapi-admin"])
def test_site_shows_every_route(reader: Page, complaints: Complaints, elsewhere: list[str], name: str) -> None:
    paths = json.loads((REPOSITORY / "docs" / f"{name}.json").read_text(encoding="utf-8"))["paths"]
    methods = {"get", "put", "post", "delete", "patch", "options", "head"}
    reader.goto(f"{ORIGIN}/docs/{name}.html")
    shown = reader.locator(".opblock")
    expect(shown).to_have_count(sum(len(methods & operations.keys()) for operations in paths.values()))
    assert (elsewhere, complaints.texts) == ([], [])


def test_site_shows_the_messages(reader: Page, complaints: Complaints, elsewhere: list[str]) -> None:
    reader.goto(f"{ORIGIN}/docs/apis.html")
    reader.get_by_role("main").get_by_role("link", name="asyncapi.json").click()
    reader.get_by_role("main").get_by_role("link", name="Place an order", exact=True).click()
    message = reader.locator("#message-placeorder")
    expect(message.get_by_role("heading")).to_be_in_viewport()
    expect(message.get_by_role("table")).to_contain_text("params.price")
    expect(message.locator(".highlight-json").last).to_contain_text("private/place_order")
    assert (elsewhere, complaints.texts) == ([], [])


@pytest.mark.parametrize(("words", "page"), [("older dialects", "protocol.html"), ("place_order", "asyncapi.html")])
def test_site_finds_a_chapter(
    reader: Page, complaints: Complaints, elsewhere: list[str], words: str, page: str
) -> None:
    reader.goto(f"{ORIGIN}/index.html")
    reader.get_by_role("textbox", name="Search").fill(words)
    reader.keyboard.press("Enter")
    expect(reader.locator(f'#search-results a[href*="{page}"]').first).to_be_visible()
    assert (elsewhere, complaints.texts) == ([], [])
