"""Fixtures for all tests: a Tornado loop, and the bus in both its flavours."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from tornado.ioloop import IOLoop

from tests.support import examples
from tests.support.compiled import compile_tests
from tests.support.kafka import FLAVOURS, Bus, embedded_bus, kafka_or_skip, real_bus, skipped_without_kafka
from tests.support.shared_kafka import SharedKafka, ask_for_kafka
from tools.kafka.cluster import KafkaCluster
from tools.kafka.running import RunningKafka

hypothesis_settings.load_profile(examples.ALL)


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
def real_kafka(pytestconfig: pytest.Config) -> Iterator[RunningKafka]:
    """One Apache Kafka broker for the whole run, whose topics are all that a test may touch."""
    address = getattr(pytestconfig, "workerinput", {}).get(SHARED_KAFKA)
    if address is None:
        with kafka_or_skip() as cluster:
            yield cluster
    else:
        with skipped_without_kafka():
            kafka = ask_for_kafka(address)
        yield kafka


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    """One broker of a module's own, to be frozen and killed; the next test finds it in order (`restore`)."""
    with kafka_or_skip() as cluster:
        yield cluster


@pytest.fixture(scope="package")
def three_nodes() -> Iterator[KafkaCluster]:
    """A cluster of three, which starts in seconds and costs a tenth of a core while it is there."""
    with kafka_or_skip(brokers=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus whose topics the tests of one module share: a real Kafka, or one inside this process where there is none."""
    with _bus(request, getattr(request, "param", None)) as made:
        yield made


@pytest.fixture(scope="module", params=FLAVOURS)
def each_bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """The same in both flavours, for what a bus itself could get wrong."""
    with _bus(request, request.param) as made:
        yield made


@pytest.fixture(params=FLAVOURS)
def own_bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus with fresh topics for one test, in both flavours."""
    with _bus(request, request.param) as made:
        yield made


def _bus(request: pytest.FixtureRequest, flavour: str | None) -> AbstractContextManager[Bus]:
    if flavour != "embedded":
        try:
            return real_bus(request.getfixturevalue("real_kafka"))
        except pytest.skip.Exception:
            if flavour == "real":
                raise
    return embedded_bus()


# A browser is seconds of a core to start, and ends when its process begins with other tests: so many are started in a run.
BROWSER = "browser"
BROWSERS = 2
# What waits, for sessions to time out and members to join, by the beginning of its path: that first which takes longest, and how
# many seconds one of its tests does, about; all else calculates.
WAITING = {"faults/": 13.0, "integration/test_state": 8.0, "integration/": 0.9}
SECONDS = 0.02
# Folders of system tests.
SLOW = ("faults", "integration", BROWSER)
# When the last one that waits begins, as a part of the whole: nothing is begun at the end that takes long.
LAST_WAIT = 0.85
# A test with one of these needs a program beside Python.
PROGRAMS = {"real_kafka", "broker", "three_nodes", "redis", "promtool"}
UNIT = "not system"
# Objects that are new when the collector looks at them: most tests are over before, and have left nothing to it.
YOUNG = 20_000
LONG_ID = 100


@pytest.hookimpl(optionalhook=True)  # `make mutants` has no xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`. Unit tests calculate, and most others wait for sockets and brokers."""
    cores = os.cpu_count() or 1
    return cores if config.getoption("markexpr") == UNIT else 3 * cores


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """With groups, tests that calculate go to the processes by their files: to send each by itself costs as much as most of them do."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope, file = str(super()._split_scope(nodeid)), nodeid.partition("::")[0]
            return file if scope == nodeid and _folder(config.rootpath / file) not in SLOW else scope

    return Scheduling(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make unit` does not even import what it leaves out."""
    is_left_out = config.getoption("markexpr") == UNIT and collection_path.parent == Path(__file__).parent
    return True if is_left_out and collection_path.name in SLOW else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is collected stays to the end: the garbage collector need not look at it, neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(YOUNG)


@pytest.hookimpl(tryfirst=True)  # before xdist makes names of the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is no unit test, and what has to stay together, and put all in an order."""
    pages = sorted({item.path for item in items if _folder(item.path) == BROWSER})
    browsers = {file: f"browser {number % BROWSERS}" for number, file in enumerate(pages)}
    for item in items:
        flavours = (
            {*FLAVOURS}.intersection(map(str, item.callspec.params.values())) if hasattr(item, "callspec") else ()
        )
        fixtures = getattr(item, "fixturenames", ())
        if _folder(item.path) in SLOW or PROGRAMS.intersection(fixtures) or "real" in flavours:
            item.add_marker(pytest.mark.system)
            if group := browsers.get(item.path) or _group(item, fixtures):
                item.add_marker(pytest.mark.xdist_group(f"{group} {''.join(flavours)}".strip()))
    _interleave(items)


def _interleave(items: list[pytest.Item]) -> None:
    """Browsers' tests from the beginning, and tests that wait beside tests that calculate: neither has the machine to itself."""
    waiting = [*WAITING, None]
    groups = Counter(map(_together, items))
    places: dict[pytest.Item, float] = {item: 0.0 for item in items if _folder(item.path) == BROWSER}
    for waits, end in ((True, LAST_WAIT), (False, 1.0)):
        lane = [item for item in items if item not in places and (_waiting(item.path) is not None) is waits]
        # What has to be done by one process begins before what may be done by any; otherwise nothing changes.
        lane.sort(key=lambda item: (waiting.index(_waiting(item.path)), -groups[_together(item)]))
        seconds = [WAITING.get(_waiting(item.path) or "", SECONDS) for item in lane]
        begins, whole = accumulate(seconds, initial=0.0), sum(seconds)
        places.update((item, end * begin / whole) for item, begin in zip(lane, begins, strict=False))
    items.sort(key=places.__getitem__)


def _together(item: pytest.Item) -> str:
    """The tests that one process does together, by a name."""
    group = item.get_closest_marker("xdist_group")
    return group.args[0] if group else item.nodeid


@functools.cache
def _waiting(file: Path) -> str | None:
    """Which of those that wait it is."""
    path = file.relative_to(Path(__file__).parent).as_posix()
    return next((begin for begin in WAITING if path.startswith(begin)), None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A key or a token is made anew in each process, and the processes must have the same names for the tests."""
    return argname if isinstance(val, str | bytes) and len(val) > LONG_ID else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """An xdist that does not know this pytest leaves groups apart without a word, and everything is started many times."""
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError("pytest-xdist does not keep groups together with this version of pytest")


@functools.cache
def _folder(file: Path) -> str:
    """The one of this folder's that it is in, or its own name."""
    return file.relative_to(Path(__file__).parent).parts[0]


def _group(item: pytest.Item, fixtures: Iterable[str]) -> str | None:
    """Tests that share what was started for them are run by one process (`--dist loadgroup`)."""
    made = item._fixtureinfo.name2fixturedefs
    is_shared = any(name in made and made[name][-1].scope in ("module", "package") for name in fixtures)
    if not is_shared:
        return None
    if "three_nodes" in fixtures:
        return "three nodes"  # which take seconds to start, and a restart of one as many
    return item.nodeid.partition("::")[0]


class UnitTests:
    """Sees to it that a unit test is one: a process that it starts is a failure, and not a slow test among fast ones."""

    def __init__(self) -> None:
        self._is_running = False
        sys.addaudithook(self._audit)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._is_running = item.get_closest_marker("system") is None
        try:
            return (yield)
        finally:
            self._is_running = False

    def _audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if self._is_running and event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"):
            raise AssertionError("a unit test starts a process: mark it with pytest.mark.system")


SHARED_KAFKA = "shared_kafka"


class Leader:
    """In the process that leads others: what all of them share."""

    def __init__(self) -> None:
        self._kafka = SharedKafka()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[SHARED_KAFKA] = self._kafka.address

    def pytest_unconfigure(self) -> None:
        self._kafka.close()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(UnitTests())
    if config.getoption("numprocesses", None):
        if config.getoption("markexpr") != UNIT:
            compile_tests()
        config.pluginmanager.register(Leader())
