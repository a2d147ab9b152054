"""Quiet or dead: a partition is being read while its leader answers fetches, whether or not there is news."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

UNREAD_SECONDS = 5.0


class UnreadPartitions:
    """When each partition of one topic was read last, by the statistics of the client that reads it."""

    def __init__(self, topic: str, monotonic: Callable[[], float]) -> None:
        self._topic = topic
        self._monotonic = monotonic
        self._read_at: dict[int, float] = {}

    def among(self, numbers: Collection[int], statistics_text: str) -> set[int]:
        """Which of these partitions have not been read for `UNREAD_SECONDS`; one that is new here is given that time."""
        now = self._monotonic()
        statistics = json.loads(statistics_text)
        answered_at = {
            node["nodeid"]: now - node["rxidle"] / 1_000_000
            for node in statistics["brokers"].values()
            if node["state"] == "UP" and node["rxidle"] >= 0
        }
        partitions = statistics["topics"].get(self._topic, {}).get("partitions", {})
        for number in numbers:
            described = partitions.get(str(number), {})
            leader = described.get("leader")
            if described.get("fetch_state") == "active" and leader in answered_at:
                self._read_at[number] = max(self._read_at.get(number, 0), answered_at[leader])
        return {number for number in numbers if now - self._read_at.setdefault(number, now) >= UNREAD_SECONDS}

    def begin(self, number: int) -> None:
        """It begins to be read now, or again."""
        self._read_at.pop(number, None)
