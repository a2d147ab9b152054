"""What the keeper of the state is told of both topics, whom it tells, and what is to be done about what it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from core.messages.kept_state import Cursor, Offsets


@dataclass(frozen=True, slots=True)
class Place:
    """Where both topics are in what is known here, by partition, and where that begins. All partitions of both topics."""

    market: Mapping[int, int]
    events: Mapping[int, int]
    orders: Mapping[int, int]

    def of(self, partition: int) -> Offsets:
        """As it is kept with a partition."""
        return Offsets(self.market[partition], dict(self.events), dict(self.orders))


class Topics(Protocol):
    """What the keeper has to know of both topics."""

    @property
    def is_reachable(self) -> bool:
        """Whether the cluster answers."""

    @property
    def names(self) -> tuple[str, str]:
        """Of the market and of the order topic."""

    def epochs(self) -> tuple[str, str] | None:
        """Their lives; None as long as they are not known."""

    @property
    def awaits_epochs(self) -> bool:
        """Whether those that are not known may yet be told."""

    def partitions(self) -> int:
        """Of the market topic; 0 as long as it is not known."""

    def place(self) -> Place | None:
        """Where what is known has come to, of the partitions of the market that are read; None before all is read that was
        there at the beginning."""

    def begins(self) -> Place:
        """Where the reading began."""

    def known_since_ms(self) -> int | None:
        """From when on what was read tells everything; milliseconds since the epoch."""

    def bounds(self) -> tuple[Place, Place]:
        """Blocking: the first records that are there, and the ends, of every partition. Raises KafkaException."""


class Duties(Protocol):
    """What is to be done about what is kept, by whoever leads a partition and by nobody else: `StateKeeper.leads`."""

    prefix: str
    """Of the keys of what is still to be done."""

    def count(self, partition: int) -> int | None:
        """How much that is, None where nobody knows."""

    def ended_to(self) -> dict[int, int]:
        """By partition of the market, up to where all that was read is in it, where that is not all."""

    def take_over(self, partition: int, cursor: Cursor | None, kept: Mapping[str, bytes]) -> Iterator[None]:
        """This instance leads a partition once this has come to its end, piece by piece. `cursor` is the last there is, None if it is of no use; `kept` is what is
        still to be done as of then.
        """


class KeeperObserver(Protocol):
    """Who counts."""

    def state_written(self, records: int, size: int, seconds: float) -> None:
        """So many records and bytes were written and committed."""

    def state_restored(self, records: int, size: int, seconds: float) -> None:
        """So many were read and taken back."""

    def state_unused(self, why: str) -> None:
        """What was kept of one partition was not used; one of `WHY`."""


WHY: Final = ("poisoned", "version", "epoch", "retention", "cursor", "topics")
