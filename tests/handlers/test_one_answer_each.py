"""Every request of every dialect, right and wrong, is answered once over `/ws`, in its own form; who is not, is listed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest

from tests.core.attempts import Funds
from tests.handlers.websocket_server import StreamServer, serve
from tests.handlers.wire import Connection
from tests.support.asyncapi import MESSAGES, REPLIES, examples, faults
from tests.support.examples import examples as tried
from tests.support.request_members import objects, with_member_null

# What the oldest server never confirmed: channels tell by their snapshots, orders by the engine's events.
SILENT_WHEN_DONE = {"actionSubscribe", "actionUnsubscribe", "typeSubscribe", "typeUnsubscribe", "typeOrders"}
FENCE = {"id": "fence", "method": "public/ping"}
WRONG = [None, True, -1, "no such thing", [], [1], {}, {"x": 1}]
# So many of those for a member, and for the next member the next ones.
TRIED = tried(len(WRONG), least=2)


def variants(payload: dict[str, Any], wrong: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """The request, and ones with a member gone, one too many, or of another kind; what tells its kind stays."""
    yield payload
    for path, members in objects(payload, {}, lambda _reference: {}):
        for member in members - ({"method", "type", "action"} if not path else set()):
            yield with_member_null(payload, path, member)[1]
            for value in islice(wrong, TRIED):
                changed = copy.deepcopy(payload)
                inner: Any = changed
                for part in path:
                    inner = inner[part]
                inner[member] = value
                yield changed
        if path:
            changed, _ = with_member_null(payload, path, "surplus")
            inner = changed
            for part in path:
                inner = inner[part]
            inner["surplus"] = 1
            yield changed


async def answers(server: StreamServer, connection: Connection, request: dict[str, Any]) -> list[dict[str, Any]]:
    """All that is told of one request until its outcome is known; snapshots are no answers."""
    await connection.say(json.dumps(request, default=float).encode(), FENCE)
    told = []
    while (message := await connection.message()).get("id") != "fence":
        told.append(message)
    await server.order_services.finish(10)
    await connection.say(FENCE)
    while (message := await connection.message()).get("id") != "fence":
        told.append(message)
    return [message for message in told if "channel_name" not in message]


CALLERS = {
    "signed in": ("alice-token", False),
    "anonymous": (None, True),
    "anonymous, and orders need a token": (None, False),
    "anonymous, and orders need an account": (None, True),
}


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.gen_test(timeout=60)
async def test_request_is_answered_once_in_its_own_form(caller: str, name: str) -> None:
    token, allows_anonymous = CALLERS[caller]
    success, *refusal = REPLIES[name]
    async with serve(allows_anonymous=allows_anonymous) as server, server.client(token) as connection:
        if "account" in caller:
            server.trade.entry._reservations = Funds()
        wrong = cycle(WRONG)
        for _, _, payload in examples([name]):
            for request in variants(payload, wrong):
                told = await answers(server, connection, request)
                if told == []:
                    assert name in SILENT_WHEN_DONE, request
                    continue
                [answer] = told
                is_own = not faults(success, answer) or any(not faults(one, answer) for one in refusal)
                assert is_own, (request, answer)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.gen_test
async def test_oldest_dialect_is_silent_of_what_was_done_alone(caller: str) -> None:
    token, allows_anonymous = CALLERS[caller]
    async with serve(allows_anonymous=allows_anonymous) as server, server.client(token) as connection:
        needs_account = "account" in caller
        if needs_account:
            server.trade.entry._reservations = Funds()
        for name in sorted(SILENT_WHEN_DONE):
            for _, _, payload in examples([name]):
                told = await answers(server, connection, payload)
                if name != "typeOrders" or (allows_anonymous and not needs_account):
                    assert told == []
                    continue
                [answer] = told
                sentence = "an order needs an account here" if needs_account else "orders need a token here"
                assert answer == {"id": None, "error": {"code": 10000, "message": sentence}}
                assert server.records("place_order") == []


def test_every_message_that_is_not_answered_is_of_the_oldest_dialect() -> None:
    assert {name for name in REPLIES if REPLIES[name] == ["error"]} == SILENT_WHEN_DONE
    assert all("method" not in MESSAGES[name]["payload"]["properties"] for name in SILENT_WHEN_DONE)
