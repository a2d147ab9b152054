from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any

import pytest
from tornado.netutil import bind_sockets

from core.commands import OrderRules, PlaceOrder, check_place
from core.errors import AccountsUnavailable, FundsRefused, OutcomeUnknown
from core.settings import Accounts
from services.accounts import CIRCUIT_FAILURES, CIRCUIT_PAUSE_SECONDS, Reservation, Reservations, Upstream
from tests.support.accounts import AccountService, account_service, raw_service

KEY = "5f6bd1e6-6f6e-5d0a-9c43-0d9f6e7a1b20"
OTHER_KEY = "7b6f4fd2-3c55-5a3e-8f8e-2f6f1b2c3d4e"
ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"
LIMIT = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"}
MARKET = {"symbol": "KCN/EUR", "side": "bid", "order_type": "market"}

# A test that waits for a deadline waits so long, which a request takes on no machine; one that must not meet it has longer.
SHORT_SECONDS = 1.0
LONG_SECONDS = 15.0


def order(**fields: Any) -> PlaceOrder:
    return check_place({**LIMIT, **fields}, OrderRules(accounts=True))


def market(**fields: Any) -> PlaceOrder:
    return check_place({**MARKET, **fields}, OrderRules(accounts=True))


class Bench:
    """Reservations whose time is a number, and whose pauses end when a test says (at once, by default)."""

    def __init__(self, url: str, timeout_seconds: float = LONG_SECONDS, max_connections: int = 8) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.failed: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.reservations = Reservations(
            Accounts(url, timeout_seconds, max_connections),
            on_release_failed=self.failed.append,
            pause=self._pause,
            clock=lambda: self.now,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.go_on.wait()

    async def reserve(self, one: PlaceOrder | None = None, key: str = KEY, user_id: str = "ann") -> Reservation:
        return await self.reservations.reserve(user_id, one or order(), key)

    async def outcome(self, one: PlaceOrder | None = None, key: str = KEY) -> type | None:
        try:
            await self.reserve(one, key)
        except (FundsRefused, AccountsUnavailable, OutcomeUnknown) as error:
            return type(error)
        return None

    def be_patient(self) -> None:
        """From now on no deadline is met."""
        self.reservations._client._timeout_seconds = LONG_SECONDS

    async def released(self) -> None:
        """Wait for all releases, however many tries they take."""
        while self.reservations._releases:
            await asyncio.wait(list(self.reservations._releases.values()))
            await asyncio.sleep(0)


@asynccontextmanager
async def benched(url: str, **changes: Any) -> AsyncIterator[Bench]:
    bench = Bench(url, **changes)
    try:
        yield bench
    finally:
        bench.go_on.set()
        await bench.reservations.close(LONG_SECONDS)


@asynccontextmanager
async def serve(balance: str = "10", **changes: Any) -> AsyncIterator[tuple[Bench, AccountService]]:
    async with account_service({("ann", "EUR"): balance, ("ann", "KCN"): "5"}) as service:
        async with benched(service.url, **changes) as bench:
            yield bench, service


@contextmanager
def closed_port() -> Iterator[str]:
    """The url of a port that refuses connections, for as long as nobody else binds it."""
    [socket] = bind_sockets(0, "127.0.0.1")
    port = socket.getsockname()[1]
    socket.close()
    yield f"http://127.0.0.1:{port}"


# Reserving.


@pytest.mark.gen_test
async def test_reserve_holds_the_funds_and_gives_the_services_id_and_quantity() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        assert list(service.held) == [reservation.order_id]
        assert str(reservation.quantity) == "2.0"
        assert service.balances["ann", "EUR"] == 7


@pytest.mark.gen_test
async def test_reserve_sends_the_fields_of_the_order_and_whose_it_is() -> None:
    async with serve() as (bench, service):
        await bench.reservations.reserve("ann", order(client_order_id="mine"), KEY, "request-1")
        await bench.reserve(market(side="ask", quote_amount="1.0", max_slippage_price="1.20"), OTHER_KEY)
    first, second = service.seen
    assert (first.method, first.uri) == ("POST", "/internal/orders")
    assert first.headers["X-User-Id"] == "ann"
    assert first.headers["Idempotency-Key"] == KEY
    assert first.headers["X-Request-Id"] == "request-1"
    assert first.headers["Content-Type"] == "application/json"
    assert first.json() == {**LIMIT, "time_in_force": "GTC", "client_order_id": "mine"}
    assert "X-Request-Id" not in second.headers
    assert second.json() == {
        "symbol": "KCN/EUR",
        "side": "ask",
        "order_type": "market",
        "quote_amount": "1.0",
        "max_slippage_price": "1.20",
        "time_in_force": "IOC",
    }


@pytest.mark.gen_test
async def test_reserve_of_an_amount_gives_the_quantity_that_it_buys() -> None:
    async with serve() as (bench, service):
        assert (await bench.reserve(market(quote_amount="5"))).quantity == Decimal("2.5")
        assert service.balances["ann", "EUR"] == 5


@pytest.mark.gen_test
async def test_reserve_refuses_one_of_two_orders_at_once_for_one_balance() -> None:
    async with serve(balance="4") as (bench, service):
        outcomes = await asyncio.gather(bench.outcome(key=KEY), bench.outcome(key=OTHER_KEY))
        assert sorted(map(str, outcomes)) == sorted(map(str, [None, FundsRefused]))
        assert service.balances["ann", "EUR"] == 1
        assert len(service.held) == 1


@pytest.mark.gen_test
async def test_reserve_gives_a_repeat_the_first_reservation_and_holds_nothing_more() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        assert await asyncio.gather(bench.reserve(), bench.reserve()) == [first, first]
        assert service.balances["ann", "EUR"] == 7


@pytest.mark.gen_test
async def test_reserve_says_why_it_was_refused() -> None:
    async with serve(balance="1") as (bench, _):
        with pytest.raises(FundsRefused) as caught:
            await bench.reserve()
        assert caught.value.error == "insufficient EUR"
        assert bench.reservations.problem is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error":"no funds","detail":"x"}', "no funds"),
        (b'{"title":"t","detail":"the detail","status":422}', "the detail"),
        (b'{"type":"urn:x","title":"only a title"}', "only a title"),
        (b'{"error":{"code":1},"title":"of a problem"}', "of a problem"),
        (b'{"error":"two\\r\\nlines\\u0000 and \\u202e\\ttabs"}', "two lines and tabs"),
        (b'{"error":"' + b"x" * 5_000 + b'"}', "x" * 197 + "..."),
        ('{"error":"zu wenig für dich"}'.encode(), "zu wenig für dich"),
        (b'{"error":"   "}', "the account service refused the order"),
        (b'{"error":null}', "the account service refused the order"),
        (b'["error"]', "the account service refused the order"),
        (b'{"error":"\\ud800"}', "the account service refused the order"),
        (b"<html>no</html>", "the account service refused the order"),
        (b"", "the account service refused the order"),
    ],
)
@pytest.mark.gen_test
async def test_reserve_tells_the_services_reason_on_one_line(body: bytes, told: str) -> None:
    async with serve() as (bench, service):
        with service.answering(422, body), pytest.raises(FundsRefused) as caught:
            await bench.reserve()
        assert caught.value.error == told


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((400, 401, 402, 403, 404, 405, 409, 410, 415, 422, 451), FundsRefused),
        ((429,), AccountsUnavailable),
        # A proxy says 503 of requests that the service had begun, too.
        ((408, 500, 501, 502, 503, 504, 599), OutcomeUnknown),
        ((202, 204, 206, 301, 302, 304, 307, 308), OutcomeUnknown),
    ],
)
@pytest.mark.gen_test
async def test_reserve_tells_what_is_certain_from_what_is_not(statuses: tuple[int, ...], outcome: type) -> None:
    for status in statuses:
        async with serve() as (bench, service):
            with service.answering(status, Location=service.url + "/elsewhere"):
                assert await bench.outcome() is outcome, status
            assert len(service.seen) == 1, "no redirect is followed, and nothing is asked twice"


def reserved(order_id: str = f'"{ID}"', quantity: str = '"2"') -> bytes:
    return f'{{"order":{{"id":{order_id},"quantity":{quantity}}}}}'.encode()


@pytest.mark.parametrize(
    ("body", "order_id", "quantity"),
    [
        (reserved(), ID, "2"),
        (reserved(f'"{ID.upper()}"'), ID, "2"),
        (reserved("17"), "17", "2"),
        (reserved('"17"'), "17", "2"),
        (reserved(quantity="2"), ID, "2"),
        (reserved(quantity="1.10"), ID, "1.10"),
        (reserved(quantity="0.10000000000000000000000000000000000001"), ID, "0.10000000000000000000000000000000000001"),
        (b'{"order":{"id":1,"quantity":"1","status":"new"},"balance":null}', "1", "1"),
    ],
)
@pytest.mark.gen_test
async def test_reserve_reads_every_form_of_the_answer_to_the_last_digit(
    body: bytes, order_id: str, quantity: str
) -> None:
    async with serve() as (bench, service):
        for status in (200, 201):
            with service.answering(status, body):
                reservation = await bench.reserve()
            assert (reservation.order_id, str(reservation.quantity)) == (order_id, quantity)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"[]",
        b"null",
        b'{"id":1,"quantity":"2"}',
        b'{"order":[]}',
        b'{"order":{"id":1}}',
        b'{"order":{"quantity":"2"}}',
        b'{"order":{"id":1,"id":2,"quantity":"2"}}',
        reserved("null"),
        reserved("true"),
        reserved("1.0"),
        reserved("-1"),
        reserved('""'),
        reserved('"../17"'),
        reserved(quantity="null"),
        reserved(quantity='"0"'),
        reserved(quantity="-1"),
        reserved(quantity="NaN"),
        reserved(quantity='"1e99"'),
        reserved(quantity='"two"'),
        reserved(quantity='"2.1"'),
        reserved()[:-1],
        reserved() + b"x",
        b"\xff" + reserved(),
    ],
)
@pytest.mark.gen_test
async def test_reserve_does_not_know_the_outcome_of_an_answer_that_is_malformed(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as (bench, service):
        with service.answering(201, body), pytest.raises(OutcomeUnknown) as caught:
            await bench.reserve()
        assert caught.value.order_id == KEY
    [record] = [record for record in caplog.records if record.name == "gateway.accounts"]
    assert "a reservation may have been made" in record.getMessage()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00",
        b"HTTP/1.1 201 Created\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n" + reserved(),
        b"HTTP/1.1 201 Created\r\nContent-Length: x\r\n\r\n" + reserved(),
        b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ord',
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 100_000,
        b"HTTP/1.1 201 Created\r\n\r\n" + b" " * 100_000 + reserved(),
        b"HTTP/1.1 201 Created\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + reserved(),
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08",
    ],
)
@pytest.mark.gen_test
async def test_reserve_does_not_know_the_outcome_of_an_answer_that_is_no_http(
    reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_service(reply) as service, benched(service.url) as bench:
        assert await bench.outcome() is OutcomeUnknown
        assert len(service.requests) == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.gen_test
async def test_reserve_reads_an_answer_without_a_length_and_one_after_an_interim_answer() -> None:
    for before in (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"):
        async with raw_service(before + b"HTTP/1.0 200 OK\r\n\r\n" + reserved()) as service:
            async with benched(service.url) as bench:
                assert (await bench.reserve()).order_id == ID


@pytest.mark.gen_test
async def test_reserve_writes_one_request_with_its_length_and_nothing_else() -> None:
    async with raw_service(b"HTTP/1.1 201 Created\r\n\r\n" + reserved()) as service:
        async with benched(f"{service.url}/v1/") as bench:
            await bench.reserve()
    assert service.head[0] == "POST /v1/internal/orders HTTP/1.1"
    names = [name for name, _ in service.headers]
    assert sorted(names) == sorted(
        ["host", "connection", "content-length", "x-user-id", "idempotency-key", "content-type", "accept"]
    )
    assert dict(service.headers)["connection"] == "close"
    assert json.loads(service.body)["price"] == "1.50"


# Time, connections, and the circuit.


@pytest.mark.gen_test
async def test_reserve_that_times_out_is_unknown_and_its_repeat_gets_what_was_reserved() -> None:
    async with serve(timeout_seconds=SHORT_SECONDS) as (bench, service):
        with service.frozen(after_its_work=True):
            with pytest.raises(OutcomeUnknown) as caught:
                await bench.reserve()
            assert caught.value.order_id == KEY
            [order_id] = service.held
    async with benched(service.url) as patient:
        await service.start()
        assert (await patient.reserve()).order_id == order_id
        assert service.balances["ann", "EUR"] == 7
        await service.stop()


@pytest.mark.gen_test
async def test_reserve_is_certainly_not_made_when_the_connection_is_refused() -> None:
    with closed_port() as url:
        async with benched(url) as bench:
            with pytest.raises(AccountsUnavailable) as caught:
                await bench.reserve()
            assert caught.value.reason == "the account service cannot be reached"


@pytest.mark.gen_test
async def test_reserve_is_certainly_not_made_when_no_connection_became_free_in_time() -> None:
    async with serve(timeout_seconds=SHORT_SECONDS, max_connections=1) as (bench, service):
        with service.frozen():
            first = asyncio.ensure_future(bench.outcome())
            await service.arrived(1)
            assert {await bench.outcome(key=OTHER_KEY), await first} <= {AccountsUnavailable, OutcomeUnknown}
            assert await first is OutcomeUnknown


@pytest.mark.gen_test
async def test_reserve_uses_no_more_connections_than_it_may() -> None:
    async with serve(balance="100", max_connections=2) as (bench, service):
        with service.frozen():
            waiting = [asyncio.ensure_future(bench.outcome(key=f"key-{number}")) for number in range(6)]
            await service.arrived(2)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(service.seen) == 2
        assert await asyncio.gather(*waiting) == [None] * 6
        assert len(service.held) == 6


@pytest.mark.gen_test
async def test_reserve_that_is_cancelled_frees_its_connection() -> None:
    async with serve(max_connections=1) as (bench, service):
        with service.frozen():
            leaving = asyncio.ensure_future(bench.reserve())
            await service.arrived(1)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
        assert await bench.outcome(key=OTHER_KEY) is None


@pytest.mark.gen_test
async def test_circuit_opens_after_failures_in_a_row_and_closes_with_the_first_success() -> None:
    async with serve() as (bench, service):
        assert bench.reservations.problem is None
        with service.answering(500):
            for number in range(CIRCUIT_FAILURES):
                assert bench.reservations.problem is None
                assert await bench.outcome() is OutcomeUnknown, number
        assert bench.reservations.problem == "the account service fails: HTTP 500"
        for _ in range(3):
            with pytest.raises(AccountsUnavailable, match="down"):
                await bench.reserve()
        assert len(service.seen) == CIRCUIT_FAILURES, "it is left alone"

        bench.now += CIRCUIT_PAUSE_SECONDS
        with service.answering(500):
            assert await bench.outcome() is OutcomeUnknown
            assert await bench.outcome() is AccountsUnavailable
        assert len(service.seen) == CIRCUIT_FAILURES + 1, "one probe"

        bench.now += CIRCUIT_PAUSE_SECONDS
        with service.frozen():
            probe = asyncio.ensure_future(bench.outcome())
            await service.arrived(CIRCUIT_FAILURES + 2)
            assert await bench.outcome(key=OTHER_KEY) is AccountsUnavailable, "one probe at a time"
        assert await probe is None
        assert bench.reservations.problem is None
        assert await bench.outcome(key=OTHER_KEY) is None


@pytest.mark.gen_test
async def test_circuit_opens_when_nobody_listens() -> None:
    with closed_port() as url:
        async with benched(url) as bench:
            for _ in range(CIRCUIT_FAILURES):
                assert await bench.outcome() is AccountsUnavailable
            assert bench.reservations.problem is not None
            assert "refused" in bench.reservations.problem


@pytest.mark.gen_test
async def test_circuit_opens_when_nobody_answers() -> None:
    async with serve(timeout_seconds=SHORT_SECONDS) as (bench, service):
        with service.frozen():
            outcomes = await asyncio.gather(*(bench.outcome() for _ in range(CIRCUIT_FAILURES)))
        assert set(outcomes) == {OutcomeUnknown}
        assert bench.reservations.problem == "the account service fails: no answer within 1 s"


@pytest.mark.parametrize("status", [422, 429])
@pytest.mark.gen_test
async def test_circuit_takes_a_refusal_for_a_sign_of_life(status: int) -> None:
    async with serve() as (bench, service):
        for _ in range(3):
            with service.answering(500):
                for _ in range(CIRCUIT_FAILURES - 1):
                    await bench.outcome()
            with service.answering(status):
                await bench.outcome()
        assert bench.reservations.problem is None


@pytest.mark.gen_test
async def test_circuit_tries_again_when_its_probe_never_came_back() -> None:
    async with serve() as (bench, service):
        service.answer_next(*[500] * CIRCUIT_FAILURES)
        for _ in range(CIRCUIT_FAILURES):
            await bench.outcome()
        bench.now += CIRCUIT_PAUSE_SECONDS
        with service.frozen():
            probe = asyncio.ensure_future(bench.reserve())
            await service.arrived(CIRCUIT_FAILURES + 1)
            probe.cancel()
            await asyncio.wait([probe])
        bench.now += CIRCUIT_PAUSE_SECONDS
        assert await bench.outcome() is None


# User ids.


@pytest.mark.parametrize(
    "user_id", ["", " ann", "ann ", "a\r\nX-User-Id: bob", "a\nb", "a\tb", "jürgen", "\ud800", "a\x7f"]
)
@pytest.mark.gen_test
async def test_reserve_refuses_a_user_id_that_a_header_cannot_hold(user_id: str) -> None:
    async with serve() as (bench, service):
        with pytest.raises(FundsRefused):
            await bench.reserve(user_id=user_id)
        assert service.seen == []


@pytest.mark.parametrize("user_id", ["a", "ann smith", "auth0|5f7c", "a%20b", "urn:x,y;z", '"quoted"', "x" * 3000])
@pytest.mark.gen_test
async def test_reserve_tells_any_other_user_id_as_it_is(user_id: str) -> None:
    async with serve() as (bench, service):
        with pytest.raises(FundsRefused, match="insufficient"):
            await bench.reserve(user_id=user_id)
        assert service.seen[0].headers.get_list("X-User-Id") == [user_id]


# Releasing.


@pytest.mark.gen_test
async def test_release_gives_the_funds_back() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        bench.reservations.release(reservation.order_id, "ann")
        await bench.released()
        assert service.held == {}
        assert service.balances["ann", "EUR"] == 10
        last = service.seen[-1]
        assert (last.method, last.uri) == ("DELETE", f"/internal/orders/{reservation.order_id}")
        assert last.headers["X-User-Id"] == "ann"
        assert (bench.pauses, bench.failed) == ([], [])


@pytest.mark.gen_test
async def test_release_writes_the_id_as_one_segment_of_the_path() -> None:
    async with serve() as (bench, service):
        bench.reservations.release("../a/b?c#d%e", "ann")
        await bench.released()
        assert service.seen[-1].uri == "/internal/orders/..%2Fa%2Fb%3Fc%23d%25e"


@pytest.mark.parametrize("statuses", [(200,), (202,), (204,), (404,), (410,), (500, 204), (500, 409, 404)])
@pytest.mark.gen_test
async def test_release_tries_three_times_and_takes_gone_for_done(statuses: tuple[int, ...]) -> None:
    async with serve() as (bench, service):
        service.answer_next(*statuses)
        bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == len(statuses)
        assert bench.pauses == [0.5, 2.0][: len(statuses) - 1]
        assert bench.failed == []


@pytest.mark.gen_test
async def test_release_that_failed_three_times_is_an_alarm_with_the_order_id(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (bench, service):
        service.answer_next(500, 403, 503)
        bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == 3
        assert bench.failed == [ID]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        f"the reservation of order {ID} could not be released (HTTP 503): its funds stay reserved"
    )


@pytest.mark.gen_test
async def test_release_goes_on_while_the_circuit_is_open() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        service.answer_next(*[500] * CIRCUIT_FAILURES)
        for _ in range(CIRCUIT_FAILURES):
            await bench.outcome(key=OTHER_KEY)
        assert bench.reservations.problem is not None
        bench.reservations.release(reservation.order_id, "ann")
        await bench.released()
        assert service.held == {}


@pytest.mark.gen_test
async def test_release_that_nobody_hears_is_an_alarm() -> None:
    with closed_port() as url:
        async with benched(url) as bench:
            bench.reservations.release(ID, "ann")
            await bench.released()
            assert bench.failed == [ID]


@pytest.mark.gen_test
async def test_release_that_breaks_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (bench, _):
        bench.reservations.release(ID, "a\nb")
        await bench.released()
        assert bench.failed == [ID]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.gen_test
async def test_close_waits_for_releases_under_way() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        with service.frozen():
            bench.reservations.release(reservation.order_id, "ann")
            await service.arrived(2)
            closing = asyncio.ensure_future(bench.reservations.close(LONG_SECONDS))
        await closing
        assert (service.held, bench.failed) == ({}, [])


@pytest.mark.gen_test
async def test_close_makes_an_alarm_of_each_release_that_is_late() -> None:
    async with serve() as (bench, service):
        bench.go_on.clear()
        service.answer_next(500, 500)
        bench.reservations.release("1", "ann")
        bench.reservations.release("2", "ann")
        await service.arrived(2)
        await bench.reservations.close(0)
        assert sorted(bench.failed) == ["1", "2"]
        bench.reservations.release("3", "ann")
        assert bench.failed[-1] == "3"


# A repeat of an order whose first reservation was released: it must not be published without its funds.


@pytest.mark.gen_test
async def test_reserve_makes_a_new_reservation_after_the_old_one_was_released() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.reservations.release(first.order_id, "ann")
        await bench.released()
        second = await bench.reserve()
        assert second.order_id != first.order_id
        assert list(service.held) == [second.order_id]


@pytest.mark.gen_test
async def test_reserve_takes_the_same_id_again_after_a_release_that_was_confirmed() -> None:
    async with serve() as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        bench.reservations.release(first.order_id, "ann")
        await bench.released()
        assert await bench.reserve() == first
        assert list(service.held) == [KEY]


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_is_on_its_way_to_be_released() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.go_on.clear()
        service.answer_next(500)
        bench.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with pytest.raises(AccountsUnavailable, match="being released"):
            await bench.reserve()
        bench.go_on.set()
        await bench.released()
        assert service.held == {}
        assert (await bench.reserve()).order_id != first.order_id


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_whose_release_ended_while_it_was_asked_for() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.go_on.clear()
        service.answer_next(403)
        bench.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with service.frozen(after_its_work=True):
            asked = asyncio.ensure_future(bench.outcome())
            await service.arrived(3)
            # The repeat has got the old reservation, but not yet heard of it, when the second try releases that.
            service.let_newcomers_pass()
            bench.go_on.set()
            await bench.released()
            assert service.held == {}
        assert await asked is AccountsUnavailable


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_a_lost_release_may_still_take_away() -> None:
    async with serve(timeout_seconds=SHORT_SECONDS) as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        with service.frozen():
            bench.reservations.release(first.order_id, "ann")
            await bench.released()
        assert bench.failed == [KEY]
        bench.be_patient()
        with pytest.raises(FundsRefused, match="another client_order_id"):
            await bench.reserve()


@pytest.mark.gen_test
async def test_reserve_does_not_trust_a_release_whose_first_try_may_still_be_carried_out() -> None:
    async with serve(timeout_seconds=SHORT_SECONDS) as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        bench.go_on.clear()
        with service.frozen():
            bench.reservations.release(first.order_id, "ann")
            await service.arrived(2)
            service.let_newcomers_pass()
            bench.be_patient()
            bench.go_on.set()
            await bench.released()
            assert (service.held, bench.failed) == ({}, [])
            with pytest.raises(FundsRefused, match="another client_order_id"):
                await bench.reserve()


@pytest.mark.gen_test
async def test_release_of_one_order_is_under_way_once() -> None:
    async with serve() as (bench, service):
        for _ in range(3):
            bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_reserve_forgets_the_oldest_of_very_many_doubtful_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.accounts._MAX_DOUBTFUL", 3)
    async with serve() as (bench, service):
        for number in range(5):
            service.answer_next(500, 500, 500)
            bench.reservations.release(str(number), "ann")
            await bench.released()
        assert list(bench.reservations._doubtful) == ["2", "3", "4"]


# The service as it is seen by the pass-through.


@asynccontextmanager
async def upstream_of(url: str, timeout_seconds: float = LONG_SECONDS) -> AsyncIterator[Upstream]:
    upstream = Upstream(Accounts(url, timeout_seconds, 4), max_body_bytes=1000)
    try:
        yield upstream
    finally:
        upstream.close()


@pytest.mark.gen_test
async def test_upstream_tells_whose_request_it_is() -> None:
    async with account_service() as service, upstream_of(service.url) as upstream:
        for user_id in ("ann", None, "jürgen", "a\r\nb"):
            await upstream.fetch("GET", "/api/me", [("Accept", "*/*")], b"", user_id)
    assert [seen.headers.get("X-User-Id") for seen in service.seen] == ["ann", None, None, None]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{url}/auth/login?a=1", "/auth/login?a=1"),
        ("{url}", "/"),
        ("{url}?a=1", "/?a=1"),
        ("{url}//evil.example", "{url}//evil.example"),
        ("{url}5/x", "{url}5/x"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("/auth/login", "/auth/login"),
    ],
)
@pytest.mark.gen_test
async def test_upstream_redirects_within_the_site_and_follows_nothing(given: str, told: str) -> None:
    async with account_service() as service, upstream_of(service.url) as upstream:
        with service.answering(302, Location=given.format(url=service.url)):
            answer = await upstream.fetch("GET", "/auth/x", [], b"", None)
        assert answer.status == 302
        assert dict(answer.headers)["Location"] == told.format(url=service.url)
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_upstream_tells_a_timeout_from_no_answer() -> None:
    async with account_service() as service, upstream_of(service.url, SHORT_SECONDS) as upstream:
        with service.frozen(), pytest.raises(TimeoutError):
            await upstream.fetch("GET", "/api/me", [], b"", None)
    async with upstream_of(service.url) as upstream:
        with pytest.raises(ConnectionError):
            await upstream.fetch("GET", "/api/me", [], b"", None)
    too_large = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001
    async with raw_service(too_large) as raw, upstream_of(raw.url) as upstream:
        with pytest.raises(ConnectionError):
            await upstream.fetch("GET", "/api/me", [], b"", None)
