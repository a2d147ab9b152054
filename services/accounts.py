"""The account service in front of the book: it reserves an order's funds, and is passed its own routes.

The invariant: FundsRefused and AccountsUnavailable only where certainly nothing is reserved for this attempt, and an
answer is used only if no release of that order can still take its funds away. What the service has to keep to: a repeat
of an Idempotency-Key gets the first answer, until the order is released, which forgets the key; the ids it gives are new
ones, or the key; and reservations whose order never reaches the topic are its own to expire.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Final
from urllib.parse import quote

from core.config.settings import Accounts
from core.errors import AccountsUnavailable, FundsRefused, NotJson, OutcomeUnknown
from core.log_throttle import QuietLog
from core.messages.body_json import read_json
from core.messages.commands import PlaceOrder
from core.messages.model import ZERO, decimal_text, read_decimal
from core.messages.order_ids import read_order_id
from core.orders.releases import Releases
from services.circuit_breaker import CircuitBreaker
from services.http_client import SAFE_METHODS, Headers, HttpClient, HttpResponse, NoAnswer

log = logging.getLogger("gateway.accounts")

CIRCUIT_FAILURES: Final = 5
CIRCUIT_PAUSE_SECONDS: Final = 5.0
RELEASE_BACKOFF_SECONDS: Final = (0.5, 2.0)  # between the three tries

_MAX_ANSWER_BYTES = 65_536
_MAX_PASSED_BYTES = 8 * 1024 * 1024
_MAX_ERROR = 200
_MAX_DOUBTFUL = 10_000

# Visible ASCII with spaces inside: what is the same to every HTTP server there is.
_is_header_value = re.compile(r"[!-~](?:[ -~]*[!-~])?").fullmatch


def header_user_id(user_id: str) -> str | None:
    """The user id as `X-User-Id`, or None if a header cannot hold it.

    Such an id is never encoded: a service that does not decode it could take one user for another.
    """
    return user_id if _is_header_value(user_id) else None


def may_be_reserved(order_id: str, user_id: str) -> bool:
    """Whether the service can have reserved the funds of such an order of this user."""
    return header_user_id(user_id) is not None and not _is_dots(order_id)


def _is_dots(order_id: str) -> bool:
    """As the last part of a path it would be another path."""
    return order_id in (".", "..")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the service reserved: the id to publish the order under, and the quantity (in base) to publish."""

    order_id: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one try to release: `reason` is None where that is confirmed, `status` 0 where there was no answer.

    Where it is not certain, it may still be carried out.
    """

    reason: str | None
    status: int
    is_certain: bool

    @property
    def is_answered(self) -> bool:
        """The service had its say, and was not at fault."""
        return self.reason is None or (400 <= self.status < 500 and self.status != 408)

    @property
    def is_refused(self) -> bool:
        """The service will not do it."""
        return self.reason is not None and self.is_answered and self.status != 429


class Reservations:
    """Reserves funds before an order is published, and gives them back when it certainly was not."""

    def __init__(
        self,
        accounts: Accounts,
        releases: Releases | None = None,
        *,
        on_release_failed: Callable[[str], None] = lambda _order_id: None,
        backoff_seconds: Sequence[float] = RELEASE_BACKOFF_SECONDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`accounts.url` has to be set; `releases` are those of orders that have ended. `on_release_failed` gets the order id of
        each alarm; `pause` waits seconds.
        """
        assert accounts.url is not None
        self._client = HttpClient(
            accounts.url,
            max_connections=accounts.max_connections,
            timeout_seconds=accounts.timeout_seconds,
            max_body_bytes=_MAX_ANSWER_BYTES,
        )
        self._circuit = CircuitBreaker("the account service", CIRCUIT_FAILURES, CIRCUIT_PAUSE_SECONDS, clock)
        self._on_release_failed = on_release_failed
        self._backoff_seconds = tuple(backoff_seconds)
        self._pause = pause
        self._quiet_log = QuietLog(log, clock)
        self._releases: dict[str, asyncio.Task[None]] = {}
        # Those of which it is not known yet whether they are to be: nothing was asked of the service.
        self._held: set[asyncio.Task[None]] = set()
        self._doubtful: dict[str, None] = {}
        self._due = releases or Releases()
        self._closed = False

    @property
    def problem(self) -> str | None:
        """Why nothing is reserved now, for `/health`; None while all is well."""
        return self._circuit.problem

    async def reserve(
        self, user_id: str, order: PlaceOrder, idempotency_key: str, request_id: str | None = None
    ) -> Reservation:
        """Reserve an order's funds; a repeat with the same key gets the same reservation.

        Raises FundsRefused (certainly nothing reserved, and asking again is no use), AccountsUnavailable (certainly
        nothing reserved by this attempt), OutcomeUnknown (with the key for an id).
        """
        told_id = header_user_id(user_id)
        if told_id is None:
            raise FundsRefused("the account service cannot be told this user id")
        if idempotency_key in self._due:
            raise AccountsUnavailable("an earlier order of this id is being released")
        if not self._circuit.admit():
            raise AccountsUnavailable("the account service is down")
        under_way = dict(self._releases)
        headers = [
            ("X-User-Id", told_id),
            ("Idempotency-Key", idempotency_key),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ]
        if request_id is not None:
            headers.append(("X-Request-Id", request_id))
        try:
            with self._due.watching() as released:
                response = await self._client.fetch(
                    "POST", "/internal/orders", headers, _body(order), is_repeatable=True
                )
        except NoAnswer as error:
            self._circuit.failed(error.reason)
            self._quiet_log.warning("no answer", "no answer to a reservation: %s", error.reason)
            if not error.was_sent:
                raise AccountsUnavailable("the account service cannot be reached") from error
            raise OutcomeUnknown(idempotency_key, "the account service gave no answer") from error
        reservation = self._judge(response, order, idempotency_key)
        self._circuit.succeeded()
        self._check_released(reservation.order_id, under_way, released)
        return reservation

    def _judge(self, response: HttpResponse, order: PlaceOrder, idempotency_key: str) -> Reservation:
        status = response.status
        if status in (200, 201):
            try:
                return _read_reservation(response.body, order)
            except (NotJson, ValueError) as error:
                reason = f"HTTP {status}, {error}"
        elif status == 429 and not response.is_to_repeat:
            # It was turned away before it was looked at; nothing else among these statuses says so for certain.
            self._circuit.succeeded()
            raise AccountsUnavailable("the account service has too much to do")
        elif 400 <= status < 500 and status not in (408, 429):
            self._circuit.succeeded()
            error_text = _read_error(response.body)
            if error_text is None:
                self._quiet_log.warning("no reason", "a reservation was refused with HTTP %d and no reason", status)
            raise FundsRefused(error_text or "the account service refused the order")
        else:
            # A 503 too: a proxy in front of the service says it also of a request that the service had begun.
            reason = f"HTTP {status}"
        self._circuit.failed(reason)
        self._quiet_log.warning("bad answer", "a reservation may have been made, but the answer was: %s", reason)
        raise OutcomeUnknown(idempotency_key, "the account service gave no usable answer")

    def _check_released(
        self, order_id: str, under_way: Mapping[str, asyncio.Task[None]], released: Container[str]
    ) -> None:
        """A repeat may be told of a reservation that is on its way to be released, or that will be by a late try.

        One that is held until it is known whether it is to be released is this attempt's now.
        """
        release = self._releases.get(order_id)
        if release in self._held and under_way.get(order_id) in (None, release):
            self._releases.pop(order_id).cancel()
        elif release is not None or order_id in under_way:
            raise AccountsUnavailable("an earlier reservation of this order is being released")
        if order_id in self._due or order_id in released:
            raise AccountsUnavailable("an earlier order of this id is being released")
        if order_id in self._doubtful:
            log.error("order %s was reserved again, but a release of it may still be on its way: refused", order_id)
            raise FundsRefused("an earlier reservation of this order may be gone; use another client_order_id")

    def release(self, order_id: str, user_id: str, *, unless: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Give back what was reserved for an order that was certainly not published, in the background.

        `unless`: waited for before; where it is so, another order has what is reserved, and it stays so, as it does where it is
        reserved here anew meanwhile. Three tries; then an alarm, for the funds stay reserved until somebody looks after them.
        Raises nothing.
        """
        if order_id in self._releases:
            return
        if self._closed:
            self._alarm(order_id, "the gateway is shutting down")
            return
        task = asyncio.get_running_loop().create_task(self._release(order_id, user_id, unless))
        self._releases[order_id] = task
        if unless is not None:
            self._held.add(task)
        task.add_done_callback(partial(self._ended, order_id))

    def _ended(self, order_id: str, task: asyncio.Task[None]) -> None:
        self._held.discard(task)
        if self._releases.get(order_id) is task:
            del self._releases[order_id]

    async def _release(self, order_id: str, user_id: str, unless: Callable[[], Awaitable[bool]] | None) -> None:
        # The circuit is not asked: what is held back here is somebody's money, and there is little of it.
        reason = ""
        is_certain = True
        task = asyncio.current_task()
        assert task is not None
        try:
            if unless is not None and await unless():
                return
            self._held.discard(task)
            self._doubt(order_id)
            for pause_seconds in (0.0, *self._backoff_seconds):
                if pause_seconds:
                    await self._pause(pause_seconds)
                tried = await self._try(order_id, user_id)
                is_certain = is_certain and tried.is_certain
                if tried.reason is None:
                    # A try that nobody answered may be carried out later: then the id stays one to be wary of.
                    if is_certain:
                        self._doubtful.pop(order_id, None)
                    return
                reason = tried.reason
        except asyncio.CancelledError:
            if self._releases.get(order_id) is task:
                self._alarm(order_id, f"the gateway is shutting down{reason and ', '}{reason}")
            raise
        except Exception:
            log.exception("releasing the reservation of order %s failed", order_id)
            reason = "a fault of the gateway's own"
        self._alarm(order_id, reason)

    async def _try(self, order_id: str, user_id: str) -> Tried:
        # Not repeated by the client: whether a try may still be carried out later is counted here.
        target = f"/internal/orders/{quote(order_id, safe='')}"
        try:
            response = await self._client.fetch("DELETE", target, [("X-User-Id", user_id)], is_repeatable=False)
        except NoAnswer as error:
            return Tried(error.reason, 0, not error.was_sent)
        status = response.status
        if 200 <= status < 300 or status in (404, 410):
            return Tried(None, status, True)
        return Tried(f"HTTP {status}", status, status < 500)

    def _doubt(self, order_id: str) -> None:
        self._doubtful[order_id] = None
        if len(self._doubtful) > _MAX_DOUBTFUL:
            del self._doubtful[next(iter(self._doubtful))]

    def may_try(self) -> bool:
        """Whether to try to release an ended order: where the service fails, one request in five seconds sees whether it does."""
        return self._circuit.admit()

    async def try_release(self, order_id: str, user_id: str, *, is_first: bool) -> Tried:
        """Give back what an ended order left reserved, in one try; `may_try` has to be so.

        Only the first try of an order counts as a failure of the service: one that always fails would have all others refused.
        """
        tried = await self._try(order_id, user_id)
        if not tried.is_certain:
            self._doubt(order_id)
        if tried.is_answered:
            self._circuit.succeeded()
        elif is_first:
            self._circuit.failed(tried.reason or "")
        return tried

    def _alarm(self, order_id: str, reason: str) -> None:
        log.error("the reservation of order %s could not be released (%s): its funds stay reserved", order_id, reason)
        self._on_release_failed(order_id)

    async def close(self, timeout_seconds: float = 3.0) -> None:
        """Wait for releases under way, at most so long; what is not done then is an alarm. Raises nothing."""
        self._closed = True
        tasks = list(self._releases.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._client.close()


class Upstream:
    """The account service as `handlers/passthrough.py` sees it, with connections of its own."""

    def __init__(self, accounts: Accounts, max_body_bytes: int = _MAX_PASSED_BYTES) -> None:
        """`accounts.url` has to be set; `max_body_bytes` bounds an answer's body."""
        assert accounts.url is not None
        self._url = accounts.url
        self._client = HttpClient(
            accounts.url,
            max_connections=accounts.max_connections,
            timeout_seconds=accounts.timeout_seconds,
            max_body_bytes=max_body_bytes,
        )

    async def fetch(self, method: str, target: str, headers: Headers, body: bytes, user_id: str | None) -> HttpResponse:
        """Pass one request on. `X-User-Id` is set here alone, and only to an id that a header can hold.

        Raises TimeoutError, and ConnectionError if there was no answer or none that can be read.
        """
        told_id = None if user_id is None else header_user_id(user_id)
        if told_id is not None:
            headers = [*headers, ("X-User-Id", told_id)]
        try:
            response = await self._client.fetch(method, target, headers, body, is_repeatable=method in SAFE_METHODS)
        except NoAnswer as error:
            if error.timed_out:
                raise TimeoutError(error.reason) from error
            raise ConnectionError(error.reason) from error
        return replace(response, headers=[(name, self._outside(name, value)) for name, value in response.headers])

    def _outside(self, name: str, value: str) -> str:
        """A redirect to the service's own address, which nobody outside knows, becomes one within this site."""
        is_own = name == "Location" and value.startswith(self._url) and value[len(self._url) :][:1] in ("", "/", "?")
        rest = value[len(self._url) :] if is_own else ""
        return value if not is_own or rest.startswith("//") else rest if rest.startswith("/") else f"/{rest}"

    def close(self) -> None:
        """Give up the resolver and the connections that are kept."""
        self._client.close()


def _body(order: PlaceOrder) -> bytes:
    fields = {
        "symbol": order.symbol,
        "side": order.side.value,
        "order_type": order.order_type.value,
        "price": _text(order.price),
        "quantity": _text(order.quantity),
        "quote_amount": _text(order.quote_amount),
        "max_slippage_price": _text(order.max_slippage_price),
        "time_in_force": order.time_in_force.value,
        "client_order_id": order.client_order_id,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode("ascii")


def _text(value: Decimal | None) -> str | None:
    return None if value is None else decimal_text(value)


def _read_reservation(body: bytes, order: PlaceOrder) -> Reservation:
    """Raises NotJson and ValueError. No digit passes through binary floating point."""
    answer = read_json(body)
    reserved = answer.get("order") if isinstance(answer, dict) else None
    if not isinstance(reserved, dict):
        raise ValueError("no order in it")
    order_id = read_order_id(reserved.get("id"))
    if order_id is None or _is_dots(order_id):
        raise ValueError("order.id is no order id")
    quantity = read_decimal(reserved.get("quantity"))
    if quantity <= ZERO:
        raise ValueError("order.quantity is not above 0")
    if order.quantity is not None and quantity > order.quantity:
        raise ValueError("order.quantity is more than was ordered")
    return Reservation(order_id, quantity)


def _read_error(body: bytes) -> str | None:
    """The service's own sentence, on one line and not too long: `error`, or what a problem (RFC 9457) has."""
    try:
        answer = read_json(body)
    except NotJson:
        return None
    if not isinstance(answer, dict):
        return None
    for name in ("error", "detail", "title"):
        value = answer.get(name)
        if isinstance(value, str):
            line = " ".join("".join(char if char.isprintable() else " " for char in value[: 4 * _MAX_ERROR]).split())
            if line:
                return line if len(line) <= _MAX_ERROR else f"{line[: _MAX_ERROR - 3]}..."
    return None
