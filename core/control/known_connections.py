"""What the control topic says of connections that are held: by name, by user, and by the process that each is at."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from core.messages.control_records import Held


class Known(NamedTuple):
    """What is said of one. `set_at`: the offset of the record by which it was set last; `read_at`: when this one was read, by
    the monotonic clock.
    """

    held: Held
    set_at: int
    read_at: float


class KnownConnections:
    """The last record of each."""

    def __init__(self) -> None:
        self._by_name: dict[str, Known] = {}
        self._of_user: dict[str, set[str]] = {}
        self._at: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Known:
        return self._by_name[name]

    def get(self, name: str) -> Known | None:
        """None where nothing is said of it."""
        return self._by_name.get(name)

    def put(self, name: str, known: Known) -> None:
        """This is said of it from now on."""
        self.drop(name)
        self._by_name[name] = known
        held = known.held
        if held.user_id is not None:
            self._of_user.setdefault(held.user_id, set()).add(name)
        if held.ended is None:
            self._at.setdefault(held.by, set()).add(name)

    def drop(self, name: str) -> None:
        """Nothing is said of it any more. Harmless when repeated."""
        known = self._by_name.pop(name, None)
        if known is not None:
            _discard(self._of_user, known.held.user_id, name)
            _discard(self._at, known.held.by, name)

    def clear(self) -> None:
        """Nothing is said of any."""
        self._by_name.clear()
        self._of_user.clear()
        self._at.clear()

    def of_user(self, user_id: str | None) -> AbstractSet[str]:
        """The names of a user's; nobody has none. It is live: who changes anything meanwhile walks over a copy."""
        return self._of_user.get(user_id, frozenset()) if user_id is not None else frozenset()

    def at(self, process: str) -> AbstractSet[str]:
        """The names of those that a process holds, and that have not ended. It is live, too."""
        return self._at.get(process, frozenset())

    def processes(self) -> list[str]:
        """Those that hold any."""
        return list(self._at)


def _discard(names_of: dict[str, set[str]], key: str | None, name: str) -> None:
    names = None if key is None else names_of.get(key)
    if key is not None and names is not None:
        names.discard(name)
        if not names:
            del names_of[key]
