"""Single claims about market-data channels; what holds in every mixture of them is in test_market_data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.channels.subscription import MOST_LEFT
from core.errors import CloseCode
from tests.core.driven_hub import EPOCH, DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot

K = "KCN/EUR"
BOOK = f"book.{K}.none.10.raw"
MALFORMED = delta(deltas=[{"action": "replace"}])


@pytest.fixture
def driven() -> DrivenHub:
    return DrivenHub()


STALE = "a stale notification"


def short(message: dict[str, Any]) -> Any:
    """The notification, or in a word that it is stale, or the status of the stream."""
    return message.get("status") or (STALE if "stale" in message["notification"] else message["notification"])


def told(client: Client) -> list[Any]:
    return [short(message) for message in client.messages()]


def price_of(n: int) -> bytes:
    return delta(price=f"1.{n:03}", sequence=n)


# Quiet or dead.


def test_book_beats_every_five_seconds_of_quiet_from_the_first_subscription_on(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    heard = []
    for _ in range(160):
        driven.pass_time(0.1)
        heard += [(round(driven.now - 1000, 1), m["seq"], m["notification"]["bid_changes"]) for m in client.messages()]
    assert heard == [(5.0, 1, []), (10.0, 1, []), (15.0, 1, [])] or [round(t) for t, _, _ in heard] == [5, 10, 15]
    assert {seq for _, seq, _ in heard} == {1}


def test_heartbeats_come_as_often_whatever_the_interval_and_only_on_books(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.1.60000ms", f"ticker.{K}.raw", f"lwt.{K}.raw", f"trades.{K}", "events")
    client.texts()
    driven.pass_time(21, 0.1)
    assert [m["channel_name"] for m in client.messages()] == [f"book.{K}.none.1.60000ms"] * 4


def test_heartbeats_stop_with_the_reading(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.pass_time(30, 0.1)
    assert told(client) == [STALE]
    driven.hub.partition_changes.set_unread(set())
    [again] = told(client)
    assert again["snapshot"] is True


@pytest.mark.parametrize("record", [MALFORMED, delta(price="9")], ids=["malformed", "crossed"])
@pytest.mark.parametrize("name", [BOOK, f"book.{K}.none.10.60000ms", f"ticker.{K}.60000ms", f"lwt.{K}.raw"])
def test_quote_is_stale_at_once_and_until_the_engines_snapshot(driven: DrivenHub, name: str, record: bytes) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(name)
    driven.say((0, 2, delta(price="1.5", side="bid")))
    client.texts()
    driven.say((0, 3, record))
    assert told(client) == [STALE]
    driven.say((0, 4, delta()), (0, 5, fill()), (0, 6, record))
    driven.pass_time(70, 0.1)
    assert told(client) == []
    driven.say((0, 7, snapshot(bid="1.1")))
    [healed] = told(client)
    assert healed["snapshot"] is True
    assert "conflated" not in healed


def test_quote_that_is_healed_in_the_same_drain_was_never_stale(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    driven.say((0, 2, MALFORMED), (0, 3, snapshot(bid="1.2")))
    [news] = told(client)
    assert news["bid_changes"] == [[1.4, 1, 0], [1.2, 0, 1]] or sorted(news["bid_changes"]) == [
        [1.2, 0, 1],
        [1.4, 1, 0],
    ]
    assert "snapshot" not in news


def test_who_joins_a_stale_channel_is_told_so_first(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    driven.hub.partition_changes.set_unread({0})
    client = driven.connect(BOOK, f"ticker.{K}.raw", f"trades.{K}")
    first = client.messages()
    assert [short(m) for m in first[:2]] == [STALE] * 2
    assert [m.get("epoch") for m in first[:3]] == [EPOCH] * 3
    assert first[3] == {"type": "stream_status", "status": "stale", "symbols": [K]}


def test_no_timer_heals_what_is_not_read(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    client.texts()
    driven.lose(0)
    driven.say((0, 1, snapshot()), live=False)
    driven.pass_time(3, 0.1)
    assert told(client) == [STALE]
    driven.hub.partition_changes.serve([0])
    assert [n["snapshot"] for n in told(client)] == [True]


def test_lossless_listeners_are_told_of_their_symbols_once(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")), (1, 1, snapshot("C/C")))
    clients = [driven.connect(stream=True), driven.connect("events"), driven.connect("trades.A/A", "events.A/A"),
               driven.connect("trades.C/C"), driven.connect("book.A/A.none.1.raw")]  # fmt: skip
    for client in clients:
        client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.hub.partition_changes.set_unread({0})
    statuses = [[(m["status"], m["symbols"]) for m in client.messages() if "status" in m] for client in clients]
    both, mine = [("stale", ["A/A", "B/B"])], [("stale", ["A/A"])]
    assert statuses == [both, both, mine, [], []]
    driven.hub.partition_changes.set_unread(set())
    statuses = [[(m["status"], m["symbols"]) for m in client.messages() if "status" in m] for client in clients]
    assert statuses == [[("live", both[0][1])], [("live", both[0][1])], [("live", ["A/A"])], [], []]


def test_record_shows_that_its_partition_is_read(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    driven.hub.partition_changes.set_unread({0})
    client.texts()
    driven.say((0, 2, price_of(7)))
    assert told(client)[0]["snapshot"] is True


# What a client that does not know the words makes of snapshots and staleness.


def ladder(sequence: int, bids: dict[str, int], asks: dict[str, int]) -> bytes:
    sides = {"bids": bids, "asks": asks}
    levels = {
        side: [{"price": price, "quantity": str(quantity)} for price, quantity in of.items()]
        for side, of in sides.items()
    }
    return snapshot(sequence=sequence, **levels)


CROSSING = delta(price="99", sequence=2)


class Applies:
    """A client that applies `[price, old, new]`, appends trades, and knows of nothing else."""

    def __init__(self, driven: DrivenHub, **options: Any) -> None:
        self.client = driven.connect(BOOK, **options)
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.trades: list[Any] = []

    def hear(self) -> list[Any]:
        told = [m["notification"] for m in self.client.messages()]
        for n in told:
            self.trades += n["trades"]
            for levels, side in ((self.bids, "bid"), (self.asks, "ask")):
                for price, _, new in n[f"{side}_changes"]:
                    levels[price] = new
                    if not new:
                        del levels[price]
        return told

    def levels(self) -> tuple[list[float], list[float]]:
        self.hear()
        return sorted(self.bids), sorted(self.asks)


def test_snapshot_after_a_crossed_book_names_what_its_listeners_held_and_is_gone(driven: DrivenHub) -> None:
    driven.say((0, 1, ladder(1, {"8": 1, "10": 2}, {"11": 3, "13": 4})))
    client = Applies(driven)
    driven.say((0, 2, CROSSING))
    assert client.levels() == ([8, 10], [11, 13])
    driven.say((0, 3, ladder(3, {"10.5": 5}, {"12.5": 6, "13": 7})))
    [healed] = client.hear()
    assert healed["bid_changes"] == [[10.5, 0, 5], [10, 2, 0], [8, 1, 0]]
    assert healed["ask_changes"] == [[12.5, 0, 6], [13, 0, 7], [11, 3, 0]]
    assert healed["snapshot"] is True
    assert client.levels() == ([10.5], [12.5, 13])


def test_who_joined_a_stale_book_is_not_told_of_what_others_held_and_begins_with_trades(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()), (0, 2, fill()))
    early = Applies(driven)
    driven.say((0, 3, CROSSING))
    early.hear()
    late = Applies(driven)
    [stale] = late.hear()
    driven.say((0, 4, snapshot(bid="1.2")))
    [healed] = late.hear()
    assert stale["stale"] is healed["snapshot"] is True
    assert healed["bid_changes"] == [[1.2, 0, 1]]
    assert [trade[:2] for trade in healed["trades"]] == [[1.5, 2]]
    [others] = early.hear()
    assert others["bid_changes"] == [[1.2, 0, 1], [1.4, 1, 0]]
    assert others["trades"] == []


def test_conflated_snapshot_names_what_that_reader_held_and_not_what_others_did(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    slow, quick = Applies(driven, max_bytes=2000), Applies(driven)
    slow.hear()
    slow.client.transport.room = 0
    for offset in range(2, 60):
        removed = {"action": "remove", "side": "bid", "price": f"1.{offset - 1:03}"}
        added = {"action": "add", "side": "bid", "price": f"1.{offset:03}", "quantity": "1"}
        driven.say((0, offset, delta(sequence=offset, deltas=[removed, added])))
    assert quick.levels() == ([1.059, 1.4], [1.6])
    slow.client.transport.settle()
    told = slow.hear()
    assert slow.levels() == quick.levels()
    assert told[-1]["conflated"] is True
    [(added, _, _), *_] = told[-2]["bid_changes"]
    assert told[-1]["bid_changes"][2:] == [[added, 1, 0]], "the one level of those that it had been told last"


def test_book_subscribed_again_names_what_is_gone_and_tells_no_trade_twice(driven: DrivenHub) -> None:
    driven.say((0, 1, ladder(1, {"1": 1, "1.2": 2}, {})), (0, 2, fill()))
    client = Applies(driven)
    client.hear()
    client.client.transport.room = 0
    driven.say((0, 3, ladder(3, {"1.1": 1}, {})))
    driven.say((0, 4, ladder(4, {"1.3": 1}, {})))  # it waits behind the first one, and goes no more
    driven.subscribe(client.client, BOOK)
    client.client.transport.settle()
    *_, again = client.hear()
    assert again["snapshot"] is True
    assert again["bid_changes"] == [[1.3, 0, 1], [1.1, 1, 0]]
    assert client.levels() == ([1.3], [])
    assert len(client.trades) == 1


def test_book_that_was_left_begins_anew_and_names_what_was_held_and_is_gone(driven: DrivenHub) -> None:
    driven.say((0, 1, ladder(1, {"1": 1, "1.2": 2}, {})), (0, 2, fill()))
    client = Applies(driven)
    client.hear()
    driven.hub.unsubscribe(client.client.subscriber, [BOOK])
    driven.say((0, 3, ladder(3, {"1.2": 2, "1.3": 1}, {})), (0, 4, fill()))
    driven.subscribe(client.client, BOOK)
    [again] = client.hear()
    assert again["bid_changes"] == [[1.3, 0, 1], [1.2, 0, 2], [1, 1, 0]]
    assert len(again["trades"]) == 2
    assert client.levels() == ([1.2, 1.3], [])


def test_of_the_last_channels_that_were_left_it_is_known_what_was_held_and_of_no_more(driven: DrivenHub) -> None:
    symbols = [f"S{number}/A" for number in range(MOST_LEFT + 1)]
    names = [f"book.{symbol}.none.1.raw" for symbol in symbols]
    for offset, symbol in enumerate(symbols):
        driven.say((0, offset, snapshot(symbol)))
    client = driven.connect(*names)
    driven.hub.unsubscribe(client.subscriber, names)
    for offset, symbol in enumerate(symbols, 100):
        driven.say((0, offset, snapshot(symbol, bid="1.1")))
    client.texts()
    driven.subscribe(client, *names)
    gone = [m["notification"]["bid_changes"][1:] for m in client.messages()]
    assert gone == [[]] + [[[1.4, 1, 0]]] * MOST_LEFT


def test_another_connection_begins_with_nothing_gone(driven: DrivenHub) -> None:
    driven.say((0, 1, ladder(1, {"1": 1}, {})))
    driven.connect(BOOK)
    driven.say((0, 2, ladder(2, {"2": 1}, {})))
    [first] = told(driven.connect(BOOK))
    assert first["bid_changes"] == [[2, 0, 1]]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (BOOK, {"trades": [], "bid_changes": [], "ask_changes": [], "total_bid_amount": 0, "total_ask_amount": 0}),
        (f"lwt.{K}.raw", {"b": [0, 0, 0], "a": [0, 0, 0], "l": 0, "m": 0}),
        (f"ticker.{K}.raw", None),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_stale_notification_has_the_members_of_every_other_and_nothing_in_them(
    driven: DrivenHub, name: str, form: dict[str, Any] | None, is_first: bool
) -> None:
    driven.say((0, 1, snapshot(timestamp=1_700_000_000_250)), (0, 2, fill()))
    [usual] = told(driven.connect(name))
    client = driven.connect(*([] if is_first else [name]))
    client.texts()
    driven.say((0, 3, CROSSING))
    if is_first:
        driven.subscribe(client, name)
    [stale] = [m["notification"] for m in client.messages()]
    assert stale.keys() - {"stale"} == usual.keys() - {"snapshot", "stats_24h"}
    assert stale.pop("stale") is True
    time = stale.pop("time", None) or stale.pop("mark_timestamp", None)
    assert time in (1_700_000_000.25, None)
    assert stale == form or (form is None and {*stale.values()} == {0, 1} and stale["delta"] == 1)


# Trades at the beginning.


@pytest.mark.parametrize("objects", [False, True])
def test_first_snapshot_of_a_book_has_the_last_hundred_trades_oldest_first(driven: DrivenHub, objects: bool) -> None:
    driven.say((0, 0, snapshot()), *((0, n, fill(quantity=str(n))) for n in range(1, 151)))
    client = driven.connect(BOOK, objects=objects)
    [first] = told(client)
    assert [trade["quantity"] if objects else trade[1] for trade in first["trades"]] == list(range(51, 151))
    driven.say((0, 151, fill(quantity="151")))
    [after] = told(client)
    assert [trade["quantity"] if objects else trade[1] for trade in after["trades"]] == [151]


def test_trade_that_the_next_notification_tells_is_not_in_the_first_snapshot(driven: DrivenHub) -> None:
    name = f"book.{K}.none.10.1000ms"
    driven.say((0, 1, snapshot()), (0, 2, fill(quantity="2")))
    driven.connect(name)
    driven.say((0, 3, fill(quantity="3")))
    driven.say((0, 4, fill(quantity="4")))
    late = driven.connect(name)
    assert [[trade[1] for trade in n["trades"]] for n in told(late)] == [[2, 3]]
    driven.pass_time(1.1)
    assert [[trade[1] for trade in n["trades"]] for n in told(late)] == [[4]]


def test_trades_of_the_batch_that_heals_are_told_once_to_who_begins_then(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()), (0, 2, fill(quantity="2")))
    driven.hub.partition_changes.set_unread({0})
    client = Applies(driven)
    driven.say((0, 3, fill(quantity="3")), (0, 4, price_of(5)))
    client.hear()
    assert [trade[1] for trade in client.trades] == [2, 3]
    late = Applies(driven)
    late.hear()
    assert [trade[1] for trade in late.trades] == [2, 3]


# Intervals and trades.


def test_interval_lets_the_first_change_go_at_once_and_conflates_the_next(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.500ms")
    driven.pass_time(3)
    client.texts()
    driven.say((0, 2, price_of(1)))
    assert len(told(client)) == 1
    for offset in range(3, 8):
        driven.say((0, offset * 2, price_of(offset)), (0, offset * 2 + 1, fill(timestamp=offset)))
        driven.pass_time(0.05)
    assert told(client) == []
    driven.pass_time(0.3, 0.05)
    [news] = told(client)
    assert len(news["bid_changes"]) == 5
    assert [trade[3] for trade in news["trades"]] == [0.003, 0.004, 0.005, 0.006, 0.007]


def test_change_that_is_taken_back_within_the_interval_is_not_news(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.500ms", f"ticker.{K}.500ms")
    driven.say((0, 2, price_of(1)), (0, 3, delta(price="1.45")))
    client.texts()
    gone = delta(deltas=[{"action": "remove", "side": "bid", "price": "1.46"}])
    driven.say((0, 4, delta(price="1.46")))
    driven.say((0, 5, gone))
    driven.pass_time(2, 0.1)
    assert told(client) == []


def test_late_joiner_gets_the_told_state_and_the_same_next_change(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    early = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    late = driven.connect(f"book.{K}.none.10.1000ms")
    [first] = late.messages()
    assert (first["seq"], len(first["notification"]["bid_changes"])) == (2, 2)
    early.texts()
    driven.pass_time(1.1)
    assert early.texts() == late.texts() != []


# Slow readers.


def test_slow_reader_of_a_book_skips_and_comes_back_with_a_snapshot(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    slow, quick = driven.connect(BOOK, max_bytes=2000), driven.connect(BOOK)
    slow.texts()
    slow.transport.room = 0
    for offset in range(2, 60):
        driven.say((0, offset, price_of(offset)))
        assert slow.outbox.waiting_bytes <= 2000
    assert driven.counts.conflations == ["book"]
    assert len(quick.texts()) == 59
    slow.transport.settle()
    *before, last = slow.messages()
    assert not any("conflated" in m["notification"] for m in before)
    assert (last["notification"]["conflated"], last["notification"]["snapshot"], last["seq"]) == (True, True, 59)
    assert "epoch" not in last
    driven.say((0, 60, price_of(100)))
    assert slow.texts() == quick.texts() != []
    assert slow.ends == []


def test_conflatable_frames_make_room_for_lossless_ones_even_of_channels_that_were_left(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    slow = driven.connect(BOOK, "events.A/A", max_bytes=900, room=0)
    for offset in (2, 3):
        driven.say((0, offset, price_of(offset)))
    driven.hub.unsubscribe(slow.subscriber, [BOOK])
    for offset in range(1, 4):
        driven.say((1, offset, fill("A/A")))
    assert slow.ends == []
    driven.say(*((1, offset, fill("A/A")) for offset in range(4, 8)))
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert driven.counts.closes == ["overflow"]


def test_stuck_reader_is_closed_after_half_a_minute_and_no_other(driven: DrivenHub) -> None:
    stuck, quick = driven.connect("events", room=5), driven.connect("events")
    driven.say((0, 1, fill()))
    driven.pass_time(29.9, 0.5)
    assert stuck.ends == []
    driven.pass_time(10.2, 0.5)
    assert stuck.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert quick.ends == []
    assert driven.counts.closes == ["stuck"]


def test_replay_that_the_history_leaves_behind_is_closed() -> None:
    driven = DrivenHub(history_records=5)
    for offset in range(5):
        driven.say((0, offset, fill()))
    slow = driven.connect(room=0)
    slow.transport.ping()
    driven.subscribe(slow, f"trades.{K}", since={f"trades.{K}": 0})
    for offset in range(5, 20):
        driven.say((0, offset, fill()))
    slow.transport.settle()
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert driven.counts.closes == ["history"]


def test_snapshots_do_not_pile_up_before_a_full_socket(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot(bids=[{"price": f"1.{n:03}", "quantity": "1"} for n in range(1, 300)])))
    client = driven.connect(room=0)
    for _ in range(50):
        driven.subscribe(client, f"book.{K}.none.all.raw")
    assert client.outbox.waiting_bytes < 10_000
    client.transport.settle()
    *_, last = client.messages()
    assert (last["epoch"], last["notification"]["snapshot"]) == (EPOCH, True)
    assert "conflated" not in last["notification"]


# Exactness: no number goes through binary floating point.

DIGITS = st.text("0123456789", min_size=1, max_size=30).map(lambda text: text.lstrip("0") or "1")
DECIMALS = st.builds(
    lambda whole, part: f"{whole}.{part}1",
    DIGITS.map(lambda text: text[:8]),
    st.text("0123456789", min_size=20, max_size=28),
)


@given(DECIMALS, DECIMALS, DECIMALS, DECIMALS)
def test_every_number_on_every_channel_is_the_engines_to_the_last_digit(
    bid: str, size: str, price: str, amount: str
) -> None:
    driven = DrivenHub()
    asks = [{"price": "999999999", "quantity": size}]
    driven.say((0, 1, snapshot(bids=[{"price": bid, "quantity": size}], asks=asks)))
    client = driven.connect(BOOK, f"trades.{K}", f"lwt.{K}.raw", f"ticker.{K}.raw")
    driven.say((0, 2, fill(price=price, quantity=amount, timestamp=1700000000123)))
    texts = [text.decode() for text in client.texts()]
    book = f"[{bid},0,{size}]"
    trade = f'[{price},{amount},"'
    assert book in texts[0]
    assert f'"total_bid_amount":{size},"total_ask_amount":{size}' in texts[0]
    assert f'"b":[{bid},{size},{size}],"a":[999999999,{size},{size}]' in texts[2]
    assert f'"best_bid_price":{bid},"best_bid_amount":{size}' in texts[3]
    of = {name: next(t for t in texts[4:] if f'"{name}' in t) for name in ("book", "trades", "lwt", "ticker")}
    for name in ("book", "trades"):
        assert trade in of[name]
        assert ",1700000000.123,false" + {"book": "]", "trades": ',"0-2"]'}[name] in of[name]
    assert f'"l":{price}' in of["lwt"]
    assert f'"last_price":{price},"volume_24h":{amount.rstrip("0")}' in of["ticker"]
    assert f'"high_24h":{price}' in of["book"]
    assert all(
        "e+" not in t.lower() and "e-" not in t.lower().split('"channel_name"')[1].split("notification")[1]
        for t in of.values()
    )


def test_no_timer_heals_what_waited_when_its_partition_was_found_unread(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.pass_time(3, 0.1)
    assert told(client) == [STALE]
    driven.hub.partition_changes.set_unread(set())
    [again] = told(client)
    assert (again["snapshot"], len(again["bid_changes"])) == (True, 3)


def test_partition_that_stays_unread_is_stale_again_after_a_record_that_was_on_its_way(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK, f"trades.{K}")
    driven.hub.partition_changes.set_unread({0})
    client.texts()
    driven.say((0, 2, price_of(1)))
    assert [one if one == "live" else one["snapshot"] for one in told(client)] == [True, "live"]
    driven.hub.partition_changes.set_unread({0})
    assert told(client) == [STALE, "stale"]
    driven.hub.partition_changes.set_unread({0})
    assert told(client) == []
