"""`cancel_all_after` at both edges, by timers of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ControlUnknown, RequestError
from tests.core.admission import taker
from tests.handlers.orders_server import check_refused
from tests.handlers.orders_server import serve as serve_orders
from tests.handlers.websocket_server import asked, serve

PATH = "/api/order/cancel_all_after"


class FakeTimers:
    def __init__(self, refusal: RequestError | None = None) -> None:
        self.refusal = refusal
        self.asked: list[tuple[str, int]] = []

    def extend(self, user_id: str, timeout_seconds: int, may: object) -> int | None:
        return None

    async def set(self, user_id: str, timeout_seconds: int) -> int | None:
        self.asked.append((user_id, timeout_seconds))
        if self.refusal is not None:
            raise self.refusal
        return 1_700_000_000_000 + timeout_seconds * 1000 if timeout_seconds else None


@pytest.mark.gen_test
async def test_timer_is_set_over_rest() -> None:
    async with serve_orders() as server:
        server.order_services.timers = timers = FakeTimers()  # type: ignore[assignment]
        answer = await server.ask("POST", PATH, {"timeout_seconds": 60})
        assert (answer.status, answer.json()) == (202, {"trigger_time_ms": 1_700_000_060_000})
        answer = await server.ask("POST", PATH, {"timeout_seconds": 0})
        assert (answer.status, answer.json()) == (202, {"trigger_time_ms": None})
        assert timers.asked == [("alice", 60), ("alice", 0)]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "body", [{}, {"timeout_seconds": -1}, {"timeout_seconds": 3601}, {"timeout_seconds": 1.5}, {"timeout_seconds": "5"},
             {"timeout_seconds": True}, {"timeout_seconds": None}, {"timeout_seconds": 5, "symbol": "KCN/EUR"}, []]
)  # fmt: skip
async def test_body_that_sets_no_timer_is_refused(body: Any) -> None:
    async with serve_orders() as server:
        server.order_services.timers = timers = FakeTimers()  # type: ignore[assignment]
        assert check_refused(await server.ask("POST", PATH, body), 422, "invalid-fields")["errors"]
        assert timers.asked == []


@pytest.mark.gen_test
async def test_timer_needs_a_user_and_a_control_topic() -> None:
    async with serve_orders() as server:
        check_refused(await server.ask("POST", PATH, {"timeout_seconds": 5}, None), 401, "unauthorised")
        told = check_refused(await server.ask("POST", PATH, {"timeout_seconds": 5}), 503, "unavailable")
        assert told["detail"] == "not sent: there is no control topic (kafka.control_topic)"
        server.order_services.timers = FakeTimers(ControlUnknown("late"))  # type: ignore[assignment]
        check_refused(await server.ask("POST", PATH, {"timeout_seconds": 5}), 504, "outcome-unknown")


@pytest.mark.gen_test
async def test_timer_is_set_over_websocket_and_counts_as_a_cancel() -> None:
    async with serve(cancels=taker("cancels", 0.25, 2)) as server, server.client("alice-token") as connection:
        refused = await asked(connection, "private/cancel_all_after", timeout_seconds=5)
        assert refused["error"]["code"] == 10004
        server.order_services.timers = timers = FakeTimers()  # type: ignore[assignment]
        told = await asked(connection, "private/cancel_all_after", timeout_seconds=5)
        assert told["result"] == {"trigger_time_ms": 1_700_000_005_000}
        assert "usIn" in told
        assert (await asked(connection, "private/cancel_all_after", timeout_seconds=5))["error"]["code"] == 10003
        bad = await asked(connection, "private/cancel_all_after", timeout_seconds=9999)
        assert bad["error"]["data"]["errors"][0]["field"] == "timeout_seconds"
        assert timers.asked == [("alice", 5)]
