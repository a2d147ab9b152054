"""Who listens: connections, and the crowds they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSet

from core.delivery.outbox import Outbox
from core.errors import CloseCode


class Subscriber:
    """One connection as the hub sees it: where its frames go."""

    __slots__ = ("deflates", "end", "outbox")

    def __init__(self, outbox: Outbox, end: Callable[[CloseCode, str], None], deflates: bool = False) -> None:
        """`end` closes the connection with a code and a reason; `deflates` if it negotiated permessage-deflate."""
        self.outbox = outbox
        self.deflates = deflates
        self.end = end


class _Ordered:
    """Subscribers in the order in which they joined."""

    __slots__ = ("_all",)

    def __init__(self, subscribers: dict[Subscriber, None]) -> None:
        self._all = subscribers

    def __contains__(self, subscriber: object) -> bool:
        return subscriber in self._all

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class Members(_Ordered):
    """Who belonged together at one moment, in the order they joined. It never changes: what was worked out for it holds."""

    __slots__ = ()


class Crowd(_Ordered, MutableSet[Subscriber]):
    """A set of subscribers whose `members` are one and the same object until somebody joins or leaves."""

    __slots__ = ("_members",)

    def __init__(self, subscribers: Iterable[Subscriber] = ()) -> None:
        super().__init__(dict.fromkeys(subscribers))
        self._members: Members | None = None

    def members(self) -> Members:
        """Who belongs to it now."""
        if self._members is None:
            self._members = Members(self._all)
        return self._members

    def _let_go_of_members(self) -> None:
        if self._members is not None:
            self._members = None
            self._all = self._all.copy()

    def add(self, subscriber: Subscriber) -> None:
        """One joins."""
        if subscriber not in self._all:
            self._let_go_of_members()
            self._all[subscriber] = None

    def discard(self, subscriber: Subscriber) -> None:
        """One leaves. Harmless if it does not belong to it."""
        if subscriber in self._all:
            self._let_go_of_members()
            del self._all[subscriber]
