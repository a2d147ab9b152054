"""Whether a peer lives, by what has moved between it and us.

An answer to a ping is the usual sign. A slow reader reaches a ping late, behind everything that was sent before it; what it
does do meanwhile is read. Its kernel's acknowledgements alone say nothing of that: a kernel takes what comes for a
process that hangs as well, until its buffer is full. But where it has no room for all that we have, room is made by reading.
"""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a connection has come, in bytes since it began; `unsent` is what the peer's kernel has no room for now."""

    received: int
    acknowledged: int
    unsent: int

    def shows_life_since(self, before: Progress) -> bool:
        """Whether the peer has said or read something since."""
        if self.received != before.received:
            return True
        return self.acknowledged != before.acknowledged and (self.unsent > 0 or before.unsent > 0)
