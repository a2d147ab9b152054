"""`/admin/*`: what operators ask for, on an address of their own (docs/contract.md#operators).

Only the `Authorization` header authenticates, which no page of another origin can send here: none is allowed to by CORS, and what
browsers say of a request's origin is looked at as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from itertools import islice
from math import ceil
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from core.access.addresses import address_key
from core.access.limits import Limiter, Policy
from core.control.announcements import Announcements
from core.control.disconnects import Disconnects
from core.control.restrictions import Restrictions
from core.errors import ControlUnavailable, RequestError, TokenNeeded, Unauthorised
from core.messages.admin_rules import (
    check_announce,
    check_block,
    check_disconnect,
    check_halt,
    check_nothing,
    check_resume,
    check_unblock,
)
from core.messages.body_json import read_json
from core.messages.control_records import Announcement
from core.messages.query import Query, whole_number
from core.telemetry.audit import outcome_of
from handlers.bodies import BaseHandler
from handlers.connected_clients import PageQuery
from handlers.problems import Context, Refusal, refusal_of

T = TypeVar("T")

# Of a page, where nobody says how long, and at most.
DEFAULT_LIMIT: Final = 100
MOST_ON_A_PAGE: Final = 1000
# Of the blocks, so many are listed.
MOST_BLOCKS: Final = 1000
# Wrong tokens of an address: so many at once, and one a second.
GUESSES: Final = Policy("wrong tokens", 1.0, 20)
# What browsers say of requests that a page of this very origin makes, or that somebody typed.
OWN_SITES: Final = ("same-origin", "none")

_read_limit: Final = whole_number(1, MOST_ON_A_PAGE)


@dataclass(frozen=True, slots=True)
class Control:
    """What the operators set, by way of the control topic. `problem`: a sentence while it is not known up to now."""

    restrictions: Restrictions
    announcements: Announcements
    disconnects: Disconnects
    cancel_open: Callable[[str], Awaitable[list[str]]]
    problem: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Operations:
    """What operators can do here. `control`: None where there is no control topic. `clients`: one page of all workers.
    `is_known`: whether anything is known of a symbol.
    """

    token: str
    clients: Callable[[PageQuery], Awaitable[dict[str, object]]]
    control: Control | None
    guesses: Limiter
    is_known: Callable[[str], bool]


class AdminHandler(BaseHandler):
    """What all of them share: who asks, what they sent, and that it is told in the log."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, operations: Operations) -> None:  # type: ignore[override]
        """See `Operations`."""
        super().initialize(context)
        self._operations = operations

    def admit(self) -> None:
        """Whoever bears the token, from a page of this origin or from none. Raises `Refusal` (401, 403, 429)."""
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site not in (None, *OWN_SITES) or (origin is not None and urlsplit(origin).netloc != self.request.host):
            raise Refusal("forbidden", "Origin: only the page of this address may ask")
        given = headers.get("Authorization", "")
        if not given:
            raise refusal_of(TokenNeeded("a token is needed"))
        guesses, key = self._operations.guesses, address_key(self.address)
        # Before it is looked at: what is asked too often is not told whether it was right.
        if guesses.take(key, 0).remaining < 1:
            wait = str(max(1, ceil(1 / guesses.policy.rate_per_second)))
            raise self.too_many(guesses.policy.name, {"Retry-After": wait})
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not compare_digest(token.strip().encode(), self._operations.token.encode()):
            guesses.take(key)
            self.context.quiet_log.warning(
                "admin token", "an operators' request from %s had a wrong token", self.address
            )
            raise refusal_of(Unauthorised("the token is not that of the operators"))

    def unknown(self, *symbols: str | None) -> dict[str, object]:
        """The member of an answer that names those of which nothing is known: they may be misspelt. None of None, all."""
        found = [symbol for symbol in symbols if symbol is not None and not self._operations.is_known(symbol)]
        return {"unknown_symbols": found} if found else {}

    @property
    def control(self) -> Control:
        """What is set by way of the control topic. Raises ControlUnavailable where there is none."""
        if self._operations.control is None:
            raise ControlUnavailable("there is no control topic (kafka.control_topic)")
        return self._operations.control

    def read(self, check: Callable[[object], T]) -> T:
        """The checked body. Raises `Refusal` (400, 413, 415, 422)."""
        try:
            return check(read_json(self.json_body()))
        except RequestError as error:
            raise refusal_of(error) from error

    async def done(self, action: str, act: Callable[[], Awaitable[T]], **what: object) -> T:
        """What came of it, told in the audit. Raises `Refusal`, each only where it is true."""
        outcome = "done"
        try:
            return await act()
        except RequestError as error:
            outcome = outcome_of(error)
            raise refusal_of(error) from error
        finally:
            self.context.audit.act(
                action, outcome=outcome, address=self.address, request_id=self.request_id, **what
            )  # fmt: skip


class ClientsHandler(AdminHandler):
    """`GET /admin/clients`."""

    async def get(self) -> None:
        """One page of the connections of this gateway, of all its workers."""
        self.admit()
        query = Query(self.request.query_arguments)
        limit = query.take("limit", _read_limit, DEFAULT_LIMIT)
        after = query.take("after", _read_place, (-1, 0))
        user_id = query.take("user_id", str, None)
        try:
            query.check()
        except RequestError as error:
            raise refusal_of(error) from error
        self.answer(200, await self._operations.clients(PageQuery(after, limit, user_id)))

    head = get


def _read_place(text: str) -> tuple[int, int]:
    worker, _, number = text.partition(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 16 for part in (worker, number)):
        raise ValueError("expected what next was")
    return int(worker), int(number)


class StateHandler(AdminHandler):
    """`GET /admin/state`."""

    def get(self) -> None:
        """Blocks, halts and the announcement, as this instance knows them; and why it may not know all."""
        self.admit()
        control = self._operations.control
        if control is None:
            self.answer(200, _state({}, {}, None, "there is no control topic (kafka.control_topic)"))
            return
        restrictions = control.restrictions
        self.answer(
            200,
            _state(restrictions.blocked(), restrictions.halted(), control.announcements.current, control.problem()),
        )

    head = get


def _state(blocked: Any, halted: Any, announcement: Announcement | None, problem: str | None) -> dict[str, object]:
    return {
        "blocks": [{"user_id": user_id, **one._asdict()} for user_id, one in islice(blocked.items(), MOST_BLOCKS)],
        "blocked_users": len(blocked),
        "halts": [{"symbol": symbol, **one._asdict()} for symbol, one in halted.items()],
        "announcement": None if announcement is None else announcement._asdict(),
        "problem": problem,
    }


class DisconnectHandler(AdminHandler):
    """`POST /admin/disconnect`."""

    async def post(self) -> None:
        """202 once every instance is told."""
        self.admit()
        wanted = self.read(check_disconnect)

        async def act() -> None:
            disconnects = self.control.disconnects
            if wanted.user_id is not None:
                await disconnects.disconnect_user(wanted.user_id)
            else:
                assert wanted.client is not None
                await disconnects.disconnect_client(wanted.client)

        what = {name: value for name, value in wanted._asdict().items() if value is not None}
        await self.done("disconnect", act, **what)
        self.answer(202, {**what, "status": "disconnecting"})


class BlockHandler(AdminHandler):
    """`POST /admin/block`."""

    async def post(self) -> None:
        """200 once it is on the control topic, and once the open orders are cancelled where that was asked for."""
        self.admit()
        block = self.read(check_block)
        what: dict[str, object] = {"user_id": block.user_id, "reason": block.reason}
        await self.done("block", lambda: self.control.restrictions.block(block.user_id, block.reason), **what)
        answer: dict[str, object] = {"user_id": block.user_id, "status": "blocked"}
        if block.cancel_open:
            cancel = self.control.cancel_open
            try:
                answer["order_ids"] = await self.done(
                    "cancel_open", lambda: cancel(block.user_id), user_id=block.user_id
                )
            except Refusal as refusal:
                refusal.error = f"the user is blocked, but not all open orders are cancelled yet: {refusal.error}"
                raise
        self.answer(200, answer)


class UnblockHandler(AdminHandler):
    """`POST /admin/unblock`."""

    async def post(self) -> None:
        """200 once it is on the control topic."""
        self.admit()
        user_id = self.read(check_unblock)
        await self.done("unblock", lambda: self.control.restrictions.unblock(user_id), user_id=user_id)
        self.answer(200, {"user_id": user_id, "status": "unblocked"})


class HaltHandler(AdminHandler):
    """`POST /admin/halt`."""

    async def post(self) -> None:
        """200 once it is on the control topic."""
        self.admit()
        halt = self.read(check_halt)
        await self.done(
            "halt",
            lambda: self.control.restrictions.halt(halt.symbol, halt.reason),
            symbol=halt.symbol or "*",
            reason=halt.reason,
        )
        self.answer(200, {"symbol": halt.symbol, "status": "halted", **self.unknown(halt.symbol)})


class ResumeHandler(AdminHandler):
    """`POST /admin/resume`."""

    async def post(self) -> None:
        """200 once it is on the control topic."""
        self.admit()
        symbol = self.read(check_resume)
        await self.done("resume", lambda: self.control.restrictions.resume(symbol), symbol=symbol or "*")
        self.answer(200, {"symbol": symbol, "status": "resumed", **self.unknown(symbol)})


class AnnounceHandler(AdminHandler):
    """`POST /admin/announce`."""

    async def post(self) -> None:
        """200 once it is on the control topic."""
        self.admit()
        wanted = self.read(check_announce)
        await self.done("announce", lambda: self.control.announcements.announce(*wanted), **wanted._asdict())
        self.answer(200, {"status": "announced", **self.unknown(*(wanted.symbols or ()))})


class WithdrawHandler(AdminHandler):
    """`POST /admin/withdraw`."""

    async def post(self) -> None:
        """200 once there is no announcement any more."""
        self.admit()
        self.read(check_nothing)
        await self.done("withdraw", lambda: self.control.announcements.withdraw())
        self.answer(200, {"status": "withdrawn"})


def routes(context: Context, operations: Operations) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    served = {"context": context, "operations": operations}
    table = {
        "clients": ClientsHandler,
        "state": StateHandler,
        "disconnect": DisconnectHandler,
        "block": BlockHandler,
        "unblock": UnblockHandler,
        "halt": HaltHandler,
        "resume": ResumeHandler,
        "announce": AnnounceHandler,
        "withdraw": WithdrawHandler,
    }
    return [(rf"/admin/{name}", handler, served) for name, handler in table.items()]
