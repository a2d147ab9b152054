from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from core.config.settings import Accounts
from core.errors import AccountsUnavailable, FundsRefused, OutcomeUnknown
from services.accounts import Upstream
from tests.services.reserving import (
    ID,
    KEY,
    LIMIT,
    LONG_SECONDS,
    OTHER_KEY,
    market,
    order,
    reservations_at,
    serve,
)
from tests.support.account_ledger import Ledger
from tests.support.accounts import account_service, raw_service
from tests.support.deadlines import deadlines, meet
from tests.support.ledger_service import Fault, LedgerService

# Reserving.


@pytest.mark.gen_test
async def test_reserve_holds_the_funds_and_gives_the_services_id_and_quantity() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        assert list(service.held) == [reservation.order_id]
        assert str(reservation.quantity) == "2.0"
        assert service.balances["ann", "EUR"] == 7


@pytest.mark.gen_test
async def test_reserve_sends_the_fields_of_the_order_and_whose_it_is() -> None:
    async with serve() as (timed, service):
        await timed.reservations.reserve("ann", order(client_order_id="mine"), KEY, "request-1")
        await timed.reserve(market(side="ask", quote_amount="1.0", max_slippage_price="1.20"), OTHER_KEY)
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
    async with serve() as (timed, service):
        assert (await timed.reserve(market(quote_amount="5"))).quantity == Decimal("2.5")
        assert service.balances["ann", "EUR"] == 5


@pytest.mark.gen_test
async def test_reserve_refuses_one_of_two_orders_at_once_for_one_balance() -> None:
    async with serve(balance="4") as (timed, service):
        outcomes = await asyncio.gather(timed.outcome(key=KEY), timed.outcome(key=OTHER_KEY))
        assert sorted(map(str, outcomes)) == sorted(map(str, [None, FundsRefused]))
        assert service.balances["ann", "EUR"] == 1
        assert len(service.held) == 1


@pytest.mark.gen_test
async def test_reserve_gives_a_repeat_the_first_reservation_and_holds_nothing_more() -> None:
    async with serve() as (timed, service):
        first = await timed.reserve()
        assert await asyncio.gather(timed.reserve(), timed.reserve()) == [first, first]
        assert service.balances["ann", "EUR"] == 7


@pytest.mark.gen_test
async def test_reserve_says_why_it_was_refused() -> None:
    async with serve(balance="1") as (timed, _):
        with pytest.raises(FundsRefused) as caught:
            await timed.reserve()
        assert caught.value.error == "insufficient EUR"
        assert timed.reservations.problem is None


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
    async with serve() as (timed, service):
        with service.answering(422, body), pytest.raises(FundsRefused) as caught:
            await timed.reserve()
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
        async with serve() as (timed, service):
            with service.answering(status, Location=service.url + "/elsewhere"):
                assert await timed.outcome() is outcome, status
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
        (reserved("-1"), "-1", "2"),
        (reserved('"../17"'), "../17", "2"),
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
    async with serve() as (timed, service):
        for status in (200, 201):
            with service.answering(status, body):
                reservation = await timed.reserve()
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
        reserved(str(2**64)),
        reserved('""'),
        reserved('"."'),
        reserved('".."'),
        reserved(f'"{"x" * 129}"'),
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
    async with serve() as (timed, service):
        with service.answering(201, body), pytest.raises(OutcomeUnknown) as caught:
            await timed.reserve()
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
    async with raw_service(reply) as service, reservations_at(service.url) as timed:
        assert await timed.outcome() is OutcomeUnknown
        assert len(service.requests) == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.gen_test
async def test_reserve_reads_an_answer_without_a_length_and_one_after_an_interim_answer() -> None:
    for before in (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"):
        async with raw_service(before + b"HTTP/1.0 200 OK\r\n\r\n" + reserved()) as service:
            async with reservations_at(service.url) as timed:
                assert (await timed.reserve()).order_id == ID


@pytest.mark.gen_test
async def test_reserve_writes_one_request_with_its_length_and_nothing_else() -> None:
    async with raw_service(b"HTTP/1.1 201 Created\r\n\r\n" + reserved()) as service:
        async with reservations_at(f"{service.url}/v1/") as timed:
            await timed.reserve()
    assert service.head[0] == "POST /v1/internal/orders HTTP/1.1"
    names = [name for name, _ in service.headers]
    assert sorted(names) == sorted(["host", "content-length", "x-user-id", "idempotency-key", "content-type", "accept"])
    assert json.loads(service.body)["price"] == "1.50"


@pytest.mark.gen_test
async def test_reserve_uses_the_connection_of_the_order_before_and_a_release_does_not() -> None:
    async with serve() as (timed, service):
        first = await timed.reserve()
        await timed.reserve(key=OTHER_KEY)
        timed.reservations.release(first.order_id, "ann")
        await timed.released()
        ports = [seen.port for seen in service.seen]
        assert ports[0] == ports[1] != ports[2]


@pytest.mark.gen_test
async def test_reserve_is_not_harmed_by_a_service_that_was_started_again_meanwhile() -> None:
    async with serve() as (timed, service):
        await timed.reserve()
        await service.stop()
        await service.start()
        await timed.reserve(key=OTHER_KEY)
        assert len(service.seen) == 2


@pytest.mark.gen_test
async def test_reserve_does_not_know_the_outcome_when_only_the_second_sending_was_turned_away() -> None:
    faults = iter([None, Fault.IS_CUT_OFF_AFTERWARDS, Fault.HAS_TOO_MUCH_TO_DO])
    service = LedgerService(Ledger({("ann", "EUR"): "10"}), lambda _seen: next(faults))
    await service.start()
    async with reservations_at(service.url) as timed:
        await timed.reserve()
        assert await timed.outcome(key=OTHER_KEY) is OutcomeUnknown
        assert len(service.held) == 2
    await service.stop()


# User ids.


@pytest.mark.parametrize(
    "user_id", ["", " ann", "ann ", "a\r\nX-User-Id: bob", "a\nb", "a\tb", "jürgen", "\ud800", "a\x7f"]
)
@pytest.mark.gen_test
async def test_reserve_refuses_a_user_id_that_a_header_cannot_hold(user_id: str) -> None:
    async with serve() as (timed, service):
        with pytest.raises(FundsRefused):
            await timed.reserve(user_id=user_id)
        assert service.seen == []


@pytest.mark.parametrize("user_id", ["a", "ann smith", "auth0|5f7c", "a%20b", "urn:x,y;z", '"quoted"', "x" * 3000])
@pytest.mark.gen_test
async def test_reserve_tells_any_other_user_id_as_it_is(user_id: str) -> None:
    async with serve() as (timed, service):
        with pytest.raises(FundsRefused, match="insufficient"):
            await timed.reserve(user_id=user_id)
        assert service.seen[0].headers.get_list("X-User-Id") == [user_id]


# The service as it is seen by the pass-through.


@asynccontextmanager
async def upstream_of(url: str) -> AsyncIterator[Upstream]:
    upstream = Upstream(Accounts(url, LONG_SECONDS, 4), max_body_bytes=1000)
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


@pytest.mark.gen_test
async def test_upstream_takes_a_kept_connection_only_for_what_changes_nothing() -> None:
    async with account_service() as service, upstream_of(service.url) as upstream:
        for method in ("POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
            await upstream.fetch("GET", "/api/me", [], b"", None)
            await upstream.fetch(method, "/api/me", [], b"", None)
            used, port = (seen.port for seen in service.seen[-2:])
            assert (used == port) == (method in ("GET", "HEAD", "OPTIONS")), method


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
    async with account_service() as service, upstream_of(service.url) as upstream:
        with service.frozen(), deadlines() as begun:
            asking = asyncio.ensure_future(upstream.fetch("GET", "/api/me", [], b"", None))
            await service.arrived(1)
            meet(begun.pop())
            with pytest.raises(TimeoutError):
                await asking
    async with upstream_of(service.url) as upstream:
        with pytest.raises(ConnectionError):
            await upstream.fetch("GET", "/api/me", [], b"", None)
    too_large = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001
    async with raw_service(too_large) as raw, upstream_of(raw.url) as upstream:
        with pytest.raises(ConnectionError):
            await upstream.fetch("GET", "/api/me", [], b"", None)
