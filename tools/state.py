"""What the gateway keeps on its state topic: shown, and checked against both topics.

    python -m tools.state --brokers HOST:PORT [--topic gateway-state] [--config FILE] [--partition N] [--records]
                          [-X property=value ...]

Of each partition: its cursor, and how many records of each kind there are (with --records all of them, key and value). Then both
topics are read from where the knowledge in it begins to the cursor, and folded as a gateway does; "equal", or the first key
that differs. Ends with 1 if one does. What orders carry besides (`orders.attributes`) is compared where --config names the gateway's
settings, which say what that is. Nothing is written, and no group is joined.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from core.config.settings import load_settings
from core.errors import PoisonedRecord, SettingsError
from core.kafka.state_reader import CURSOR_KEY, PREFIXES, read_cursor
from core.market.candle_series import MOST_CANDLES
from core.market.candles import CANDLE_INTERVALS_MS, Candles
from core.market.market import Market
from core.market.state import MarketState
from core.messages.attributes import Attribute
from core.messages.events import read_event
from core.messages.kept_state import Cursor, order_partition
from core.messages.times import Times
from core.orders.directory import OrderDirectory
from core.orders.fills import FillKey, OwnFill
from core.orders.order import Order, state
from core.orders.state import FILLS, KeptReach, OrderState, fill_key

SECONDS = 30.0
# Of closed orders: when one is forgotten follows the clock of whoever did it.
SLACK_MS = 3_600_000


class Topics(NamedTuple):
    """Reads a cluster."""

    properties: Mapping[str, Any]

    def records(self, topic: str, partition: int, first: int, end: int | None) -> Iterator[Message]:
        """The records from an offset to before another (None: to the end). Raises KafkaException."""
        consumer = Consumer({**self.properties, "group.id": "unused", "enable.auto.commit": False,
                             "enable.partition.eof": True, "auto.offset.reset": "error"})  # fmt: skip
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            deadline = time.monotonic() + SECONDS
            while end is None or first < end:
                messages = consumer.consume(1000, timeout=0.1)
                if messages:
                    deadline = time.monotonic() + SECONDS
                elif time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic} could not be read"))
                for message in messages:
                    error, offset = message.error(), message.offset()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    if error is not None or (end is not None and (offset or 0) >= end):
                        return
                    yield message
                    first = (offset or 0) + 1
        finally:
            consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """Its partitions; none if it does not exist. Raises KafkaException."""
        consumer = Consumer({**self.properties, "group.id": "unused"})
        try:
            return sorted(consumer.list_topics(topic, timeout=SECONDS).topics[topic].partitions)
        finally:
            consumer.close()


class Kept(NamedTuple):
    """One partition, as it is."""

    partition: int
    cursor: Cursor | None
    records: dict[str, bytes]


def read_kept(topics: Topics, topic: str, partition: int) -> Kept:
    """Raises KafkaException, and ValueError for a cursor that cannot be read."""
    records: dict[str, bytes] = {}
    for message in topics.records(topic, partition, OFFSET_BEGINNING, None):
        key, value = (message.key() or b"").decode("utf-8", "replace"), message.value()
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value
    cursor = records.pop(CURSOR_KEY, None)
    return Kept(partition, None if cursor is None else read_cursor(cursor), records)


class Rooms:
    """A market and a directory with nothing in them, at one moment of one clock."""

    def __init__(self, cursor: Cursor, keep_seconds: float, attributes: Sequence[Attribute] = ()) -> None:
        self._times = Times(clock=lambda: cursor.time_ms / 1000)
        self.market = Market(
            on_poisoned=lambda *_: None,
            on_event=lambda event, partition, offset, time_ms: self._orders.fold_event(
                event, partition, offset, time_ms, False
            ),
            on_stale=lambda *_: None,
            times=self._times,
        )
        # Orders have events of all partitions, the market those of one.
        self._orders = self.directory = OrderDirectory(
            keep_terminal_seconds=keep_seconds,
            on_change=lambda _order: None,
            on_private=lambda _user_id, _payload: None,
            times=self._times,
            attributes=attributes,
        )
        self.market_state = MarketState(self.market)
        self.partitions = len(cursor.events)
        self.order_state = OrderState(self.directory, lambda: self.partitions)

    def take_back(self, kept: Kept) -> None:
        """Raises ValueError."""
        assert kept.cursor is not None
        states = dict.fromkeys(PREFIXES["market"], self.market_state) | dict.fromkeys(
            PREFIXES["orders"], self.order_state
        )
        for key, value in kept.records.items():
            states[key.partition("/")[0]].take_back(kept.partition, key, value)
        self.order_state.resume({kept.partition: kept.cursor})
        self.market_state.resume({kept.partition: kept.cursor})

    def fold(self, message: Message, market_from: int = 0) -> None:
        """One record of the market topic; for the market only from this offset on."""
        partition, offset = _place_of(message)
        value, time_ms = message.value(), self._times.of_record(message.timestamp()[1])
        if offset >= market_from:
            self.market.fold(partition, offset, value, time_ms)
            return
        try:
            event = self._times.in_event(read_event(value), time_ms)
        except PoisonedRecord:
            return
        self._orders.fold_event(event, partition, offset, time_ms, False)

    def fold_order(self, message: Message) -> None:
        """One record of the order topic."""
        time_ms = self._times.of_record(message.timestamp()[1])
        self.directory.fold_command(*_place_of(message), time_ms, message.value(), False)

    def release(self) -> None:
        """What still waits for its order waits no longer: when a gateway finds that there is none follows no offset."""
        early_events = self.directory.early_events
        early_events.ends_asked()
        early_events.on_ends({})


def _place_of(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    return partition, offset


def difference(
    topics: Topics, kept: Kept, keep_seconds: float, attributes: Sequence[Attribute] | None = None
) -> str | None:
    """The first thing in which what is kept differs from both topics. `attributes`: those that are declared; None: nobody knows,
    and they are not compared. Raises KafkaException and ValueError.
    """
    cursor = kept.cursor
    assert cursor is not None
    if cursor.known_from is None:
        return "cursor: it does not say from where on"
    restored, folded = (Rooms(cursor, keep_seconds, attributes or ()) for _ in range(2))
    restored.take_back(kept)
    number, first = kept.partition, cursor.known_from
    for partition, end in cursor.orders.items():
        for message in topics.records(cursor.order_topic, partition, first.orders[partition], end):
            folded.fold_order(message)
    for partition, end in cursor.events.items():
        if partition != number:
            for message in topics.records(cursor.market_topic, partition, first.events[partition], end):
                folded.fold(message)
    # A symbol may have been described some records behind the cursor: both are read on to behind the last of them.
    ends = [one.offset + 1 for one in restored.market.on({number})]
    own_first = min(first.market, first.events[number])
    own_end = max([cursor.market, cursor.events[number], *ends])
    restored.market.partitions.begin(number, own_first)
    folded.market.partitions.begin(number, own_first)
    for message in topics.records(cursor.market_topic, number, own_first, own_end):
        # In a group of instances who wrote may know the orders from further back than the market.
        restored.fold(message, first.market)
        folded.fold(message, first.market)
    restored.release()
    folded.release()
    return (
        _market_difference(number, restored.market, folded.market)
        or _order_difference(
            _orders(kept.partition, restored),
            _orders(kept.partition, folded),
            cursor.time_ms - int(keep_seconds * 1000),
            compares_attributes=attributes is not None,
        )
        or _fill_difference(_fills(kept.partition, restored), _fills(kept.partition, folded), _reach(kept, cursor))
    )


def _market_difference(partition: int, kept: Market, folded: Market) -> str | None:
    ours, theirs = ({one.symbol: one for one in market.on({partition})} for market in (kept, folded))
    for symbol in sorted(ours.keys() | theirs.keys()):
        if symbol not in ours or symbol not in theirs:
            return f"symbol/{symbol}: {'only kept' if symbol in ours else 'not kept'}"
        one, other = ours[symbol], theirs[symbol]
        seen = [
            ("symbol", (one.offset, one.time_ms), (other.offset, other.time_ms)),
            ("book", _book(one.book), _book(other.book)),
            ("trades", [t.as_object() for t in one.trades], [t.as_object() for t in other.trades]),
            ("day", one.statistics.last_price, other.statistics.last_price),
        ]
        if one.statistics.width_ms == other.statistics.width_ms:
            one.move_on()
            other.move_on()
            seen.append(("day", one.day_text(), other.day_text()))
        for interval in CANDLE_INTERVALS_MS:
            rows, its_rows = _candles(interval, one.candles, other.candles)
            seen.append((f"candles {interval}", rows, its_rows))
        for kind, mine, its in seen:
            if mine != its:
                return f"{kind}/{symbol}: kept {mine}, folded {its}"
    return None


def _candles(interval: str, *both: Candles) -> Iterator[list[str]]:
    """Each one's, but for the oldest: whoever kept no candles yet began in the middle of one, and had none before."""
    told = [one.rows(interval, limit=MOST_CANDLES) for one in both]
    count = min(map(len, told)) - 1
    return (rows[len(rows) - count :] for rows in told)


def _book(book: Any) -> Any:
    return book.known, book.stale, book.snapshot_event() if book.live else book.sequence


def _orders(partition: int, rooms: Rooms) -> dict[str, Order]:
    ids = [
        record.key.partition("/")[2]
        for piece in rooms.order_state.cut(partition, None, is_whole=True)
        for record in piece
        if record.key.startswith("order/") and record.value is not None
    ]
    return {order_id: order for order_id in ids if (order := rooms.directory.get(order_id)) is not None}


def _fills(partition: int, rooms: Rooms) -> dict[tuple[str, FillKey], OwnFill]:
    partitions = rooms.partitions
    return {
        (user_id, known.key): known.fill
        for user_id, known in rooms.directory.fills.walk()
        if order_partition(known.fill.symbol, partitions) == partition
    }


def _reach(kept: Kept, cursor: Cursor) -> KeptReach:
    value = kept.records.get(f"{FILLS}{kept.partition}")
    return KeptReach(cursor.events, {}) if value is None else msgspec.json.decode(value, type=KeptReach)


def _fill_difference(
    kept: Mapping[tuple[str, FillKey], OwnFill], folded: Mapping[tuple[str, FillKey], OwnFill], reach: KeptReach
) -> str | None:
    """But for those of before any were kept, and those that had to go for others."""
    for user_id, key in sorted(kept.keys() | folded.keys()):
        one, other = kept.get((user_id, key)), folded.get((user_id, key))
        is_of_use = key.offset >= reach.begins.get(key.partition, 0) and key.offset > reach.dropped_to.get(
            key.partition, -1
        )
        if one != other and is_of_use:
            return f"{fill_key(user_id, key)}: kept {one}, folded {other}"
    return None


def _order_difference(
    kept: Mapping[str, Order], folded: Mapping[str, Order], forgotten_ms: int, *, compares_attributes: bool
) -> str | None:
    for order_id in sorted(kept.keys() | folded.keys()):
        one, other = kept.get(order_id), folded.get(order_id)
        if one is None or other is None:
            order = one or other
            assert order is not None
            if order.is_closed and order.time_ms < forgotten_ms + SLACK_MS:
                continue
            return f"order/{order_id}: {'only kept' if other is None else 'not kept'}"
        if not compares_attributes:
            one, other = (msgspec.structs.replace(order, attributes="") for order in (one, other))
        mine, its = ({**state(order), "user_id": order.user_id} for order in (one, other))
        if mine != its or one.terms_digest != other.terms_digest:
            return f"order/{order_id}: kept {json.dumps(mine)}, folded {json.dumps(its)}"
    return None


def show(kept: Kept, *, with_records: bool) -> None:
    """Print one partition."""
    counts = Counter(key.partition("/")[0] for key in kept.records)
    size = sum(len(key) + len(value) for key, value in kept.records.items())
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
    print(f"partition {kept.partition}: {told}; {size} bytes")
    if kept.cursor is not None:
        at = kept.cursor
        print(f"  cursor: market {at.market}, events {at.events}, orders {at.orders}, version {at.version}, "
              f"known since {at.known_since_ms}, written {at.time_ms}")  # fmt: skip
    if with_records:
        for key, value in sorted(kept.records.items()):
            print(f"  {key}\t{value.decode('utf-8', 'replace')}")


def main(arguments: list[str]) -> int:
    """The exit code: 1 if something differs, 2 if it could not be found out."""
    parser = argparse.ArgumentParser(prog="tools.state", description="What the gateway keeps, shown and checked.")
    parser.add_argument("--brokers", required=True, metavar="HOST:PORT,...")
    parser.add_argument("--topic", default="gateway-state", metavar="NAME", help="default: gateway-state")
    parser.add_argument("--partition", type=int, metavar="N", help="this one alone")
    parser.add_argument("--records", action="store_true", help="every key and value")
    parser.add_argument("--config", metavar="FILE", help="the gateway's settings: compare orders' attributes too")
    parser.add_argument("--keep-seconds", type=float, default=86_400, metavar="N", help="orders.keep_terminal_seconds")
    parser.add_argument("-X", action="append", default=[], metavar="property=value", help="as in kafka.consumer")
    options = parser.parse_args(arguments)
    extra = dict(one.split("=", 1) for one in options.X)
    topics = Topics({"bootstrap.servers": options.brokers, "log_level": 3, **extra})
    is_different = False
    try:
        attributes = None if options.config is None else load_settings(options.config, os.environ)[0].orders.attributes
        for number in topics.partitions(options.topic):
            if options.partition not in (None, number):
                continue
            kept = read_kept(topics, options.topic, number)
            show(kept, with_records=options.records)
            if kept.cursor is None:
                print("  no cursor: it is not used")
                continue
            found = difference(topics, kept, options.keep_seconds, attributes)
            print("  equal" if found is None else f"  differs: {found}")
            is_different = is_different or found is not None
    except (KafkaException, SettingsError, ValueError) as error:
        print(f"tools.state: {error}", file=sys.stderr)
        return 2
    return int(is_different)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
