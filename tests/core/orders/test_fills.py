"""Own fills, as they are kept of each user: against what a plain list would have."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages.events import Fill
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.fills import FillKey, KnownFill, OwnFill, OwnFills, own_side, read_fill_id
from core.orders.order import Order, Outcome
from core.orders.pieces import PIECE
from tests.core.fake_orders import SYMBOL, Fed, command, fill
from tests.core.fakes import run
from tests.support.examples import examples

MOST_OF_A_USER = 3
MOST = 7


def known(offset: int, side: Side = Side.BID, partition: int = 0, time_ms: int | None = None) -> KnownFill:
    kept = OwnFill("o", None, SYMBOL, "1.5", "0.5", offset if time_ms is None else time_ms)
    return KnownFill(FillKey(partition, offset, side), kept)


def an_order(
    side: Side, order_type: OrderType = OrderType.LIMIT, time_in_force: TimeInForce | None = TimeInForce.GTC
) -> Order:
    return Order(
        "mine", "alice", "c", SYMBOL, side, order_type, time_in_force, "1.5", "2", None, 1, 1, Outcome.ACCEPTED
    )


def traded(**fields: Any) -> Fill:
    event = fill("mine", "other", **fields)
    assert isinstance(event, Fill)
    return event


def test_a_fill_is_shown_with_all_that_its_owner_may_see() -> None:
    fed = Fed().commands(command("a", client_order_id="my-1"))
    fed.events(fill("a", "b", taker_side="bid", buy_fee="-0.0010", sell_fee="9", fee_currency="EUR", timestamp=1500))
    assert [one.shown() for one in fed.directory.fills.of("alice")] == [
        {
            "fill_id": "0-0",
            "order_id": "a",
            "client_order_id": "my-1",
            "symbol": SYMBOL,
            "side": "bid",
            "price": "1.50",
            "quantity": "0.5",
            "liquidity": "taker",
            "fee": "-0.0010",
            "fee_currency": "EUR",
            "time": 1.5,
        }
    ]


def test_who_trades_with_himself_has_two_fills_of_one_name() -> None:
    fed = Fed().commands(command("a"), command("b")).events(fill("a", "b"))
    sides = [(one.key.fill_id, one.fill.order_id, one.key.side) for one in fed.directory.fills.of("alice")]
    assert sides == [("0-0", "b", Side.ASK), ("0-0", "a", Side.BID)]


def test_each_side_is_its_own_owners() -> None:
    fed = Fed().commands(command("a"), command("b", "bob"), command("c", None)).events(fill("a", "b"), fill("a", "c"))
    assert [one.fill.order_id for one in fed.directory.fills.of("bob")] == ["b"]
    assert [one.fill.order_id for one in fed.directory.fills.of("alice")] == ["a", "a"]
    assert len(fed.directory.fills) == 3


def test_a_fill_that_came_before_its_order_is_its_owners_once_that_is_known() -> None:
    fed = Fed().events(fill("a", "b"))
    assert len(fed.directory.fills) == 0
    fed.commands(command("a"))
    assert [one.key.fill_id for one in fed.directory.fills.of("alice")] == ["0-0"]


def test_fills_of_a_topic_that_was_made_again_are_forgotten() -> None:
    fed = Fed().commands(command("a")).events(fill("a", "b"))
    fed.directory.forget_event_topic()
    assert fed.directory.fills.of("alice") == []
    assert len(fed.directory.fills) == 0


@pytest.mark.parametrize(
    ("order", "taker_side", "liquidity"),
    [
        (an_order(Side.BID), "bid", "taker"),
        (an_order(Side.BID), "ask", "maker"),
        (an_order(Side.BID), None, None),
        (an_order(Side.BID, OrderType.MARKET, TimeInForce.IOC), None, "taker"),
        (an_order(Side.BID, OrderType.LIMIT, TimeInForce.FOK), None, "taker"),
        (an_order(Side.BID, OrderType.LIMIT, None), None, None),
        (an_order(Side.BID, OrderType.MARKET), "ask", "maker"),
    ],
)
def test_liquidity_is_by_the_takers_side_and_else_by_what_never_rests(
    order: Order, taker_side: str | None, liquidity: str | None
) -> None:
    assert own_side(order, traded(taker_side=taker_side), 0, 0).fill.liquidity == liquidity


def test_the_fee_of_the_other_side_is_not_told() -> None:
    told = own_side(an_order(Side.BID), traded(sell_fee="1", fee_currency="EUR"), 0, 0).fill
    assert (told.fee, told.fee_currency) == (None, None)


def test_a_fee_keeps_its_digits() -> None:
    event = traded(buy_fee="0.00000000000000000000000000000000000001", fee_currency="EUR")
    assert event.buy_fee == Decimal("1e-38")
    assert own_side(an_order(Side.BID), event, 0, 0).fill.fee == "0.00000000000000000000000000000000000001"


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-2-3", "a-1", "1-²", "2147483648-1", f"1-{1 << 63}", "1" * 20 + "-1"]
)
def test_what_is_no_fill_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_fill_id(text)


@given(st.integers(0, (1 << 31) - 1), st.integers(0, (1 << 63) - 1), st.sampled_from(Side))
def test_a_key_is_found_under_its_name(partition: int, offset: int, side: Side) -> None:
    fills = OwnFills()
    key = FillKey(partition, offset, side)
    fills.add("alice", KnownFill(key, known(1).fill))
    [one] = fills.of("alice")
    assert one.key == key
    assert read_fill_id(one.key.fill_id) == (partition, offset)


def test_fills_are_told_by_time_and_then_by_place() -> None:
    fills = OwnFills()
    for one in (
        known(5, time_ms=2),
        known(6, time_ms=1),
        known(1, partition=1, time_ms=1),
        known(6, Side.ASK, time_ms=1),
    ):
        fills.add("alice", one)
    told = [(one.key.fill_id, one.key.side.value) for one in fills.of("alice")]
    assert told == [("0-6", "ask"), ("0-6", "bid"), ("1-1", "bid"), ("0-5", "bid")]


# What is missing, for who comes back.


def all_since(fills: OwnFills, positions: dict[int, int], read_to: dict[int, int]) -> bool:
    return fills.has_all_since("alice", positions, read_to)


def test_nothing_is_missing_behind_where_reading_began() -> None:
    fills = OwnFills()
    fills.read_from = lambda: {0: 5}
    assert all_since(fills, {0: 4}, {0: 9})
    assert not all_since(fills, {0: 3}, {0: 9})
    assert not all_since(fills, {}, {0: 9})


def test_a_partition_of_which_it_is_not_known_where_it_began_has_only_what_comes() -> None:
    assert all_since(OwnFills(), {0: 9}, {0: 9})
    assert not all_since(OwnFills(), {0: 8}, {0: 9})


def test_what_was_kept_reaches_further_back_than_reading() -> None:
    fills = OwnFills()
    fills.read_from = lambda: {0: 5}
    fills.resume({0: 2})
    assert all_since(fills, {0: 1}, {0: 9})
    assert not all_since(fills, {0: 0}, {0: 9})


def test_what_was_dropped_for_room_is_missing() -> None:
    fills = OwnFills(most_of_a_user=2)
    fills.read_from = lambda: {0: 0, 1: 0}
    for offset in (3, 5, 7):
        fills.add("alice", known(offset))
    assert all_since(fills, {0: 3, 1: -1}, {0: 9, 1: 9})
    assert not all_since(fills, {0: 2, 1: -1}, {0: 9, 1: 9})


def test_what_others_lost_counts_where_a_user_has_as_many_as_may_be() -> None:
    fills = OwnFills(most_of_a_user=1)
    fills.read_from = lambda: {0: 0, 1: 0}
    for offset in (3, 5):
        fills.add("bob", known(offset, partition=1))
    assert all_since(fills, {0: -1, 1: -1}, {0: 9, 1: 9})
    fills.add("alice", known(3))
    assert not all_since(fills, {0: 3, 1: 2}, {0: 9, 1: 9})
    assert all_since(fills, {0: 3, 1: 3}, {0: 9, 1: 9})


# As much as is kept.


def naive(added: list[tuple[str, int]]) -> dict[str, list[int]]:
    """Users in the order in which they traded, with their offsets."""
    users: dict[str, list[int]] = {}
    for user_id, offset in added:
        users[user_id] = [*users.pop(user_id, []), offset][-MOST_OF_A_USER:]
        while sum(map(len, users.values())) > MOST:
            quiet = next(iter(users))
            users[quiet].pop(0)
            if not users[quiet]:
                del users[quiet]
    return users


def offsets(fills: OwnFills) -> dict[str, list[int]]:
    return {user_id: [one.key.offset for one in fills.of(user_id)] for user_id in "abcd" if fills.of(user_id)}


@settings(max_examples=examples(300))
@given(st.lists(st.sampled_from("abcd"), max_size=30), st.data())
def test_as_much_is_kept_as_a_plain_list_would_have_also_when_it_is_taken_back(who: str, data: st.DataObject) -> None:
    added = [(user_id, offset) for offset, user_id in enumerate(who)]
    fills = OwnFills(MOST_OF_A_USER, MOST)
    kept: dict[tuple[str, FillKey], OwnFill] = {}

    def write(user_id: str, key: FillKey, _symbol: str) -> None:
        held = fills.get(user_id, key)
        if held is None:
            kept.pop((user_id, key))
        else:
            kept[user_id, key] = held

    fills.on_change = write
    written = data.draw(st.integers(0, len(added)))
    for user_id, offset in added[:written]:
        fills.add(user_id, known(offset))
    assert offsets(fills) == naive(added[:written])
    fresh = OwnFills(MOST_OF_A_USER, MOST)
    for (user_id, key), fill_of_it in data.draw(st.permutations(list(kept.items()))):
        fresh.take_back(user_id, key, fill_of_it)
    fresh.resume({})
    again = data.draw(st.integers(max(written - 2, 0), written))  # some of it is read once more
    news = [fresh.add(user_id, known(offset)) for user_id, offset in added[again:]]
    assert all(news[written - again :])
    if again == written:
        assert offsets(fresh) == naive(added)
        assert len(fresh) == sum(map(len, naive(added).values()))
    assert {user_id for user_id, _ in fresh.walk()} == set(offsets(fresh))


def test_less_is_taken_back_than_is_there_where_less_may_be_kept() -> None:
    fills = OwnFills(most_of_a_user=1, most=2)
    for user_id, offset in (("a", 1), ("a", 2), ("b", 3), ("c", 4)):
        fills.take_back(user_id, known(offset).key, known(offset).fill)
    fills.take_back("c", known(4).key, None)
    fills.take_back("nobody", known(4).key, None)
    fills.take_back("d", known(5).key, known(5).fill)
    fills.resume({})
    assert offsets(fills) == {"b": [3], "d": [5]}
    assert fills.dropped_to == {0: 2}


def test_a_page_is_chosen_a_piece_at_a_time_of_what_there_was() -> None:
    fills = OwnFills()
    for offset in range(3 * PIECE):
        fills.add("alice", known(offset, time_ms=-offset))
    turns = 0

    async def give_way() -> None:
        nonlocal turns
        fills.add("alice", known(3 * PIECE + turns))
        turns += 1

    [first, second] = run(fills.page("alice", 2, lambda _fill: True, give_way))
    assert [first.key.offset, second.key.offset] == [0, 1]
    assert turns >= 6
