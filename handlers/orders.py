"""`/api/order*` and `/api/instruments`: orders in over REST (docs/contract.md#http)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import ujson
from tornado.iostream import StreamClosedError

from core.access.limits import Decision, rate_limit_headers
from core.access.scopes import CANCEL, EVERYTHING, READ, TRADE, no_scope
from core.errors import NoSuchOrder, RequestError, TokenNeeded
from core.messages.body_json import read_request
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.order_ids import read_order_id
from core.messages.order_rules import OrderRules, check_cancel, check_cancel_all, check_place
from core.messages.query import MAX_WHOLE_DIGITS, Query, read_symbol, whole_number
from core.orders.deadlines import VALID
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order, state
from core.orders.origin import Origin
from core.orders.pieces import JOINED
from core.telemetry.audit import Asker, names_in
from handlers.bodies import ANSWER_HEADERS, BaseHandler
from handlers.problems import Context, Refusal, header, refusal_of

T = TypeVar("T")

# Of a page, where nobody says how long, and at most.
DEFAULT_LIMIT: Final = 100
MOST_ON_A_PAGE: Final = 1_000

_read_time = whole_number(0, 10**MAX_WHOLE_DIGITS - 1)
_read_limit = whole_number(1, MOST_ON_A_PAGE)


def read_order_name(text: str) -> str:
    """An order's id in a query. Raises ValueError."""
    order_id = read_order_id(text)
    if order_id is None:
        raise ValueError("expected an order id")
    return order_id


class OrderHandler(BaseHandler):
    """What all of them share: who asks, how often, what they sent, and what became of it."""

    # What a POST is called in the audit; empty: it is no command.
    command = ""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules) -> None:  # type: ignore[override]
        """`rules` are what bodies are checked against."""
        super().initialize(context)
        self.audit = context.audit
        self.allowed = EVERYTHING
        self._user_id: str | None = None
        self._given: object = None
        self._entry = entry
        self._lookup = lookup
        self._rules = rules

    async def caller(self, needed: str | None, *, needs_token: bool = False) -> str | None:
        """Whose request this is; None: nobody's, where that is allowed. `needed`: the word that a scope has to have; None: any.

        Raises `Refusal` (401, 403, 429).
        """
        self.take_request()
        principal = await self.principal()
        if principal is not None:
            self._user_id, self.allowed = principal.user_id, principal.allowed
            if needed is not None:
                self.check_scope(principal, needed)
            elif not principal.allowed:
                raise refusal_of(no_scope())
            return principal.user_id
        if needs_token or not self.context.admission.allows_anonymous:
            raise refusal_of(TokenNeeded("a token is needed"))
        return None

    @staticmethod
    def checked(query: Query) -> None:
        """All of a query is as it has to be. Raises `Refusal` (422) with every parameter that is not."""
        try:
            query.check()
        except RequestError as error:
            raise refusal_of(error) from error

    def admit(self, decision: Decision | None) -> None:
        """Tell the caller where it stands with its limit. Raises `Refusal` (429)."""
        if decision is None:
            return
        headers = rate_limit_headers(decision)
        if not decision.allowed:
            raise self.too_many(decision.policy.name, headers)
        self.limit_headers = headers
        for name, value in headers.items():
            self._headers[name] = value

    def read(self, check: Callable[[object, OrderRules], T]) -> T:
        """The checked body. Raises `Refusal` (400, 413, 415, 422)."""
        try:
            self._given = read_request(self.json_body())
            return check(self._given, self._rules)
        except RequestError as error:
            raise refusal_of(error) from error

    def origin(self) -> Origin:
        """This request, for the records that come of it."""
        return Origin(self.request_id, header(self.request.headers, "Traceparent", ""))

    def tell_bus(self, origin: Origin) -> None:
        """How long Kafka took to acknowledge what came of the request, if anything did."""
        if origin.bus_seconds is not None:
            self._headers["Server-Timing"] = f"bus;dur={origin.bus_seconds * 1000:.3f}"

    async def done(self, attempt: Awaitable[T]) -> T:
        """What came of it. Raises `Refusal`, each only where it is true."""
        try:
            return await attempt
        except RequestError as error:
            raise refusal_of(error) from error

    def asker(self) -> Asker:
        """Who asks, for the audit."""
        return Asker(self.request_id, self._user_id)

    def answer_command(self, status: int, body: Mapping[str, object]) -> None:
        """Finish with what became of a command."""
        self.audit.told(self.command, self.asker(), body, names_in(self._given))
        self.answer(status, body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """As every handler; a command has its line in the audit."""
        if self.command and self.request.method == "POST" and self.audit.tells_refused:
            error = kwargs.get("exc_info", (None, None, None))[1]
            if isinstance(error, Refusal) and error.cause is not None:
                self.audit.refused(self.command, self.asker(), error.cause, **self._names())
            else:
                reason, detail = (
                    (error.problem.slug, error.error) if isinstance(error, Refusal) else ("internal", "a fault of ours")
                )
                self.audit.refused_for(self.command, self.asker(), reason, detail, **self._names())
        super().write_error(status_code, **kwargs)

    def _names(self) -> dict[str, str]:
        """Which order a refused command is about, as far as its body can be read: a limit is asked before it is."""
        if self._given is None:
            try:
                self._given = read_request(bytes(self.body))
            except RequestError:
                return {}
        return names_in(self._given)

    async def answer_list(self, status: int, name: str, texts: list[str]) -> None:
        """Finish with a body of one list, which is in pieces; a long one goes out as it is taken, and holds nobody up."""
        if len(texts) < 2:
            self.answer_text(status, f'{{"{name}":[{"".join(texts)}]}}')
            return
        parts = [f'{{"{name}":[{texts[0]}', *(f",{text}" for text in texts[1:]), "]}"]
        self.set_status(status)
        self._headers.update({**ANSWER_HEADERS, "Content-Length": str(sum(map(len, parts)))})
        try:
            async for some in self._lookup.in_pieces(parts, JOINED):
                self.write("".join(some))
                await self.flush()
        except StreamClosedError:
            return  # nobody reads it
        self.finish()


class OrdersHandler(OrderHandler):
    """`/api/order`."""

    command = "place"

    async def post(self) -> None:
        """Place an order: 202 once Kafka has it."""
        user_id = await self.caller(TRADE)
        self.admit(await self.context.admission.take_order(user_id))
        order: PlaceOrder = self.read(check_place)
        origin = self.origin()
        placed = await self.done(self._entry.place(user_id, order, origin))
        self.tell_bus(origin)
        if order.validate_only:
            self.answer_command(200, VALID.body())
            return
        self.answer_command(202, {**placed.body(), "status": "accepted"})

    async def get(self) -> None:
        """The caller's open orders, or the one of a client_order_id, open or not."""
        user_id = await self.caller(READ, needs_token=True)
        assert user_id is not None
        query = Query(self.request.query_arguments)
        asked = query.take("client_order_id", str, None)
        self.checked(query)
        if asked is None:
            orders = await self.done(self._lookup.open_orders(user_id))
        else:
            found = await self.done(self._lookup.find_by_client_order_id(user_id, asked))
            orders = [] if found is None else [found]
        await self.answer_list(200, "orders", await self._lookup.write_all(orders, _written))

    head = get


def _written(orders: list[Order]) -> str:
    """Their states as JSON text, with commas between."""
    return _json([state(order) for order in orders])


def _json(some: list[Any]) -> str:
    """A part of a list as JSON text, with commas between."""
    text: str = ujson.dumps(some, escape_forward_slashes=False)
    return text[1:-1]


class HistoryHandler(OrderHandler):
    """`GET /api/order/history`."""

    async def get(self) -> None:
        """The caller's closed orders, the last one first."""
        user_id = await self.caller(READ, needs_token=True)
        assert user_id is not None
        query = Query(self.request.query_arguments)
        symbol = query.take("symbol", read_symbol, None)
        start_ms, end_ms = query.take_range(_read_time)
        limit = query.take("limit", _read_limit, DEFAULT_LIMIT)
        before = query.take("before", read_order_name, None)
        self.checked(query)

        def wanted(order: Order) -> bool:
            return (
                symbol in (None, order.symbol)
                and (start_ms is None or order.time_ms >= start_ms)
                and (end_ms is None or order.time_ms <= end_ms)
            )

        try:
            orders = await self.done(self._lookup.closed_orders(user_id, limit, wanted, before))
        except LookupError:
            query.refuse("before", "no closed order of the caller's that is kept")
            self.checked(query)
            raise
        written = await self._lookup.write_all(orders, _written)
        self.answer_text(200, f'{{"orders":[{",".join(written)}]}}')

    head = get


class OneOrderHandler(OrderHandler):
    """`GET /api/order/{order_id}`."""

    async def get(self, order_id: str) -> None:
        """Its last known state; somebody else's is as unknown as none."""
        user_id = await self.caller(READ)
        name = read_order_id(order_id)
        order = None if name is None else await self.done(self._lookup.find(user_id, name))
        if order is None:
            raise refusal_of(NoSuchOrder())
        self.answer(200, state(order))

    head = get


class CancelHandler(OrderHandler):
    """`POST /api/order/cancel`."""

    command = "cancel"

    async def post(self) -> None:
        """202 once Kafka has the request; whether the order was still open the engine knows."""
        user_id = await self.caller(CANCEL)
        self.admit(await self.context.admission.take_cancel(user_id))
        cancel: CancelOrder = self.read(check_cancel)
        origin = self.origin()
        order_id = await self.done(self._entry.cancel(user_id, cancel, origin))
        self.tell_bus(origin)
        self.answer_command(202, {"order_id": order_id, "status": "cancel_requested"})


class CancelAllHandler(OrderHandler):
    """`POST /api/order/cancel_all`."""

    command = "cancel_all"

    async def post(self) -> None:
        """202 once Kafka has all of the requests. It takes risk away, so no limit holds it up."""
        user_id = await self.caller(CANCEL, needs_token=True)
        assert user_id is not None
        self._check_size()  # of a body that is too large nothing is left to be read
        symbol = self.read(check_cancel_all) if self.body else None
        origin = self.origin()
        ids = await self.done(self._entry.cancel_all(user_id, symbol, origin))
        self.tell_bus(origin)
        self.audit.told(self.command, self.asker(), {"order_ids": ids}, names_in(self._given))
        await self.answer_list(202, "order_ids", [_json(some) async for some in self._lookup.in_pieces(ids)])


class InstrumentsHandler(BaseHandler):
    """`GET /api/instruments`."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, instruments: Callable[[], Mapping[str, object]]) -> None:  # type: ignore[override]
        """`instruments` makes the body."""
        super().initialize(context)
        self._instruments = instruments

    def get(self) -> None:
        """What can be traded."""
        self.take_request()
        self.answer(200, self._instruments())

    head = get


def routes(
    context: Context,
    entry: OrderEntry,
    lookup: OrderLookup,
    rules: OrderRules,
    instruments: Callable[[], Mapping[str, object]],
) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    order = {"context": context, "entry": entry, "lookup": lookup, "rules": rules}
    return [
        (r"/api/order", OrdersHandler, order),
        (r"/api/order/cancel", CancelHandler, order),
        (r"/api/order/cancel_all", CancelAllHandler, order),
        (r"/api/order/history", HistoryHandler, order),
        (r"/api/order/([^/]+)", OneOrderHandler, order),
        (r"/api/instruments", InstrumentsHandler, {"context": context, "instruments": instruments}),
    ]
