"""The client for Python, piece by piece, on a clock and a connection of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from decimal import Decimal
from typing import Any

import httpx
import pytest
from mexchange import (
    BadRequest,
    Exchange,
    Gap,
    InvalidFields,
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    Place,
    Position,
    Unavailable,
)
from mexchange.book import QUIET_SECONDS, Book
from mexchange.connection import Connection, expiry_of
from mexchange.errors import CLOSES, ERRORS, ConnectionLost, GatewayError, StreamClosed, of_answer, of_problem
from mexchange.models import decode, order_state, text
from mexchange.rest import Rest
from mexchange.streams import Latest, Lossless
from mexchange.subscriptions import Subscription

from clients.conformance.server import ScriptedServer
from tests.support.gateway import REPOSITORY

CONTRACT = (REPOSITORY / "docs" / "contract.md").read_text("utf-8")
EPOCH = "AAAAAAAAAAAAAAAAAAAAAQ.4"
TRADE = [1, 1, "buy", 1, False, "0-7"]


def chapter(title: str) -> str:
    return CONTRACT.partition(f"\n### {title}\n")[2].partition("\n### ")[0]


class Owner:
    """A connection that notes what is asked of it."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.looks = 0

    def look_again(self) -> None:
        self.looks += 1

    def leave(self, subscription: Subscription) -> None:
        self.left.append(subscription.channel)
        subscription.is_joined = False

    def remove(self, subscription: Subscription) -> None:
        self.leave(subscription)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# The table of errors


def test_every_code_of_the_contract_has_an_exception_or_is_a_close() -> None:
    codes = {int(code): name for code, name in re.findall(r"^\| (-?\d+) \| `(\w+)` \|", chapter("Codes"), re.MULTILINE)}
    assert len(codes) > 15
    closes = {code: name for code, name in codes.items() if 1000 <= code < 5000}
    assert closes == CLOSES
    assert codes.keys() - closes.keys() <= ERRORS.keys()


def test_every_problem_of_the_contract_has_an_exception() -> None:
    names = re.findall(r"^\| \d{3} \| `([\w-]+)` \|", chapter("Problems"), re.MULTILINE)
    assert len(names) > 15
    assert set(names) <= ERRORS.keys()


def test_error_of_a_later_gateway_is_told_by_its_status_or_as_it_is() -> None:
    assert type(of_answer({"code": 19999, "message": "new"})) is GatewayError
    assert type(of_problem(503, {"type": "urn:mexchange:problem:asleep"}, "2")) is Unavailable
    assert type(of_problem(418, "<html>", None)) is GatewayError


def test_error_tells_what_came_with_it() -> None:
    error = of_problem(429, {"type": "urn:mexchange:problem:too-many-requests", "status": 429, "detail": "wait"}, "3")
    assert (error.retry_after, error.kind, str(error), error.order_status) == (3.0, "too-many-requests", "wait", None)
    refused = of_answer({"code": -32602, "message": "x", "data": {"errors": [{"field": "price", "message": "x"}]}})
    assert isinstance(refused, InvalidFields)
    assert refused.errors == [{"field": "price", "message": "x"}]
    assert of_answer({"code": 10002, "message": "x", "data": {"status": "filled"}}).order_status == "filled"


# Decimals


def test_number_keeps_every_digit() -> None:
    digits = "12345678901234567890.123456789012345678"
    assert decode(f'{{"a": {digits}}}') == {"a": Decimal(digits)}
    assert text(Decimal("1E-7")) == "0.0000001"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_number_that_is_none_of_json_is_refused(number: str) -> None:
    with pytest.raises(ValueError):
        decode(number)


def test_binary_float_is_refused_in_an_order() -> None:
    order: Any = 0.1
    with pytest.raises(TypeError):
        Place(symbol="A/B", side="bid", quantity=order).params()
    with pytest.raises(TypeError):
        Place(symbol="A/B", side="bid", quantity=1, attributes={"display": order}).params()


def test_order_has_a_name_of_its_own_and_only_what_was_given() -> None:
    one, other = (Place(symbol="A/B", side="bid", quantity="1", price=2, attributes={"post_only": True}) for _ in "ab")
    assert one.client_order_id != other.client_order_id
    assert one.params() == {
        "symbol": "A/B",
        "side": "bid",
        "order_type": "limit",
        "price": "2",
        "quantity": "1",
        "client_order_id": one.client_order_id,
        "post_only": True,
    }


def test_state_keeps_attributes_that_this_library_does_not_know() -> None:
    told = {"order_id": "o", "client_order_id": None, "symbol": "A/B", "side": "bid", "order_type": "market"}
    told |= {
        "time_in_force": "IOC",
        "price": None,
        "quantity": "1",
        "filled_quantity": "0",
        "status": "open",
        "time": 1,
    }
    state = order_state({**told, "post_only": True})
    assert (state.attributes, state.price, state.quantity) == ({"post_only": True}, None, Decimal(1))


# Books


def changes(seq: int, bids: list[Any], asks: list[Any] = [], **more: Any) -> dict[str, Any]:  # noqa: B006
    told = {
        "bid_changes": bids,
        "ask_changes": asks,
        "trades": [],
        "time": 1,
        "total_bid_amount": 1,
        "total_ask_amount": 1,
    }
    return {"channel_name": "b", "seq": seq, "notification": {**told, **more}}


@pytest.mark.gen_test
async def test_book_that_is_silent_for_too_long_is_stale_and_says_so_to_its_connection() -> None:
    clock = Clock()
    book = Book(Owner(), "b", "A/B", clock)
    book.take(changes(1, [[10, 0, 1]], snapshot=True))
    clock.now += QUIET_SECONDS
    assert (book.stale, book.is_quiet()) == (False, False)
    clock.now += 0.1
    assert (book.stale, book.is_quiet()) == (True, True)
    book.take(changes(1, []))
    assert (book.stale, book.is_quiet()) == (False, False)


@pytest.mark.gen_test
async def test_book_is_asked_for_anew_no_more_often_than_every_five_seconds() -> None:
    clock, owner = Clock(), Owner()
    waits: list[float] = []
    book = Book(owner, "b", "A/B", clock)
    book._rejoin = waits.append  # type: ignore[method-assign, assignment]
    for _ in range(3):
        book.take(changes(1, [[10, 0, 1]], snapshot=True))
        book.take(changes(2, [[10, 9, 1]]))
        assert book.stale
    assert (waits, book.mended) == ([0.0, 5.0, 10.0], 3)


@pytest.mark.gen_test
@pytest.mark.parametrize("bids", [[[10, 2, 1]], [[11, 1, 2]], [[11, 0, 0]], [[20, 0, 1]]])
async def test_book_takes_no_change_that_does_not_fit(bids: list[Any]) -> None:
    book = Book(Owner(), "b", "A/B", Clock())
    book.take(changes(1, [[10, 0, 1]], [[15, 0, 1]], snapshot=True))
    book.take(changes(2, bids))
    assert (book.stale, book.seq) == (True, 1)


@pytest.mark.gen_test
async def test_book_tells_its_levels_best_first() -> None:
    book = Book(Owner(), "b", "A/B", Clock())
    book.take(changes(1, [[9, 0, 1], [10, 0, 2]], [[12, 0, 3], [11, 0, 4]], snapshot=True))
    assert [level.price for level in book.bids] == [10, 9]
    assert [level.price for level in book.asks] == [11, 12]
    assert (book.best_bid, book.best_ask) == ((10, 2), (11, 4))
    assert book.quantity_at("bid", Decimal(9)) == 1
    assert book.quantity_at("ask", Decimal(9)) == 0


@pytest.mark.gen_test
async def test_book_that_is_closed_ends_the_loop_over_it() -> None:
    book = Book(Owner(), "b", "A/B", Clock())
    async with book:
        book.take(changes(1, [[10, 0, 1]], snapshot=True))
        assert await anext(book) is book
    assert [one async for one in book] == []
    with pytest.raises(StreamClosed):
        await book.changed()
    assert book.stale


# Streams


def told(seq: int, *items: int, **more: Any) -> dict[str, Any]:
    return {"channel_name": "t", "seq": seq, "notification": {"items": list(items)}, **more}


def lossless(owner: Owner, bound: int = 100, since: Position | None = None) -> Lossless[int]:
    return Lossless(owner, "t", lambda message: list(message["notification"]["items"]), bound=bound, since=since)


@pytest.mark.gen_test
async def test_position_is_what_the_program_was_told_and_not_what_waits() -> None:
    stream = lossless(Owner())
    stream.take(told(1, 10, epoch=EPOCH))
    stream.take(told(2, 20, 21))
    assert stream.position is None
    await anext(stream)
    assert stream.position == Position(EPOCH, 1)
    await anext(stream)
    assert stream.position == Position(EPOCH, 1)
    await anext(stream)
    assert stream.position == Position(EPOCH, 2)
    assert stream.since() == Position(EPOCH, 2)
    assert Position.from_json(json.loads(json.dumps(stream.position.to_json()))) == stream.position


@pytest.mark.gen_test
async def test_position_of_a_trade_is_its_own_offset_within_a_notification() -> None:
    exchange = Exchange("http://127.0.0.1:1")
    trades = exchange.trades("A/B")
    listed = [[1, 1, "buy", 1, False, f"0-{offset}"] for offset in (7, 8, 9)]
    trades.take({"seq": 9, "epoch": EPOCH, "notification": {"trades": listed}})
    for offset in (7, 8, 9):
        await anext(trades)
        assert trades.position == Position(EPOCH, offset)
    await exchange.aclose()


@pytest.mark.gen_test
async def test_stream_that_nobody_reads_is_left_and_wanted_again_at_half_its_bound() -> None:
    owner = Owner()
    stream = lossless(owner, bound=4)
    stream.take(told(1, 1, 2, 3, epoch=EPOCH))
    assert (owner.left, stream.is_wanted) == ([], True)
    stream.take(told(2, 4))
    assert (owner.left, stream.is_wanted) == (["t"], False)
    assert [await anext(stream)] == [1]
    assert not stream.is_wanted
    assert [await anext(stream)] == [2]
    assert (stream.is_wanted, stream.since()) == (True, Position(EPOCH, 2))


@pytest.mark.gen_test
async def test_stream_that_does_not_recover_says_so_before_what_follows() -> None:
    stream = lossless(Owner(), since=Position(EPOCH, 5))
    stream.take(told(9, 9, epoch=EPOCH, recovered=False))
    assert isinstance(await anext(stream), Gap)
    assert await anext(stream) == 9


@pytest.mark.gen_test
async def test_stream_given_a_position_goes_on_from_there() -> None:
    stream = lossless(Owner(), since=Position(EPOCH, 5))
    assert stream.since() == stream.position == Position(EPOCH, 5)
    stream.take(told(6, 6, epoch=EPOCH, recovered=True))
    assert await anext(stream) == 6


@pytest.mark.gen_test
async def test_stream_that_fails_tells_what_waits_and_then_why() -> None:
    stream = lossless(Owner())
    stream.take(told(1, 1, epoch=EPOCH))
    stream.fail(InvalidFields("no such channel"))
    assert await anext(stream) == 1
    with pytest.raises(InvalidFields):
        await anext(stream)


@pytest.mark.gen_test
async def test_conflated_stream_keeps_the_newest_of_each_key() -> None:
    stream: Latest[str] = Latest(
        Owner(), "t", lambda message: message["notification"], stale=lambda one: f"{one} stale"
    )
    stream.take({"notification": [("a", "a1"), ("b", "b1")]})
    stream.take({"notification": [("a", "a2")]})
    assert [await anext(stream), await anext(stream)] == ["b1", "a2"]
    stream.on_lost()
    assert sorted([await anext(stream), await anext(stream)]) == ["a2 stale", "b1 stale"]


@pytest.mark.gen_test
async def test_conflated_stream_keeps_no_more_than_its_bound() -> None:
    stream: Latest[int] = Latest(Owner(), "t", lambda message: [(n, n) for n in message["n"]], bound=2)
    stream.take({"n": [1, 2, 3]})
    assert [await anext(stream), await anext(stream)] == [2, 3]


@pytest.mark.gen_test
async def test_conflated_stream_asks_for_what_a_later_snapshot_says_may_have_changed() -> None:
    asked: list[int] = []

    async def refill(last: int) -> list[tuple[int, int]]:
        asked.append(last)
        return [(2, 20), (3, 30), (4, 40)]

    def read(message: dict[str, Any]) -> list[tuple[int, int]]:
        return list(message["notification"]["items"])

    stream: Latest[int] = Latest(Owner(), "t", read, refill=refill)
    stream.take({"notification": {"items": [(1, 10), (2, 15)], "snapshot": True}})
    assert [await anext(stream), await anext(stream)] == [10, 15]
    stream.take({"notification": {"items": [(4, 41), (5, 50)], "snapshot": True}})
    assert [await anext(stream) for _ in range(4)] == [20, 30, 41, 50]
    assert asked == [15]


# Tokens


def token(ends: object) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps({'exp': ends}).encode()).decode().rstrip('=')}.signature"


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "a.e30.c", token("soon"), token(None)])
def test_token_whose_end_cannot_be_read_is_renewed_when_the_gateway_says_so(text: str) -> None:
    assert expiry_of(text) is None


@pytest.mark.parametrize(("left", "renewed_in"), [(3600, 3540), (100, 80), (0.5, 1)])
def test_token_is_asked_for_again_before_it_ends(left: float, renewed_in: float) -> None:
    clock = Clock()
    connection = Connection("ws://x/ws", None, request_seconds=1, random=lambda: 0, clock=clock, wall=lambda: 5000.0)
    assert expiry_of(token(5000 + left)) == 5000 + left
    assert connection._renewal_of(token(5000 + left)) == clock.now + renewed_in


def test_token_that_is_over_by_a_wrong_clock_is_not_asked_for_again_and_again() -> None:
    connection = Connection("ws://x/ws", None, request_seconds=1, random=lambda: 0, wall=lambda: 5000.0)
    assert connection._renewal_of(token(4000)) is None


@pytest.mark.gen_test
async def test_who_cannot_give_a_token_keeps_nobody_from_what_needs_none() -> None:
    given = iter([ValueError("asleep"), ValueError("asleep"), "t"])

    async def token() -> str:
        one = next(given)
        if isinstance(one, Exception):
            raise one
        return one

    signed_in = [
        {"expect": {"method": "public/auth", "params": {"token": "t"}}},
        {"result": {"access_token": "t", "token_type": "bearer", "user_id": "alice"}},
    ]
    public = [
        {"expect": {"method": "public/subscribe", "params": {"channels": ["trades.A/B"]}}},
        {"result": ["trades.A/B"]},
        {"send": {"channel_name": "trades.A/B", "seq": 1, "epoch": EPOCH, "notification": {"trades": [TRADE]}}},
    ]
    async with ScriptedServer({"connections": [[*public, *signed_in, {"until": "done"}]]}) as server:
        exchange = Exchange(server.url, token=token, random=lambda: 0.0)
        trades = exchange.trades("A/B")
        async with exchange:
            assert exchange.user_id == "alice"
            assert [one.trade_id async for one in _first(trades)] == ["0-7"]
        assert server.faults == []


async def _first(stream: Any) -> Any:
    yield await anext(stream)


@pytest.mark.gen_test
@pytest.mark.parametrize(("websocket", "is_said"), [({}, False), ({"logger": logging.getLogger("wanted")}, True)])
async def test_token_is_in_no_log_unless_the_program_wants_every_message_there(
    caplog: pytest.LogCaptureFixture, websocket: dict[str, Any], is_said: bool
) -> None:
    caplog.set_level("DEBUG")
    secret = "s3cr3t"
    signed_in = {"access_token": secret, "token_type": "bearer", "user_id": "alice"}
    steps = [{"expect": {"method": "public/auth"}}, {"result": signed_in}, {"until": "done"}]
    async with ScriptedServer({"connections": [steps]}) as server:
        async with Exchange(server.url, token=secret, websocket=websocket):
            pass
    said = [one.getMessage() for one in caplog.records if one.name != "websockets.server"]
    assert any(secret in one for one in said) is is_said


# Questions


def rest(
    *answers: httpx.Response | Exception, seconds: float = 10.0, another: str = "t"
) -> tuple[Rest, list[httpx.Request]]:
    asked: list[httpx.Request] = []
    left = [*answers]

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        told = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(told, Exception):
            raise told
        return told

    async def token(refused: str | None) -> str:
        return "t" if refused is None else another

    return Rest("http://x", token, seconds, lambda: 0.0, httpx.MockTransport(answer)), asked


def problem(status: int, name: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"type": f"urn:mexchange:problem:{name}", "status": status}, headers=headers)


@pytest.mark.gen_test
async def test_question_is_asked_again_while_it_cannot_be_answered() -> None:
    client, asked = rest(
        httpx.ConnectError("no"), problem(503, "unavailable"), httpx.Response(200, text='{"time_ms": 5}')
    )
    assert await client.time_ms() == 5
    assert [request.headers.get("Authorization") for request in asked] == [None, None, None]


@pytest.mark.gen_test
async def test_question_about_oneself_carries_the_token() -> None:
    client, asked = rest(httpx.Response(200, text='{"orders": []}'))
    assert await client.open_orders() == []
    [request] = asked
    assert request.headers["Authorization"] == "Bearer t"
    with pytest.raises(NotFound):
        await client.order(client_order_id="mine")


@pytest.mark.gen_test
@pytest.mark.parametrize(("another", "asked_with"), [("t", 1), ("t2", 2)])
async def test_question_refused_for_its_token_is_asked_once_more_with_another(another: str, asked_with: int) -> None:
    client, asked = rest(problem(401, "unauthorised"), another=another)
    with pytest.raises(NotAuthorised):
        await client.open_orders()
    assert len(asked) == asked_with


@pytest.mark.gen_test
async def test_token_for_questions_is_another_one_only_where_that_was_refused() -> None:
    given = iter(["t1", "t2"])

    async def give() -> str:
        return next(given)

    connection = Connection("ws://x/ws", give, request_seconds=1, random=lambda: 0)
    told = [
        await connection.token(),
        await connection.token(),
        await connection.token("t1"),
        await connection.token("t1"),
    ]
    assert told == ["t1", "t1", "t2", "t2"]
    assert await Connection("ws://x/ws", "t", request_seconds=1, random=lambda: 0).token("t") == "t"


@pytest.mark.gen_test
async def test_question_that_is_refused_is_not_asked_again() -> None:
    client, asked = rest(problem(404, "not-found"))
    with pytest.raises(NotFound):
        await client.trades_page("A/B")
    assert len(asked) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", [problem(503, "unavailable", **{"Retry-After": "60"}), httpx.ConnectError("no")])
async def test_question_fails_with_the_last_reason_when_its_time_is_over(answer: Any) -> None:
    client, _ = rest(answer, seconds=0.05)
    with pytest.raises((Unavailable, ConnectionLost)):
        await client.time_ms()


# The whole


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://localhost", "http://"])
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Exchange(url)


@pytest.mark.gen_test
async def test_gateway_that_cannot_be_reached_is_told_at_the_start() -> None:
    with pytest.raises(ConnectionLost):
        async with Exchange("http://127.0.0.1:1", timeout=0.05):
            pass


@pytest.mark.gen_test
async def test_order_that_cannot_be_sent_is_certainly_not_there() -> None:
    exchange = Exchange("http://127.0.0.1:1", timeout=0.05)
    with pytest.raises(ConnectionLost) as raised:
        await exchange.place("A/B", "bid", 1, 1)
    assert not isinstance(raised.value, OutcomeUnknown)
    await exchange.aclose()


@pytest.mark.gen_test
async def test_order_of_a_closed_exchange_is_certainly_not_there_and_told_at_once() -> None:
    async with ScriptedServer({"connections": [[{"until": "done"}]]}) as server:
        async with Exchange(server.url, timeout=3600) as exchange:
            pass
        with pytest.raises(ConnectionLost):
            await exchange.place("A/B", "bid", 1, 1)


@pytest.mark.gen_test
async def test_order_under_way_when_the_exchange_is_closed_is_unknown_and_told_at_once() -> None:
    steps = [{"expect": {"method": "private/place_order"}}, {"send": {"type": "came"}}, {"until": "done"}]
    async with ScriptedServer({"connections": [steps]}) as server:
        async with Exchange(server.url, timeout=3600) as exchange:
            came = asyncio.Event()
            exchange._connection.on_event = lambda _: came.set()
            placing = asyncio.ensure_future(exchange.place("A/B", "bid", 1, 1))
            await came.wait()
        with pytest.raises(OutcomeUnknown):
            await placing


@pytest.mark.gen_test
async def test_only_the_largest_of_the_messages_that_were_not_answered_is_too_big() -> None:
    async with ScriptedServer({"connections": [[*[{"expect": {"method": "m"}}] * 3, {"close": 1009}]]}) as server:
        async with Exchange(server.url) as exchange:
            sent = [exchange._connection.request("m", {"n": "x" * size}) for size in (1, 1000, 2)]
            kinds = [type(one) for one in await asyncio.gather(*sent, return_exceptions=True)]
    assert kinds == [OutcomeUnknown, BadRequest, OutcomeUnknown]


@pytest.mark.gen_test
async def test_channel_that_is_refused_for_now_holds_up_nothing_else() -> None:
    refused = {"code": 10003, "message": "too many", "data": {"retry_after": 3600}}
    steps = [
        {"expect": {"method": "public/subscribe", "params": {"channels": ["trades.A/B"]}}},
        {"error": refused},
        {"expect": {"method": "private/place_order"}},
        {"result": {"order_id": "o-1"}},
        {"until": "done"},
    ]
    async with ScriptedServer({"connections": [steps]}) as server:
        exchange = Exchange(server.url)
        exchange.trades("A/B")
        async with exchange:
            assert (await exchange.place("A/B", "bid", 1, 1)).order_id == "o-1"
        assert server.faults == []


@pytest.mark.gen_test
async def test_channel_is_given_to_one_listener_at_a_time() -> None:
    exchange = Exchange("http://127.0.0.1:1", timeout=0.05)
    first = exchange.trades("A/B")
    with pytest.raises(ValueError):
        exchange.trades("A/B")
    await first.aclose()
    await exchange.trades("A/B").aclose()
    await exchange.aclose()
