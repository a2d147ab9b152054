"""The exchange class for ccxt, piece by piece: its table of errors, its numbers, and the truth about orders."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import ccxt
import pytest
from ccxt.base.errors import BaseError
from mexchange_ccxt import mexchange, sync
from mexchange_ccxt.channels import BookChannel, Broken
from mexchange_ccxt.errors import ERRORS, is_certain, of_answer, of_problem
from mexchange_ccxt.requests import Requests, blocking

from tests.clients.test_python_client import chapter

SYMBOL = "KCN/EUR"
INSTRUMENT = {"symbol": SYMBOL, "tick": "0.01", "lot": "0.001", "min_quantity": "0.001"}


def exchange_without_gateway(kind: Any = sync.mexchange, **config: Any) -> Any:
    exchange = kind({"apiKey": "t", **config})
    exchange.set_markets([exchange.parse_market(INSTRUMENT)])
    return exchange


# The table of errors


def test_every_code_of_the_contract_has_a_class_of_ccxt_or_is_a_close() -> None:
    codes = {int(code) for code in re.findall(r"^\| (-?\d+) \| `\w+` \|", chapter("Codes"), re.MULTILINE)}
    assert len(codes) > 15
    assert {code for code in codes if not 1000 <= code < 5000} <= ERRORS.keys()


def test_every_problem_of_the_contract_has_a_class_of_ccxt() -> None:
    names = re.findall(r"^\| \d{3} \| `([\w-]+)` \|", chapter("Problems"), re.MULTILINE)
    assert len(names) > 15
    assert {*names} <= ERRORS.keys()


@pytest.mark.parametrize(
    ("error", "status", "path", "name", "more"),
    [
        (ccxt.OrderNotFound, 404, "/api/order/17", "not-found", {}),
        (ccxt.BadSymbol, 404, "/api/book", "not-found", {}),
        (ccxt.NotSupported, 404, "/api/balance", "not-found", {}),
        (ccxt.OrderNotFound, 409, "/api/order/cancel", "conflict", {"order_status": "filled"}),
        (ccxt.DuplicateOrderId, 409, "/api/order", "conflict", {}),
        (ccxt.InvalidOrder, 422, "/api/order", "invalid-fields", {"errors": [{"field": "price", "message": "x"}]}),
        (ccxt.BadSymbol, 422, "/api/order", "invalid-fields", {"errors": [{"field": "symbol", "message": "x"}]}),
        (ccxt.InsufficientFunds, 422, "/api/order", "invalid-fields", {}),
        (ccxt.BadRequest, 422, "/api/trades", "invalid-fields", {"errors": [{"field": "after", "message": "x"}]}),
        (ccxt.AccountSuspended, 403, "/api/order", "blocked", {}),
        (ccxt.MarketClosed, 403, "/api/order", "halted", {"state": "halted"}),
        (ccxt.OnMaintenance, 403, "/api/order", "halted", {"state": "maintenance"}),
        (ccxt.RequestTimeout, 504, "/api/order", "outcome-unknown", {"order_id": "17"}),
        (ccxt.ExchangeNotAvailable, 503, "/api/order", "of-a-later-gateway", {}),
        (ccxt.BadRequest, 418, "/api/order", "of-a-later-gateway", {}),
        (ccxt.ExchangeNotAvailable, 502, "/api/order", "", {}),
    ],
)
def test_problem_is_of_the_class_that_ccxt_has_for_it(
    error: type[BaseError], status: int, path: str, name: str, more: Mapping[str, Any]
) -> None:
    body = {"type": f"urn:mexchange:problem:{name}", "status": status, "detail": "why", **more}
    told: Any = of_problem("mexchange", status, path, body, "7")
    assert type(told) is error
    assert "why" in str(told)
    assert (told.retry_after, told.order_status) == (7, more.get("order_status"))


def test_answer_tells_what_the_problem_would() -> None:
    halted = {"code": 10001, "message": "x", "data": {"problem": "halted", "state": "maintenance"}}
    assert type(of_answer("mexchange", halted)) is ccxt.OnMaintenance
    assert type(of_answer("mexchange", {"code": 10001, "message": "x"})) is ccxt.InvalidOrder
    assert type(of_answer("mexchange", {"code": 19999, "message": "new"})) is ccxt.ExchangeError
    closed: Any = of_answer("mexchange", {"code": 10002, "message": "x", "data": {"status": "filled"}})
    assert (type(closed), closed.order_status) == (ccxt.OrderNotFound, "filled")


# Numbers


def test_order_is_written_by_the_steps_of_its_instrument() -> None:
    exchange = exchange_without_gateway()
    request = exchange.order_request(
        SYMBOL, "limit", "sell", 0.1 + 0.2, 1.005, {"timeInForce": "PO", "stp": "cancel_both"}
    )
    assert request.pop("client_order_id")
    assert request == {
        "symbol": SYMBOL, "side": "ask", "order_type": "limit", "price": "1.01", "quantity": "0.3", "post_only": True,
        "stp": "cancel_both",
    }  # fmt: skip


def test_order_of_no_side_is_refused_by_its_field() -> None:
    with pytest.raises(ccxt.InvalidOrder, match="side"):
        exchange_without_gateway().create_order(SYMBOL, "limit", "bid", 1, 1)


def test_numbers_keep_their_digits_where_the_program_wants_them() -> None:
    exchange = exchange_without_gateway(number=Decimal)
    digits = "12345678901234567890.123456789012345678"
    trade = exchange.parse_trade(
        {"trade_id": "0-1", "price": digits, "quantity": "1", "side": "buy", "time": "1760000000.001"},
        exchange.market(SYMBOL),
    )
    assert (trade["price"], trade["cost"], trade["timestamp"]) == (Decimal(digits), Decimal(digits), 1760000000001)


def test_json_of_the_gateway_makes_no_floats() -> None:
    assert sync.mexchange.on_json_response('{"price": 0.10, "seq": 7}') == {"price": "0.10", "seq": 7}


def test_ticker_leaves_out_what_is_not_known() -> None:
    exchange = exchange_without_gateway()
    unknown = dict.fromkeys(("mark_price", "best_ask_price", "best_ask_amount", "last_price", "low_price_24h"), "0")
    told = {
        **unknown, "best_bid_price": "10", "best_bid_amount": "2", "high_price_24h": "0", "change_24h": "0",
        "volume_24h": "0", "value_24h": "0", "mark_timestamp": "1760000000.5",
    }  # fmt: skip
    ticker = exchange.parse_ticker(told, exchange.market(SYMBOL))
    assert (ticker["bid"], ticker["bidVolume"], ticker["baseVolume"]) == (10.0, 2.0, 0.0)
    names = ("ask", "askVolume", "last", "open", "high", "low", "change", "percentage", "markPrice")
    assert [ticker[name] for name in names] == [None] * len(names)


def test_trades_of_one_millisecond_are_in_the_order_in_which_they_traded() -> None:
    class Answering(sync.mexchange):
        async def _ask(self, *_: Any, **__: Any) -> Any:
            names = ("1-1001", "1-1000", "1-999")
            return {
                "trades": [
                    {"trade_id": one, **dict.fromkeys(("price", "quantity", "time"), "1"), "side": "buy"}
                    for one in names
                ]
            }

    exchange = exchange_without_gateway(Answering)
    assert [one["id"] for one in exchange.fetch_trades(SYMBOL)] == ["1-999", "1-1000", "1-1001"]
    assert [one["id"] for one in exchange.fetch_trades(SYMBOL, limit=2)] == ["1-1000", "1-1001"]


# The book


def book_message(**note: Any) -> dict[str, Any]:
    return {"seq": 7, "notification": {"bid_changes": [], "ask_changes": [], "time": "1760000000.5", **note}}


def test_book_shows_nothing_of_what_does_not_follow() -> None:
    channel = BookChannel(exchange_without_gateway(mexchange), "book", SYMBOL)
    assert channel.take(book_message(bid_changes=[["10.05", 0, 1]])) == []  # no snapshot yet
    snapshot = book_message(snapshot=True, bid_changes=[["10.05", 0, "1.50"], ["10.04", 0, 2], ["9", 1, 0]])
    assert channel.take(snapshot) == ["book"]
    assert [*channel.book["bids"]] == [[10.05, 1.5], [10.04, 2.0]]
    assert channel.take(book_message(bid_changes=[["10.05", "1.5", 0]])) == ["book"]
    assert [*channel.book["bids"]] == [[10.04, 2.0]]
    with pytest.raises(Broken):
        channel.take(book_message(bid_changes=[["10.04", 1, 3]]))
    assert [*channel.book["bids"]] == []


def test_book_that_cannot_be_trusted_is_empty_and_told() -> None:
    channel = BookChannel(exchange_without_gateway(mexchange), "book", SYMBOL)
    channel.take(book_message(snapshot=True, bid_changes=[["10.05", 0, 1]]))
    with pytest.raises(ccxt.ExchangeNotAvailable):
        channel.take(book_message(stale=True))
    assert [*channel.book["bids"]] == []


# The truth about orders


class Told(Requests):
    """Answers of a gateway, one after the other; what was sent."""

    id = "mexchange"

    def __init__(self, *answers: Any) -> None:
        self.options = {"repeats": 2, "repeatDelay": 250}
        self.answers = [*answers]
        self.pauses: list[int] = []

    def sleep(self, milliseconds: int) -> None:
        self.pauses.append(milliseconds)

    def settled(self) -> Any:
        async def send() -> Any:
            answer = self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return blocking(self._settled)(send, {"client_order_id": "c"})


def refused(status: int, name: str, retry_after: str | None = None, **more: Any) -> BaseError:
    body = {"type": f"urn:mexchange:problem:{name}", "detail": name, **more}
    return of_problem("mexchange", status, "/api/order", body, retry_after)


def test_what_is_certainly_not_done_is_sent_again_when_the_gateway_says() -> None:
    told = Told(refused(503, "unavailable", "3"), refused(429, "too-many-requests"), "done")
    assert told.settled() == "done"
    assert told.pauses == [3000, 250]


def test_what_was_never_done_is_told_as_it_was_refused() -> None:
    with pytest.raises(ccxt.RateLimitExceeded):
        Told(*[refused(429, "too-many-requests")] * 3).settled()
    told = Told(refused(422, "invalid-fields", errors=[]), "done")
    with pytest.raises(ccxt.InvalidOrder):
        told.settled()
    assert told.answers == ["done"]


@pytest.mark.parametrize(
    "after",
    [
        refused(422, "invalid-fields", errors=[{"field": "price"}]),
        refused(503, "unavailable"),
        refused(504, "outcome-unknown"),
        refused(500, "internal"),
        ccxt.NetworkError("cut"),
    ],
)
def test_what_is_refused_behind_an_unknown_outcome_is_unknown(after: BaseError) -> None:
    with pytest.raises(ccxt.RequestTimeout, match="what became of c") as raised:
        Told(refused(504, "outcome-unknown"), after, after).settled()
    assert raised.value.__cause__ is after


def test_what_became_of_a_closed_order_is_told_also_behind_an_unknown_outcome() -> None:
    with pytest.raises(ccxt.OrderNotFound):
        Told(refused(504, "outcome-unknown"), refused(409, "conflict", order_status="cancelled")).settled()


# Over the connection


@pytest.mark.gen_test
async def test_order_that_met_the_end_of_the_connection_before_it_was_signed_in_was_not_sent() -> None:
    met = ccxt.NetworkError("cut")

    class Cut(mexchange):
        async def _opened(self) -> Any:
            return None

        async def _signed_in(self, client: Any) -> None:
            raise met

    exchange = exchange_without_gateway(Cut, options={"repeatDelay": 0})
    with pytest.raises(ccxt.ExchangeNotAvailable) as raised:
        await exchange.create_order_ws(SYMBOL, "limit", "buy", 1, 1)
    assert is_certain(raised.value)
    assert not is_certain(met)  # which others may be told, who had sent something
    await exchange.close()


@pytest.mark.gen_test
async def test_program_that_gives_up_waiting_again_and_again_leaves_nothing_behind() -> None:
    class Subscribed(mexchange):
        made: Any = None

        async def _opened(self) -> Any:
            self.made = self.made or self.client(self.ws_url())
            return self.made

        async def _send(self, *_: Any) -> None:
            pass

    exchange = exchange_without_gateway(Subscribed)
    for _ in range(3):
        watching = asyncio.ensure_future(exchange.watch_trades(SYMBOL))
        for _turn in range(10):
            await asyncio.sleep(0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    [waited_for] = exchange.made.futures.values()
    assert len(waited_for._callbacks) == 1
    await exchange.close()


# Both classes


@pytest.mark.parametrize("kind", [mexchange, sync.mexchange])
def test_class_has_its_own_method_for_all_that_it_says_it_has(kind: Any) -> None:
    exchange = exchange_without_gateway(kind)
    base = next(part for part in kind.__mro__ if part.__module__.startswith("ccxt."))
    said, before = ({name for name, has in one.describe()["has"].items() if has is True} for one in (exchange, base()))
    ours = {name for part in kind.__mro__ if part.__module__.startswith("mexchange_ccxt") for name in vars(part)}
    words = {"spot", "ws", "createPostOnlyOrder"}  # of which there is no method
    assert {exchange.un_camel_case(name) for name in said - before - words} <= ours
    assert len(said - before) > 15


def test_coroutine_that_waits_is_no_function() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for something"):
        blocking(waits)()
