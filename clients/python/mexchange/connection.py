"""One WebSocket after the other to the same address: it connects again by itself, signs in, and brings together what the
program wants and what the gateway gives. What channels say is `streams` and `book`, what orders need is `orders`.

All that is asked on a connection to make it as it was goes through one task (`_serve`), a step after the other, so that
no two requests about one channel ever cross.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from mexchange.errors import (
    CLOSES,
    TOO_BIG,
    BadRequest,
    ConnectionLost,
    Forbidden,
    GatewayError,
    NotAuthorised,
    OutcomeUnknown,
    TooManyRequests,
    Unavailable,
    of_answer,
)
from mexchange.models import decode
from mexchange.subscriptions import Subscription

Token = str | Callable[[], Awaitable[str]]

log = logging.getLogger("mexchange")
log.addHandler(logging.NullHandler())  # whether it is shown is the program's to say
# What websockets says at level debug is every message, and so tokens.
transport_log = logging.getLogger("mexchange.websocket")
transport_log.setLevel(logging.INFO)

# A connection that has lived so long was a good one: the next wait begins small again.
STABLE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 10.0
# Until who gives tokens, and could not, is asked again: this at first, then twice as long each time.
TOKEN_WAIT_SECONDS = 0.25
# Snapshots of books with all their levels, and replays, are large.
MAX_MESSAGE_BYTES = 64 << 20
PING_SECONDS = 10.0
# For the closing handshake, which a dead peer never answers.
CLOSE_SECONDS = 2.0
# A request for more channels than this could be larger than a message may be.
CHANNELS_PER_REQUEST = 100
# A token is asked for anew so long before it ends, or at a fifth of its life if that is less.
RENEW_SECONDS = 60.0
# Messages that may be taken in before other tasks have a turn.
TURN = 64
PASSING = (TooManyRequests, Unavailable)


class Connection:
    """Tells subscriptions what comes, and answers requests.

    Args:
        url: of `/ws`, without a query.
        token: a token, or who gives one whenever one is needed.
        request_seconds: how long anything but an order may wait for its answer.
        random: uniform in [0, 1), for waits.
        clock: monotonic seconds.
        wall: seconds since the Unix epoch, which tokens end by.
    """

    def __init__(
        self,
        url: str,
        token: Token | None,
        *,
        request_seconds: float,
        random: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._url = f"{url}?stream=none"
        self._given = token
        self._request_seconds = request_seconds
        self._random = random
        self._clock = clock
        self._wall = wall
        self._options: dict[str, Any] = {
            "compression": None,
            "logger": transport_log,
            "max_size": MAX_MESSAGE_BYTES,
            "ping_interval": PING_SECONDS,
            "ping_timeout": PING_SECONDS,
            "open_timeout": request_seconds,
            "close_timeout": CLOSE_SECONDS,
            **(options or {}),
        }
        self._subscriptions: dict[str, Subscription] = {}
        self._to_leave: set[str] = set()
        self._socket: ClientConnection | None = None
        self._serial = 0
        # With the size of what was sent.
        self._unanswered: dict[int, tuple[asyncio.Future[Any], Callable[[], None] | None, int]] = {}
        self._work = asyncio.Event()
        self._live = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._token: str | None = None
        # When the token is to be handed over, or another one.
        self._renew_at: float | None = None
        self._token_failures = 0
        self._is_signed_in = False
        self._ask_again_at = 0.0
        self.is_closed = False
        self._last_error: Exception | None = None
        self.user_id: str | None = None
        self.stale_symbols: set[str] = set()
        self.on_event: Callable[[dict[str, Any]], None] = lambda _message: None

    @property
    def is_live(self) -> bool:
        """Signed in, and what is wanted was asked for."""
        return self._live.is_set() and not self.is_closed

    async def start(self, seconds: float) -> None:
        """Raises `ConnectionLost`, or `NotAuthorised`, if there is no connection within that time; it is ended then."""
        self.is_closed = False
        self._live.clear()
        self._running = asyncio.create_task(self._run())
        try:
            await self.opened(seconds)
            if self._given is not None and not self._is_signed_in and self._last_error is not None:
                raise self._last_error
        except BaseException:
            await self.aclose()
            raise

    async def opened(self, seconds: float) -> None:
        """Waits for a connection that is live. Raises `ConnectionLost`."""
        try:
            async with asyncio.timeout(seconds):
                await self._live.wait()
        except TimeoutError:
            why = self._last_error or "it was not made in time"
            raise ConnectionLost(f"no connection to {self._url}: {why}") from self._last_error
        if self.is_closed:
            raise ConnectionLost("it was closed")

    async def aclose(self) -> None:
        self.is_closed = True
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        for subscription in [*self._subscriptions.values()]:
            await subscription.aclose()
        self._live.set()  # who waits for it need not wait any longer

    def add(self, subscription: Subscription) -> None:
        """ValueError where its channel is listened to already: two would share what one of them has to have whole."""
        if subscription.channel in self._subscriptions:
            raise ValueError(f"{subscription.channel} is listened to already: close that one first")
        self._subscriptions[subscription.channel] = subscription
        self.look_again()

    def renew(self) -> None:
        """The token is not taken any more: another one is asked for."""
        self._renew_at = self._clock()
        self.look_again()

    async def token(self, refused: str | None = None) -> str | None:
        """For HTTP: the present one, or another if that was `refused` and there is who gives one."""
        if callable(self._given):
            if self._token in (None, refused):
                self._token = await self._given()
            return self._token
        return self._given

    # What subscriptions ask for

    def look_again(self) -> None:
        self._work.set()

    def leave(self, subscription: Subscription) -> None:
        if subscription.is_joined:
            subscription.is_joined = False
            self._to_leave.add(subscription.channel)
        self.look_again()

    def remove(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.channel) is subscription:
            self.leave(subscription)
            del self._subscriptions[subscription.channel]

    # Requests

    async def request(
        self, method: str, params: object, seconds: float | None = None, on_result: Callable[[], None] | None = None
    ) -> Any:
        """The result. `on_result` is called before anything that comes behind the answer is looked at.

        Raises:
            GatewayError: it was refused; `OutcomeUnknown` also where the connection or the time ended before the answer.
            ConnectionLost: nothing was sent.
        """
        if self._socket is None:
            raise ConnectionLost("there is no connection")
        self._serial = number = self._serial + 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        text = json.dumps({"id": number, "method": method, "params": params})
        self._unanswered[number] = (future, on_result, len(text))
        try:
            async with asyncio.timeout(seconds if seconds is not None else self._request_seconds):
                with suppress(ConnectionClosed):  # told by whoever reads
                    await self._socket.send(text)
                return await future
        except TimeoutError:
            raise OutcomeUnknown(f"no answer to {method} in time") from None
        finally:
            self._unanswered.pop(number, None)

    # One connection after the other

    async def _run(self) -> None:
        failures = 0
        while True:
            began = self._clock()
            wait = 0.0
            try:
                async with connect(self._url, **self._options) as socket:
                    await self._live_on(socket)
            except Exception as error:  # the root of a task
                self._last_error = error
                if isinstance(error, InvalidStatus):
                    after = error.response.headers.get("Retry-After", "")
                    wait = float(after) if after.isdecimal() else 0.0
                elif not isinstance(error, OSError | TimeoutError | InvalidHandshake | ConnectionClosed):
                    log.exception("a connection could not be made, or what came on it not be taken in")
            if self._clock() - began >= STABLE_SECONDS:
                failures = 0
            # So that not all who lost the same instance come back at the same moment.
            wait += self._random() * min(LONGEST_WAIT_SECONDS, 2.0**failures)
            failures = min(failures + 1, 10)
            log.info("connection to %s ended (%s), next one in %.1f s", self._url, self._last_error, wait)
            await asyncio.sleep(wait)

    async def _live_on(self, socket: ClientConnection) -> None:
        """Until it ends."""
        self._socket = socket
        self._renew_at = None if self._given is None else self._clock()
        self._ask_again_at = 0.0
        serving = asyncio.create_task(self._serve(socket))
        code = 0
        try:
            await self._read(socket)
        except ConnectionClosed as closed:
            self._last_error = closed
            code = closed.rcvd.code if closed.rcvd else 0
        except Exception:
            socket.transport.abort()  # no handshake with who says what cannot be read
            raise
        finally:
            serving.cancel()
            self._drop(code)
            await asyncio.gather(serving, return_exceptions=True)

    def _drop(self, code: int) -> None:
        """What the gateway knew of a connection is gone with it; `code` is that of its close, 0 where there was none."""
        self._socket = None
        self._live.clear()
        self._is_signed_in = False
        self._to_leave.clear()
        self.stale_symbols.clear()
        for subscription in [*self._subscriptions.values()]:
            subscription.is_joined = False
            subscription.on_lost()
        # The largest is too big, or lies behind the one that was; what lies before that may have been done.
        largest = max((size for _, _, size in self._unanswered.values()), default=0)
        for future, _, size in self._unanswered.values():
            if not future.done():
                future.set_exception(
                    BadRequest("the message is too big", TOO_BIG)
                    if code == TOO_BIG and size == largest
                    else OutcomeUnknown(f"the connection ended before the answer ({CLOSES.get(code, code or 'cut')})")
                )

    async def _read(self, socket: ClientConnection) -> None:
        subscriptions, receive, turn = self._subscriptions, socket.recv, 0
        while True:
            message = decode(await receive())  # type: ignore[arg-type]
            name = message.get("channel_name")
            if name is None:
                self._take(message)
            elif (subscription := subscriptions.get(name)) is not None and subscription.is_joined:
                subscription.take(message)
            turn += 1
            if turn == TURN:  # recv() does not wait where more is there already, and a program has to come to it too
                turn = 0
                await asyncio.sleep(0)

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message and ("result" in message or "error" in message):
            future, on_result, _ = self._unanswered.get(message["id"], (None, None, 0))
            if future is None or future.done():
                return
            if "error" in message:
                future.set_exception(of_answer(message["error"]))
            else:
                if on_result is not None:
                    on_result()
                future.set_result(message["result"])
        elif message.get("type") == "auth_status" and message["status"] == "narrowed":
            for name in message["channels"]:
                if (one := self._subscriptions.get(name)) is not None:
                    one.is_joined = False
                    one.fail(Forbidden("the token does not allow it", 10006))
        elif message.get("type") == "auth_status":
            self._is_signed_in = False
            self._renew_at = self._clock()
            for subscription in [*self._subscriptions.values()]:
                if subscription.is_private:
                    subscription.is_joined = False
                    subscription.on_lost()
            self.look_again()
        elif message.get("type") == "stream_status":
            change = self.stale_symbols.update if message["status"] == "stale" else self.stale_symbols.difference_update
            change(message["symbols"])
        else:
            self.on_event(message)

    # What a connection needs to be as the program wants it

    async def _serve(self, socket: ClientConnection) -> None:
        try:
            while True:
                self._work.clear()
                if self._renew_at is not None and self._clock() >= self._renew_at:
                    await self._sign_in()
                await self._leave_and_join()
                if self._waits_for_token:
                    self._live.clear()
                else:
                    self._live.set()
                if any(subscription.is_quiet() for subscription in self._subscriptions.values()):
                    raise ConnectionLost("a book was quiet for too long")
                patience = 1.0 if self._renew_at is None else min(1.0, max(0.0, self._renew_at - self._clock()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._work.wait()
        except Exception as error:
            self._last_error = error
            if not isinstance(error, OutcomeUnknown | ConnectionLost):
                log.exception("the connection could not be made as it was")
            socket.transport.abort()

    @property
    def _waits_for_token(self) -> bool:
        return self._renew_at is not None and not self._is_signed_in

    async def _sign_in(self) -> None:
        """Hands a token over, a new one from who gives it; without a good one what is private is refused."""
        self._renew_at = None
        if self._given is None:
            return
        for attempt in (1, 2):
            try:
                async with asyncio.timeout(self._request_seconds):
                    self._token = token = self._given if isinstance(self._given, str) else await self._given()
                self._token_failures = 0
            except Exception as error:  # the program's own: what needs no token goes on meanwhile
                self._last_error = error
                wait = min(LONGEST_WAIT_SECONDS, TOKEN_WAIT_SECONDS * 2.0**self._token_failures)
                self._token_failures = min(self._token_failures + 1, 10)
                self._renew_at = self._clock() + wait
                log.warning("no token was given, the next one is asked for in %.2f s", wait, exc_info=error)
                return
            try:
                self.user_id = str((await self._passing("public/auth", {"token": token}))["user_id"])
            except NotAuthorised as error:
                self._last_error = error
                if isinstance(self._given, str) or attempt == 2:
                    log.warning("the token is refused: %s", error)
                    self._refuse_private(error)
                    return
            else:
                self._is_signed_in = True
                if not isinstance(self._given, str):
                    self._renew_at = self._renewal_of(token)
                return

    def _renewal_of(self, token: str) -> float | None:
        ends = expiry_of(token)
        left = 0.0 if ends is None else ends - self._wall()
        # The gateway has just taken it: if it is over by the clock here, that is wrong, and the gateway says when.
        return self._clock() + max(1.0, left - min(RENEW_SECONDS, left / 5)) if left > 0 else None

    def _refuse_private(self, error: GatewayError) -> None:
        for subscription in [*self._subscriptions.values()]:
            if subscription.is_private:
                subscription.fail(error)

    async def _leave_and_join(self) -> None:
        for names in _parts(self._to_leave):
            self._to_leave.difference_update(names)
            with suppress(GatewayError):
                await self._passing("unsubscribe", {"channels": names})
        if self._clock() < self._ask_again_at:
            return
        wanted = [one for one in self._subscriptions.values() if one.is_wanted and not one.is_joined]
        for is_private in (False, True)[: 1 if self._waits_for_token else 2]:
            for part in _parts([one for one in wanted if one.is_private is is_private]):
                await self._join(part, "private/subscribe" if is_private else "public/subscribe")

    async def _join(self, subscriptions: list[Subscription], method: str) -> None:
        """Of several the bad ones are found one by one, for one refuses all."""
        params: dict[str, Any] = {"channels": [one.channel for one in subscriptions]}
        since = {one.channel: at.to_json() for one in subscriptions if (at := one.since()) is not None}
        if since:
            params["since"] = since

        def joined() -> None:
            for one in subscriptions:
                if one.is_wanted and self._subscriptions.get(one.channel) is one:
                    one.is_joined = True
                else:
                    self._to_leave.add(one.channel)
                    self._work.set()

        try:
            await self.request(method, params, on_result=joined)
        except OutcomeUnknown:
            raise
        except PASSING as error:
            self._ask_again_at = self._clock() + (error.retry_after or 0.2) + self._random()
        except NotAuthorised as error:
            if self._given is None or isinstance(self._given, str):
                for one in subscriptions:
                    one.fail(error)
            else:  # the token ended just now
                self._renew_at = self._clock()
                self._work.set()
        except GatewayError as error:
            if len(subscriptions) == 1:
                subscriptions[0].fail(error)
            else:
                for one in subscriptions:
                    await self._join([one], method)

    async def _passing(self, method: str, params: object) -> Any:
        """A request that is sent again as long as it is refused for a reason that passes."""
        while True:
            try:
                return await self.request(method, params)
            except PASSING as error:
                await asyncio.sleep((error.retry_after or 0.2) + self._random())


def expiry_of(token: str) -> float | None:
    """When a JWT says that it ends, seconds since the Unix epoch; None for what is not readable."""
    try:
        payload = token.split(".")[1]
        ends = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return float(ends)
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def _parts(items: Iterable[Any]) -> list[list[Any]]:
    known = [*items]
    return [known[at : at + CHANNELS_PER_REQUEST] for at in range(0, len(known), CHANNELS_PER_REQUEST)]
