"""One line in the audit for each command, however it comes and whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from core.access.limits import Policy
from core.errors import BusUnavailable, OutcomeUnknown
from core.telemetry.audit import Audit, Line
from tests.core.admission import taker
from tests.handlers.orders_server import BODY_BYTES, LIMIT
from tests.handlers.orders_server import serve as serve_orders
from tests.handlers.test_amends import serve as serve_amends
from tests.handlers.websocket_server import asked, placed, serve

ORDER = {**LIMIT, "symbol": "KCN/EUR"}
UNKNOWN = "5d3b8a2f-0000-4000-8000-000000000000"


class Heard:
    """Every line of an audit that tells everything, its fields alone."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.audit = Audit(self._write, orders="all")

    def _write(self, lines: list[Line]) -> int:
        self.lines += [dict(line.fields) for line in lines]
        return len(lines)

    def only(self) -> dict[str, Any]:
        (line,) = self.lines
        self.lines.clear()
        return line


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.mark.gen_test
async def test_order_over_rest_has_a_line_with_all_its_ids(heard: Heard) -> None:
    async with serve_orders(audit=heard.audit) as server:
        answer = await server.ask("POST", "/api/order", ORDER, X_Request_Id="mine")
        line = heard.only()
        assert line == {
            "command": "place",
            "outcome": "accepted",
            "user_id": "alice",
            "order_id": answer.json()["order_id"],
            "client_order_id": "my-1",
            "symbol": "KCN/EUR",
            "request_id": "mine",
        }
        await server.ask("POST", "/api/order", ORDER)
        assert heard.only()["outcome"] == "duplicate"
        await server.ask("POST", "/api/order", {**ORDER, "client_order_id": "other", "validate_only": True})
        assert heard.only()["outcome"] == "valid"
        await server.ask("POST", "/api/order", {**ORDER, "quantity": "3"})
        assert heard.only()["reason"] == "conflict"


@pytest.mark.parametrize(
    ("body", "who", "reason", "field", "names"),
    [
        ({**ORDER, "price": "-1", "quantity": "x"}, "alice", "invalid-fields", "price,quantity",
         {"user_id": "alice", "client_order_id": "my-1", "symbol": "KCN/EUR"}),
        (ORDER, "bad", "unauthorised", None, {"client_order_id": "my-1", "symbol": "KCN/EUR"}),
        (ORDER, None, "unauthorised", None, {"client_order_id": "my-1", "symbol": "KCN/EUR"}),
        (b"{", "alice", "not-json", None, {"user_id": "alice"}),
        ([1], "alice", "invalid-fields", "body", {"user_id": "alice"}),
        (b"x" * (BODY_BYTES + 1), "alice", "too-large", None, {"user_id": "alice"}),
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_refused_order_over_rest_has_a_line_that_says_why(
    heard: Heard, body: object, who: str | None, reason: str, field: str | None, names: dict[str, str]
) -> None:
    async with serve_orders(audit=heard.audit, allows_anonymous=False) as server:
        answer = await server.ask("POST", "/api/order", body, who)
        line = heard.only()
        assert (line["command"], line["outcome"], line["reason"], line.get("field")) == (
            "place", "refused", reason, field,
        )  # fmt: skip
        assert {name: line[name] for name in ("user_id", "client_order_id", "symbol") if name in line} == names
        assert line["request_id"] == answer.headers["x-request-id"]
        assert line["detail"]


@pytest.mark.gen_test
async def test_order_over_a_limit_has_a_line_with_its_name(heard: Heard) -> None:
    async with serve_orders(audit=heard.audit, orders=taker("orders", 1, 1)) as server:
        await server.place()
        heard.lines.clear()
        await server.ask("POST", "/api/order", ORDER)
        line = heard.only()
        assert (line["reason"], line["client_order_id"]) == ("too-many-requests", "my-1")


@pytest.mark.gen_test
async def test_fault_of_ours_has_a_line(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_orders(audit=heard.audit) as server:

        async def fail(*_arguments: object) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(server.trade.entry, "place", fail)
        assert (await server.ask("POST", "/api/order", ORDER)).status == 500
        assert heard.only()["reason"] == "internal"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [(BusUnavailable("away"), "not_written", "bus-unavailable"),
     (OutcomeUnknown(UNKNOWN, "late"), "unknown", "outcome-unknown")],
)  # fmt: skip
@pytest.mark.gen_test
async def test_order_that_was_not_acknowledged_has_a_line_that_says_so(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str, reason: str
) -> None:
    async with serve_orders(audit=heard.audit) as server:

        async def fail(*_arguments: object) -> None:
            raise error

        monkeypatch.setattr(server.trade.entry, "place", fail)
        await server.ask("POST", "/api/order", ORDER)
        line = heard.only()
        assert (line["outcome"], line["reason"], line.get("order_id")) == (
            outcome, reason, UNKNOWN if outcome == "unknown" else None,
        )  # fmt: skip


@pytest.mark.gen_test
async def test_cancels_over_rest_have_a_line_each(heard: Heard) -> None:
    async with serve_orders(audit=heard.audit) as server:
        order_id = await server.place()
        heard.lines.clear()
        await server.ask("POST", "/api/order/cancel", {"client_order_id": "my-1"})
        line = heard.only()
        assert (line["command"], line["outcome"], line["order_id"]) == ("cancel", "accepted", order_id)
        assert line["client_order_id"] == "my-1"
        await server.ask("POST", "/api/order/cancel", {"order_id": UNKNOWN})
        line = heard.only()
        assert (line["command"], line["reason"], line["order_id"]) == ("cancel", "not-found", UNKNOWN)
        await server.ask("POST", "/api/order/cancel_all", {})
        assert heard.only()["order_ids"] == [order_id]
        await server.ask("POST", "/api/order/cancel_all_after", {"timeout_seconds": 5})
        line = heard.only()
        assert (line["command"], line["outcome"], line["reason"]) == ("cancel_all_after", "not_written", "unavailable")


@pytest.mark.gen_test
async def test_what_is_no_command_has_no_line(heard: Heard) -> None:
    async with serve_orders(audit=heard.audit) as server:
        await server.ask("GET", "/api/order")
        await server.ask("GET", "/api/order", None, None)
        await server.ask("GET", "/api/order/none")
        await server.ask("PUT", "/api/order", {})
        assert heard.lines == []


@pytest.mark.gen_test
async def test_each_request_of_a_batch_has_a_line(heard: Heard) -> None:
    requests = [
        {"method": "place", "params": ORDER},
        {"method": "cancel", "params": {"order_id": UNKNOWN}},
        {"method": "amend", "params": {"order_id": UNKNOWN, "symbol": "KCN/EUR", "price": "2"}},
        {"method": "place", "params": {**ORDER, "client_order_id": "my-2", "price": "0"}},
        {"method": "sell", "params": {"order_id": "x"}},
        17,
    ]
    expected = [
        ("place", "accepted", None, "my-1"),
        ("cancel", "refused", "not-found", None),
        ("amend", "accepted", None, None),
        ("place", "refused", "invalid-fields", "my-2"),
        ("batch", "refused", "invalid-fields", None),
        ("batch", "refused", "invalid-fields", None),
    ]

    def told() -> list[tuple[object, ...]]:
        return [(line["command"], line["outcome"], line.get("reason"), line.get("client_order_id"))
                for line in heard.lines]  # fmt: skip

    async with serve_amends(audit=heard.audit) as server:
        await server.ask("POST", "/api/order/batch", {"requests": requests})
        assert told() == expected
        assert {line["user_id"] for line in heard.lines} == {"alice"}
        heard.lines.clear()
        await server.ask("POST", "/api/order/batch", {"requests": []})
        line = heard.only()
        assert (line["command"], line["field"]) == ("batch", "requests")
    requests.pop(2)
    expected.pop(2)
    async with serve(audit=heard.audit) as server, server.client("alice-token") as connection:
        await asked(connection, "private/batch", requests=requests)
        assert told() == expected
        assert len({(line["request_id"], line["client"]) for line in heard.lines}) == 1


@pytest.mark.gen_test
async def test_order_over_websocket_has_a_line_with_all_its_ids(heard: Heard) -> None:
    async with serve(audit=heard.audit) as server, server.client("alice-token") as connection:
        order_id = (await asked(connection, "private/place_order", **ORDER))["result"]["order_id"]
        line = heard.only()
        assert line.pop("request_id")
        assert isinstance(line.pop("client"), int)
        assert line == {
            "command": "place", "outcome": "accepted", "user_id": "alice", "order_id": order_id,
            "client_order_id": "my-1", "symbol": "KCN/EUR",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "command", "reason", "names"),
    [
        ({"method": "private/place_order", "params": {**ORDER, "price": "0"}}, "place", "invalid-fields",
         {"client_order_id": "my-1", "symbol": "KCN/EUR"}),
        ({"method": "private/cancel_order", "params": {"order_id": UNKNOWN}}, "cancel", "not-found",
         {"order_id": UNKNOWN}),
        ({"method": "private/cancel_order", "params": 17}, "cancel", "invalid-fields", {}),
        ({"method": "private/batch", "params": {"requests": 17}}, "batch", "invalid-fields", {}),
        ({"method": "private/buy", "params": {"amount": 1}}, "place", "invalid-fields", {}),
        ({"type": "place_order", **ORDER, "price": "0"}, "place", "invalid-fields",
         {"client_order_id": "my-1", "symbol": "KCN/EUR"}),
        ({"action": "orders", "orders": [{**ORDER, "price": "0"}]}, "place", "unauthorised", {}),
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_refused_command_over_websocket_has_a_line_that_says_why(
    heard: Heard, message: dict[str, Any], command: str, reason: str, names: dict[str, str]
) -> None:
    async with serve(audit=heard.audit) as server, server.client("alice-token") as connection:
        await connection.say({"id": 1, **message})
        await connection.message()
        line = heard.only()
        assert (line["command"], line["outcome"], line["reason"], line["user_id"]) == (
            command, "refused", reason, "alice",
        )  # fmt: skip
        told = {name: line[name] for name in ("order_id", "client_order_id", "symbol") if name in line}
        assert told == names


@pytest.mark.gen_test
async def test_nobodys_orders_of_the_oldest_dialect_have_a_line_each(heard: Heard) -> None:
    async with serve(audit=heard.audit, allows_anonymous=True) as server, server.client() as connection:
        await connection.say({"action": "orders", "orders": [ORDER, {**ORDER, "price": "0"}]})
        await connection.message()
        assert sorted((line["outcome"], "user_id" in line) for line in heard.lines) == [
            ("accepted", False), ("refused", False),
        ]  # fmt: skip


@pytest.mark.gen_test
async def test_order_over_the_limit_of_messages_has_a_line(heard: Heard) -> None:
    messages = Policy("requests", 0.001, 1)
    async with serve(audit=heard.audit, messages=messages) as server, server.client("alice-token") as connection:
        await asked(connection, "public/ping")
        await connection.say({"id": 2, "method": "private/place_order", "params": ORDER})
        await connection.message()
        line = heard.only()
        assert (line["command"], line["reason"], line["client_order_id"]) == ("place", "too-many-requests", "my-1")


@pytest.mark.gen_test
async def test_cancels_on_disconnect_have_a_line_each(heard: Heard) -> None:
    async with serve(audit=heard.audit) as server:
        async with server.client("alice-token") as connection:
            await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
            order_id = await placed(connection)
            heard.lines.clear()
        await server.alone()
        line = heard.only()
        assert (line["command"], line["outcome"], line["order_id"]) == ("cancel_on_disconnect", "accepted", order_id)
