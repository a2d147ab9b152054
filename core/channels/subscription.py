"""One subscription: who listens to which channel, and how far that has come.

The invariant: it is in exactly one state, with what belongs to that state and nothing else, and its channel's crowds and
what its connection pulls are in step with it. Every change of state is one of the methods below; one that is not in
`_NEXT` is a fault of ours and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from core.channels.channel import Channel
from core.channels.client_position import Since
from core.channels.lossless_channels import LosslessChannel
from core.channels.replay import Replay
from core.delivery.outbox import Conflatable
from core.delivery.subscriber import Crowd, Subscriber
from core.market.book_views import NOTHING_HELD, Held
from core.market.lag import Lag


@dataclass(frozen=True, slots=True)
class New:
    """Its first notification, which names the epoch, has not been sent."""


@dataclass(frozen=True, slots=True)
class Settled:
    """It gets what is said, when it is said."""


@dataclass(frozen=True, slots=True)
class Behind:
    """It gets a snapshot when its outbox drains. `head` begins a first notification; None if it has had that."""

    head: bytes | None


@dataclass(frozen=True, slots=True)
class ToldStale:
    """It was told that its channel cannot be trusted, and nothing else that others hold: its snapshot is to come."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """It wants what came since: as soon as its partitions are served, or (`lag`) read as far as the client is."""

    since: Since
    lag: Lag | None = None


@dataclass(frozen=True, slots=True)
class Replaying:
    """It gets what it missed when its outbox drains, until it has caught up."""

    replay: Replay


@dataclass(frozen=True, slots=True)
class Left:
    """It is over."""


State = New | Settled | Behind | ToldStale | Waiting | Replaying | Left

NEW: Final = New()
SETTLED: Final = Settled()
TOLD_STALE: Final = ToldStale()
LEFT: Final = Left()

# Of so many book channels that it left a connection is remembered what its client held.
MOST_LEFT: Final = 8

_NEXT: Final[dict[type[State], frozenset[type[State]]]] = {
    New: frozenset((Settled, Behind, ToldStale, Waiting, Replaying, Left)),
    Settled: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Behind: frozenset((Settled, ToldStale, Left)),
    ToldStale: frozenset((Settled, Behind, Left)),
    Waiting: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Replaying: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Left: frozenset(),
}


class Listener:
    """A connection's subscriptions: by the text of their channels' names, those that it pulls, in their order, and those of
    them that are `behind`, which go first.

    `held` is what its client holds of channels that it is not settled on: it fell behind, begins anew, or has left them.
    """

    __slots__ = ("behind", "held", "pulling", "subscriber", "subscriptions")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.subscriptions: dict[str, Subscription] = {}
        self.pulling: dict[Subscription, None] = {}
        self.behind: dict[Subscription, None] = {}
        self.held: dict[str, Held] = {}

    def note_left(self, text: str) -> None:
        """A channel was left; what the client held of those that it left long ago is forgotten."""
        if text in self.held:
            self.held[text] = self.held.pop(text)
            left = [text for text in self.held if text not in self.subscriptions]
            for text in left[:-MOST_LEFT]:
                del self.held[text]


class Subscription:
    """One connection on one channel."""

    __slots__ = ("begins", "channel", "has_had_turn", "is_sent_parts", "listener", "state", "to_come")

    def __init__(self, listener: Listener, channel: Channel) -> None:
        """A new one; it is in the listener's and the channel's memory from now on.

        `begins` until it has had a snapshot; one that follows another on the same channel goes on from there.
        `has_had_turn` once it was sent the first notification that there was then, if any. `to_come`: of a snapshot in parts,
        the symbols of those that it has not been sent yet, though it gets what is said; `is_sent_parts` while that is done.
        """
        self.listener = listener
        self.channel = channel
        self.state: State = NEW
        self.begins = True
        self.has_had_turn = False
        self.to_come: dict[str, None] | None = None
        self.is_sent_parts = False
        listener.subscriptions[channel.name.text] = self
        channel.awaiting.add(listener.subscriber)

    @property
    def subscriber(self) -> Subscriber:
        """Whose it is."""
        return self.listener.subscriber

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        """What its channel told last as a whole, for what its client holds."""
        held = self.listener.held.get(self.channel.name.text, NOTHING_HELD)
        return self.channel.snapshot_texts(held, self.begins, conflated)

    def opening_texts(self) -> list[bytes]:
        """What that snapshot begins with; the rest of it is `to_come`."""
        held = self.listener.held.get(self.channel.name.text, NOTHING_HELD)
        texts, to_come = self.channel.opening(held, self.begins)
        self.to_come = dict.fromkeys(to_come) or None
        return texts

    def settle(self) -> None:
        """It has had what its channel told last: from now on it gets what is said."""
        self._become(SETTLED)
        self.begins = False
        self.listener.held.pop(self.channel.name.text, None)

    def tell_stale(self) -> None:
        """It was told that nothing can be trusted."""
        self._become(TOLD_STALE)

    def lack(self, since: Conflatable | None) -> None:
        """What was told with this tag and since then does not reach it any more (None: it has had all)."""
        if isinstance(self.state, Settled):
            held = self.channel.held(since)
            if held != NOTHING_HELD:
                self.listener.held[self.channel.name.text] = held

    def fall_behind(self, head: bytes | None = None) -> None:
        """Its socket is full: it is owed a snapshot, with the head of a first notification if that is one."""
        self.to_come = None
        self._become(Behind(head))

    def wait(self, since: Since, lag: Lag | None = None) -> None:
        """What came since cannot be told yet."""
        assert isinstance(self.channel, LosslessChannel)
        self._become(Waiting(since, lag))

    def replay(self, replay: Replay) -> None:
        """It gets what it missed."""
        self._become(Replaying(replay))

    def leave(self) -> None:
        """It is over: nobody remembers it."""
        self._become(LEFT)
        del self.listener.subscriptions[self.channel.name.text]
        self.listener.note_left(self.channel.name.text)

    def _become(self, state: State) -> None:
        before, left = self.state, self._crowd()
        if type(state) not in _NEXT[type(before)]:
            raise RuntimeError(f"a subscription that is {before} cannot become {state}")
        if isinstance(before, Replaying):
            before.replay.cancelled = True
        self.state = state
        if isinstance(state, Behind):
            self.listener.behind[self] = None
        elif isinstance(before, Behind):
            del self.listener.behind[self]
        crowd = self._crowd()
        if crowd is left:
            return
        if left is not None:
            left.discard(self.subscriber)
        if crowd is not None:
            crowd.add(self.subscriber)
        if crowd is self.channel.pulling:
            self.listener.pulling[self] = None
        else:
            self.listener.pulling.pop(self, None)

    def _crowd(self) -> Crowd | None:
        """The channel's crowd for its state."""
        channel = self.channel
        match self.state:
            case Settled():
                return channel.settled
            case New() | ToldStale() | Waiting():
                return channel.awaiting
            case Behind() | Replaying():
                return channel.pulling
        return None
