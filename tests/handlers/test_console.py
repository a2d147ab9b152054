from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.config.settings import Settings
from core.telemetry.metrics import Metrics
from handlers.console import CONSOLE, routes
from handlers.problems import Context, Status
from tests.core.admission import admission
from tests.handlers.wire import Connection, connected, serving


@asynccontextmanager
async def console() -> AsyncIterator[Connection]:
    context = Context(Settings(), Metrics(), Status(), admission())
    async with serving(context, routes(context)) as port, connected(port) as connection:
        yield connection


def directives(policy: str) -> dict[str, str]:
    """What a Content-Security-Policy says by directive."""
    pairs = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: sources for name, _, sources in pairs}


@pytest.mark.parametrize(
    "path",
    ["/", "/console/console.js", "/console/client/gateway-client.js", "/console/console.css", "/console/favicon.svg"],
)
@pytest.mark.gen_test
async def test_page_and_its_files_say_what_keeps_them_safe(path: str) -> None:
    async with console() as connection:
        answer = await connection.ask("GET", path)
        again = await connection.ask("GET", path, If_None_Match=answer.headers["etag"])
    assert (answer.status, again.status) == (200, 304)
    for headers in (answer.headers, again.headers):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-cache"
        assert {"camera=()", "geolocation=()", "payment=()"} <= set(headers["permissions-policy"].split(", "))
        assert directives(headers["content-security-policy"]) == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }


@pytest.mark.gen_test
async def test_page_sets_no_cookie_and_lets_no_other_origin_read_it() -> None:
    async with console() as connection:
        answer = await connection.ask("GET", "/", Origin="https://elsewhere.example")
    assert "set-cookie" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/console/../gateway.py",
        "/console/%2e%2e/gateway.py",
        "/console/..%2fgateway.py",
        "/console//etc/passwd",
        "/console/client/../package.json",
        "/console/client/%2e%2e/package.json",
        "/console/client//etc/passwd",
    ],
)
@pytest.mark.gen_test
async def test_nothing_beside_the_page_is_served(path: str) -> None:
    assert (CONSOLE.parent / "gateway.py").exists()
    async with console() as connection:
        answer = await connection.ask("GET", path)
    assert answer.status in (403, 404)
    assert answer.headers["content-type"] == "application/problem+json"
