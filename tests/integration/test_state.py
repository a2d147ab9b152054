"""State that outlives the warm-up (docs/contract.md#kept-state), between processes and a real Kafka."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import uuid
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from core.messages.kept_state import order_partition
from core.orders.fills import OwnFill
from tests.integration.clients import WebSocket, exact, is_heartbeat
from tests.integration.events import Engine, delta, fill, fresh_symbol, snapshot
from tests.integration.kept import ONLY_KEPT, KeptTopic, now_ms, wait_writers
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import NAMESPACE, Trader, limit, order_command, order_event, order_id_of
from tools.kafka.running import RunningKafka, quiet_client

HOUR_MS = 3_600_000


def first_of(gateway: Gateway, channel: str, since: object = None) -> Any:
    """What a subscriber is told first."""
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(channel, since=None if since is None else {channel: since})
        return exact(client.receive())


def shown(gateway: Gateway, symbol: str) -> dict[str, Any]:
    """What each kind of channel tells of a symbol: book, last trades, ticker and the 24 hours."""
    channels = [f"book.{symbol}.none.all.raw", f"trades.{symbol}", f"ticker.{symbol}.1000ms", f"lwt.{symbol}.raw"]
    return {channel: first_of(gateway, channel)["notification"] for channel in channels}


def trades_of(gateway: Gateway, symbol: str, query: str = "") -> Any:
    """What REST tells of a symbol's trades."""
    return gateway.get(f"/api/trades?symbol={symbol}{query}").json()


def candles(gateway: Gateway, symbol: str, interval: str, start_ms: int) -> Any:
    """The first candle from a time on."""
    answer = gateway.get(f"/api/candles?symbol={symbol}&interval={interval}&from={start_ms}&limit=1")
    return answer.json()["candles"]


def received(client: WebSocket, count: int) -> list[Any]:
    """So many messages that are not heartbeats."""
    found: list[Any] = []
    while len(found) < count:
        message = exact(client.receive())
        if not is_heartbeat(message):
            found.append(message)
    return found


def test_restarted_instance_knows_what_no_warm_up_reads(kept: KeptTopic) -> None:
    market, trader = kept.market, Trader()
    quiet, busy = fresh_symbol("QUIET"), fresh_symbol("BUSY")
    old_ms, order_id = (now_ms() - 2 * HOUR_MS) // 60_000 * 60_000, order_id_of(trader.user_id, "yesterday")
    body = limit(busy, client_order_id="yesterday")
    yesterday = order_command(
        order_id, trader.user_id, busy, client_order_id="yesterday", timestamp=old_ms - 24 * HOUR_MS
    )
    market.publish_orders(busy, yesterday, timestamp_ms=old_ms - 24 * HOUR_MS)
    for symbol in (quiet, busy):
        change = delta(symbol, 2, ("add", "bid", "9.5", "4"))
        trades = [fill(symbol, timestamp=old_ms + n, price=f"10.{n}", taker_side="ask") for n in range(10, 20)]
        market.publish(symbol, snapshot(symbol, 1), change, *trades, timestamp_ms=old_ms)
    market.publish(busy, order_event("accepted", order_id, busy), timestamp_ms=old_ms)
    with kept.gateway() as gateway:
        before = shown(gateway, quiet)
        named = {symbol: trades_of(gateway, symbol)["trades"] for symbol in (quiet, busy)}
        candle = candles(gateway, quiet, "1m", old_ms)
        assert candle == [[old_ms, "10.10", "10.19", "10.10", "10.19", candle[0][5], candle[0][6], 10, True]]
        known_since = gateway.health()["known_since"]
        assert gateway.health()["state"]["restored"] is False
        since = {symbol: first_of(gateway, f"events.{symbol}") for symbol in (quiet, busy)}
        kept.wait_written()
    # While no gateway is there.
    market.publish(
        busy,
        delta(busy, 3, ("remove", "bid", "9.5", "0")),
        *(fill(busy, n=n, timestamp=old_ms, buy_order_id=order_id) for n in range(3)),
        timestamp_ms=old_ms,
    )
    for is_last in (False, True):  # the second time nothing more is there: all is folded in exactly once
        with kept.gateway(ONLY_KEPT) as gateway:
            health = gateway.health()
            assert (health["state"]["restored"], health["known_since"]) == (True, known_since)
            assert shown(gateway, quiet) == before
            assert trades_of(gateway, quiet)["trades"] == named[quiet]
            missed = trades_of(gateway, busy, f"&after={named[busy][0]['trade_id']}")
            assert (len(missed["trades"]), missed["gap"]) == (3, False)
            assert trades_of(gateway, busy)["trades"] == [*missed["trades"][::-1], *named[busy]]
            assert candles(gateway, quiet, "1m", old_ms) == candle
            assert candles(gateway, busy, "1m", old_ms)[0][7] == 13
            assert sum(row[7] for row in candles(gateway, busy, "1d", old_ms - old_ms % (24 * HOUR_MS))) == 13
            book = shown(gateway, busy)[f"book.{busy}.none.all.raw"]
            assert [level[0] for level in book["bid_changes"]] == [10]
            [order] = trader.orders(gateway)
            assert (order["order_id"], order["filled_quantity"]) == (order_id, "1.500")
            again = trader.place(gateway, body)
            assert (again["order_id"], again["duplicate"]) == (order_id, True)
            # Whoever was there before comes back, also to a symbol of which nothing was said since.
            for symbol, numbers in ((quiet, []), (busy, [None, 0, 1, 2])):
                place = {name: since[symbol][name] for name in ("epoch", "seq")}
                with WebSocket(gateway.address, "/ws?stream=none") as client:
                    client.subscribe(f"events.{symbol}", since={f"events.{symbol}": place})
                    told = received(client, max(1, len(numbers)))
                    assert told[0]["recovered"] is True
                    events = [one["notification"]["event"] for one in told if "event" in one["notification"]]
                    assert [event.get("n") for event in events] == numbers
                    client.expect_silence()
            if is_last:
                assert trader.cancel(gateway, order_id=order_id).status == 202
            kept.wait_written()
    assert [command["type"] for command in market.commands_of(busy)] == ["place_order", "cancel_order"]
    kept.expect_equal()


def own_fills(gateway: Gateway, trader: Trader, query: str = "") -> list[dict[str, Any]]:
    answer = gateway.request("GET", f"/api/fills{query}", None, trader.headers)
    assert answer.status == 200, answer
    fills: list[dict[str, Any]] = json.loads(answer.body)["fills"]
    return fills


def test_restarted_instance_knows_the_same_own_fills_each_once(kept: KeptTopic) -> None:
    market, trader, other = kept.market, Trader(), Trader()
    symbol, began_ms = fresh_symbol("OWN"), now_ms() - 10_000
    mine, also_mine, his = (str(uuid.uuid4()) for _ in range(3))
    for order_id, one, side in ((mine, trader, "bid"), (also_mine, trader, "ask"), (his, other, "ask")):
        market.publish_orders(symbol, order_command(order_id, one.user_id, symbol, side=side, quantity="100"))

    def with_him(seconds: int) -> bytes:
        fees = {"buy_fee": "-0.01", "sell_fee": "0.02", "fee_currency": "EUR", "taker_side": "ask"}
        return fill(symbol, buy_order_id=mine, sell_order_id=his, timestamp=began_ms + 1_000 * seconds, **fees)

    def with_himself(seconds: int) -> bytes:
        return fill(symbol, buy_order_id=mine, sell_order_id=also_mine, timestamp=began_ms + 1_000 * seconds)

    market.publish(symbol, snapshot(symbol, 1), with_him(1), with_himself(2))
    with kept.gateway() as gateway:
        before = own_fills(gateway, trader)
        assert [(one["order_id"], one["side"], one["liquidity"], one["fee"]) for one in before] == [
            (mine, "bid", None, None),
            (also_mine, "ask", None, None),
            (mine, "bid", "maker", "-0.01"),
        ]
        assert before[0]["fill_id"] == before[1]["fill_id"] != before[2]["fill_id"]
        assert [one["fee"] for one in own_fills(gateway, other)] == ["0.02"]
        with trader.connect(gateway) as client:
            client.result("private/subscribe", {"channels": ["account.trades"]})
            told = exact(client.receive())
            assert [one["fill_id"] for one in told["notification"]["trades"]] == [
                one["fill_id"] for one in reversed(before)
            ]
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            client.subscribe(f"events.{symbol}")
            client.receive()
            market.publish(symbol, with_him(3))
            assert not {"buy_fee", "sell_fee", "fee_currency"} & exact(client.receive())["notification"]["event"].keys()
        kept.wait_written()
    market.publish(symbol, with_himself(4))  # while no gateway is there
    for _ in range(2):  # the second time nothing more is there
        with kept.gateway(ONLY_KEPT) as gateway:
            assert gateway.health()["state"]["restored"] is True
            after = own_fills(gateway, trader)
            assert [one for one in after if one in before] == before
            assert len(after) == len(before) + 3
            assert len({(one["fill_id"], one["side"]) for one in after}) == len(after)
            assert own_fills(gateway, trader, f"?after={before[0]['fill_id']}") == [
                one for one in reversed(after) if one not in before
            ]
            since = {"account.trades": {"epoch": told["epoch"], "seq": {n: int(at) for n, at in told["seq"].items()}}}
            with trader.connect(gateway) as client:
                client.result("private/subscribe", {"channels": ["account.trades"], "since": since})
                missed = exact(client.receive())
            assert missed["recovered"] is True
            names = {(one["fill_id"], one["side"]) for one in missed["notification"]["trades"]}
            assert names == {(one["fill_id"], one["side"]) for one in after if one not in before}
            kept.wait_written()
    kept.expect_equal()


def test_who_comes_from_an_instance_that_began_at_what_is_kept_is_not_ahead_of_others(kept: KeptTopic) -> None:
    market, trader, symbol = kept.market, Trader(), fresh_symbol("OWN")
    mine = str(uuid.uuid4())
    market.publish_orders(symbol, order_command(mine, trader.user_id, symbol, quantity="100"))
    # What comes last is no event of an order.
    market.publish(symbol, snapshot(symbol, 1), fill(symbol, buy_order_id=mine), delta(symbol, 2), delta(symbol, 3))
    channels = ["account.trades", "account.orders"]
    with kept.gateway() as gateway:
        kept.wait_written()
        with kept.gateway(ONLY_KEPT) as restarted, trader.connect(restarted) as client:
            client.result("private/subscribe", {"channels": channels})
            first = received(client, 2)
        [epoch] = {one["epoch"] for one in first}
        told = {one["channel_name"]: {n: int(at) for n, at in one["seq"].items()} for one in first}
        since = {channel: {"epoch": epoch, "seq": told[channel]} for channel in channels}
        with trader.connect(gateway) as client:
            client.result("private/subscribe", {"channels": channels, "since": since})
            again = received(client, 2)
        assert [one["recovered"] for one in again] == [True, True]
        assert {one["channel_name"]: one["seq"] for one in again} == told


class Traffic:
    """Random events, and orders that are accepted, traded and cancelled, of some symbols; repeatable by its seed."""

    def __init__(self, market: Market, seed: int) -> None:
        self._market = market
        self._random = random.Random(seed)
        self.symbols = [fresh_symbol("R") for _ in range(6)]
        self._events = Engine(self._random, self.symbols).records(10_000)
        self._open: list[tuple[str, str]] = []

    def go_on(self, events: int = 120, orders: int = 30) -> None:
        """So many more of each."""
        market, choose = self._market, self._random
        market.publish_all(islice(self._events, events))
        for number in range(orders):
            symbol, order_id = choose.choice(self.symbols), str(uuid.UUID(int=choose.getrandbits(128)))
            name = None if number % 3 else f"name-{order_id}"
            market.publish_orders(symbol, order_command(order_id, f"user-{number % 4}", symbol, client_order_id=name))
            self._open.append((symbol, order_id))
        told = []
        for symbol, order_id in choose.sample(self._open, orders):
            trade = fill(symbol, buy_order_id=order_id, quantity=f"0.{choose.randint(1, 9)}", price="50")
            kinds = [order_event(kind, order_id, symbol) for kind in ("accepted", "cancelled", "rejected")]
            told.append((symbol, choose.choice([trade, trade, *kinds])))
        market.publish_all(told)


def test_what_is_kept_is_what_both_topics_say_whenever_the_writer_ended(kept: KeptTopic) -> None:
    traffic = Traffic(kept.market, 7)
    traffic.go_on()
    with kept.gateway() as gateway:
        kept.wait_written()
        traffic.go_on()
        gateway.kill()
    for end in ("terminate", "kill", "terminate"):
        traffic.go_on()
        with kept.gateway(ONLY_KEPT) as gateway:
            assert gateway.health()["state"]["restored"] is True
            traffic.go_on()
            if end == "kill":
                gateway.kill()
            else:
                kept.wait_written()
    kept.expect_equal()
    # And what is not so is told by its key.
    changed = [
        ("trades/", lambda page: page["trades"][-1].update(price="0.123")),
        ("order/", lambda order: order.update(quantity="77")),
        ("fill/", lambda own: own.__setitem__(OwnFill.__struct_fields__.index("price"), "0.123")),
        ("fill/", None),
    ]
    for prefix, change in changed:
        partition, key, value = next(
            (partition, key, value)
            for partition, records in kept.records.items()
            for key, value in records.items()
            if key.startswith(prefix) and value is not None
        )
        record = json.loads(value)
        if change is not None:
            change(record)
        kept.write(partition, key, None if change is None else json.dumps(record).encode())
        code, output = kept.check()
        assert code == 1
        assert output.count("  differs: ") == 1
        assert f"differs: {key.removesuffix('/' + key.rpartition('/')[2]) if prefix == 'trades/' else key}" in output
        kept.write(partition, key, value)
    kept.expect_equal()


def seeded(kept: KeptTopic) -> list[str]:
    """A symbol on each partition, whose book no warm-up reads any more, and is kept; by partition."""
    market = kept.market
    symbols: dict[int, str] = {}
    while len(symbols) < market.partitions:
        symbol = fresh_symbol("P")
        [(partition, _)] = market.publish(symbol, snapshot(symbol, 5), timestamp_ms=now_ms() - 2 * HOUR_MS)
        symbols.setdefault(partition, symbol)
    with kept.gateway():
        kept.wait_written()
    return [symbols[partition] for partition in range(market.partitions)]


def change_all(kept: KeptTopic, symbols: list[str], sequence: int) -> None:
    """A change of each symbol's book, and its being kept."""
    kept.market.publish_all((one, delta(one, sequence, ("add", "bid", f"9.{sequence}", "1"))) for one in symbols)
    kept.wait_written()


def wait_book(gateway: Gateway, symbol: str, *bids: str) -> None:
    """Wait until a gateway serves a symbol whose book has these bids beside that of the snapshot."""
    channel = f"book.{symbol}.none.all.raw"

    def is_there() -> bool:
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            client.subscribe(channel)
            # One whose book is not there is told nothing.
            answer, before = client.call("public/ping")
            assert answer["result"] == "pong"
            told = [exact(message)["notification"] for message in before]
            levels = {str(level[0]) for one in told for level in one.get("bid_changes", ())}
            return levels == {"10.00", *bids}

    gateway.wait_until(is_there, f"the book of {symbol} with {bids}")


SHARED = {"consume": "shared", **ONLY_KEPT}


def test_partition_is_written_by_an_instance_that_does_not_serve_it(kept: KeptTopic) -> None:
    symbols = seeded(kept)
    group = f"group-of-{kept.topic}"
    with kept.gateway({**SHARED, "group_id": group}) as gateway:
        wait_writers([gateway], len(symbols))
        # Somebody else serves half of the market: by the order of their names the latter half.
        member = Consumer({**quiet_client(kept.market.bootstrap), "group.id": group, "client.id": "zz"})
        try:
            member.subscribe([kept.market.topic])
            gateway.wait_until(
                lambda: (member.poll(0), {one.partition for one in member.assignment()} == {2, 3})[1], "two partitions"
            )
            gateway.wait_until(lambda: gateway.health()["kafka"]["partitions"] == 2, "two partitions less")
            change_all(kept, symbols, 6)
            assert gateway.health()["state"]["writer_of"] == [0, 1, 2, 3]
            kept.expect_equal()
        finally:
            member.close()
        # What it gains is restored, and goes on from where the state was left off.
        for symbol in symbols:
            wait_book(gateway, symbol, "9.6")
        change_all(kept, symbols, 7)
        wait_book(gateway, symbols[3], "9.6", "9.7")
    kept.expect_equal()


def test_two_instances_write_each_partition_once_and_one_all_when_the_other_is_killed(
    kept: KeptTopic,
) -> None:
    symbols = seeded(kept)
    kafka = {**SHARED, "group_id": f"group-of-{kept.topic}"}
    with kept.gateway(kafka, wait=False) as killed, kept.gateway(kafka) as left:
        killed.wait_ready()
        wait_writers([killed, left], len(symbols))
        change_all(kept, symbols, 6)
        kept.expect_equal()
        killed.kill()
        kept.market.publish_all((one, delta(one, 7, ("add", "bid", "9.7", "1"))) for one in symbols)
        wait_writers([left], len(symbols))
        for symbol in symbols:
            wait_book(left, symbol, "9.6", "9.7")
        change_all(kept, symbols, 8)
        wait_book(left, symbols[0], "9.6", "9.7", "9.8")
    kept.expect_equal()


def test_workers_write_each_partition_once_also_after_one_was_killed(kept: KeptTopic) -> None:
    symbols = seeded(kept)
    with kept.gateway(ONLY_KEPT, workers=2) as gateway:
        wait_writers([gateway], len(symbols))
        health = gateway.health()
        assert health["state"]["restored"] is True
        change_all(kept, symbols, 6)
        os.kill(health["workers"][0]["pid"], signal.SIGKILL)
        change_all(kept, symbols, 7)
        wait_writers([gateway], len(symbols))
        wait_book(gateway, symbols[0], "9.6", "9.7")
    kept.expect_equal()


def test_last_writing_has_what_came_up_to_the_end(kept: KeptTopic) -> None:
    trader, symbol = Trader(), fresh_symbol()
    # It would write again after an hour.
    with kept.gateway({"state_interval_seconds": 3600}) as gateway:
        wait_writers([gateway], kept.market.partitions)
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        gateway.wait_until(lambda: trader.order(gateway, order_id), "the order is read")
        assert gateway.terminate() == 0

    def is_kept() -> bool:
        # The markers of a transaction that was committed are written a moment after.
        kept.read()
        return any(f"order/{order_id}" in records for records in kept.records.values())

    gateway.wait_until(is_kept, "the order is kept")
    kept.expect_equal()


def test_state_of_a_topic_that_was_made_again_is_not_used_and_written_anew(
    kept: KeptTopic, real_kafka: RunningKafka
) -> None:
    symbols = seeded(kept)
    kafka, partitions = real_kafka, kept.market.partitions
    kafka.delete_topic(kept.market.topic)
    kafka.create_topic(kept.market.topic, partitions)
    kept.market = kept.market.reopened()
    symbol = fresh_symbol("NEW")
    kept.market.publish(symbol, snapshot(symbol), *(fill(symbol) for _ in range(20)))
    for is_restored in (False, True):
        with kept.gateway() as gateway:
            assert gateway.health()["state"]["restored"] is is_restored, gateway.log
            assert gateway.metric("gateway_state_unused_total", why="epoch") == (0 if is_restored else partitions)
            assert gateway.log.count("is not used, it is warmed up by time: ") == (0 if is_restored else partitions)
            known = {one["symbol"] for one in gateway.get("/api/instruments").json()["instruments"]}
            assert known == {symbol}
            wait_writers([gateway], partitions)
            kept.market.publish(symbol, fill(symbol))
            kept.wait_written()
    assert all(kept.records[number].get(f"symbol/{one}") is None for number, one in enumerate(symbols))
    kept.expect_equal()
    kept.market.close()


def test_record_that_cannot_be_read_costs_the_orders_of_its_partition_until_it_is_written_again(
    kept: KeptTopic,
) -> None:
    market, trader = kept.market, Trader()
    symbols = [fresh_symbol("O") for _ in range(40)]
    poisoned, sound = (next(s for s in symbols if order_partition(s, 4) == number) for number in (1, 2))
    young = {symbol: str(uuid.uuid4()) for symbol in (poisoned, sound)}
    old = {symbol: str(uuid.uuid4()) for symbol in (poisoned, sound)}
    for symbol, order_id in old.items():
        market.publish_orders(
            symbol, order_command(order_id, trader.user_id, symbol), timestamp_ms=now_ms() - 2 * HOUR_MS
        )
    with kept.gateway():
        kept.wait_written()
    for symbol, order_id in young.items():
        market.publish_orders(symbol, order_command(order_id, trader.user_id, symbol))
    kept.write(1, f"order/{uuid.uuid4()}", b'{"symbol": 5}')
    known = {young[poisoned], young[sound], old[sound]}
    for is_restored in (False, True):
        with kept.gateway({"warmup_seconds": HOUR_MS / 1000, "warmup_min_records": 0}) as gateway:
            assert {order["order_id"] for order in trader.orders(gateway)} == known
            assert gateway.health()["state"]["restored"] is is_restored, gateway.log
            assert gateway.metric("gateway_state_unused_total", why="poisoned") == (not is_restored)
            assert gateway.log.count("state of partition 1 is not used, it is warmed up by time: ") == (not is_restored)
            # What is known now is written over it, so that the next one has use for it.
            wait_writers([gateway], market.partitions)
            kept.wait_written()
    kept.expect_equal()


@pytest.mark.parametrize(
    ("partitions", "policy", "told"),
    [(3, "compact", r"has 3 partitions and .* has 4"), (4, "delete", r"cleanup\.policy is delete")],
)
def test_topic_that_is_not_fit_is_left_alone_and_told_once(
    kept: KeptTopic, real_kafka: RunningKafka, partitions: int, policy: str, told: str
) -> None:
    real_kafka.create_topic(kept.topic, partitions, {"cleanup.policy": policy})
    trader, symbol = Trader(), fresh_symbol()
    kept.market.publish(symbol, snapshot(symbol))
    with kept.gateway() as gateway:
        wait_book(gateway, symbol)
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        trader.wait_for(gateway, order_id, "pending")
        health = gateway.health()
        assert health["state"] == {"restored": False, "age_seconds": None, "writer_of": []}
        assert health["status"] == "ok" and "problems" not in health
        assert gateway.terminate() == 0
    assert len(re.findall(told, gateway.log)) == 1
    admin = AdminClient(quiet_client(kept.market.bootstrap))
    found = admin.list_topics(kept.topic, timeout=30).topics[kept.topic].partitions
    consumer = Consumer({**quiet_client(kept.market.bootstrap), "group.id": "reader"})
    ends = [consumer.get_watermark_offsets(TopicPartition(kept.topic, number), 30) for number in found]
    consumer.close()
    assert ends == [(0, 0)] * partitions


# No fetch is answered before so much is there, or a test is over.
HELD_UP = {"fetch.min.bytes": 50_000_000, "fetch.wait.max.ms": 50_000}


@pytest.mark.parametrize("phase", ["state", "orders", "market"])
def test_instance_tells_how_far_it_has_come_before_it_is_ready(kept: KeptTopic, phase: str) -> None:
    symbol = fresh_symbol()
    kafka: dict[str, Any] = {} if phase == "state" else {"state_topic": ""}
    kept.market.publish(symbol, snapshot(symbol), fill(symbol), fill(symbol))
    if phase != "market":
        kept.market.publish_orders(symbol, *(order_command(str(uuid.uuid4()), "user", symbol) for _ in range(5)))
    if phase == "state":
        with kept.gateway() as gateway:
            kept.wait_written()
            assert "warming_up" not in gateway.health()
    with kept.gateway({**kafka, "consumer": HELD_UP}, wait=False) as gateway:

        def told() -> dict[str, Any] | None:
            answer = gateway.get("/ready")
            assert answer.status == 503
            progress = answer.json()["warming_up"]
            return dict(progress) if progress["phase"] == phase and progress["of"] else None

        progress = gateway.wait_until(told, f"it tells of {phase}")
        assert progress["done"] == 0
        if phase != "state":
            assert progress["of"] == {"orders": 5, "market": 3}[phase]
        gateway.kill()


def test_attributes_of_orders_are_taken_back_from_what_is_kept(kept: KeptTopic, trader: Trader) -> None:
    symbol = fresh_symbol()
    declared = {"post_only": {"type": "boolean"}, "group": {"type": "integer"}}
    orders = {"orders": {"id_secret": str(NAMESPACE), "attributes": declared}}
    given = {"post_only": True, "group": 1}
    with kept.gateway(**orders) as first:
        order_id = trader.place(first, limit(symbol, **given))["order_id"]
        kept.wait_written()
    records = {key: value for of_partition in kept.records.values() for key, value in of_partition.items()}
    assert json.loads(records[f"order/{order_id}"] or b"")["attributes"] == given
    with kept.gateway(**orders) as again:
        shown = trader.order(again, order_id)
        assert shown is not None and {name: shown.get(name) for name in given} == given
