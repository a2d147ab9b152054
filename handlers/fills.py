"""`GET /api/fills`: what traded of the caller's orders (docs/contract.md#own-fills)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from core.access.scopes import READ
from core.messages.order_rules import OrderRules
from core.messages.query import Query, read_symbol, whole_number
from core.orders.account_trades import fills_text, seq_text
from core.orders.entry import OrderEntry
from core.orders.fills import MOST_OF_A_USER, OwnFill, read_fill_id
from core.orders.lookup import OrderLookup
from handlers.orders import DEFAULT_LIMIT, OrderHandler, read_order_name
from handlers.problems import Context

_read_limit = whole_number(1, MOST_OF_A_USER)


class FillsHandler(OrderHandler):
    """A page of the caller's fills, as of one moment."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(  # type: ignore[override]
        self, context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, epoch: Callable[[], str]
    ) -> None:
        """`epoch` names the life of the market topic."""
        super().initialize(context, entry, lookup, rules)
        self._epoch = epoch

    async def get(self) -> None:
        """Newest first; with `after` oldest first, so that a gap is filled from its beginning."""
        user_id = await self.caller(READ, needs_token=True)
        assert user_id is not None
        query = Query(self.request.query_arguments)
        symbol = query.take("symbol", read_symbol, None)
        order_id = query.take("order_id", read_order_name, None)
        limit = query.take("limit", _read_limit, DEFAULT_LIMIT)
        before = query.take("before", read_fill_id, None)
        after = query.take("after", read_fill_id, None)
        if before is not None and after is not None:
            query.refuse("after", "give either before or after")
        self.checked(query)
        # A fill that came before its order was known here is the caller's too.
        await self.done(self._lookup.catch_up())

        def wanted(fill: OwnFill) -> bool:
            return symbol in (None, fill.symbol) and order_id in (None, fill.order_id)

        directory = self._lookup.directory
        seq = seq_text(directory.read_to.seq())
        try:
            page = await self._lookup.fills(user_id, limit, wanted, before=before, after=after)
        except LookupError:
            query.refuse("before" if after is None else "after", "no fill of the caller's that is kept")
            self.checked(query)
            raise
        written = await self._lookup.write_all(page, fills_text)
        text = ",".join(written)
        self.answer_text(200, f'{{"epoch":{json.dumps(self._epoch())},"seq":{seq},"fills":[{text}]}}')

    head = get


def routes(
    context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, epoch: Callable[[], str]
) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    order = {"context": context, "entry": entry, "lookup": lookup, "rules": rules}
    return [(r"/api/fills", FillsHandler, {**order, "epoch": epoch})]
