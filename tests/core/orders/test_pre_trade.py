"""Pre-trade limits: what is refused, by which of them, and what passes them by."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidFields, LimitExceeded, OutcomeUnknown
from core.messages.batch_rules import check_batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.messages.model import Instrument, OrderType
from core.messages.order_rules import OrderRules
from core.orders.batch import Batches
from core.orders.order import Outcome
from core.orders.origin import Origin
from core.orders.pre_trade import PreTrade, pre_trade
from core.telemetry.metrics import ORDER_OUTCOMES
from tests.core.attempts import Reserved
from tests.core.fake_orders import event, placed
from tests.core.fakes import run
from tests.core.trading import CERTAINLY_NOT, Trade

PLAIN = Instrument("KCN/EUR", Decimal("0.01"), Decimal("0.001"), Decimal("0.001"))
LIMITED = replace(PLAIN, max_quantity=Decimal("10.0"), max_notional=Decimal(100), price_band_percent=Decimal("2.5"))
MARK = Decimal("20.00")


def limits(instrument: Instrument = LIMITED, mark: Decimal | None = MARK) -> PreTrade:
    made = pre_trade((instrument,), 0, mark=lambda _symbol: mark, open_orders=lambda _user: 0)
    assert made is not None
    return made


def trade_with(instrument: Instrument = LIMITED, mark: Decimal | None = MARK, **options: Any) -> Trade:
    trade = Trade(acks=True, rules=OrderRules((instrument,), amends=True), **options)
    trade.mark = mark
    return trade


def market(quantity: str | None = "1", **more: Any) -> PlaceOrder:
    made = msgspec.structs.replace(placed(), order_type=OrderType.MARKET, price=None, **more)
    return msgspec.structs.replace(made, quantity=None if quantity is None else Decimal(quantity))


def told(check: PreTrade, order: PlaceOrder) -> tuple[str, list[tuple[str, str]]] | None:
    try:
        check.check_order("alice", order)
    except LimitExceeded as error:
        return error.counted_as, [tuple(each) for each in error.errors]
    return None


def test_there_are_no_limits_where_none_is_set() -> None:
    assert pre_trade((PLAIN,), 0, mark=lambda _: MARK, open_orders=lambda _: 99) is None
    assert pre_trade((), 1, mark=lambda _: MARK, open_orders=lambda _: 99) is not None


@pytest.mark.parametrize("limit", ["max_quantity", "max_notional", "price_band_percent"])
def test_each_limit_holds_alone(limit: str) -> None:
    only = replace(PLAIN, **{limit: getattr(LIMITED, limit)})
    beyond = {"max_quantity": ("9.9", "10.1"), "max_notional": ("10.1", "10"), "price_band_percent": ("11", "1")}
    for name, (price, quantity) in beyond.items():
        refused = told(limits(only, Decimal("9.9")), placed(price=price, quantity=quantity))
        assert (refused is None) == (name != limit)
        assert refused is None or refused[0] == limit


def test_limit_is_in_the_refusal_with_its_field() -> None:
    only = replace(LIMITED, price_band_percent=None)
    assert told(limits(only), placed(price="10.5", quantity="10.001")) == (
        "max_quantity",
        [
            ("quantity", "expected at most 10.0 (max_quantity)"),
            ("quantity", "is worth 105.0105, expected at most 100 (max_notional)"),
        ],
    )
    assert told(limits(), placed(price="20.51", quantity="1")) == (
        "price_band_percent",
        [("price", "expected 19.5 to 20.5, within 2.5 % of the mark, 20 (price_band_percent)")],
    )


@pytest.mark.parametrize(("price", "passes"), [("19.5", True), ("19.4999", False), ("20.5", True), ("20.5001", False)])
def test_band_includes_its_ends(price: str, passes: bool) -> None:
    assert (told(limits(), placed(price=price, quantity="1")) is None) == passes


def test_limit_itself_is_no_excess() -> None:
    only = replace(LIMITED, price_band_percent=None)
    assert told(limits(only), placed(price="10", quantity="10")) is None
    assert told(limits(only), placed(price="10.00000000000000000000000000000000001", quantity="10")) is not None


def test_unknown_mark_checks_nothing_by_it() -> None:
    check = limits(mark=None)
    assert told(check, placed(price="0.01", quantity="1")) is None
    assert told(check, market("9")) is None
    assert told(check, market("11")) == ("max_quantity", [("quantity", "expected at most 10.0 (max_quantity)")])


def test_band_is_open_below_where_it_is_as_wide_as_the_mark() -> None:
    wide = replace(PLAIN, price_band_percent=Decimal(200))
    assert told(limits(wide), placed(price="0.01")) is None
    assert told(limits(wide), placed(price="60.01")) is not None


def test_market_order_is_worth_what_it_is_at_the_mark() -> None:
    assert told(limits(), market("5")) is None
    assert told(limits(), market("5.001")) == (
        "max_notional",
        [("quantity", "is worth at the mark 100.02, expected at most 100 (max_notional)")],
    )


def test_order_by_amount_is_worth_that() -> None:
    assert told(limits(), market(None, quote_amount=Decimal(100))) is None
    assert told(limits(), market(None, quote_amount=Decimal("100.01"))) == (
        "max_notional",
        [("quote_amount", "expected at most 100 (max_notional)")],
    )


def test_other_symbols_have_their_own_limits() -> None:
    assert told(limits(), msgspec.structs.replace(placed(price="999", quantity="999"), symbol="BTC/EUR")) is None


@given(
    st.decimals("0.01", "9999", places=2), st.decimals("0.01", "9999", places=2), st.decimals("0.1", "150", places=1)
)
def test_band_is_exact(price: Decimal, mark: Decimal, percent: Decimal) -> None:
    only = replace(PLAIN, price_band_percent=percent)
    refused = told(limits(only, mark), placed(price=str(price)))
    assert (refused is None) == (abs(price - mark) * 100 <= mark * percent)


# On their way in.


async def refusal(trade: Trade, order: PlaceOrder, user_id: str | None = "alice") -> LimitExceeded:
    before = len(trade.log.produced)
    with pytest.raises(LimitExceeded) as caught:
        await trade.entry.place(user_id, order)
    assert len(trade.log.produced) == before
    assert trade.counts[-1] == ("place", caught.value.counted_as)
    assert caught.value.counted_as in ORDER_OUTCOMES
    return caught.value


def test_order_beyond_a_limit_is_not_produced_and_counted_by_it() -> None:
    async def main() -> None:
        trade = trade_with()
        for order, limit in (
            (placed(price="20", quantity="11"), "max_quantity"),
            (placed(price="20", quantity="5.1"), "max_notional"),
            (placed(price="30", quantity="1"), "price_band_percent"),
            (msgspec.structs.replace(placed(price="30", quantity="1"), validate_only=True), "price_band_percent"),
        ):
            assert (await refusal(trade, order)).counted_as == limit
            assert (await refusal(trade, order, None)).counted_as == limit
        assert len(trade.directory) == 0
        await trade.entry.place("alice", placed(price="20", quantity="5"))

    run(main())


def test_repeat_is_told_of_the_first_wherever_the_mark_is_by_now() -> None:
    async def main() -> None:
        trade = trade_with()
        order = placed("mine", price="20", quantity="1")
        await trade.entry.place("alice", order)
        trade.mark = Decimal(40)
        assert (await trade.entry.place("alice", order)).duplicate
        await refusal(trade, placed("other", price="20", quantity="1"))

    run(main())


def test_repeat_of_an_order_of_unknown_outcome_is_produced_wherever_the_mark_is() -> None:
    async def main() -> None:
        trade = trade_with()
        trade.log.acks = False
        order = placed("mine", price="20", quantity="1")
        task = asyncio.create_task(trade.entry.place("alice", order))
        await asyncio.sleep(0)
        trade.log.last.lose()
        with pytest.raises(OutcomeUnknown):
            await task
        trade.mark, trade.log.acks = Decimal(40), True
        assert not (await trade.entry.place("alice", order)).duplicate
        assert len(trade.log.produced) == 2

    run(main())


# Open orders.


def test_user_has_no_more_open_orders_than_the_limit() -> None:
    async def main() -> None:
        trade = trade_with(PLAIN, max_open_orders=2)
        first = await trade.entry.place("alice", placed())
        await trade.entry.place("alice", placed())
        refused = await refusal(trade, placed())
        assert [tuple(error) for error in refused.errors] == [
            ("body", "expected at most 2 open orders (limits.max_open_orders)")
        ]
        await trade.entry.place("bob", placed())
        for _ in range(3):
            await trade.entry.place(None, placed())
        trade.directory.fold_event(event("order_cancelled", first.order_id), 0, 0, 5, True)
        await trade.entry.place("alice", placed())
        await refusal(trade, placed())

    run(main())


def test_repeat_of_an_open_order_is_no_other_one() -> None:
    async def main() -> None:
        trade = trade_with(PLAIN, max_open_orders=1)
        await trade.entry.place("alice", placed("mine"))
        assert (await trade.entry.place("alice", placed("mine"))).duplicate

    run(main())


def test_orders_on_their_way_in_count_once() -> None:
    async def main() -> None:
        trade = trade_with(PLAIN, max_open_orders=2)
        trade.log.acks = False
        first = asyncio.create_task(trade.entry.place("alice", placed()))
        second = asyncio.create_task(trade.entry.place("alice", placed()))
        await asyncio.sleep(0)
        await refusal(trade, placed())
        # It is read back before it is acknowledged, and shown: it is still one order.
        trade.see(trade.log.produced[0].command)
        order = trade.directory.get(trade.log.produced[0].order_id)
        assert order is not None and order.outcome is Outcome.ACCEPTED and not first.done()
        trade.log.produced[1].fail(CERTAINLY_NOT)
        with pytest.raises(type(CERTAINLY_NOT)):
            await second
        third = asyncio.create_task(trade.entry.place("alice", placed()))
        await asyncio.sleep(0)
        assert len(trade.log.produced) == 3
        await refusal(trade, placed())
        for number in (0, 2):
            trade.log.produced[number].ack()
        await asyncio.gather(first, third)
        await refusal(trade, placed())

    run(main())


def test_batch_is_counted_one_by_one() -> None:
    async def main() -> None:
        trade = trade_with(PLAIN, max_open_orders=2)
        params = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1", "quantity": "1"}
        body = {"requests": [{"method": "place", "params": params}] * 3}
        batches = Batches(trade.entry, trade.amends)

        async def admit(_command: object) -> None:
            return None

        started = await batches.begin("alice", check_batch(body, trade.amends.rules), admit, Origin("r1", ""))
        outcomes = await batches.outcomes(started)
        assert [isinstance(one, LimitExceeded) for one in outcomes] == [False, False, True]
        assert len(trade.log.produced) == 2

    run(main())


# Amends.


async def amend_refused(trade: Trade, amend: AmendOrder) -> str:
    with pytest.raises(LimitExceeded) as caught:
        await trade.amends.amend("alice", amend)
    assert trade.counts[-1] == ("amend", caught.value.counted_as)
    return caught.value.counted_as


@pytest.mark.parametrize(
    ("price", "quantity", "limit"),
    [
        ("20.1", None, None),
        (None, "5", None),
        (None, "5.1", "max_notional"),
        ("20.4", "5", "max_notional"),
        ("20.4", None, None),
        (None, "10.1", "max_quantity"),
        ("20.6", None, "price_band_percent"),
    ],
)
def test_amended_order_has_to_keep_the_limits_too(price: str | None, quantity: str | None, limit: str | None) -> None:
    async def main() -> None:
        trade = trade_with()
        order_id = (await trade.entry.place("alice", placed(price="20", quantity="4"))).order_id
        amend = AmendOrder(
            CancelOrder(order_id, None),
            None if price is None else Decimal(price),
            None if quantity is None else Decimal(quantity),
        )
        if limit is None:
            await trade.amends.amend("alice", amend)
            trade.mark = Decimal(90)
            assert (await trade.amends.amend("alice", amend)).duplicate
        else:
            assert await amend_refused(trade, amend) == limit
            assert len(trade.log.produced) == 1

    run(main())


def test_amend_of_less_is_not_held_up_by_a_mark_that_moved() -> None:
    async def main() -> None:
        trade = trade_with()
        order_id = (await trade.entry.place("alice", placed(price="20", quantity="4"))).order_id
        trade.mark = Decimal(90)
        await trade.amends.amend("alice", AmendOrder(CancelOrder(order_id, None), None, Decimal(3)))

    run(main())


@pytest.mark.parametrize(
    ("price", "quantity", "limit"),
    [
        ("20", None, None),
        (None, "9", None),
        (None, "11", "max_quantity"),
        ("20", "6", "max_notional"),
        ("9", None, "price_band_percent"),
    ],
)
def test_amend_of_an_order_that_is_not_known_is_checked_by_what_it_says(
    price: str | None, quantity: str | None, limit: str | None
) -> None:
    amend = AmendOrder(
        CancelOrder("a", None),
        None if price is None else Decimal(price),
        None if quantity is None else Decimal(quantity),
    )
    try:
        limits().check_amend("KCN/EUR", None, amend)
    except LimitExceeded as error:
        assert error.counted_as == limit
    else:
        assert limit is None
    limits().check_amend("BTC/EUR", None, amend)


# Reserved.


class Accounts:
    """Reserves any amount as this quantity."""

    def __init__(self, quantity: str) -> None:
        self.quantity = Decimal(quantity)
        self.released: list[str] = []

    async def reserve(self, _user_id: str, _order: PlaceOrder, key: str) -> Reserved:
        return Reserved(key, self.quantity)

    def release(self, order_id: str, _user_id: str, *, unless: object) -> None:
        assert unless is None, "what has no name is nobody else's"
        self.released.append(order_id)


@pytest.mark.parametrize(("quantity", "passes"), [("10", True), ("10.001", False)])
def test_order_by_amount_that_is_reserved_as_too_much_is_released(quantity: str, passes: bool) -> None:
    async def main() -> None:
        accounts = Accounts(quantity)
        trade = trade_with(mark=None, reservations=accounts)
        order = market(None, quote_amount=Decimal(50))
        if passes:
            await trade.entry.place("alice", order)
            assert accounts.released == []
            return
        refused = await refusal(trade, order)
        assert [tuple(error) for error in refused.errors] == [
            ("quote_amount", "buys or sells 10.001, expected at most 10.0 (max_quantity)")
        ]
        assert len(accounts.released) == 1 and len(trade.directory) == 0
        assert isinstance(refused, InvalidFields)

    run(main())


def test_amend_of_an_order_that_is_not_known_is_held_to_what_it_says() -> None:
    check = limits()
    named = CancelOrder("o-1", None)
    check.check_amend("KCN/EUR", None, AmendOrder(named, None, Decimal(10)))
    with pytest.raises(LimitExceeded):
        check.check_amend("KCN/EUR", None, AmendOrder(named, None, Decimal("10.5")))
    with pytest.raises(LimitExceeded):
        check.check_amend("KCN/EUR", None, AmendOrder(named, Decimal(30), None))
    check.check_amend("A/B", None, AmendOrder(named, Decimal(30), Decimal(1000)))


def test_what_was_reserved_for_an_order_by_amount_has_its_limit() -> None:
    check = limits()
    assert check.excess_reserved("KCN/EUR", Decimal(10)) is None
    assert check.excess_reserved("A/B", Decimal(1000)) is None
    beyond = check.excess_reserved("KCN/EUR", Decimal(11))
    assert beyond is not None
    assert beyond.counted_as == "max_quantity"
