"""What an answer to an order says, in words, whoever wrote it."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import run

OURS = json.dumps({"type": "urn:mexchange:problem:bus-unavailable", "status": 503, "detail": "the bus is away"})


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, '{"order_id": "o-1"}', "accepted"),
        (202, '{"order_id": "o', "unknown"),
        (200, "<html>sign in to this network</html>", "unknown"),
        (503, OURS, "not_sent"),
        (503, "upstream connect error or disconnect/reset before headers", "unknown"),
        (502, "<html>", "unknown"),
        (429, "{}", "not_sent"),
        (422, "{}", "refused"),
    ],
)
def test_order_is_said_not_to_be_there_only_where_that_is_certain(
    modules: Page, status: int, body: str, outcome: str
) -> None:
    seen = run(
        modules,
        f"""const {{ postOrder }} = await import("/console/order-api.js");
        const before = globalThis.fetch;
        globalThis.fetch = async () => new Response({json.dumps(body)}, {{ status: {status} }});
        try {{
          return (await postOrder({{ symbol: "A/B" }}, null)).outcome;
        }} finally {{
          globalThis.fetch = before;
        }}""",
    )
    assert seen == outcome
