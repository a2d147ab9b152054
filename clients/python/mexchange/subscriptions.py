"""What the connection knows of a channel that somebody listens to."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, Self

from mexchange.errors import StreamClosed
from mexchange.models import Position


class Owner(Protocol):
    """The connection, as a subscription sees it."""

    def look_again(self) -> None:
        """Something is wanted that was not."""

    def leave(self, subscription: Subscription) -> None:
        """Nothing of it is taken in from now on, until it is joined again."""

    def remove(self, subscription: Subscription) -> None:
        """Leave it for good."""


class Subscription:
    """One channel. `is_wanted` says what the program wants, `is_joined` what the gateway has agreed to; the connection
    brings them together. What comes is taken in only while it is joined, so what was under way when it was left is not."""

    def __init__(self, owner: Owner, channel: str) -> None:
        self.channel = channel
        self.is_wanted = True
        self.is_joined = False
        self._owner = owner
        self._error: Exception | None = None
        self._is_closed = False

    @property
    def is_private(self) -> bool:
        return self.channel.startswith("account.")

    def since(self) -> Position | None:
        """From where on the channel is to go on."""
        return None

    def take(self, message: dict[str, Any]) -> None:
        """A notification of this channel."""
        raise NotImplementedError

    def on_lost(self) -> None:
        """Nothing comes any more until it is joined again."""

    def is_quiet(self) -> bool:
        """It is silent where it should not be: the connection cannot be trusted."""
        return False

    def fail(self, error: Exception) -> None:
        """The gateway does not give it: whoever listens is told so."""
        self._error = error
        self._end()

    async def aclose(self) -> None:
        """Ends the subscription; whoever iterates comes to an end."""
        self._is_closed = True
        self._end()

    async def __anext__(self) -> Any:
        try:
            return await self._next()
        except StreamClosed:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def _next(self) -> Any:
        """The next item. Raises `StreamClosed` where there will be none."""
        raise NotImplementedError

    def _wake(self) -> None:
        """Whoever waits for news looks again."""
        raise NotImplementedError

    def _end(self) -> None:
        self.is_wanted = False
        self._owner.remove(self)
        self._wake()

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_closed:
            raise StreamClosed(f"{self.channel} was closed")

    def _rejoin(self, wait: float = 0.0) -> None:
        """Leave the channel, and join it again `wait` seconds later."""
        self.is_wanted = False
        self._owner.leave(self)
        asyncio.get_running_loop().call_later(wait, self._want)

    def _want(self) -> None:
        if not self._is_closed and self._error is None:
            self.is_wanted = True
            self._owner.look_again()
