"""Channels in the older dialects, and for clients with compression (docs/contract.md#older-dialects)."""

from __future__ import annotations

import asyncio
import json
import threading
from decimal import Decimal
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.integration.channels.world import LISTED, NOW_MS, expect_no_news, folded, quiet, random_series
from tests.integration.clients import WebSocket, exact, is_heartbeat, news
from tests.integration.events import dump, fill, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

# Older dialects.


def news_of_both(client: WebSocket, *channels: str) -> list[Any]:
    """The trades that each channel tells next, whichever is first."""
    told: dict[str, Any] = {}
    while told.keys() != set(channels):
        message = exact(client.receive())
        if not is_heartbeat(message):
            assert message["channel_name"] not in told
            told[message["channel_name"]] = message["notification"]["trades"]
    return [told[channel] for channel in channels]


@pytest.mark.parametrize("verb", ["action", "type"])
def test_older_dialects_subscribe_without_an_answer_and_get_trades_as_objects(
    gateway: Gateway, market: Market, symbol: str, verb: str
) -> None:
    book, trades = f"book.{symbol}.none.10.raw", f"trades.{symbol}"
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as old, quiet(gateway) as new:
        for channel in (book, trades):
            old.send({verb: "subscribe", "channel": channel})
            first = news(old, channel)
            assert first["notification"]["snapshot"] is True
        new.subscribe(book)
        assert len(news(new, book)["notification"]["bid_changes"]) == 1
        record = fill(symbol, price="10.200", quantity="0.5", timestamp=NOW_MS, buy_order_id=7, taker_side="bid")
        market.publish(symbol, record)
        told = news_of_both(old, book, trades)
        [as_tuple] = news(new, book)["notification"]["trades"]
        assert as_tuple == [Decimal("10.2"), Decimal("0.5"), "buy", Decimal(NOW_MS) / 1000, False]
        expected = {
            "price": Decimal("10.200"),
            "quantity": Decimal("0.5"),
            "side": "buy",
            "timestamp": NOW_MS,
            "buy_order_id": 7,
            "sell_order_id": json.loads(record)["sell_order_id"],
        }
        assert told == [[expected], [expected]]
        old.send({verb: "unsubscribe", "channel": book})
        expect_no_news(old)
        market.publish(symbol, fill(symbol))
        assert news(old, trades)["notification"]["trades"][0]["price"] == Decimal("10.10")
        old.expect_silence()


def test_orders_of_the_first_dialect_reach_the_order_topic_and_bad_ones_are_refused(
    gateway: Gateway, market: Market
) -> None:
    good = [
        {"side": "bid", "order_type": "limit", "price": "10.05", "quantity": "0.500"},
        {"side": "ask", "order_type": "market", "price": None, "quantity": "2"},
    ]
    bad = [{"side": "up", "order_type": "limit", "price": "1", "quantity": "1"}, 5]
    with quiet(gateway) as client:
        client.send({"type": "orders", "orders": [good[0], *bad, good[1]]})
        gateway.wait_until(lambda: len(market.commands_of(LISTED[0])) == 2, "both orders on the topic")
        refused = json.loads(client.receive())
        assert refused["error"]["code"] == -32602, refused
        assert [one["field"].partition(".")[0] for one in refused["error"]["data"]["errors"]] == [
            "orders[1]",
            "orders[2]",
        ]
        client.expect_silence()
    commands = sorted(market.commands_of(LISTED[0]), key=lambda command: str(command["side"]), reverse=True)
    kept = ("symbol", "side", "order_type", "price", "quantity", "user_id", "time_in_force", "type")
    assert [[command[name] for name in kept] for command in commands] == [
        [LISTED[0], "bid", "limit", "10.05", "0.500", None, "GTC", "place_order"],
        [LISTED[0], "ask", "market", None, "2", None, "IOC", "place_order"],
    ]


# Compression.


def test_client_with_compression_reads_the_same_as_one_without(gateway: Gateway, market: Market, symbol: str) -> None:
    channels = [f"book.{symbol}.none.all.raw", f"trades.{symbol}", f"events.{symbol}", f"ticker.{symbol}.raw"]
    request = json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": channels}})
    records = random_series(symbol, 400, seed=3)
    mark = dump({**json.loads(fill(symbol)), "last": True})
    asked, introduced = threading.Event(), threading.Event()

    async def compressed() -> tuple[list[bytes], str]:
        url = gateway.address.replace("http", "ws") + "/ws?stream=none"
        client: WebSocketClientConnection = await websocket_connect(url, compression_options={})
        agreed = client.headers.get("Sec-WebSocket-Extensions", "")
        await client.write_message(request)
        messages: list[bytes] = []
        while not messages or b'"last"' not in messages[-1]:
            message = await asyncio.wait_for(client.read_message(), 60)
            assert message is not None, "closed"
            messages.append(message.encode() if isinstance(message, str) else message)
            asked.set()
            if len(messages) > len(channels):
                introduced.set()
        client.close()
        while await client.read_message() is not None:
            pass  # its socket is closed only once the other side has answered
        return messages, agreed

    results: list[tuple[list[bytes], str]] = []
    reader = threading.Thread(target=lambda: results.append(asyncio.run(compressed())))
    with quiet(gateway) as plain:
        plain.send(request)
        answer = plain.receive()
        reader.start()
        assert asked.wait(60)
        # What comes with the first notifications is in their snapshots: everything would be, in one busy moment.
        market.publish(symbol, records[0])
        read = [plain.receive() for _ in channels]
        assert introduced.wait(60)
        for start in range(1, len(records), 40):
            market.publish(symbol, *records[start : start + 40])
        market.publish(symbol, mark)
        read += plain.receive_until(lambda message: b'"last"' in message)
        reader.join()
    [(messages, agreed)] = results
    assert "permessage-deflate" in agreed
    assert messages[0] == answer
    assert messages[1:] == read
    assert len(read) > 400
