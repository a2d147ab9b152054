"""The client for JavaScript in Chromium, in the scenes that every client plays (clients/conformance): one page for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from tests.browser.serving import ORIGIN
from tests.clients.served_scenes import CHANGES, NAMES, all_scenes, served
from tests.support.gateway import REPOSITORY

PLAY = """async (scenes) => {
  const [client, { play }] = await Promise.all([import("/clients/js/lib/index.js"), import("/tests/clients/scene_player.mjs")]);
  return play(client, scenes);
}"""


@pytest.fixture(scope="module")
def verdicts(chromium: Browser) -> Iterator[dict[str, list[str]]]:
    """What was not as each scene wants it."""

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN).lstrip("/")
        body = (REPOSITORY / path).read_text("utf-8") if path else "<!doctype html><title>scenes</title>"
        route.fulfill(body=body, content_type="text/javascript" if path else "text/html")

    # As any page of another origin than the gateway's, with none of the console's policy.
    context = chromium.new_context()
    context.route(f"{ORIGIN}/**", serve)
    page = context.new_page()
    page.goto(f"{ORIGIN}/")
    with served(all_scenes()) as gateways:
        told: dict[str, Any] = page.evaluate(PLAY, gateways.wanted())
        yield gateways.verdicts(told)
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_program_sees_what_the_scene_says(verdicts: dict[str, list[str]], name: str) -> None:
    assert verdicts[name] == []


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_scene_notices_what_is_not_so(verdicts: dict[str, list[str]], number: int) -> None:
    assert verdicts[str(number)] != []
