"""`/api/order*` over real sockets, with a log whose acknowledgements a test gives."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import quote

import pytest

from core.errors import OutcomeUnknown
from core.messages.events import OrderEvent, read_event
from core.messages.order_ids import read_order_id
from core.orders.pieces import PIECE
from tests.core.admission import taker
from tests.core.fake_orders import command
from tests.core.trading import CERTAINLY_NOT
from tests.handlers.orders_server import ALICE, BAD, BOB, BODY_BYTES, LIMIT, NOBODY, check_refused, serve
from tests.handlers.wire import connected, until

NOBODYS_ID = "7b6f4fd2-3c55-5a3e-8f8e-2f6f1b2c3d4e"


ROUTES = [
    ("POST", "/api/order", LIMIT),
    ("GET", "/api/order", None),
    ("GET", f"/api/order/{NOBODYS_ID}", None),
    ("POST", "/api/order/cancel", {"order_id": NOBODYS_ID, "symbol": "KCN/EUR"}),
    ("POST", "/api/order/cancel_all", {}),
]


# Many.


@pytest.mark.parametrize("many", [PIECE, PIECE + 1, 12 * PIECE])
@pytest.mark.gen_test
async def test_long_lists_are_whole_and_announce_how_long_they_are(many: int) -> None:
    async with serve() as server:
        ids = [f"{number:05}" for number in range(many)]
        for time_ms, order_id in enumerate(ids):
            server.trade.see(command(order_id, time_ms=time_ms))
        listed = await server.ask("GET", "/api/order")
        assert [order["order_id"] for order in listed.json()["orders"]] == ids
        head = await server.ask("HEAD", "/api/order")
        assert head.headers["content-length"] == listed.headers["content-length"] == str(len(listed.body))
        cancelled = await server.ask("POST", "/api/order/cancel_all", {})
        assert (cancelled.status, cancelled.json()) == (202, {"order_ids": ids})


@pytest.mark.gen_test
async def test_long_list_that_nobody_reads_to_its_end_disturbs_nobody() -> None:
    async with serve() as server:
        for number in range(200 * PIECE):
            server.trade.see(command(f"{number:05}"))
        async with connected(server.port) as connection:
            await connection.send(b"GET /api/order HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice-token\r\n\r\n")
            assert await connection.reader.read(1)
            connection.writer.transport.abort()
        assert (await server.ask("GET", "/api/order/00000")).status == 200


# Ids.


@pytest.mark.parametrize(
    ("on_topic", "asked", "order_id"),
    [
        (NOBODYS_ID.upper(), NOBODYS_ID, NOBODYS_ID),
        (NOBODYS_ID, NOBODYS_ID.upper(), NOBODYS_ID),
        (NOBODYS_ID.upper(), NOBODYS_ID.upper(), NOBODYS_ID),
        (-5, "-5", "-5"),
        ("-5", -5, "-5"),
        ("007", "007", "007"),
        ("ord-17", "ord-17", "ord-17"),
        ("ORD-17", "ORD-17", "ORD-17"),
        ("a/b %41?#+", "a/b %41?#+", "a/b %41?#+"),
        ("\u00fc" * 128, "\u00fc" * 128, "\u00fc" * 128),
    ],
)
@pytest.mark.gen_test
async def test_order_is_listed_found_and_cancelled_by_the_id_that_it_has_on_the_topic(
    on_topic: str | int, asked: str | int, order_id: str
) -> None:
    async with serve() as server:
        terms = {"type": "place_order", "symbol": "KCN/EUR", "user_id": "alice", **LIMIT}
        server.trade.see(json.dumps({**terms, "order_id": on_topic}).encode())
        [listed] = (await server.ask("GET", "/api/order")).json()["orders"]
        found = await server.ask("GET", f"/api/order/{quote(str(asked), safe='')}")
        cancelled = await server.ask("POST", "/api/order/cancel", {"order_id": asked})
        closed = read_event(json.dumps({"type": "order_filled", "order_id": on_topic}).encode())
        server.trade.directory.fold_event(closed, 0, 0, 1, True)
        after = await server.ask("GET", f"/api/order/{quote(str(asked), safe='')}")
        [record] = server.trade.log.records
    assert listed["order_id"] == found.json()["order_id"] == cancelled.json()["order_id"] == order_id
    assert after.json()["status"] == "filled"
    assert read_order_id(record["order_id"]) == order_id


@pytest.mark.gen_test
async def test_order_is_as_unknown_by_a_name_that_can_be_no_id() -> None:
    async with serve() as server:
        check_refused(await server.ask("GET", f"/api/order/{'x' * 129}"), 404, "not-found")


# Placing.


@pytest.mark.gen_test
async def test_order_is_answered_202_and_its_repeat_as_a_duplicate() -> None:
    async with serve() as server:
        first = await server.ask("POST", "/api/order", LIMIT)
        again = await server.ask("POST", "/api/order", {**LIMIT, "price": 1.5, "symbol": "KCN/EUR"})
        [record] = server.trade.log.records
    assert first.status == again.status == 202
    told = {"order_id": record["order_id"], "client_order_id": "my-1", "status": "accepted"}
    assert first.json() == told
    assert again.json() == {**told, "duplicate": True}
    assert record["user_id"] == "alice"


@pytest.mark.gen_test
async def test_order_is_answered_only_after_its_acknowledgement() -> None:
    async with serve() as server:
        server.trade.log.acks = False
        asking = asyncio.get_running_loop().create_task(server.ask("POST", "/api/order", LIMIT))
        await until(lambda: bool(server.trade.log.produced))
        assert not asking.done()
        server.trade.log.last.ack()
        assert (await asking).status == 202


@pytest.mark.gen_test
async def test_order_that_was_certainly_not_written_is_answered_503_and_one_that_may_be_504() -> None:
    async with serve() as server:
        server.trade.log.refuses = CERTAINLY_NOT
        refused = await server.ask("POST", "/api/order", LIMIT)
        check_refused(refused, 503, "bus-unavailable")
        assert refused.headers["retry-after"] == "1"
        server.trade.log.refuses = OutcomeUnknown("o", "no acknowledgement in time")
        assert check_refused(await server.ask("POST", "/api/order", LIMIT), 504, "outcome-unknown")["order_id"] == "o"
        server.trade.log.refuses = CERTAINLY_NOT
        again = check_refused(await server.ask("POST", "/api/order", LIMIT), 504, "outcome-unknown")
        [order] = server.trade.directory.open_orders("alice")
        assert again["order_id"] == order.order_id


@pytest.mark.gen_test
async def test_repeat_with_other_terms_is_answered_409_with_its_name() -> None:
    async with serve() as server:
        await server.place()
        refused = await server.ask("POST", "/api/order", {**LIMIT, "quantity": "2.1"})
        assert check_refused(refused, 409, "conflict")["client_order_id"] == "my-1"


@pytest.mark.parametrize(
    ("body", "media_type", "status", "slug"),
    [
        (b"{", "application/json", 400, "not-json"),
        (b'{"side":"bid","side":"bid"}', "application/json", 400, "not-json"),
        (b'{"price":NaN}', "application/json", 400, "not-json"),
        (b'{"side":"\xff"}', "application/json", 400, "not-json"),
        (b"{}", "text/plain", 415, "not-json-type"),
        (b" " * (BODY_BYTES + 1), "application/json", 413, "too-large"),
        (b"[]", "application/json", 422, "invalid-fields"),
        (b"{}", "application/json", 422, "invalid-fields"),
    ],
)
@pytest.mark.parametrize("path", ["/api/order", "/api/order/cancel", "/api/order/cancel_all"])
@pytest.mark.gen_test
async def test_body_that_cannot_be_read_is_told_why(
    path: str, body: bytes, media_type: str, status: int, slug: str
) -> None:
    async with serve() as server:
        await server.place()
        if path.endswith("cancel_all") and body == b"{}" and status == 422:
            return  # nothing is needed there
        refused = await server.ask("POST", path, body, Content_Type=media_type)
        told = check_refused(refused, status, slug)
        assert ("errors" in told) is (status == 422)
        assert len(server.trade.log.produced) == 1


@pytest.mark.parametrize("path", ["/api/order", "/api/order/cancel", "/api/order/cancel_all"])
@pytest.mark.gen_test
async def test_body_with_a_content_encoding_is_refused_unread(path: str) -> None:
    async with serve() as server:
        order_id = await server.place()
        body = {} if path.endswith("cancel_all") else LIMIT if path == "/api/order" else {"order_id": order_id}
        refused = await server.ask("POST", path, body, Content_Encoding="gzip")
        check_refused(refused, 415, "not-json-type")
        assert len(server.trade.log.produced) == 1
        assert (await server.ask("POST", path, body, Content_Encoding="Identity")).status == 202


@pytest.mark.gen_test
async def test_body_in_chunks_that_is_too_large_cancels_nothing() -> None:
    async with serve() as server:
        await server.place()
        async with connected(server.port) as connection:
            await connection.send(
                b"POST /api/order/cancel_all HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice-token\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"7d0\r\n" + b" " * 2000 + b"\r\n0\r\n\r\n"
            )
            check_refused(await connection.response(), 413, "too-large")
        assert len(server.trade.log.produced) == 1


# Who.


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
@pytest.mark.gen_test
async def test_bad_token_is_answered_401_everywhere(method: str, path: str, body: object) -> None:
    for allows_anonymous in (True, False):
        async with serve(allows_anonymous=allows_anonymous) as server:
            refused = await server.ask(method, path, body, BAD)
            check_refused(refused, 401, "unauthorised")
            assert refused.headers["www-authenticate"].startswith("Bearer ")
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
            assert server.trade.log.produced == []


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
@pytest.mark.gen_test
async def test_missing_token_is_answered_401_where_one_is_needed(method: str, path: str, body: object) -> None:
    async with serve(allows_anonymous=False) as server:
        refused = await server.ask(method, path, body, NOBODY)
        check_refused(refused, 401, "unauthorised")
        assert refused.headers["www-authenticate"].startswith("Bearer ")
        assert "error=" not in refused.headers["www-authenticate"], "RFC 6750 section 3.1: nothing was tried"
        assert server.trade.log.produced == []


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
@pytest.mark.gen_test
async def test_anybody_may_order_and_cancel_where_that_is_allowed_but_has_no_account(
    method: str, path: str, body: object
) -> None:
    async with serve() as server:
        answer = await server.ask(method, path, body, NOBODY)
    needs_account = (method, path) in (("GET", "/api/order"), ("POST", "/api/order/cancel_all"))
    assert (answer.status == 401) is needs_account
    assert answer.status in (202, 401, 404)


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
@pytest.mark.gen_test
async def test_nothing_is_answered_before_the_order_topic_was_read(method: str, path: str, body: object) -> None:
    async with serve() as server:
        server.trade.is_started = False
        refused = await server.ask(method, path, body)
        check_refused(refused, 503, "unavailable")
        assert refused.headers["retry-after"] == "1"


# How often.


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/api/order", LIMIT, "orders"),
        ("/api/order/cancel", {"order_id": NOBODYS_ID, "symbol": "KCN/EUR"}, "cancels"),
        ("/api/order", {}, "orders"),
        ("/api/order/cancel", {"order_id": NOBODYS_ID}, "cancels"),
    ],
)
@pytest.mark.gen_test
async def test_limit_is_told_with_every_answer_and_refuses_with_429(path: str, body: object, name: str) -> None:
    async with serve(orders=taker("orders", 0.5, 2), cancels=taker("cancels", 0.5, 2)) as server:
        answers = [await server.ask("POST", path, body) for _ in range(3)]
        others = await server.ask("POST", path, body, BOB)
    assert [answer.headers["ratelimit-policy"] for answer in answers] == [f'"{name}";q=2;w=4'] * 3
    assert [answer.headers["ratelimit"] for answer in answers] == [
        f'"{name}";r=1;t=2', f'"{name}";r=0;t=4', f'"{name}";r=0;t=2',
    ]  # fmt: skip
    assert ["retry-after" in answer.headers for answer in answers] == [False, False, True]
    check_refused(answers[2], 429, "too-many-requests")
    assert others.status == answers[0].status, "everybody has a limit of their own"


@pytest.mark.gen_test
async def test_cancel_all_has_no_limit() -> None:
    async with serve(orders=taker("orders", 0.5, 1), cancels=taker("cancels", 0.5, 1)) as server:
        for _ in range(3):
            answer = await server.ask("POST", "/api/order/cancel_all")
            assert answer.status == 202
            assert "ratelimit" not in answer.headers


# Cancelling.


@pytest.mark.parametrize("how", ["id", "ID", "name"])
@pytest.mark.gen_test
async def test_cancel_of_an_own_order_is_answered_202(how: str) -> None:
    async with serve() as server:
        order_id = await server.place()
        body = {
            "id": {"order_id": order_id}, "ID": {"order_id": order_id.upper()}, "name": {"client_order_id": "my-1"},
        }[how]  # fmt: skip
        answer = await server.ask("POST", "/api/order/cancel", body)
        assert (answer.status, answer.json()) == (202, {"order_id": order_id, "status": "cancel_requested"})
        assert server.trade.log.last.record["type"] == "cancel_order"


@pytest.mark.gen_test
async def test_cancel_of_somebody_elses_order_is_answered_as_of_none() -> None:
    async with serve() as server:
        order_id = await server.place()
        told = [
            check_refused(await server.ask("POST", "/api/order/cancel", {"order_id": asked}, who), 404, "not-found")
            for asked, who in ((order_id, BOB), (order_id, NOBODY), (NOBODYS_ID, ALICE))
        ]
    assert len({one["error"] for one in told}) == 1


@pytest.mark.gen_test
async def test_cancel_of_a_closed_order_is_answered_409_with_how_it_ended() -> None:
    async with serve() as server:
        order_id = await server.place()
        event = read_event(json.dumps({"type": "order_filled", "order_id": order_id}).encode())
        assert isinstance(event, OrderEvent)
        server.trade.directory.fold_event(event, 0, 0, 1, True)
        told = check_refused(await server.ask("POST", "/api/order/cancel", {"order_id": order_id}), 409, "conflict")
        assert (told["order_id"], told["order_status"]) == (order_id, "filled")


@pytest.mark.parametrize("body", [None, b"", {}, {"symbol": "KCN/EUR"}], ids=str)
@pytest.mark.gen_test
async def test_cancel_all_cancels_the_callers_orders(body: object) -> None:
    async with serve() as server:
        order_id = await server.place()
        await server.place(BOB)
        answer = await server.ask("POST", "/api/order/cancel_all", body)
        assert (answer.status, answer.json()) == (202, {"order_ids": [order_id]})
        assert [record["type"] for record in server.trade.log.records].count("cancel_order") == 1


# Asking.


@pytest.mark.gen_test
async def test_orders_of_the_caller_are_listed_and_found() -> None:
    async with serve() as server:
        order_id = await server.place()
        await server.place(BOB)
        [listed] = (await server.ask("GET", "/api/order")).json()["orders"]
        assert (listed["order_id"], listed["status"], listed["quantity"]) == (order_id, "pending", "2.0")
        for path, expected in (
            ("/api/order?client_order_id=my-1", [listed]),
            ("/api/order?client_order_id=my-2", []),
            ("/api/order?client_order_id=", []),
        ):
            assert (await server.ask("GET", path)).json() == {"orders": expected}
        twice = await server.ask("GET", "/api/order?client_order_id=my-2&client_order_id=my-1")
        assert check_refused(twice, 422, "invalid-fields")["errors"] == [
            {"field": "client_order_id", "message": "given more than once"}
        ]
        for path in (f"/api/order/{order_id}", f"/api/order/{order_id.upper()}"):
            assert (await server.ask("GET", path)).json() == listed
        for path, who in (
            (f"/api/order/{order_id}", BOB),
            (f"/api/order/{NOBODYS_ID}", ALICE),
            ("/api/order/x", ALICE),
        ):
            check_refused(await server.ask("GET", path, who=who), 404, "not-found")


@pytest.mark.gen_test
async def test_instruments_are_everybodys() -> None:
    async with serve(allows_anonymous=False) as server:
        answer = await server.ask("GET", "/api/instruments", who=NOBODY)
        assert (answer.status, answer.json()) == (200, {"instruments": [{"symbol": "KCN/EUR"}]})


# What other instances have accepted.


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/order", None),
        ("GET", "/api/order?client_order_id=my-1", None),
        ("GET", f"/api/order/{NOBODYS_ID}", None),
        ("POST", "/api/order/cancel", {"order_id": NOBODYS_ID}),
        ("POST", "/api/order/cancel_all", {}),
    ],
)
@pytest.mark.gen_test
async def test_question_is_answered_503_where_it_cannot_be_read_what_others_have_accepted(
    method: str, path: str, body: object
) -> None:
    async with serve() as server:
        server.trade.is_reachable = False
        refused = await server.ask(method, path, body)
        check_refused(refused, 503, "unavailable")
        assert refused.headers["retry-after"] == "1"


@pytest.mark.gen_test
async def test_order_that_another_instance_has_accepted_is_found_once_it_has_been_read() -> None:
    async with serve() as server:
        server.trade.topic.end = 1
        asking = asyncio.get_running_loop().create_task(server.ask("GET", f"/api/order/{NOBODYS_ID}"))
        await until(lambda: server.trade.catch_up.is_awaited)
        server.trade.see(command(NOBODYS_ID, "alice"))
        assert (await asking).json()["order_id"] == NOBODYS_ID


# How long Kafka took.


@pytest.mark.gen_test
async def test_what_was_produced_is_answered_with_the_time_that_kafka_took() -> None:
    async with serve() as server:
        server.trade.log.acks = False
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(server.ask("POST", "/api/order", LIMIT))
            await until(lambda: bool(server.trade.log.produced))
            began = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > began + 0.002)
            server.trade.log.last.ack()
        answer = asking.result()
        assert answer.status == 202
        [took_ms] = re.findall(r"^bus;dur=([0-9]+\.[0-9]{3})$", answer.headers["server-timing"])
        assert 2 <= float(took_ms) < 60_000
        server.trade.log.acks = True
        for path, body in (("cancel", {"client_order_id": "my-1"}), ("cancel_all", {})):
            answer = await server.ask("POST", f"/api/order/{path}", body)
            assert answer.headers["server-timing"].startswith("bus;dur=")


@pytest.mark.gen_test
async def test_what_produced_nothing_has_no_time_of_kafkas() -> None:
    async with serve() as server:
        await server.place()
        repeat = await server.ask("POST", "/api/order", LIMIT)
        assert repeat.json()["duplicate"] is True
        nothing = await server.ask("POST", "/api/order/cancel_all", {}, BOB)
        listed = await server.ask("GET", "/api/order")
        server.trade.log.refuses = CERTAINLY_NOT
        refused = await server.ask("POST", "/api/order", {**LIMIT, "client_order_id": "my-2"})
        assert [one.status for one in (nothing, listed, refused)] == [202, 200, 503]
        assert not any("server-timing" in one.headers for one in (repeat, nothing, listed, refused))


# What the records say of where they come from.

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("traceparent", "told"), [(TRACE, TRACE), ("00-nonsense", None), (None, None)])
@pytest.mark.gen_test
async def test_records_have_the_requests_id_and_its_trace(traceparent: str | None, told: str | None) -> None:
    given = {} if traceparent is None else {"Traceparent": traceparent}
    async with serve() as server:
        for number, (path, body) in enumerate(
            [("", LIMIT), ("/cancel", {"client_order_id": "my-1"}), ("/cancel_all", {})]
        ):
            answer = await server.ask("POST", f"/api/order{path}", body, X_Request_Id=f"mine-{number}", **given)
            assert answer.status == 202
            headers = dict(server.trade.log.last.headers or ())
            assert headers == {"x-request-id": f"mine-{number}"} | ({"traceparent": told} if told else {})


@pytest.mark.gen_test
async def test_record_has_the_id_that_was_made_for_a_request_without_one() -> None:
    async with serve() as server:
        answer = await server.ask("POST", "/api/order", LIMIT)
        assert server.trade.log.last.headers == [("x-request-id", answer.headers["x-request-id"])]
