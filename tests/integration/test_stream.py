"""What a WebSocket client sees of the market topic (docs/contract.md#default-stream), byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket, notification
from tests.integration.events import Engine, delta, dump, fill, fresh_symbol, shown, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.kafka import Bus


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, {"auth": {"mode": "optional"}}) as gateway:
        yield gateway


@pytest.fixture
def marker(market: Market) -> Marker:
    return Marker(market)


class Marker:
    """Ends what is read: after its record, everything written to the topic before has been seen."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def read(self, client: WebSocket) -> list[bytes]:
        """The stream's messages up to a fill that is published now, on every partition, without those fills."""
        marks = [fill(fresh_symbol("MARK")) for _ in range(self._market.partitions)]
        self._market.publish_to(*enumerate(marks))
        waiting = set(marks)
        messages = []
        while waiting:
            message = client.receive()
            if message in waiting:
                waiting.discard(message)
            else:
                messages.append(message)
        return messages


def seen(gateway: Gateway, *symbols: str) -> None:
    """Wait until the gateway has folded in something of these symbols."""
    gateway.wait_until(
        lambda: set(symbols) <= {one["symbol"] for one in gateway.get("/api/instruments").json()["instruments"]},
        f"{symbols} known",
    )


def of(symbol: str, messages: list[bytes]) -> list[bytes]:
    return [message for message in messages if json.loads(message).get("symbol") == symbol]


def test_stream_begins_with_one_snapshot_of_every_known_book(gateway: Gateway, market: Market, marker: Marker) -> None:
    known, traded, stale = fresh_symbol(), fresh_symbol(), fresh_symbol()
    with WebSocket(gateway.address) as early:
        market.publish(
            known, snapshot(known, 7), delta(known, 9, ("add", "bid", "10.05", "0.30"), ("remove", "ask", "10.20", "0"))
        )
        market.publish(traded, fill(traded))
        market.publish(stale, snapshot(stale), delta(stale, 2, ("add", "bid", "99", "1")))
        marker.read(early)
        with WebSocket(gateway.address) as late:
            first = marker.read(late)
    symbols = [json.loads(message)["symbol"] for message in first]
    assert len(symbols) == len(set(symbols))
    assert {json.loads(message)["type"] for message in first} == {"orderbook_snapshot"}
    assert (traded in symbols, stale in symbols) == (False, False)
    [book] = of(known, first)
    assert json.loads(book) == {
        "type": "orderbook_snapshot",
        "symbol": known,
        "sequence": 9,
        "bids": [{"price": "10.05", "quantity": "0.30"}, {"price": "10.00", "quantity": "1.50"}],
        "asks": [],
    }


def test_stream_shows_every_public_event_as_it_was_written_and_nothing_else(
    gateway: Gateway, market: Market, marker: Marker
) -> None:
    engine = Engine(random.Random(20), [fresh_symbol() for _ in range(6)])
    records = list(engine.records(1000))
    with WebSocket(gateway.address) as client, WebSocket(gateway.address) as twin:
        for one in (client, twin):
            marker.read(one)
        market.publish_all(records)
        got = [message for message in marker.read(client) if json.loads(message).get("symbol") in engine.symbols]
        same = [message for message in marker.read(twin) if json.loads(message).get("symbol") in engine.symbols]
    assert sum(map(len, engine.public.values())) > 700
    for symbol in engine.symbols:
        expected = engine.public[symbol]
        messages = of(symbol, got)
        assert [notification(message) for message in messages] == [shown(record) for record in expected]
        untouched = [b'"user_id"' not in record for record in expected]
        assert [m for m, keep in zip(messages, untouched, strict=True) if keep] == [
            r for r, keep in zip(expected, untouched, strict=True) if keep
        ]
        assert untouched.count(True) > 50 < untouched.count(False) + 50
    assert not any(b'"user_id"' in message for message in got)
    assert got == same


def test_stream_keeps_the_digits_of_an_event_that_it_strips_of_its_user(
    gateway: Gateway, market: Market, marker: Marker
) -> None:
    symbol = fresh_symbol()
    member = b'"user_id" : "alice\\u0022"'
    event = (
        b'{"type":"fill","symbol":"%b","buy_order_id":1,"sell_order_id":2,"price":0.10000000000000000000000001,'
        b'"quantity":1e-7,"timestamp":3,"x":[{"user_id":"kept"}],%b,"y":12345678901234567890123.50}'
    )
    record = event % (symbol.encode(), member)
    with WebSocket(gateway.address) as client:
        market.publish(symbol, record)
        [message] = of(symbol, marker.read(client))
    assert notification(message) == shown(record)
    assert b"alice" not in message
    assert b"0.10000000000000000000000001" in message
    assert b"12345678901234567890123.50" in message
    assert b'{"user_id":"kept"}' in message


@pytest.mark.parametrize("kind", ["order_accepted", "order_filled", "order_cancelled", "order_rejected", "liquidation"])
def test_stream_shows_no_private_and_no_unknown_event(
    gateway: Gateway, market: Market, marker: Marker, kind: str
) -> None:
    symbol = fresh_symbol()
    event = {
        "type": kind,
        "order_id": 5,
        "symbol": symbol,
        "side": "bid",
        "order_type": "market",
        "price": None,
        "quantity": "1",
        "filled_quantity": "0",
        "reason": "none",
    }
    with WebSocket(gateway.address) as client, WebSocket(gateway.address) as subscriber:
        subscriber.subscribe("events", f"events.{symbol}")
        market.publish(symbol, dump(event), dump({**event, "user_id": "u"}), fill(symbol))
        stream = of(symbol, marker.read(client))
        told = subscriber.receive_until(lambda message: symbol.encode() in message)
    assert [json.loads(message)["type"] for message in stream] == ["fill"]
    assert json.loads(told[-1])["notification"]["event"]["type"] == "fill"


def test_stream_of_none_is_silent(gateway: Gateway, market: Market, marker: Marker) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as quiet, WebSocket(gateway.address) as client:
        market.publish(symbol, snapshot(symbol), fill(symbol))
        assert len(of(symbol, marker.read(client))) == 2
        quiet.expect_silence()


def test_stream_narrows_for_good_with_the_first_subscribe(gateway: Gateway, market: Market, marker: Marker) -> None:
    wanted, other = fresh_symbol(), fresh_symbol()
    market.publish(other, snapshot(other))
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address) as client:
        marker.read(client)
        client.subscribe(f"events.{wanted}")
        market.publish(other, fill(other))
        market.publish(wanted, fill(wanted))
        marker.read(witness)
        assert json.loads(client.receive())["notification"]["event"]["symbol"] == wanted
        assert client.result("unsubscribe", {"channels": [f"events.{wanted}"]}) == [f"events.{wanted}"]
        market.publish(wanted, fill(wanted))
        market.publish(other, fill(other))
        marker.read(witness)
        client.expect_silence()


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("public/subscribe", {"channels": ["events", "nonsense.x"]}, -32602),
        ("public/unsubscribe", {"channels": ["events"]}, []),
        ("unsubscribe", {"channels": ["events"]}, []),
        ("public/instruments", {}, dict),
        ("no/such", {}, -32601),
    ],
)
def test_stream_is_not_narrowed_by_anything_else(
    gateway: Gateway, market: Market, marker: Marker, method: str, params: object, answer: object
) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as client:
        marker.read(client)
        got, _ = client.call(method, params)
        if isinstance(answer, type):
            assert isinstance(got["result"], answer)
        else:
            assert answer == (got["error"]["code"] if "error" in got else got["result"])
        record = fill(symbol)
        market.publish(symbol, record)
        assert record in marker.read(client)


@pytest.mark.parametrize("method", ["unsubscribe", "public/unsubscribe"])
def test_unsubscribe_returns_what_was_dropped_and_ends_only_that(
    gateway: Gateway, market: Market, marker: Marker, method: str
) -> None:
    kept, dropped, never = fresh_symbol(), fresh_symbol(), fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client, WebSocket(gateway.address) as witness:
        client.subscribe(f"events.{kept}", f"events.{dropped}")
        names = [f"events.{never}", f"events.{dropped}", f"events.{dropped}"]
        assert client.result(method, {"channels": names}) == [f"events.{dropped}"]
        for symbol in (dropped, kept, never):
            market.publish(symbol, fill(symbol))
        marker.read(witness)
        assert json.loads(client.receive())["channel_name"] == f"events.{kept}"
        client.expect_silence()


def test_events_channel_of_a_symbol_begins_with_its_book_and_goes_on_by_offset(
    gateway: Gateway, market: Market, marker: Marker
) -> None:
    symbol, neighbour = fresh_symbol(), fresh_symbol()
    channel = f"events.{symbol}"
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address, "/ws?stream=none") as client:
        [(partition, offset)] = market.publish(symbol, snapshot(symbol, 4))
        [last] = market.publish_to((partition, fill(neighbour)))
        marker.read(witness)
        client.subscribe(channel)
        first = json.loads(client.receive())
        records = [
            fill(symbol, price="10.1000"),
            delta(symbol, 8, ("update", "bid", "10.00", "3")),
            b" " + fill(symbol) + b"\n",
        ]
        positions = market.publish(symbol, *records)
        rest = [client.receive() for _ in records]
    assert first.pop("epoch")
    assert positions[0][1] > first.pop("seq") >= offset
    assert last > offset
    book = json.loads(snapshot(symbol, 4))
    assert first == {"channel_name": channel, "notification": {"event": book, "snapshot": True}}
    for message, record, (_, position) in zip(rest, records, positions, strict=True):
        assert b'"notification":{"event":%b}}' % record in message
        got = json.loads(message)
        assert (got["channel_name"], got["seq"]) == (channel, position)
        assert set(got) == {"channel_name", "seq", "prev_seq", "notification"}


def test_events_channel_of_all_symbols_names_the_partition(gateway: Gateway, market: Market, marker: Marker) -> None:
    symbols = [fresh_symbol() for _ in range(8)]
    places = {symbol: market.publish(symbol, snapshot(symbol))[0] for symbol in symbols}
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address, "/ws?stream=none") as client:
        marker.read(witness)
        client.subscribe("events")
        client.send({"id": "behind the snapshots", "method": "public/ping"})
        *books, _ = [json.loads(m) for m in client.receive_until(lambda m: b"behind the snapshots" in m)]
        fills = {symbol: market.publish(symbol, fill(symbol))[0] for symbol in symbols}
        news: list[dict[str, Any]] = []
        while len(news) < len(symbols):
            news.append(json.loads(client.receive()))
    assert len({partition for partition, _ in places.values()}) > 1, "all symbols on one partition: nothing was tested"
    assert [("epoch" in message) for message in books] == [True] + [False] * (len(books) - 1)
    assert all(message["notification"]["snapshot"] is True for message in books)
    by_symbol = {message["notification"]["event"]["symbol"]: message for message in books}
    assert len(by_symbol) == len(books)
    for symbol, (partition, offset) in places.items():
        assert by_symbol[symbol]["partition"] == partition
        assert by_symbol[symbol]["seq"] >= offset
    assert {m["notification"]["event"]["symbol"]: (m["partition"], m["seq"]) for m in news} == fills
    assert all(set(message) == {"channel_name", "seq", "prev_seq", "partition", "notification"} for message in news)


def test_events_channel_never_steps_back_in_seq(gateway: Gateway, market: Market, marker: Marker) -> None:
    symbols = [fresh_symbol() for _ in range(3)]
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address, "/ws?stream=none") as client:
        for symbol in symbols:
            market.publish(symbol, snapshot(symbol))
        marker.read(witness)
        client.subscribe("events")
        for number in range(30):
            market.publish(symbols[number % 3], fill(symbols[number % 3]))
            if number == 15:
                client.send({"id": 1, "method": "public/subscribe", "params": {"channels": ["events"]}})
        last: dict[int, int] = {}
        fills = 0
        while fills < 30:
            message = json.loads(client.receive())
            if "channel_name" in message:
                assert message["seq"] >= last.get(message["partition"], -1)
                last[message["partition"]] = message["seq"]
                event = message["notification"]["event"]
                fills += event["type"] == "fill" and event["symbol"] in symbols


def test_subscribe_is_answered_before_its_snapshot_and_again_gives_a_new_one(
    gateway: Gateway, market: Market, marker: Marker
) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address, "/ws?stream=none") as client:
        market.publish(symbol, snapshot(symbol, 1))
        marker.read(witness)
        assert client.subscribe(f"events.{symbol}") == []
        assert json.loads(client.receive())["notification"]["event"]["sequence"] == 1
        market.publish(symbol, snapshot(symbol, 2))
        assert json.loads(client.receive())["notification"] == {"event": json.loads(snapshot(symbol, 2))}
        assert client.subscribe(f"events.{symbol}") == []
        again = json.loads(client.receive())
        assert (again["notification"]["snapshot"], again["notification"]["event"]["sequence"]) == (True, 2)
        assert again["epoch"]
        client.expect_silence()


@pytest.mark.parametrize("since", [0, 10**9, {"epoch": "another", "seq": 0}])
def test_subscribe_since_says_that_nothing_was_recovered_and_sends_a_snapshot(
    gateway: Gateway, market: Market, marker: Marker, since: object
) -> None:
    symbol = fresh_symbol()
    channel = f"events.{symbol}"
    with WebSocket(gateway.address) as witness, WebSocket(gateway.address, "/ws?stream=none") as client:
        market.publish(symbol, snapshot(symbol), fill(symbol))
        marker.read(witness)
        client.subscribe(channel, since={channel: since})
        first = json.loads(client.receive())
        market.publish(symbol, fill(symbol))
        second = json.loads(client.receive())
    if isinstance(since, dict) or since:
        assert first["recovered"] is False
    if first["recovered"] is False:
        assert first["notification"]["snapshot"] is True
    assert first["epoch"]
    assert "recovered" not in second
    assert second["notification"]["event"]["type"] == "fill"


def test_subscribe_since_of_all_events_takes_an_object_of_partitions(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        [(partition, _)] = market.publish(symbol, snapshot(symbol))
        seen(gateway, symbol)
        client.subscribe("events", since={"events": {"epoch": "another", "seq": {str(partition): 3}}})
        first = json.loads(client.receive())
    assert (first["recovered"], first["notification"]["snapshot"]) == (False, True)


def test_symbol_not_yet_seen_can_be_subscribed_and_begins_with_its_first_record(
    gateway: Gateway, market: Market, marker: Marker
) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        assert client.subscribe(f"events.{symbol}") == []
        client.expect_silence()
        [(_, offset)] = market.publish(symbol, snapshot(symbol, 3))
        first = json.loads(client.receive())
        market.publish(symbol, fill(symbol))
        second = json.loads(client.receive())
    assert (first["seq"], first["notification"]["event"]["sequence"]) == (offset, 3)
    assert first["epoch"]
    assert second["notification"]["event"]["type"] == "fill"
    assert "epoch" not in second


def test_crossed_book_is_not_shown_until_its_next_snapshot(gateway: Gateway, market: Market, marker: Marker) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as witness:
        market.publish(symbol, snapshot(symbol), delta(symbol, 2, ("add", "bid", "10.20", "1")))
        marker.read(witness)
        with WebSocket(gateway.address) as client:
            assert of(symbol, marker.read(client)) == []
        market.publish(symbol, snapshot(symbol, 3))
        marker.read(witness)
        with WebSocket(gateway.address) as client:
            assert [json.loads(message)["sequence"] for message in of(symbol, marker.read(client))] == [3]


def test_events_in_one_batch_reach_a_channel_one_record_each(gateway: Gateway, market: Market, marker: Marker) -> None:
    symbol = fresh_symbol()
    records = [fill(symbol, n=number) for number in range(700)]
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        positions = market.publish(symbol, *records)
        messages = [json.loads(client.receive()) for _ in records]
    assert [message["notification"]["event"]["n"] for message in messages] == list(range(700))
    assert [message["seq"] for message in messages] == [offset for _, offset in positions]


def test_two_clients_of_a_channel_get_the_same_bytes(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as one, WebSocket(gateway.address) as two:
        for client in (one, two):
            client.subscribe(f"events.{symbol}")
        market.publish(symbol, *(fill(symbol, n=number) for number in range(100)))
        assert [one.receive() for _ in range(100)] == [two.receive() for _ in range(100)]


def test_instruments_are_the_symbols_seen(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    market.publish(symbol, fill(symbol))
    seen(gateway, symbol)
    told = gateway.get("/api/instruments").json()
    assert {"symbol": symbol, "tick": None, "lot": None, "min_quantity": None} in told["instruments"]
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        assert symbol in [one["symbol"] for one in client.result("public/instruments")["instruments"]]
