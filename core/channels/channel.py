"""A channel that somebody listens to: what it says, and who listens. Each kind of channel is a class of its own.

A channel computes once for all who listen: `take` makes what is known now the state that has been told, `news_texts`
is what to tell those who had the state before, and `snapshot_texts` the whole state for those who had nothing. Texts are
notifications without their opening brace, so that others can put members first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Final

from core.channels.names import ChannelName
from core.delivery.outbox import LOSSLESS, Conflatable, Tag
from core.delivery.subscriber import Crowd, Subscriber
from core.market.book_views import NOTHING_HELD, Held

# Snapshots in parts, and the books of the stream, are sent in pieces of this size, or of one book.
PART_BYTES: Final = 32_768


class Channel(ABC):
    """A channel with subscribers."""

    lossless = False
    heartbeats = False
    # It is of all symbols, and says of each by itself whether it can be trusted.
    is_overview = False
    # What it shows may change with the clock alone: `age` is called each time that is looked for.
    follows_clock = False

    def __init__(self, name: ChannelName) -> None:
        self.name = name
        # Who listens, each in one of these: who gets what is said; whom something has to be said to first, when there is
        # something; and who pulls what it is owed. A `Subscription` keeps them.
        self.settled = Crowd()
        self.awaiting = Crowd()
        self.pulling = Crowd()
        self.interval_seconds = name.interval_ms / 1000
        self.dirty = False
        self.stale = False
        # That is still to be told, when it is its turn.
        self.owes_stale = False
        self.said_at = float("-inf")
        self.next_news_at = float("-inf")
        self.due: float | None = None
        # It is due, and there was no time for it yet.
        self.waits = False
        self._head = b'"channel_name":"%b","seq":' % name.text.encode()

    def everyone(self) -> set[Subscriber]:
        """All subscribers, in whichever state."""
        return {*self.settled, *self.awaiting, *self.pulling}

    def has_subscribers(self) -> bool:
        """Whether anybody still listens."""
        return bool(self.settled or self.awaiting or self.pulling)

    def text(self, seq: int, notification: str) -> bytes:
        """A notification without its opening brace."""
        return b'%b%d,"notification":%b}' % (self._head, seq, notification.encode())

    @abstractmethod
    def partitions(self) -> frozenset[int]:
        """The partitions the channel lives on, as far as they are known."""

    @abstractmethod
    def is_known(self) -> bool:
        """Whether there is a state to show."""

    @abstractmethod
    def take(self, anew: bool = False) -> bool:
        """Make the present state the told one; False if it is the same. `anew` if all of it will be told."""

    @abstractmethod
    def news_texts(self) -> list[bytes]:
        """What the last `take` changed."""

    @abstractmethod
    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        """The told state as a whole, for one who `begins` with what led to it; of what is `held`, also what is gone."""

    def tag(self) -> Tag:
        """The tag of what is told next."""
        return LOSSLESS

    def has_told(self) -> None:  # noqa: B027 (for most channels it makes no difference)
        """Everybody settled has been told what the last `take` changed."""

    def held(self, since: Conflatable | None = None) -> Held:
        """What those settled hold; or one whom nothing has reached since what was told with a tag, nor that."""
        return NOTHING_HELD

    def first_texts(self) -> list[bytes]:
        """For those who have had nothing yet, right after a `take`."""
        return self.snapshot_texts()

    def is_fresh(self) -> bool:
        """Whether the state is the engine's, as far as the gateway can tell."""
        return True

    def stale_text(self) -> bytes:
        """Told once when the state can no longer be trusted; what leaves nothing out has no state to distrust."""
        return self.empty_text()

    @abstractmethod
    def empty_text(self) -> bytes:
        """A notification in which there is nothing."""

    def heartbeat_texts(self) -> list[bytes]:
        """Nothing new, and still alive."""
        return [self.empty_text()]

    def age(self) -> None:  # noqa: B027 (most channels show nothing that goes by itself)
        """Trades of the channel's symbol have left the 24 hours, or it `follows_clock`: `dirty` if it has something to say."""

    def prepare(self) -> bool:
        """Work out a part of what is to be told next, before `take`; False while there is more to be worked out."""
        return True

    def has_more(self) -> bool:
        """Whether the last `take` left something for the next notification, which does not wait for its interval."""
        return False

    # A snapshot that is sent in parts. Most are sent as a whole: nothing is to come of them.

    def opening(self, held: Held = NOTHING_HELD, begins: bool = True) -> tuple[list[bytes], Iterable[str]]:
        """What `snapshot_texts` begins with, and the symbols that the rest of it is of."""
        return self.snapshot_texts(held, begins), ()

    def next_part(self, to_come: dict[str, None]) -> list[bytes]:
        """Take out the symbols of the next part; each as it is now, so it is right also for who hears the news meanwhile.

        Empty when there is nothing to show of any that is to come.
        """
        return []

    def symbols_in_parts(self, partitions: Collection[int]) -> list[str]:
        """Of which symbols on these partitions somebody who gets what is said has to be sent a part, if they were not shown."""
        return []

    def touch(self, symbols: Iterable[str]) -> None:  # noqa: B027 (only an overview has more than one)
        """Of an overview: these symbols may have something to tell. `dirty` if that is so."""

    def has_healed(self, symbols: Collection[str]) -> bool:
        """Of an overview: whether one of these was said to be out of date, and is not any more."""
        return False

    def restart(self) -> None:  # noqa: B027 (most channels keep nothing that would have to go)
        """The market was read anew: what was told may not be what is."""

    def close(self) -> None:  # noqa: B027 (most channels hold nothing that would have to be let go)
        """Nobody listens any more."""
