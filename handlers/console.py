"""The page at `/` and its files: plain HTML, CSS and ES modules under a strict Content-Security-Policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.web import HTTPError, StaticFileHandler

from handlers.problems import Context, ProblemMixin

ROOT = Path(__file__).resolve().parent.parent
CONSOLE = ROOT / "console"
# The client for JavaScript, which is the page's own: served as `client/` of the page's folder.
CLIENT = ROOT / "clients" / "js" / "lib"

# What the page never asks for, so that nothing which gets into it can either. Only names that every browser with this
# header knows: of others they warn.
UNUSED_FEATURES = (
    "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation",
    "gyroscope", "magnetometer", "microphone", "midi", "payment", "picture-in-picture", "screen-wake-lock", "serial",
    "usb", "xr-spatial-tracking",
)  # fmt: skip
PAGE_HEADERS = {
    # Trusted types: even a fault of the page's own cannot turn text into markup or script.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # What browsers know that are too old for frame-ancestors: a framed page could be made to place orders unseen.
    "X-Frame-Options": "DENY",
    # A token may stand in the page's address for a moment.
    "Referrer-Policy": "no-referrer",
    # No other page holds a handle on this one's window, or loads its files.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in UNUSED_FEATURES),
    # Checked by its ETag at each load: a page and modules of two versions must not meet.
    "Cache-Control": "no-cache",
}


class ConsoleHandler(ProblemMixin, StaticFileHandler):
    """One file of the page."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, path: str, default_filename: str | None = None) -> None:  # type: ignore[override]
        """Serve files under `path`."""
        self.context = context
        super().initialize(path, default_filename)

    def parse_url_path(self, url_path: str) -> str:
        """Tornado's, without what no file system can look up. Raises `HTTPError` (404)."""
        if "\0" in url_path:
            raise HTTPError(404)
        if url_path.startswith("client/"):
            self.root = str(CLIENT)
        return super().parse_url_path(url_path.removeprefix("client/"))

    def set_extra_headers(self, path: str) -> None:
        """Add what a browser has to know to keep the page safe."""
        for name, value in PAGE_HEADERS.items():
            self.set_header(name, value)


def routes(context: Context) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    served = {"context": context, "path": str(CONSOLE)}
    return [
        (r"/()", ConsoleHandler, {**served, "default_filename": "index.html"}),
        (r"/console/(.+)", ConsoleHandler, served),
    ]
