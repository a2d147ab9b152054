"""What connections ask for that takes long (a thousand channels, the books of the whole stream), worked off a piece at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping
from typing import Final

from core.channels.client_position import Since
from core.channels.names import ChannelName
from core.delivery.subscriber import Subscriber

_OVER: Final = object()


class Request:
    """Something that is being done for a connection."""

    __slots__ = ("_when_done", "is_done", "pieces")

    def __init__(self, pieces: Iterator[None]) -> None:
        """Each of `pieces` is done when it is asked for, and raises nothing."""
        self.pieces: Final = pieces
        self.is_done = False
        self._when_done: list[Callable[[], None]] = []

    def when_done(self, call: Callable[[], None]) -> None:
        """Call once all is done."""
        if self.is_done:
            call()
        else:
            self._when_done.append(call)

    def finish(self) -> None:
        """All is done, or given up."""
        self.is_done = True
        for call in self._when_done:
            call()


class Requests:
    """Those of all connections, in turns. `announced` are the channels that they have yet to join."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self.announced: Counter[ChannelName] = Counter()

    def __bool__(self) -> bool:
        """Whether something is left to do."""
        return bool(self._waiting)

    def add(self, pieces: Iterator[None]) -> Request:
        """Something more is to be done."""
        request = Request(pieces)
        self._waiting.append(request)
        return request

    def go_on(self) -> bool:
        """Do the next piece of the one whose turn it is; False if nothing is left to do."""
        if not self._waiting:
            return False
        request = self._waiting.popleft()
        if next(request.pieces, _OVER) is _OVER:
            request.finish()
        else:
            self._waiting.append(request)
        return True

    def announce(self, names: Collection[ChannelName]) -> None:
        """These channels are to be joined."""
        self.announced.update(names)

    def has_joined(self, names: Collection[ChannelName]) -> None:
        """They are joined, or will not be any more."""
        for name in names:
            self.announced[name] -= 1
            if not self.announced[name]:
                del self.announced[name]

    def with_announced(self, channels: KeysView[ChannelName]) -> Collection[ChannelName]:
        """The channels that there are and are to be."""
        return channels | self.announced.keys() if self.announced else channels


Join = Callable[[Subscriber, ChannelName, Since | None], None]


class Promises:
    """Channels that leave nothing out and have been asked for: joined when it is their turn, or something is said on them.

    To join a thousand at once, so that nothing is missed, would take longer than a slice; what is said comes of few symbols.
    """

    def __init__(self, join: Join) -> None:
        """`join` gets whom, what and since when."""
        self._join = join
        self._of_symbol: dict[str | None, dict[tuple[Subscriber, ChannelName], Since | None]] = {}

    def __bool__(self) -> bool:
        """Whether there is one that has not been kept."""
        return bool(self._of_symbol)

    def add(self, subscriber: Subscriber, names: Mapping[ChannelName, Since | None]) -> None:
        """It is to miss nothing of these from now on."""
        for name, since in names.items():
            self._of_symbol.setdefault(name.symbol, {})[subscriber, name] = since

    def keep(self, symbols: Iterable[str]) -> None:
        """Something is about to be said of these symbols."""
        for symbol in (None, *symbols):
            for (subscriber, name), since in self._of_symbol.pop(symbol, {}).items():
                self._join(subscriber, name, since)

    def keep_one(self, subscriber: Subscriber, name: ChannelName) -> None:
        """It is its turn, unless it has been joined already."""
        of_symbol = self._of_symbol.get(name.symbol, {})
        if (subscriber, name) in of_symbol:
            since = of_symbol[subscriber, name]
            self.drop(subscriber, (name,))
            self._join(subscriber, name, since)

    def drop(self, subscriber: Subscriber, names: Iterable[ChannelName]) -> None:
        """It is not to join these any more, if it has not yet."""
        for name in names:
            of_symbol = self._of_symbol.get(name.symbol)
            if of_symbol is not None and of_symbol.pop((subscriber, name), self) is not self and not of_symbol:
                del self._of_symbol[name.symbol]
