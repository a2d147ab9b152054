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
# Offsets that are fetched beyond what the history has lost: it goes on losing, at the latest while the client reads.
MARGIN_OFFSETS = 2_000

# By partition: the first offset that is missing, and the first after it that is not.
Gaps = dict[int, tuple[int, int]]


class Replay:
    """One client's way back on one lossless channel: a cursor for each partition.

    It ends (`done`) when the cursors have reached the present: from that loop turn on the subscriber gets what is said.
    `ready` is False while records are fetched from the bus; `has_begun` once there was something to send.
    `has_epoch`: the client names the life that it comes from; `is_same_life`: it may be this one, and there are cursors.
    """

    def __init__(self, channel: LosslessChannel, subscriber: Subscriber, since: Since, epoch: str) -> None:
        self.channel = channel
        self.subscriber = subscriber
        self.ready = True
        self.cancelled = False
        self.done = False
        self.rounds = 0
        self._epoch = epoch
        self.has_begun = False
        # By partition: entries read back, and up to which offset that is everything.
        self._backlog: dict[int, list[Entry]] = {}
        self._covered: dict[int, int] = {}
        self._asked: Gaps = {}
        # By partition, the last offset that went out.
        self._told: dict[int, int] = {}
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
        """What is missing now, to be fetched, and some more; by the time it comes, the history may have lost that."""
        self._asked = {
            partition: (first, max(end, min(end + MARGIN_OFFSETS, self.channel.folded(partition) + 1)))
            for partition, (first, end) in self.missing().items()
        }
        return self._asked

    def is_stranded(self) -> bool:
        """Whether what comes next has to be fetched: it is neither in the history nor among what was fetched."""
        return any(not self._backlog.get(partition) for partition in self.missing())

    def add_backlog(self, found: dict[int, list[Entry]]) -> None:
        """What was asked for, in the order of its offsets; nothing of it is left out."""
        self.rounds += 1
        for partition, (_, end) in self._asked.items():
            if partition in found:
                self._backlog.setdefault(partition, []).extend(e for e in found[partition] if self.channel.shows(e))
                self._covered[partition] = max(end - 1, self._covered.get(partition, -1))

    def pull(self) -> list[bytes]:
        """The next messages; none when nothing is there to send now."""
        if not self.ready or self.is_stranded():
            return []
        entries = self._next_entries()
        texts = self.channel.texts_of(entries, self._told)
        if not entries:
            self.done = True
            if self.has_begun:
                return []
            texts = [self.channel.empty_text()]
        head = b"{"
        if not self.has_begun:
            self.has_begun = True
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
