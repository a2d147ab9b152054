"""Fixtures for all tests: a Tornado loop, and the bus in both its flavours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from tornado.ioloop import IOLoop

from tests.support.kafka import FLAVOURS, Bus, embedded_bus, kafka_or_skip, real_bus
from tools.kafka.cluster import KafkaCluster

# A busy machine is no defect: how long an example takes is nowhere the claim.
hypothesis_settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("unhurried")
# For `make mutants`: the same examples in each run, and none made smaller that nobody reads.
hypothesis_settings.register_profile(
    "mutants",
    hypothesis_settings.get_profile("unhurried"),
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """The loop of `gen_test`; pytest-tornado's own calls make_current and clear_current, which Tornado deprecated."""
    io_loop = IOLoop(make_current=False)
    loop = io_loop.asyncio_loop
    asyncio.set_event_loop(loop)
    yield io_loop
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)


@pytest.fixture(scope="session")
def real_kafka() -> Iterator[KafkaCluster]:
    """One Apache Kafka broker for the whole run: leave it as it was found."""
    with kafka_or_skip() as cluster:
        yield cluster


@pytest.fixture(scope="module", params=FLAVOURS)
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus whose topics the tests of one module share."""
    with _bus(request) as made:
        yield made


@pytest.fixture(params=FLAVOURS)
def own_bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus with fresh topics for one test."""
    with _bus(request) as made:
        yield made


def _bus(request: pytest.FixtureRequest) -> AbstractContextManager[Bus]:
    if request.param == "embedded":
        return embedded_bus()
    return real_bus(request.getfixturevalue("real_kafka"))


# What waits longest begins first, so that two processes end together.
SLOW = ("faults", "integration", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the folders; within one nothing changes."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return SLOW.index(folder) if folder in SLOW else len(SLOW)

    items.sort(key=place)
