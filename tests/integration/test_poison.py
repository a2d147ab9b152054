"""Records that are no events (docs/contract.md#poisoned-records): counted by reason, said once, skipped, and the stream goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import delta, dump, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, {"auth": {"mode": "optional"}}) as gateway:
        yield gateway


def number(text: bytes) -> bytes:
    """A fill with this for a price."""
    return fill("A/B", price="@").replace(b'"@"', text)


POISONED: dict[str, list[bytes | None]] = {
    "empty": [b"", None],
    "not_utf8": [b"\xff\xfe\x00", fill("A/B")[:-1] + b',"x":"\xc3\x28"}', b"\x80" * 100_000],
    "not_json": [
        b" ",
        b"{",
        b"hello",
        b"\xef\xbb\xbf" + fill("A/B"),
        fill("A/B") + b"x",
        fill("A/B")[:-1] + b",}",
        fill("A/B").replace(b'"', b"'"),
        number(b"NaN"),
        number(b"Infinity"),
        number(b"-Infinity"),
        number(b"01"),
        number(b"+1"),
        number(b".5"),
        number(b"0x1"),
        b"x" * 100_000,
    ],
    "too_deep": [b"[" * 10_000, b'{"a":' * 10_000, b'{"type":"fill","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"],
    "bad_number": [number(b"1" * 5_000)],
    "not_an_object": [b"[]", b"null", b"true", b"5", b'"fill"', b"[1e400]"],
    "no_type": [b"{}", b'{"type":null}', b'{"type":5}', b'{"type":["fill"]}'],
    "bad_field": [
        b'{"type":"fill"}',
        number(b"1e400"),
        number(b"1e999999999"),
        number(b"0"),
        number(b"-1"),
        number(b"null"),
        number(b"true"),
        number(b"[1]"),
        fill("A/B", price="NaN"),
        fill("A/B", price=" 1"),
        fill("A.B/C"),
        fill("AB"),
        fill("A/B", symbol=5),
        fill("A/B", quantity="-1"),
        fill("A/B", timestamp="now"),
        fill("A/B", timestamp=1.5),
        fill("A/B", buy_order_id=None),
        fill("A/B", buy_order_id={}),
        snapshot("A/B", bids=None),
        snapshot("A/B", bids=[[1, 2]]),
        snapshot("A/B", asks=[{"price": "1"}]),
        snapshot("A/B", sequence=1.0),
        delta("A/B", 1, ("replace", "bid", "1", "1")),
        delta("A/B", 1, ("add", "buy", "1", "1")),
        dump({"type": "orderbook_delta", "symbol": "A/B", "sequence": 1, "deltas": {}}),
        dump({"type": "order_accepted", "order_id": 1, "side": "bid", "order_type": "limit", "quantity": "1"}),
        dump({"type": "order_filled"}),
        dump({"type": "order_cancelled", "order_id": 1}),
        dump({"type": "order_rejected", "order_id": 1, "reason": None}),
    ],
}


@pytest.mark.parametrize("reason", POISONED)
def test_poisoned_record_is_counted_said_once_and_stops_nothing(gateway: Gateway, market: Market, reason: str) -> None:
    symbol = fresh_symbol()
    before = gateway.metric("gateway_poisoned_records_total", reason=reason)
    with WebSocket(gateway.address) as stream, WebSocket(gateway.address) as subscriber:
        subscriber.subscribe(f"events.{symbol}", "events")
        places = []
        expected = []
        for number, poison in enumerate(POISONED[reason]):
            [(partition, _)] = market.publish(symbol, good := fill(symbol, n=number))
            expected.append(good)
            places.append((partition, *market.publish_to((partition, poison))))
        last = fill(symbol, n="last")
        market.publish(symbol, last)
        shown = [m for m in stream.receive_until(lambda message: message == last) if symbol.encode() in m]
        told = subscriber.receive_until(lambda m: m.startswith(b'{"channel_name":"events"') and b'"last"' in m)
    assert shown == [*expected, last]
    assert sum(json.loads(message)["channel_name"] == "events" for message in told) == len(shown)
    assert gateway.metric("gateway_poisoned_records_total", reason=reason) == before + len(places)
    gateway.wait_log(f"poisoned.* {reason},")
    lines = [line for line in gateway.log.splitlines() if "poisoned" in line and f" {reason}," in line]
    assert len(lines) == 1, lines
    found = re.search(r"topic (\S+) partition (\d+) offset (\d+)", lines[0])
    assert found is not None, lines[0]
    assert found.groups() == (market.topic, *map(str, places[0]))
    assert len(lines[0]) < 500


def test_record_of_a_hundred_kilobytes_that_is_an_event_is_shown(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    record = fill(symbol, note="漢" * 33_000)
    with WebSocket(gateway.address) as stream:
        market.publish(symbol, record)
        assert stream.receive_until(lambda message: symbol.encode() in message)[-1] == record


@pytest.mark.parametrize("depth", [100, 900])
def test_event_nested_within_reason_is_shown(gateway: Gateway, market: Market, depth: int) -> None:
    symbol = fresh_symbol()
    record = fill(symbol)[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"
    with WebSocket(gateway.address) as stream:
        market.publish(symbol, record)
        assert stream.receive_until(lambda message: symbol.encode() in message)[-1] == record


def test_malformed_delta_hides_its_book_until_the_next_snapshot(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as witness:
        market.publish(symbol, snapshot(symbol), delta(symbol, 2, ("add", "bid", "x", "1")), end := fill(symbol))
        witness.receive_until(lambda message: message == end)
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            client.subscribe(f"events.{symbol}")
            client.expect_silence()
        market.publish(symbol, snapshot(symbol, 3))
        witness.receive_until(lambda message: message == snapshot(symbol, 3))
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            client.subscribe(f"events.{symbol}")
            assert json.loads(client.receive())["notification"]["event"]["sequence"] == 3


def test_flood_of_poison_does_not_hold_up_what_follows(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    # A line said a minute ago and more is said once more.
    said = len(gateway.log)
    with WebSocket(gateway.address) as stream:
        [(partition, _)] = market.publish(symbol, fill(symbol, n=1))
        market.publish_to(*[(partition, b"[" * 10_000)] * 300)
        market.publish(symbol, last := fill(symbol, n=2))
        shown = stream.receive_until(lambda message: message == last)
    assert sum(symbol.encode() in message for message in shown) == 2
    lines = [line for line in gateway.log[said:].splitlines() if "poisoned" in line and " too_deep," in line]
    assert len(lines) <= 1
