"""`/openapi.json`, `/asyncapi.json`: docs/contract.md for machines, read once at start and served from memory.

What orders may carry here besides, by the settings, is put into them at the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from core.messages.attributes import Attribute, Kind
from handlers.bodies import BaseHandler
from handlers.problems import Context

DOCS = Path(__file__).resolve().parent.parent / "docs"

# The schemas of order bodies, and that of the order state.
_BODIES: Final = ("limitOrder", "marketOrder", "marketOrderByAmount", "placeOrder", "thalexInsert")
_STATE: Final = "orderState"

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def with_attributes(document: bytes, attributes: Sequence[Attribute]) -> bytes:
    """A document that says what orders may carry besides; the same bytes where that is nothing."""
    if not attributes:
        return document
    whole = json.loads(document, parse_float=Decimal)
    schemas = whole["components"]["schemas"]
    for attribute in attributes:
        for name in _BODIES:
            if name in schemas:
                # What Thalex's clients call something else stays as it is.
                schemas[name]["properties"].setdefault(attribute.name, attribute.schema())
        if attribute.name == "post_only" and attribute.kind is Kind.BOOLEAN and "thalexInsert" in schemas:
            theirs = {name: {"type": ["boolean", "null"]} for name in ("post_only", "reject_post_only")}
            schemas["thalexInsert"]["properties"].update(theirs)
        schemas[_STATE]["properties"][attribute.name] = attribute.state_schema()
    return msgspec.json.format(_encode(whole), indent=2)


class DocumentHandler(BaseHandler):
    """One JSON document: a number in an example keeps its digits."""

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


def routes(context: Context, attributes: Sequence[Attribute] = ()) -> list[tuple[Any, ...]]:
    """The route table of this room; `attributes`: those that are declared. Raises `OSError` where a document is missing."""
    documents = {
        name: with_attributes((DOCS / f"{name}.json").read_bytes(), attributes) for name in ("openapi", "asyncapi")
    }
    return [
        (rf"/{name}\.json", DocumentHandler, {"context": context, "document": document})
        for name, document in documents.items()
    ]
