"""Waits until the order topic has been read far enough for an answer to be true (docs/contract.md#order-directory).

What another instance accepted is on the topic, and perhaps not read here yet. How far is far enough?

- Before something is called unknown, before orders are listed, before an order is published under a new id of the account
  service, and before what was reserved for one is given back: to the end that the topic had when the question came
  (`to_end`). The cluster is asked for it, by one question at a time for all who wait. Whoever comes while one is under
  way waits for the next: the answer to the first may be older than what they ask about.
- Before an order with a client_order_id is called accepted: up to its own record (`to_record`), for another instance may have
  written one of the same name before it, which then counts. What lies before it and is of this instance too is known
  unread, so an instance that is the only writer never waits.

It is the reader's position that counts and not the last record: a transaction's markers take up offsets as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from core.errors import StillBehind
from core.messages.feed_record import Written

# Of a question about orders, all in all.
END_SECONDS: Final = 1.0
# Between a question that failed and the next.
RETRY_SECONDS: Final = 0.05


class ReadTopic(Protocol):
    """The order topic, as far as it has been read."""

    def positions(self) -> Mapping[int, int]:
        """By partition, the offset that is read next."""

    def ask_ends(self, on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        """Ask the cluster where each partition ends now, and tell; None where it cannot be asked."""


class CatchUp:
    """Who waits for the order topic to be read. `look` has to be called after each reading."""

    def __init__(
        self,
        topic: ReadTopic,
        *,
        is_reachable: Callable[[], bool],
        end_seconds: float = END_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        name: str = "the order topic",
    ) -> None:
        """`name`: what the topic is called in a refusal. `is_reachable`: whether the cluster answers. Nobody waits for the topic's end for longer than `end_seconds`."""
        self._topic = topic
        self._name = name
        self.is_reachable = is_reachable
        self._end_seconds = end_seconds
        self._retry_seconds = retry_seconds
        # Called when reading is waited for, so that nobody waits out an idle period.
        self.wake: Callable[[], None] = lambda: None
        self._for_question: list[asyncio.Future[None]] = []  # the next one
        self._is_asking = False
        self._for_reading: list[tuple[Mapping[int, int], list[asyncio.Future[None]]]] = []

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the topic to be read."""
        return bool(self._for_reading)

    async def to_end(self) -> None:
        """Wait until all is read that was on the topic when this was called. Raises StillBehind."""
        if not self.is_reachable():
            raise StillBehind("Kafka cannot be reached")
        future = asyncio.get_running_loop().create_future()
        self._for_question.append(future)
        self._ask()
        await self._wait(future, self._end_seconds)

    async def to_record(self, written: Written, within_seconds: float) -> None:
        """Wait until all is known that lies before this record on its partition. Raises StillBehind."""
        needed = {written.partition: written.since}
        if not self._is_read(needed):
            future = asyncio.get_running_loop().create_future()
            self._for_reading.append((needed, [future]))
            self.wake()
            await self._wait(future, within_seconds)

    def look(self) -> None:
        """The topic has been read on: let those go who waited for that."""
        waiting = self._for_reading
        if waiting:
            # Who has given up is not waited for either.
            self._for_reading = [
                (needed, futures)
                for needed, futures in waiting
                if not (all(future.done() for future in futures) or self._let_go(needed, futures))
            ]

    async def _wait(self, future: asyncio.Future[None], seconds: float) -> None:
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise StillBehind(f"{self._name} could not be read to its end in time") from None

    def _ask(self) -> None:
        if self._for_question and not self._is_asking:
            self._is_asking = True
            asked, self._for_question = self._for_question, []
            self._topic.ask_ends(lambda ends: self._on_ends(asked, ends))

    def _on_ends(self, asked: list[asyncio.Future[None]], ends: Mapping[int, int] | None) -> None:
        self._is_asking = False
        asked = [future for future in asked if not future.done()]
        if ends is None:
            self._for_question = asked + self._for_question
            asyncio.get_running_loop().call_later(self._retry_seconds, self._ask)
            return
        if asked and not self._let_go(ends, asked):
            self._for_reading.append((ends, asked))
            self.wake()
        self._ask()

    def _let_go(self, needed: Mapping[int, int], futures: list[asyncio.Future[None]]) -> bool:
        is_read = self._is_read(needed)
        if is_read:
            for future in futures:
                if not future.done():
                    future.set_result(None)
        return is_read

    def _is_read(self, needed: Mapping[int, int]) -> bool:
        positions = self._topic.positions()
        # A partition without a position is about to be read anew.
        return all(positions.get(partition, -1) >= offset for partition, offset in needed.items())
