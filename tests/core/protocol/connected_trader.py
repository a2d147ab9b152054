"""Alice on a connection that orders come in by, alone or one that others know of."""

from __future__ import annotations

import json
from typing import Any

from core.errors import (
    CloseCode,
)
from core.orders.connection_cancels import ConnectionCancels
from core.protocol.connection_orders import ConnectionOrders, OrderServices
from core.protocol.effects import Reply, RpcAnswer
from tests.core.admission import Tokens, admission
from tests.core.attempts import ANY_NAME
from tests.core.control.timer_world import World
from tests.core.fakes import turns
from tests.core.sessions import new_session
from tests.core.trading import Trade


class ConnectedTrader:
    """A connection of Alice's, what it was told, and how it was ended; orders are acknowledged at once with `acks`."""

    def __init__(self, *, acks: bool = True, engine_seconds: float = 60, **limits: Any) -> None:
        self.trade = Trade(acks=acks)
        self.limited: list[str] = []
        self.order_services = OrderServices(
            self.trade.entry,
            self.trade.directory,
            self.trade.private,
            self.trade.lookup,
            admission(Tokens(), **limits),
            self.limited.append,
            self.trade.changes,
            self.trade.amends,
            engine_seconds=engine_seconds,
        )
        self.client = new_session()
        self.client.user_id = "alice"
        self.orders = ConnectionOrders(self.order_services, self.client, self, 7)
        self.answers: dict[object, dict[str, Any]] = {}
        self.ends: list[tuple[CloseCode, str]] = []

    def tell(self, reply: Reply) -> None:
        message = json.loads(reply.text)
        self.answers[message["id"]] = message.get("result") or message["error"]

    def end(self, code: CloseCode, reason: str) -> None:
        self.ends.append((code, reason))

    def records(self, kind: str) -> list[tuple[str, str | None]]:
        """Ids and owners of the commands of this kind."""
        return [(one["order_id"], one["user_id"]) for one in self.trade.log.records if one["type"] == kind]

    async def placed(self) -> str:
        """An order that was accepted."""
        self.orders.place(RpcAnswer("placed"), ANY_NAME)
        await turns()
        order_id: str = self.answers["placed"]["order_id"]
        return order_id


class SharedTrader(ConnectedTrader):
    """One whose connection others know of, by the control topic of `world`."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.world = World()
        self.instance = self.world.instance("a")
        self.instance.cancels = ConnectionCancels(self.trade.lookup, self.trade.entry, lambda order, error: None)
        self.order_services.cancel_on_disconnect = self.instance.disconnects

    async def set(self, enabled: bool, result: Any = "set") -> Any:
        """What that is answered with."""
        self.orders.cancel_on_disconnect(RpcAnswer("set"), enabled, {"is": result})
        await turns()
        return self.answers["set"]

    def held(self) -> dict[str, Any]:
        """By connection, what the topic says last."""
        said = {key.decode(): value for _, key, value in self.world.topic if key.startswith(b"connection/")}
        return {key.removeprefix("connection/"): json.loads(value) for key, value in said.items() if value is not None}

    def named(self) -> list[str | None]:
        """The connections that the orders' records name."""
        return [one.get("connection") for one in self.trade.log.records if one["type"] == "place_order"]
