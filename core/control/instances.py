"""Which instances live, as far as another can know: each says so on the control topic, while there is reason to.

A sign of life is a record without a value, so that compaction leaves nothing of it. How long another has been silent is counted by
this instance's own clock from when it read the last sign, and only while its own signs come back in time: as long as the topic
can be read and written, that is. What cannot be written by anybody makes nobody dead, and who stood still begins to count anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from core.control.control_table import Place
from core.control.writing import Write
from core.errors import RequestError
from core.messages.control_records import ALIVE, LEAVING, control_key

# Own signs that may be missing before nothing is known of others.
MISSED: Final = 3
# Who was silent for so long is forgotten.
FORGOTTEN_SECONDS: Final = 600.0


class _Sign(NamedTuple):
    offset: int
    at: float
    is_leaving: bool


class Instances:
    """`beat` has to be called often while others have to know that this one lives."""

    def __init__(self, write: Write, *, me: str, beat_seconds: float, monotonic: Callable[[], float]) -> None:
        """`me` is this process's name and no other's; `beat_seconds` are from one sign to the next."""
        self.me = me
        self.beat_seconds = beat_seconds
        # Whether it says that it ends.
        self.is_leaving = False
        self._write = write
        self._monotonic = monotonic
        self._signs: dict[str, _Sign] = {}
        self._steady_since = 0.0
        self._beat_at = float("-inf")
        self._under_way: asyncio.Future[Any] | None = None

    def take_alive(self, place: Place, process: str, _value: bytes | None) -> None:
        """A process says that it lives."""
        self._take(place, process, is_leaving=False)

    def take_leaving(self, place: Place, process: str, _value: bytes | None) -> None:
        """A process lives, and says that it ends."""
        self._take(place, process, is_leaving=True)

    def _take(self, place: Place, process: str, *, is_leaving: bool) -> None:
        now = self._monotonic()
        if process == self.me and not self._is_steady(now):
            self._steady_since = now
        self._signs[process] = _Sign(place.offset, now, is_leaving)

    def forget(self) -> None:
        """The topic is read anew: its offsets are other ones, and who lives will say so."""
        self._signs.clear()

    def beat(self) -> bool:
        """Give a sign of life if it is time to; whether it was."""
        now = self._monotonic()
        if now - self._beat_at < self.beat_seconds:
            return False
        self._beat_at = now
        if len(self._signs) > 1:
            self._signs = {name: sign for name, sign in self._signs.items() if now - sign.at < FORGOTTEN_SECONDS}
        if self._under_way is None or self._under_way.done():
            with suppress(RequestError):
                self.say()
        return True

    def say(self) -> asyncio.Future[Any]:
        """Give a sign of life now. As `Write`."""
        self._under_way = self._write(control_key(LEAVING if self.is_leaving else ALIVE, self.me), None)
        self._under_way.add_done_callback(_heard)
        return self._under_way

    def is_gone(self, process: str, seconds: float, since: float) -> bool:
        """Whether another process has been silent for so long, and since this moment of the monotonic clock."""
        now = self._monotonic()
        if process == self.me or not self._is_steady(now):
            return False
        sign = self._signs.get(process)
        return now - max(since, self._steady_since, since if sign is None else sign.at) >= seconds

    def last_offset(self, process: str) -> int:
        """Where the last sign of a process is; -1 if there is none."""
        sign = self._signs.get(process)
        return -1 if sign is None else sign.offset

    @property
    def has_heir(self) -> bool:
        """Whether another lives, and does not say that it ends."""
        now = self._monotonic()
        return any(
            name != self.me and not sign.is_leaving and now - sign.at <= MISSED * self.beat_seconds
            for name, sign in self._signs.items()
        )

    def _is_steady(self, now: float) -> bool:
        own = self._signs.get(self.me)
        return own is not None and now - own.at <= MISSED * self.beat_seconds


def _heard(written: asyncio.Future[Any]) -> None:
    """The next sign says as much; what became of this one is nobody's concern."""
    if not written.cancelled():
        written.exception()
