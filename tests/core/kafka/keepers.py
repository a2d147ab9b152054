"""A keeper without Kafka, and an election whose answers a test gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError

from core.kafka.state_keeper import StateKeeper
from tests.core.kept_rooms import FakeTopics

AWAY: Final = KafkaError(KafkaError._ALL_BROKERS_DOWN)


class Uncounted:
    """As `KeeperObserver`."""

    def state_written(self, records: int, size: int, seconds: float) -> None:
        pass

    def state_restored(self, records: int, size: int, seconds: float) -> None:
        pass

    def state_unused(self, why: str) -> None:
        pass


def keeper(topics: FakeTopics, monotonic: Callable[[], float] = time.monotonic) -> StateKeeper:
    return StateKeeper(
        "none:1", "state", {}, {}, topics, Uncounted(), interval_seconds=1.0, give_way=lambda: asyncio.sleep(0),
        monotonic=monotonic,
    )  # fmt: skip
