"""The page's files, given to the browser as the gateway would give them, with no server behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Route

from handlers.console import PAGE_HEADERS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# No server is behind it: the files are given to the browser as the gateway would give them. Under `.localhost`, because
# elsewhere plain http is no secure context.
ORIGIN = "http://console.localhost"
CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def serve_console(context: BrowserContext, api: dict[str, Any] | None = None) -> None:
    """Serve the page at ORIGIN from the working tree; `api` maps a path to (status, headers, body)."""

    def fulfil(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
        if api is not None and path in api:
            status, headers, body = api[path]
            route.fulfill(status=status, headers=headers, body=body)
            return
        file = {"/": REPOSITORY / "console/index.html", "/harness.js": REPOSITORY / "tests/browser/harness.js"}.get(
            path, REPOSITORY / path.lstrip("/").replace("console/client/", "clients/js/lib/")
        )
        if not file.is_file():
            route.fulfill(status=404, body="")
            return
        headers = {**PAGE_HEADERS, "content-type": CONTENT_TYPES[file.suffix]}
        route.fulfill(status=200, headers=headers, body=file.read_text(encoding="utf-8"))

    context.route(f"{ORIGIN}/**", fulfil)
