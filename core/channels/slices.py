"""Work that gives way: what takes longer than a slice of time is done in several, and the loop looks after others in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.delivery.fanout import LEAST_OF_A_SLICE, ScheduleSlice

# One step of some work: False if nothing is left to do.
Step = Callable[[], bool]


class Slices:
    """Several kinds of work, each a step at a time, in turns; a slice ends as one of the fan-out does."""

    def __init__(self, works: tuple[Step, ...], end: Callable[[], None], clock: Callable[[], float]) -> None:
        """`end` is called behind each slice; `clock` is monotonic, in seconds."""
        self._works: Final = works
        self._end = end
        self._clock = clock
        # A slice is under way, or one has been asked for.
        self._is_taken = False
        # Without a loop to give turns to, a slice has no end. `others_wait` tells whether somebody waits for a turn.
        self.slice_seconds = float("inf")
        self.others_wait: Callable[[], bool] = lambda: False
        self.schedule_slice: ScheduleSlice = lambda go_on: go_on()
        # How long `schedule_slice` lets pass before it asks for a turn; that is not waiting.
        self.rest_seconds = 0.0

    def go_on(self, used_seconds: float = 0.0) -> None:
        """Work for a slice; the rest follows by itself. Where one is to come already, all is left to that.

        What who calls has used of a slice counts; where there is nothing left of it, all is left to the next one too.
        """
        if self._is_taken:
            return
        if used_seconds < self.slice_seconds:
            self._serve(0.0, used_seconds)
        else:
            self._ask()

    def _serve(self, waited: float, used: float = 0.0) -> None:
        self._is_taken = True
        is_done = True
        try:
            is_done = self._slice(waited, used)
        finally:
            self._is_taken = False
            self._end()
        if not is_done:
            self._ask()

    def _ask(self) -> None:
        self._is_taken = True
        due_at = self._clock() + self.rest_seconds
        self.schedule_slice(lambda: self._serve(self._clock() - due_at))

    def _slice(self, waited: float, used: float) -> bool:
        """Whether all is done. While others wait it takes only as long as this was waited for, but a fifth at least."""
        clock = self._clock
        began = clock() - used
        ends = began + self.slice_seconds
        may_end = began + max(waited, self.slice_seconds * LEAST_OF_A_SLICE)
        works = list(self._works)
        while works:
            for work in tuple(works):
                if not work():
                    works.remove(work)
                    continue
                now = clock()
                if now >= ends or (now >= may_end and self.others_wait()):
                    return False
        return True
