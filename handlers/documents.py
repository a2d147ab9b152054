"""`/openapi.json`, `/asyncapi.json`: docs/contract.md for machines, read once at start and served from memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from handlers.bodies import BaseHandler
from handlers.problems import Context

DOCS = Path(__file__).resolve().parent.parent / "docs"


class DocumentHandler(BaseHandler):
    """One JSON document, the bytes of its file: a number in an example keeps its digits."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, document: bytes) -> None:  # type: ignore[override]
        """`document` is the body."""
        super().initialize(context)
        self._document = document

    def compute_etag(self) -> str:
        """Of the body, so that whoever has it is told 304."""
        return f'"{hashlib.sha256(self._document).hexdigest()[:32]}"'

    def get(self) -> None:
        """Checked by its ETag at each use: a new version of the gateway may say something else."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(self._document)

    head = get


def routes(context: Context) -> list[tuple[Any, ...]]:
    """The route table of this room. Raises `OSError` where a document is missing."""
    return [
        (rf"/{name}\.json", DocumentHandler, {"context": context, "document": (DOCS / f"{name}.json").read_bytes()})
        for name in ("openapi", "asyncapi")
    ]
