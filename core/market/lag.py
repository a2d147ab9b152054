"""How far a client is ahead of this instance, and how long it is kept waiting for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# How long it waits while the instance comes no nearer, and in all.
PATIENCE_SECONDS: Final = 3.0
LONGEST_WAIT_SECONDS: Final = 15.0
# One that is further ahead has not come from another instance that was a little faster.
MAX_AHEAD_RECORDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Lag:
    """How many records this instance lacks that the client has had. Seconds of the clock that `now` is of.

    `gives_up_at` is put off as long as the instance catches up, but not beyond `ends_at`.
    """

    records: int
    gives_up_at: float
    ends_at: float

    @classmethod
    def begin(cls, records: int, now: float) -> Lag:
        """The client has come."""
        return cls(records, now + PATIENCE_SECONDS, now + LONGEST_WAIT_SECONDS)

    def come_to(self, records: int, now: float) -> Lag:
        """So many are lacking now."""
        if records >= self.records:
            return self
        return Lag(records, min(now + PATIENCE_SECONDS, self.ends_at), self.ends_at)
