"""`/api/order/history`: orders that are closed."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from core.messages.events import read_event
from tests.core.fake_orders import command
from tests.core.trading import KEEP_SECONDS, Trade
from tests.handlers.orders_server import BOB, NOBODY, OrdersServer, check_refused, serve


class Closed:
    """Orders of alice's that closed one after the other, a second each, of two symbols by turns."""

    def __init__(self, trade: Trade, count: int) -> None:
        self.trade = trade
        for number in range(count):
            symbol = ("KCN/EUR", "A/B")[number % 2]
            trade.see(command(f"o-{number}", symbol=symbol))
            told = {
                "type": "order_rejected",
                "order_id": f"o-{number}",
                "reason": "no",
                "timestamp": 1_000 * (number + 1),
            }
            event = read_event(json.dumps(told).encode())
            trade.directory.fold_event(event, 0, number, 1, True)
        trade.see(command("open"))
        trade.see(command("his", "bob"))
        his = read_event(b'{"type":"order_filled","order_id":"his","timestamp":9000}')
        trade.directory.fold_event(his, 0, count, 1, True)


async def history_of(server: OrdersServer, query: str = "") -> list[str]:
    answer = await server.ask("GET", f"/api/order/history{query}")
    assert answer.status == 200
    return [one["order_id"] for one in answer.json()["orders"]]


@pytest.mark.gen_test
async def test_closed_orders_are_told_the_last_one_first() -> None:
    async with serve() as server:
        assert await history_of(server) == []
        Closed(server.trade, 5)
        [last, *_] = (await server.ask("GET", "/api/order/history")).json()["orders"]
        assert (last["order_id"], last["status"], last["reason"], last["time"]) == ("o-4", "rejected", "no", 5.0)
        assert await history_of(server) == ["o-4", "o-3", "o-2", "o-1", "o-0"]
        assert await history_of(server, "?limit=2") == ["o-4", "o-3"]
        assert await history_of(server, "?limit=2&before=o-3") == ["o-2", "o-1"]
        assert await history_of(server, "?before=o-0") == []
        assert await history_of(server, f"?symbol={quote('A/B')}") == ["o-3", "o-1"]
        assert await history_of(server, "?from=2000&to=4000") == ["o-3", "o-2", "o-1"]
        assert [
            one["order_id"] for one in (await server.ask("GET", "/api/order/history", who=BOB)).json()["orders"]
        ] == ["his"]
        assert (await server.ask("GET", "/api/order/history", who=NOBODY)).status == 401
        assert (await server.ask("HEAD", "/api/order/history")).body == b""


@pytest.mark.gen_test
async def test_closed_orders_that_are_forgotten_are_not_told() -> None:
    async with serve() as server:
        Closed(server.trade, 3)
        server.trade.directory.sweep(int((server.trade.now + 2 * KEEP_SECONDS) * 1000))
        assert await history_of(server) == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("symbol=A", "symbol"),
        ("from=-1", "from"),
        ("to=soon", "to"),
        ("from=2&to=1", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("before=", "before"),
        ("before=unknown", "before"),
        ("before=open", "before"),
        ("before=his", "before"),
    ],
)
async def test_a_query_for_closed_orders_that_breaks_a_rule_is_refused_by_its_name(query: str, field: str) -> None:
    async with serve() as server:
        Closed(server.trade, 1)
        answer = await server.ask("GET", f"/api/order/history?{query}")
    assert [error["field"] for error in check_refused(answer, 422, "invalid-fields")["errors"]] == [field]


@pytest.mark.gen_test
async def test_closed_orders_are_not_told_before_it_is_known_whose_they_are() -> None:
    async with serve() as server:
        server.trade.is_started = False
        check_refused(await server.ask("GET", "/api/order/history"), 503, "unavailable")
