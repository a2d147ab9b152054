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
from core.delivery.subscriber import Crowd, Subscriber


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
class Lag:
    """How many records this instance lacks that the client has had. Seconds of the hub's clock.

    `gives_up_at` is put off as long as the instance catches up, but not beyond `ends_at`.
    """

    records: int
    gives_up_at: float
    ends_at: float


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


State = New | Settled | Behind | Waiting | Replaying | Left

NEW: Final = New()
SETTLED: Final = Settled()
LEFT: Final = Left()

_NEXT: Final[dict[type[State], frozenset[type[State]]]] = {
    New: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Settled: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Behind: frozenset((Settled, Left)),
    Waiting: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Replaying: frozenset((Settled, Behind, Waiting, Replaying, Left)),
    Left: frozenset(),
}


class Listener:
    """A connection's subscriptions: by the text of their channels' names, and those that it pulls, in their order."""

    __slots__ = ("pulling", "subscriber", "subscriptions")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.subscriptions: dict[str, Subscription] = {}
        self.pulling: dict[Subscription, None] = {}


class Subscription:
    """One connection on one channel."""

    __slots__ = ("channel", "listener", "state")

    def __init__(self, listener: Listener, channel: Channel) -> None:
        """A new one; it is in the listener's and the channel's memory from now on."""
        self.listener = listener
        self.channel = channel
        self.state: State = NEW
        listener.subscriptions[channel.name.text] = self
        channel.awaiting.add(listener.subscriber)

    @property
    def subscriber(self) -> Subscriber:
        """Whose it is."""
        return self.listener.subscriber

    def settle(self) -> None:
        """From now on it gets what is said."""
        self._become(SETTLED)

    def fall_behind(self, head: bytes | None = None) -> None:
        """Its socket is full: it is owed a snapshot, with the head of a first notification if that is one."""
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

    def _become(self, state: State) -> None:
        before, left = self.state, self._crowd()
        if type(state) not in _NEXT[type(before)]:
            raise RuntimeError(f"a subscription that is {before} cannot become {state}")
        if isinstance(before, Replaying):
            before.replay.cancelled = True
        self.state = state
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
            case New() | Waiting():
                return channel.awaiting
            case Behind() | Replaying():
                return channel.pulling
        return None
