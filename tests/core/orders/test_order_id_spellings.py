"""One id, spelt in every way there is, on both topics and by its owner: it stays one order."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.messages.events import read_event
from core.messages.order_rules import OrderRules, check_cancel
from core.orders.order import Status
from tests.core.fake_orders import SYMBOL
from tests.core.fakes import run
from tests.core.order_ids import ORDER_IDS, naive, spellings
from tests.core.trading import Trade


@given(st.data(), ORDER_IDS)
def test_order_is_one_however_its_id_is_spelt_on_either_topic_and_by_its_owner(
    data: st.DataObject, order_id: str
) -> None:
    def spelt(fields: dict[str, Any]) -> bytes:
        return json.dumps({**fields, "order_id": data.draw(spellings(order_id))}).encode()

    async def main() -> None:
        trade = Trade(acks=True)
        terms = {"symbol": SYMBOL, "side": "bid", "order_type": "limit", "price": "1", "quantity": "2"}
        trade.see(spelt({"type": "place_order", "user_id": "alice", **terms}))
        trade.see(spelt({"type": "place_order", "user_id": "bob", **terms}))  # a repeat, which the first one beats
        trade.directory.fold_event(read_event(spelt({"type": "order_accepted", **terms})), 0, 0, 1, True)
        cancel = check_cancel({"order_id": data.draw(spellings(order_id))}, OrderRules(()))
        assert await trade.entry.cancel("alice", cancel) == order_id
        trade.directory.fold_event(
            read_event(spelt({"type": "order_cancelled", "filled_quantity": "0"})), 0, 1, 1, True
        )
        assert len(trade.directory) == 1
        order = trade.directory.find("alice", order_id)
        assert order is not None and order.status is Status.CANCELLED
        assert naive(trade.log.last.record["order_id"]) == order_id

    run(main())
