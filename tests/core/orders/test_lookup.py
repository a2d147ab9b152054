from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StillBehind, StillStarting
from core.messages.order_ids import order_id_for
from core.orders.lookup import OrderLookup
from core.orders.pieces import COMPARED
from tests.core.attempts import ALICES, LIMIT, start
from tests.core.fake_orders import command, event
from tests.core.fakes import run, turns
from tests.core.trading import NAMESPACE, Trade

BOBS = order_id_for(NAMESPACE, "bob", "my-1")


def behind() -> Trade:
    """An instance that has yet to read what another one has accepted; the cluster is asked, and answers when told to."""
    trade = Trade(acks=True)
    trade.topic.end = 1
    trade.topic.answers = False
    return trade


@pytest.mark.parametrize("how", ["by id", "by name", "listed"])
def test_order_of_another_instance_is_found_once_it_has_been_read(how: str) -> None:
    async def main() -> None:
        trade = behind()
        asked = start(
            {
                "by id": lambda: trade.lookup.find("alice", ALICES),
                "by name": lambda: trade.lookup.find_by_client_order_id("alice", "my-1"),
                "listed": lambda: trade.lookup.open_orders("alice"),
            }[how]()
        )
        await turns()
        trade.topic.answer()
        await turns()
        assert not asked.done()
        trade.see(command(ALICES, "alice", "my-1"))
        found = await asked
        assert (found[0] if how == "listed" else found).order_id == ALICES

    run(main())


def test_order_that_is_on_no_topic_is_unknown_and_others_see_nothing_of_it() -> None:
    async def main() -> None:
        trade = Trade()
        assert await trade.lookup.find("alice", ALICES) is None
        assert await trade.lookup.find_by_client_order_id("alice", "my-1") is None
        assert await trade.lookup.open_orders("alice") == []

    run(main())


def test_order_that_is_known_is_told_without_a_question() -> None:
    async def main() -> None:
        trade = behind()
        await trade.entry.place("bob", LIMIT)
        assert await trade.lookup.find("bob", BOBS) is not None
        assert await trade.lookup.find_by_client_order_id("bob", "my-1") is not None
        assert await trade.lookup.find("alice", BOBS) is None, "known, and somebody else's"
        assert not trade.topic.asked

    run(main())


def test_nothing_is_called_unknown_or_listed_where_the_topic_cannot_be_read() -> None:
    async def main() -> None:
        trade = behind()
        trade.is_reachable = False
        for question in (
            trade.lookup.find("alice", ALICES),
            trade.lookup.find_by_client_order_id("alice", "my-1"),
            trade.lookup.open_orders("alice"),
            trade.lookup.catch_up(),
            trade.entry.cancel_all("alice", None),
        ):
            with pytest.raises(StillBehind):
                await question
        trade.is_started = False
        with pytest.raises(StillStarting):
            await trade.lookup.open_orders("alice")

    run(main())


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30), st.integers(1, 8))
def test_pages_of_closed_orders_are_all_of_them_once_the_last_one_first(
    orders: list[tuple[int, bool]], limit: int
) -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        for number, (time_ms, _) in enumerate(orders):
            trade.see(command(f"o-{number}"))
            trade.directory.fold_event(event("order_filled", f"o-{number}", timestamp=time_ms), 0, number, 1, True)
        wanted = {f"o-{number}" for number, (_, is_wanted) in enumerate(orders) if is_wanted}
        found: list[str] = []
        before = None
        while page := await trade.lookup.closed_orders("alice", limit, lambda one: one.order_id in wanted, before):
            assert len(page) <= limit
            found += [one.order_id for one in page]
            before = found[-1]
        expected = sorted(((time_ms, f"o-{number}") for number, (time_ms, is_wanted) in enumerate(orders) if is_wanted))
        assert found == [order_id for _, order_id in reversed(expected)]

    run(main())


def test_closed_orders_are_looked_through_a_piece_at_a_time_while_others_come_and_go() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        for number in range(COMPARED + 1):
            trade.see(command(f"o-{number:04}"))
            close(trade, f"o-{number:04}", number)
        waits = asyncio.Event()

        async def give_way() -> None:
            waits.set()
            await goes_on.wait()

        goes_on = asyncio.Event()
        lookup = OrderLookup(trade.directory, trade.catch_up, lambda: True, give_way)
        asked = start(lookup.closed_orders("alice", 3, lambda _order: True))
        await waits.wait()
        trade.see(command("new"))
        close(trade, "new", COMPARED + 2)
        first = trade.directory.get("o-0000")
        assert first is not None
        trade.directory.index.remove(first)
        other = start(lookup.closed_orders("alice", 1, lambda _order: True))
        await turns()
        goes_on.set()
        last = [f"o-{number:04}" for number in range(COMPARED, COMPARED - 3, -1)]
        assert [order.order_id for order in await asked] == last
        assert [order.order_id for order in await other] == ["new"]
        after = [order.order_id for order in await lookup.closed_orders("alice", 2 * COMPARED, lambda _order: True)]
        assert after[0] == "new"
        assert after[-1] == "o-0001"
        assert len(after) == COMPARED + 1

    run(main())


def close(trade: Trade, order_id: str, offset: int) -> None:
    trade.directory.fold_event(event("order_filled", order_id, timestamp=offset), 0, offset, 1, True)
