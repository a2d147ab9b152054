"""What a trader's program has: a token, a REST client and a signed-in WebSocket; and an engine's order events."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.core.tokens import SECRET, PrivateKey, token
from tests.integration.clients import Refused, WebSocket
from tests.integration.events import dump
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.gateway import Answer

__all__ = [
    "NAMESPACE",
    "SECRET",
    "Trader",
    "check_problem",
    "fresh_user",
    "limit",
    "order_event",
    "order_id_of",
    "pass_of",
]

NAMESPACE = uuid.UUID("3b1c0f4e-52a7-4d0e-9f6b-6a1d2c7e8f90")

# Of a token that is refused three seconds from now: the leeway is 60 s.
NEARLY_OVER = -57.0

# For gateways on which a test places more than a person would.
UNLIMITED = {"orders_per_second": 0, "cancels_per_second": 0, "requests_per_second": 0}


def settings(**more: object) -> dict[str, Any]:
    """Of a gateway that knows its users by the tests' secret; any instance serves any client."""
    return {
        "auth": {"secret": SECRET},
        "orders": {"id_secret": str(NAMESPACE)},
        "limits": UNLIMITED,
        "kafka": {"consume": "broadcast"},
        **more,
    }


def fresh_user() -> str:
    """A user that no other test has."""
    return f"user-{uuid.uuid4().hex[:12]}"


def pass_of(
    user_id: str, key: PrivateKey | str = SECRET, kid: str | None = None, *, seconds: float = 3600, **more: object
) -> str:
    """A token of this user's that expires in `seconds`, or expired so long ago; the leeway comes on top."""
    now = time.time()
    return token(key, kid, sub=user_id, iat=int(now) - 60, **{"exp": now + seconds, **more})


def bearer(text: str) -> dict[str, str]:
    """The header that a token goes into."""
    return {"Authorization": f"Bearer {text}"}


def order_id_of(user_id: str | None, client_order_id: str, namespace: uuid.UUID = NAMESPACE) -> str:
    """UUIDv5 of the JSON array [user_id, client_order_id] (docs/contract.md#retries)."""
    return str(uuid.uuid5(namespace, json.dumps([user_id, client_order_id], separators=(",", ":"))))


@contextlib.contextmanager
def expiring(
    gateway: Gateway, trader: Trader, set_up: Callable[[WebSocket], Any] = lambda _: None, *, by_header: bool = False
) -> Iterator[tuple[WebSocket, Any]]:
    """A client whose token is nearly over, and what `set_up` made of it before that; on a busy machine not the first one."""
    with contextlib.ExitStack() as stack:

        def attempt() -> tuple[WebSocket, Any] | None:
            began = time.monotonic()
            token = pass_of(str(trader.user_id), seconds=NEARLY_OVER)
            try:
                headers = bearer(token) if by_header else None
                client = stack.enter_context(WebSocket(gateway.address, "/ws?stream=none", headers))
                if not by_header:
                    assert client.result("public/auth", {"token": token})["user_id"] == trader.user_id
                return client, set_up(client)
            except (AssertionError, KeyError, Refused):
                if time.monotonic() < began + 2:  # the token was still good
                    raise
                return None

        yield gateway.wait_until(attempt, "all set up before the token ends")


def limit(symbol: str, **more: object) -> dict[str, object]:
    """The body of a limit order."""
    return {"symbol": symbol, "side": "bid", "order_type": "limit", "price": "1.10", "quantity": "2", **more}


def order_event(kind: str, order_id: str, symbol: str, **more: object) -> bytes:
    """An engine's `order_<kind>`, with what that kind needs."""
    needs: dict[str, dict[str, object]] = {
        "accepted": {"side": "bid", "order_type": "limit", "price": "1.10", "quantity": "2"},
        "filled": {},
        "cancelled": {"filled_quantity": "0"},
        "rejected": {"reason": "it is too dear"},
        "amended": {"price": "1.10", "quantity": "2"},
        "amend_rejected": {"reason": "it is too dear"},
    }
    return dump({"type": f"order_{kind}", "order_id": order_id, "symbol": symbol, **needs[kind], **more})


def order_command(order_id: str, user_id: str | None, symbol: str, **more: object) -> bytes:
    """A `place_order` as a gateway writes it."""
    return dump(
        {
            "type": "place_order",
            "order_id": order_id,
            **limit(symbol),
            "user_id": user_id,
            "client_order_id": None,
            "terms_hash": None,
            "time_in_force": "GTC",
            "timestamp": int(time.time() * 1000),
            **more,
        }
    )


def check_problem(answer: Answer, status: int) -> dict[str, Any]:
    """The body of an error with this status, after a look at the members that every error has."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    for member in ("type", "title", "detail", "error"):
        assert isinstance(told[member], str) and told[member], member
    assert told["request_id"] == answer.headers["X-Request-Id"]
    return dict(told)


class Trader:
    """One user's program. `user_id` None: nobody's, without a token."""

    def __init__(self, user_id: str | None = "") -> None:
        self.user_id = fresh_user() if user_id == "" else user_id
        self.token = None if self.user_id is None else pass_of(self.user_id)

    @property
    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {} if self.token is None else bearer(self.token)

    def post(self, gateway: Gateway, path: str, body: object) -> Answer:
        """One request, whatever comes of it."""
        return gateway.post(path, body, self.headers)

    def place(self, gateway: Gateway, body: object) -> dict[str, Any]:
        """Place an order that is accepted; the answer's body."""
        answer = self.post(gateway, "/api/order", body)
        assert answer.status == 202, (answer.status, answer.body)
        return dict(answer.json())

    def cancel(self, gateway: Gateway, **body: object) -> Answer:
        """Try to cancel an order."""
        return self.post(gateway, "/api/order/cancel", body)

    def cancel_all(self, gateway: Gateway, **body: object) -> list[str]:
        """Cancel the open orders; their ids."""
        answer = self.post(gateway, "/api/order/cancel_all", body)
        assert answer.status == 202, (answer.status, answer.body)
        assert set(answer.json()) == {"order_ids"}
        return list(answer.json()["order_ids"])

    def orders(self, gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
        """The open orders, or those that a query finds; asked for again where Kafka was too busy to tell the topic's end."""

        def listed() -> Answer | None:
            answer = gateway.request("GET", f"/api/order{query}", headers=self.headers)
            assert answer.status in (200, 503), (answer.status, answer.body)
            return answer if answer.status == 200 else None

        return list(gateway.wait_until(listed, "the orders told").json()["orders"])

    def look_up(self, gateway: Gateway, order_id: str) -> Answer:
        """Ask for one order."""
        return gateway.request("GET", f"/api/order/{order_id}", headers=self.headers)

    def order(self, gateway: Gateway, order_id: str) -> dict[str, Any] | None:
        """One order's state; None where it is not known."""
        answer = self.look_up(gateway, order_id)
        assert answer.status in (200, 404), (answer.status, answer.body)
        return dict(answer.json()) if answer.status == 200 else None

    def wait_for(self, gateway: Gateway, order_id: str, status: str) -> dict[str, Any]:
        """The order's state once it has this status."""

        def reached() -> dict[str, Any] | None:
            order = self.order(gateway, order_id)
            return order if order is not None and order["status"] == status else None

        return dict(gateway.wait_until(reached, f"order {order_id} {status}"))

    def connect(self, gateway: Gateway, path: str = "/ws?stream=none") -> WebSocket:
        """A connection that is signed in by its header."""
        return WebSocket(gateway.address, path, self.headers)

    def sign_in(self, client: WebSocket) -> None:
        """Sign in on a connection."""
        assert self.token is not None
        told = client.result("public/auth", {"token": self.token})
        assert told == {"access_token": self.token, "token_type": "bearer", "user_id": self.user_id}


def own_commands(market: Market, symbol: str, kind: str = "place_order") -> list[dict[str, Any]]:
    """The commands of one kind on the topic for this symbol."""
    return [command for command in market.commands_of(symbol) if command["type"] == kind]


def error_of(answer: Mapping[str, Any], code: int) -> dict[str, Any]:
    """The error of a WebSocket answer, which has this code and a message."""
    assert set(answer) - {"usIn", "usOut"} == {"id", "error"}, answer
    error = dict(answer["error"])
    assert error["code"] == code, answer
    assert error["message"] and isinstance(error["message"], str)
    assert set(error) <= {"code", "message", "data"}
    return error
