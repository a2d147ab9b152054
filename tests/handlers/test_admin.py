from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from core.access.limits import Limiter
from core.config.settings import Settings
from core.control.announcements import Announcements
from core.control.control_table import ControlTable
from core.control.control_writer import ControlWriter
from core.control.disconnects import Disconnects
from core.control.restrictions import Restrictions
from core.errors import BusUnavailable, CloseCode, OutcomeUnknown
from core.messages.control_records import (
    ANNOUNCEMENT,
    BLOCK,
    DISCONNECT_CLIENT,
    DISCONNECT_USER,
    HALT,
)
from core.messages.feed_record import KeyedRecord
from core.telemetry.audit import Audit, Line
from core.telemetry.metrics import Metrics
from handlers.admin import GUESSES, Control, Operations, routes
from handlers.admin_server import document_routes, page_routes
from handlers.connected_clients import DISCONNECTED, ConnectedClients, PageQuery, merged
from handlers.problems import Context, Status
from tests.core.admission import admission
from tests.handlers.wire import Response, connected, serving

pytestmark = pytest.mark.gen_test

TOKEN = "operators-" + "x" * 32
BODY_BYTES = 1000


class FakeTopic:
    """A control topic whose records are read as they are written, unless they are refused."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.problem: str | None = None
        self.keys: list[str] = []
        self.table: ControlTable | None = None

    def write(self, key: str, value: bytes | None) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
            return future
        self.keys.append(key)
        assert self.table is not None
        self.table.take(KeyedRecord(0, len(self.keys), 1_700_000_000_000, value, True).with_key(key.encode()))
        future.set_result(None)
        return future

    async def to_end(self) -> None:
        pass


class FakeClient:
    def __init__(self, number: int, user_id: str | None, since_ms: int = 0) -> None:
        self.number = number
        self.user_id = user_id
        self.since_ms = since_ms
        self.ended: list[tuple[CloseCode, str]] = []

    def describe(self) -> dict[str, object]:
        return {
            "user_id": self.user_id,
            "address": "192.0.2.1",
            "subscriptions": 1,
            "channels": ["status"],
            "waiting_bytes": 0,
        }

    def end(self, code: CloseCode, reason: str) -> None:
        self.ended.append((code, reason))


class AdminHouse:
    """The operators' address, with the clients `c-1` of alice, `c-2` of bob, and `c-3` of alice again."""

    def __init__(self, *, has_topic: bool = True, origins: tuple[str, ...] = ()) -> None:
        self.topic = FakeTopic()
        self.lines: list[Line] = []
        self.clients = ConnectedClients(process="c")
        self.alice, self.bob, self.again = FakeClient(1, "alice"), FakeClient(2, "bob"), FakeClient(3, "alice")
        for client in (self.alice, self.bob, self.again):
            self.clients.add(client)
        writer = ControlWriter(self.topic.write, why_not=lambda: self.topic.problem, to_end=self.topic.to_end)
        self.restrictions, self.announcements = Restrictions(writer), Announcements(writer)
        disconnects = Disconnects(writer, close_user=self.clients.close_user, close_client=self.clients.close_client)
        self.topic.table = ControlTable(
            {
                BLOCK: self.restrictions.take_block,
                HALT: self.restrictions.take_halt,
                ANNOUNCEMENT: self.announcements.take,
                DISCONNECT_USER: disconnects.take_user,
                DISCONNECT_CLIENT: disconnects.take_client,
            },
            lambda _partition: None,
            lambda error, *_: pytest.fail(str(error)),
        )
        self.cancelled: list[str] = []
        self.now = 0.0
        control = Control(
            self.restrictions, self.announcements, disconnects, self._cancel_open, lambda: self.topic.problem
        )
        self.operations = Operations(
            TOKEN,
            self._page,
            control if has_topic else None,
            Limiter(GUESSES, clock=lambda: self.now),
            is_known="KCN/EUR".__eq__,
        )
        settings = Settings()
        http = replace(settings.http, max_body_bytes=BODY_BYTES, allowed_origins=origins)
        self.context = Context(replace(settings, http=http), Metrics(), Status(), admission(), audit=Audit(self._write))
        self.port = 0

    def _write(self, lines: list[Line]) -> int:
        self.lines += lines
        return len(lines)

    async def _cancel_open(self, user_id: str) -> list[str]:
        self.cancelled.append(user_id)
        return ["o-1"]

    async def _page(self, query: PageQuery) -> dict[str, object]:
        return merged({0: await self.clients.page(query, 0)}, 1, query.limit)

    async def ask(
        self, method: str, path: str, body: object = None, token: str | None = TOKEN, **headers: str
    ) -> Response:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        payload = None
        if body is not None:
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        async with connected(self.port) as connection:
            return await connection.ask(method, path, payload, **headers)

    def audited(self) -> list[dict[str, object]]:
        """What each line says, without what differs by request."""
        return [
            {name: value for name, value in line.fields.items() if name not in ("request_id", "address")}
            for line in self.lines
        ]


@asynccontextmanager
async def house(**more: Any) -> AsyncIterator[AdminHouse]:
    made = AdminHouse(**more)
    table = [*routes(made.context, made.operations), *document_routes(made.context), *page_routes(made.context)]
    async with serving(made.context, table) as port:
        made.port = port
        yield made


def check_refused(answer: Response, status: int, slug: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status, body["status"], body["type"]) == (status, status, f"urn:mexchange:problem:{slug}")
    return body


# Who may.


@pytest.mark.parametrize("method_path", ["GET /admin/clients", "GET /admin/state", "POST /admin/block"])
async def test_request_without_the_token_is_refused(method_path: str) -> None:
    async with house() as made:
        method, path = method_path.split()
        body = {"user_id": "alice"} if method == "POST" else None
        for token in (None, "", "x" * 32, TOKEN[:-1], TOKEN + "x", "é"):
            answer = await made.ask(method, path, body, token)
            check_refused(answer, 401, "unauthorised")
            assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert made.restrictions.blocked() == {}
        assert made.lines == []


async def test_token_is_taken_by_its_scheme_alone() -> None:
    async with house() as made:
        assert (await made.ask("GET", "/admin/state", None, None, Authorization=f"bearer {TOKEN}")).status == 200
        check_refused(await made.ask("GET", "/admin/state", None, None, Authorization=TOKEN), 401, "unauthorised")
        check_refused(await made.ask("GET", f"/admin/state?token={TOKEN}", None, None), 401, "unauthorised")
        check_refused(await made.ask("GET", "/admin/state", None, None, Cookie=f"token={TOKEN}"), 401, "unauthorised")


async def test_address_that_guesses_is_not_listened_to_for_a_while() -> None:
    async with house() as made:
        for _ in range(GUESSES.burst):
            check_refused(await made.ask("GET", "/admin/state", None, "wrong"), 401, "unauthorised")
        answer = await made.ask("GET", "/admin/state")
        check_refused(answer, 429, "too-many-requests")
        assert int(answer.headers["retry-after"]) == 1
        made.now = 1.5
        assert (await made.ask("GET", "/admin/state")).status == 200


async def test_right_tokens_and_missing_ones_are_no_guesses() -> None:
    async with house() as made:
        for token in (TOKEN, None) * (GUESSES.burst + 1):
            assert (await made.ask("GET", "/admin/state", None, token)).status == (200 if token else 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_page_of_another_origin_is_refused_even_with_the_token(headers: dict[str, str]) -> None:
    async with house(origins=("https://evil.example",)) as made:
        check_refused(await made.ask("POST", "/admin/block", {"user_id": "a"}, **headers), 403, "forbidden")
        assert made.restrictions.blocked() == {}


async def test_own_page_may_ask() -> None:
    async with house() as made:
        headers = {
            "Origin": f"http://127.0.0.1:{made.port}",
            "Sec_Fetch_Site": "same-origin",
            "Host": f"127.0.0.1:{made.port}",
        }
        assert (await made.ask("POST", "/admin/block", {"user_id": "a"}, **headers)).status == 200


async def test_token_is_in_no_log_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with house() as made:
        answers = [await made.ask("POST", "/admin/block", {"user_id": "alice"}), await made.ask("GET", "/admin/state")]
        wrong = await made.ask("GET", "/admin/state", None, "guess-" + "y" * 40)
    assert TOKEN not in caplog.text and "guess-" not in caplog.text
    assert all(TOKEN.encode() not in answer.body for answer in answers)
    assert b"guess-" not in wrong.body
    assert "wrong token" in caplog.text


# What is refused.


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("block", {}, {"user_id"}),
        ("block", {"user_id": "alice", "surplus": 1}, {"surplus"}),
        ("block", {"user_id": "a\nb"}, {"user_id"}),
        ("block", {"user_id": " a"}, {"user_id"}),
        ("block", {"user_id": "alice", "reason": "two\nlines"}, {"reason"}),
        ("halt", {}, {"symbol"}),
        ("halt", {"symbol": "KCN"}, {"symbol"}),
        ("halt", {"symbl": None}, {"symbol", "symbl"}),
        ("announce", {"state": "sleepy"}, {"state"}),
        ("announce", {"state": "halted", "from_ms": 4_000_000_000_002, "until_ms": 4_000_000_000_001}, {"until_ms"}),
        ("disconnect", {}, {"user_id"}),
        ("disconnect", {"user_id": "alice", "client": "c-1"}, {"user_id"}),
        ("disconnect", {"client": ""}, {"client"}),
        ("disconnect", {"client": "x" * 65}, {"client"}),
        ("withdraw", {"now": True}, {"now"}),
    ],
)
async def test_body_that_breaks_a_rule_is_refused_with_its_fields(path: str, body: object, fields: set[str]) -> None:
    async with house() as made:
        told = check_refused(await made.ask("POST", f"/admin/{path}", body), 422, "invalid-fields")
        assert {error["field"] for error in told["errors"]} == fields
        assert made.topic.keys == []


async def test_bodies_and_methods_are_refused_as_elsewhere() -> None:
    async with house() as made:
        check_refused(await made.ask("POST", "/admin/block", b"{"), 400, "not-json")
        check_refused(await made.ask("POST", "/admin/block", b"{}", Content_Type="text/plain"), 415, "not-json-type")
        check_refused(await made.ask("POST", "/admin/block", b" " * (BODY_BYTES + 1)), 413, "too-large")
        answer = await made.ask("GET", "/admin/block")
        check_refused(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "POST, OPTIONS"
        check_refused(await made.ask("GET", "/admin/nothing"), 404, "not-found")
        check_refused(await made.ask("GET", "/admin/page/nothing.js"), 404, "not-found")
        for query in ("limit=0", "limit=1001", "limit=x", "after=x", "after=1", "after=1.x"):
            check_refused(await made.ask("GET", f"/admin/clients?{query}"), 422, "invalid-fields")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("block", {"user_id": "alice", "cancel_open": True}),
        ("unblock", {"user_id": "alice"}),
        ("halt", {"symbol": None}),
        ("resume", {"symbol": "KCN/EUR"}),
        ("announce", {"state": "halted"}),
        ("withdraw", {}),
        ("disconnect", {"user_id": "bob"}),
    ],
)
async def test_what_cannot_be_written_is_refused_truthfully(path: str, body: object) -> None:
    async with house() as made:
        made.topic.problem = "topic gateway-control cannot be made"
        told = check_refused(await made.ask("POST", f"/admin/{path}", body), 503, "unavailable")
        assert "gateway-control" in told["error"]
        made.topic.problem = None
        made.topic.error = BusUnavailable("no broker answers")
        check_refused(await made.ask("POST", f"/admin/{path}", body), 503, "bus-unavailable")
        made.topic.error = OutcomeUnknown("", "no answer in time")
        check_refused(await made.ask("POST", f"/admin/{path}", body), 504, "outcome-unknown")
        assert [line["outcome"] for line in made.audited()] == ["not_written", "not_written", "unknown"]
        assert made.cancelled == []
    async with house(has_topic=False) as made:
        check_refused(await made.ask("POST", f"/admin/{path}", body), 503, "unavailable")


# What is done.


async def test_block_is_written_told_and_taken_back() -> None:
    async with house() as made:
        answer = await made.ask("POST", "/admin/block", {"user_id": "alice", "reason": "margin call"})
        assert (answer.status, answer.json()) == (200, {"user_id": "alice", "status": "blocked"})
        assert made.restrictions.is_blocked("alice")
        state = (await made.ask("GET", "/admin/state")).json()
        assert state["blocked_users"] == 1
        [block] = state["blocks"]
        assert (block["user_id"], block["reason"]) == ("alice", "margin call")
        assert (await made.ask("POST", "/admin/unblock", {"user_id": "alice"})).status == 200
        assert (await made.ask("GET", "/admin/state")).json()["blocks"] == []
        assert made.cancelled == []
        assert made.audited() == [
            {"action": "block", "outcome": "done", "user_id": "alice", "reason": "margin call"},
            {"action": "unblock", "outcome": "done", "user_id": "alice"},
        ]
        assert all(line.fields["address"] == "127.0.0.1" for line in made.lines)


async def test_block_cancels_open_orders_where_that_is_asked_for() -> None:
    async with house() as made:
        answer = await made.ask("POST", "/admin/block", {"user_id": "alice", "cancel_open": True})
        assert answer.json() == {"user_id": "alice", "status": "blocked", "order_ids": ["o-1"]}
        assert made.cancelled == ["alice"]


async def test_halts_of_a_symbol_and_of_all_are_two() -> None:
    async with house() as made:
        for symbol in ("KCN/EUR", None):
            assert (await made.ask("POST", "/admin/halt", {"symbol": symbol})).json()["symbol"] == symbol
        assert (await made.ask("POST", "/admin/resume", {"symbol": None})).status == 200
        state = (await made.ask("GET", "/admin/state")).json()
        assert [one["symbol"] for one in state["halts"]] == ["KCN/EUR"]


@pytest.mark.parametrize(
    ("path", "body", "unknown"),
    [
        ("halt", {"symbol": "KCN/EUR"}, None),
        ("halt", {"symbol": None}, None),
        ("halt", {"symbol": "KCN/EURO"}, ["KCN/EURO"]),
        ("resume", {"symbol": "KCN/EURO"}, ["KCN/EURO"]),
        ("announce", {"state": "halted"}, None),
        ("announce", {"state": "halted", "symbols": ["KCN/EURO", "KCN/EUR"]}, ["KCN/EURO"]),
    ],
)
async def test_symbol_of_which_nothing_is_known_is_named_though_what_is_asked_for_is_done(
    path: str, body: dict[str, object], unknown: list[str] | None
) -> None:
    async with house() as made:
        answer = await made.ask("POST", f"/admin/{path}", body)
        assert (answer.status, answer.json().get("unknown_symbols")) == (200, unknown)


async def test_announcement_is_made_and_withdrawn() -> None:
    async with house() as made:
        times = {"from_ms": 0, "until_ms": 4_000_000_000_000}
        told = {"state": "maintenance", "symbols": ["KCN/EUR"], "message": "soon", **times}
        assert (await made.ask("POST", "/admin/announce", told)).status == 200
        assert (await made.ask("GET", "/admin/state")).json()["announcement"] == told
        assert (await made.ask("POST", "/admin/withdraw", {})).status == 200
        assert (await made.ask("GET", "/admin/state")).json()["announcement"] is None


async def test_state_says_why_it_may_not_be_whole() -> None:
    async with house() as made:
        made.topic.problem = "topic gateway-control is not read up to now"
        assert (await made.ask("GET", "/admin/state")).json()["problem"] == made.topic.problem
    async with house(has_topic=False) as made:
        assert "kafka.control_topic" in (await made.ask("GET", "/admin/state")).json()["problem"]


async def test_user_is_disconnected_and_nobody_else() -> None:
    async with house() as made:
        answer = await made.ask("POST", "/admin/disconnect", {"user_id": "alice"})
        assert (answer.status, answer.json()) == (202, {"user_id": "alice", "status": "disconnecting"})
        assert set(made.alice.ended) == set(made.again.ended) == {(CloseCode.POLICY, DISCONNECTED)}
        assert made.bob.ended == []
        # An act, and no state: the record is taken back.
        assert made.topic.keys == ["disconnect_user/alice"] * 2


async def test_client_is_disconnected_by_its_name() -> None:
    async with house() as made:
        for name in ("other-2", "c-99", "c-x", "c-" + "9" * 30, "2"):
            assert (await made.ask("POST", "/admin/disconnect", {"client": name})).status == 202
        assert made.bob.ended == []
        assert (await made.ask("POST", "/admin/disconnect", {"client": "c-2"})).status == 202
        assert made.bob.ended and not made.alice.ended


async def test_clients_here_are_disconnected_even_where_nobody_else_can_be_told() -> None:
    async with house() as made:
        made.topic.error = BusUnavailable("no broker answers")
        check_refused(await made.ask("POST", "/admin/disconnect", {"user_id": "bob"}), 503, "bus-unavailable")
        assert made.bob.ended == [(CloseCode.POLICY, DISCONNECTED)]


async def test_clients_are_listed_in_pages() -> None:
    async with house() as made:
        first = (await made.ask("GET", "/admin/clients?limit=2")).json()
        assert [one["client"] for one in first["clients"]] == ["c-1", "c-2"]
        assert first["clients"][0] == {"client": "c-1", "since_ms": 0, **made.alice.describe()}
        second = (await made.ask("GET", f"/admin/clients?limit=2&after={first['next']}")).json()
        assert [one["client"] for one in second["clients"]] == ["c-3"]
        assert (second["next"], second["open"]) == (None, 3)
        of_alice = (await made.ask("GET", "/admin/clients?user_id=alice")).json()
        assert [one["client"] for one in of_alice["clients"]] == ["c-1", "c-3"]


# The page.


@pytest.mark.parametrize("path", ["/admin/", "/admin/page/admin.js", "/admin/page/admin.css", "/console/console.css"])
async def test_page_says_what_keeps_it_safe(path: str) -> None:
    async with house() as made:
        headers = (await made.ask("GET", path, None, None)).headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
    assert "set-cookie" not in headers


async def test_traders_files_are_not_there_but_for_what_the_page_needs() -> None:
    async with house() as made:
        for path in ("/console/console.js", "/console/index.html", "/api/instruments", "/ws", "/metrics"):
            check_refused(await made.ask("GET", path), 404, "not-found")
        answer = await made.ask("GET", "/", None, None)
        assert (answer.status, answer.headers["location"]) == (302, "/admin/")
