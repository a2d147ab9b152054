"""Connections that the operators close, on whichever instance they are: a record on the control topic tells all.

The record is taken back at once: it is an act and no state, and whoever reads the topic later finds nothing to do. Where it
could not be taken back, only connections that are older than it are closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from core.background_tasks import BackgroundTasks
from core.control.control_table import Place
from core.control.control_writer import ControlWriter
from core.control.reading import SKEW_MS
from core.control.restrictions import check_user
from core.errors import FieldError, InvalidFields, RequestError
from core.messages.control_records import DISCONNECT_CLIENT, DISCONNECT_USER, control_key, write_disconnect

MOST_NAME_CHARACTERS: Final = 64

# Closes the connections of this process by a name, that began before a moment (milliseconds since the Unix epoch); gives
# back how many. It gives way to others where those are many.
Close = Callable[[str, int], Coroutine[Any, Any, int]]


class Disconnects:
    """Whoever asks for one raises as `ControlWriter.put`, or InvalidFields."""

    def __init__(
        self,
        writer: ControlWriter,
        *,
        close_user: Close,
        close_client: Close,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """By user, and by the name that connections have in all of a fleet."""
        self._writer = writer
        self._close = {DISCONNECT_USER: close_user, DISCONNECT_CLIENT: close_client}
        self._clock = clock
        self._tasks = BackgroundTasks()

    async def disconnect_user(self, user_id: str) -> None:
        """Close the user's connections, on every instance."""
        check_user(user_id)
        await self._tell(DISCONNECT_USER, user_id)

    async def disconnect_client(self, client: str) -> None:
        """Close this connection, wherever it is; harmless where there is none."""
        if not 0 < len(client) <= MOST_NAME_CHARACTERS or not client.isprintable():
            raise InvalidFields([FieldError("client", f"expected 1 to {MOST_NAME_CHARACTERS} characters in one line")])
        await self._tell(DISCONNECT_CLIENT, client)

    async def _tell(self, kind: str, name: str) -> None:
        key = control_key(kind, name)
        # Here at once, and where nobody else can be told at least here.
        await self._close[kind](name, int(self._clock() * 1000))
        await self._writer.put(key, write_disconnect(int(self._clock() * 1000)))
        with suppress(RequestError):
            await self._writer.put(key, None)

    # What the topic says.

    def take_user(self, place: Place, user_id: str, value: bytes | None) -> None:
        """The connections of a user are to be closed."""
        self._take(DISCONNECT_USER, place, user_id, value)

    def take_client(self, place: Place, client: str, value: bytes | None) -> None:
        """A connection is to be closed."""
        self._take(DISCONNECT_CLIENT, place, client, value)

    def _take(self, kind: str, place: Place, name: str, value: bytes | None) -> None:
        if value is not None:
            self._tasks.start(self._close[kind](name, place.time_ms + SKEW_MS))
