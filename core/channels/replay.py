"""What a returning client missed, by its cursors: served from the history as fast as its socket drains."""

from __future__ import annotations

import json
from collections.abc import Collection
from itertools import islice

from core.channels.client_position import Since
from core.channels.lossless_channels import LosslessChannel
from core.delivery.subscriber import Subscriber
from core.market.history import Entry

# Entries a pull takes: some ten kilobytes of events, a fraction of a millisecond of work.
ENTRIES_PER_PULL = 200

# By partition: the first offset that is missing, and the first after it that is not.
Gaps = dict[int, tuple[int, int]]


class Replay:
    """One client's way back on one lossless channel: a cursor for each partition.

    It ends (`done`) when the cursors have reached the present: from that loop turn on the subscriber gets what is said.
    `ready` is False while records are fetched from the bus; `lost` when the history left the cursor behind.
    `has_epoch`: the client names the life that it comes from; `is_same_life`: it may be this one, and there are cursors.
    """

    def __init__(self, channel: LosslessChannel, subscriber: Subscriber, since: Since, epoch: str) -> None:
        self.channel = channel
        self.subscriber = subscriber
        self.ready = True
        self.cancelled = False
        self.done = False
        self.lost = False
        self.rounds = 0
        self._epoch = epoch
        self._is_first = True
        # By partition: entries read back, and up to which offset that is everything.
        self._backlog: dict[int, list[Entry]] = {}
        self._covered: dict[int, int] = {}
        self._asked: Gaps = {}
        partitions = channel.partitions()
        positions = since.positions
        if None in positions and len(partitions) == 1:
            positions = {next(iter(partitions)): positions[None]}
        self._cursors: dict[int, int] = {}
        self.is_same_life = since.epoch in (None, epoch) and positions.keys() <= partitions
        self.has_epoch = since.epoch is not None
        if self.is_same_life:
            # A partition that the client has never heard of had nothing to say: it begins at its beginning.
            self._cursors = {partition: positions.get(partition, -1) for partition in partitions}

    def lacking(self) -> int:
        """How many records the client has had that this instance has not read yet."""
        return sum(max(0, cursor - self.channel.folded(partition)) for partition, cursor in self._cursors.items())

    def covers(self, partitions: Collection[int]) -> bool:
        """Whether all of these partitions are on the way."""
        return all(partition in self._cursors for partition in partitions)

    def since(self) -> Since:
        """Where the client is now."""
        positions: dict[int | None, int] = dict(self._cursors.items())
        return Since(positions, self._epoch)

    def missing(self) -> Gaps:
        """By partition, the first offset that neither history nor backlog has, and the first that the history has."""
        gaps: Gaps = {}
        for partition, cursor in self._cursors.items():
            known = max(cursor, self._covered.get(partition, cursor))
            complete_after = self.channel.complete_after(partition)
            if known < complete_after:
                gaps[partition] = (known + 1, complete_after + 1)
        return gaps

    def ask(self) -> Gaps:
        """What is missing now, to be fetched; by the time it comes, the history may have lost more."""
        self._asked = self.missing()
        return self._asked

    def add_backlog(self, found: dict[int, list[Entry]]) -> None:
        """What was asked for, in the order of its offsets; nothing of it is left out."""
        self.rounds += 1
        for partition, (_, end) in self._asked.items():
            if partition in found:
                self._backlog.setdefault(partition, []).extend(e for e in found[partition] if self.channel.shows(e))
                self._covered[partition] = max(end - 1, self._covered.get(partition, -1))

    def pull(self) -> list[bytes]:
        """The next messages; none when nothing is there to send now."""
        if not self.ready or self.lost:
            return []
        if self.missing():
            self.lost = True
            return []
        entries = self._next_entries()
        texts = self.channel.texts_of(entries)
        if not entries:
            self.done = True
            if not self._is_first:
                return []
            texts = [self.channel.empty_text()]
        head = b"{"
        if self._is_first:
            self._is_first = False
            head = b'{"epoch":' + json.dumps(self._epoch).encode() + b',"recovered":true,'
        return [head + texts[0], *(b"{" + text for text in texts[1:])]

    def _next_entries(self) -> list[Entry]:
        entries: list[Entry] = []
        for partition, cursor in self._cursors.items():
            backlog = self._backlog.get(partition)
            if backlog:
                taken, self._backlog[partition] = backlog[:ENTRIES_PER_PULL], backlog[ENTRIES_PER_PULL:]
            else:
                start = max(cursor, self._covered.get(partition, cursor))
                taken = list(islice(self.channel.entries_after(partition, start), ENTRIES_PER_PULL))
            if taken:
                self._cursors[partition] = taken[-1].offset
                entries += taken
        return entries
