from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.config.settings import Kafka
from core.health import Health
from core.telemetry.metrics import Metrics
from tests.core.accounts.accounts import Accounts
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import run
from tests.core.trading import Trade


@dataclass
class Part:
    """Of everything that is asked, whatever a test wants it to be."""

    topic: str = "events"
    connected: bool = True
    assigned: int = 2
    is_live: bool = True
    is_partial: bool = False
    warm: bool = True
    is_settled: bool = True
    users: int = 5
    armed: int = 9
    blocks: int = 3
    halts: int = 2
    held: int = 7
    problem: str | None = None
    since_ms: int | None = 1_500
    behind: dict[int, int] = field(default_factory=lambda: {0: 3, 1: 4})

    def known_since_ms(self) -> int | None:
        return self.since_ms

    def lag(self) -> dict[int, int]:
        return self.behind

    def warm_up(self) -> tuple[int, int] | None:
        return None if self.is_live else (3, 10)


class KeptParts:
    """What is kept of the state."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {"restored": False, "age_seconds": None, "writer_of": []}
        self.progress: tuple[int, int] | None = None

    def health(self) -> dict[str, Any]:
        return self.told

    def warming_up(self) -> tuple[int, int] | None:
        return self.progress


class WatchedParts:
    def __init__(self, *, is_shared: bool = True, has_other_topics: bool = True) -> None:
        self.driven = DrivenHub()
        trade = Trade(self.driven.hub.fanout.send)
        self.private = trade.private
        self.metrics = Metrics()
        self.releases = trade.directory.releases
        self.bus, self.feed, self.order_feed, self.order_log = Part(), Part(), Part("orders", behind={0: 1}), Part()
        self.event_feed = Part() if is_shared else None
        self.jwks = Part()
        self.accounts = Part("accounts", behind={2: 6})
        self.control = Part("control", behind={0: 8})
        self.kept = KeptParts()
        self.is_draining = False
        self.health = Health(
            "1.2.3",
            Kafka(group_id="g", consume="shared"),
            self.metrics,
            self.bus,
            self.feed,
            self.order_feed,
            self.event_feed,
            self.order_log,
            self.driven.hub,
            trade.directory,
            trade.private,
            {"jwks": self.jwks, "redis": None},
            self.kept,
            self.accounts if has_other_topics else None,
            self.control if has_other_topics else None,
            is_draining=lambda: self.is_draining,
            started_at=100.0,
            monotonic=lambda: 102.5,
        )

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"gateway_{name}", labels)


@pytest.mark.parametrize("is_shared", [True, False])
def test_process_is_ready_when_all_is_read_and_orders_can_be_written(is_shared: bool) -> None:
    assert WatchedParts(is_shared=is_shared).health.is_ready()


@pytest.mark.parametrize(
    ("part", "lacks"),
    [
        ("bus", "connected"),
        ("feed", "is_live"),
        ("order_feed", "is_live"),
        ("event_feed", "is_live"),
        ("order_log", "warm"),
        ("accounts", "is_settled"),
        ("control", "is_settled"),
    ],
)
def test_process_is_not_ready_as_long_as_one_part_is_not(part: str, lacks: str) -> None:
    parts = WatchedParts()
    setattr(getattr(parts, part), lacks, False)
    assert not parts.health.is_ready()
    assert parts.health.report()["status"] == "degraded"


def test_log_tells_when_the_process_is_ready_and_how_long_that_took(caplog: pytest.LogCaptureFixture) -> None:
    parts = WatchedParts()
    parts.feed.is_live = False

    async def scene() -> None:
        ready = asyncio.create_task(parts.health.ready())
        await asyncio.sleep(1)
        assert not ready.done()
        assert caplog.messages == []
        parts.feed.is_live = True
        await ready

    caplog.set_level("INFO", "gateway")
    run(scene())
    assert caplog.messages == ["ready 2.5 s after the start"]


def test_process_that_drains_is_not_ready() -> None:
    parts = WatchedParts()
    parts.is_draining = True
    assert not parts.health.is_ready()


def test_report_tells_of_this_process() -> None:
    parts = WatchedParts()
    parts.driven.connect("trades.KCN/EUR")
    wanted: dict[str, Any] = {
        "state": {"restored": False, "age_seconds": None, "writer_of": []},
        "status": "ok",
        "version": "1.2.3",
        "uptime_seconds": 2.5,
        "clients": 1,
        "kafka": {
            "connected": True,
            "group": "g",
            "consume": "shared",
            "partitions": 2,
            "partial": False,
            "lag": 7,
        },
        "known_since": 1.5,
    }
    assert parts.health.report() == wanted
    parts.feed.since_ms = None
    assert parts.health.report() == wanted | {"known_since": None}


def test_report_tells_what_is_being_read_before_a_process_is_ready() -> None:
    parts = WatchedParts()
    parts.feed.is_live = parts.order_feed.is_live = False
    parts.kept.progress = (1, 5)
    assert parts.health.report()["warming_up"] == {"phase": "state", "done": 1, "of": 5}
    parts.kept.progress = None
    assert parts.health.report()["warming_up"] == {"phase": "orders", "done": 3, "of": 10}
    parts.order_feed.is_live = True
    assert parts.health.report()["warming_up"] == {"phase": "market", "done": 3, "of": 10}
    parts.feed.is_live = True
    parts.accounts.is_live = parts.accounts.is_settled = False
    assert parts.health.report()["warming_up"] == {"phase": "accounts", "done": 3, "of": 10}
    parts.accounts.is_settled = True
    parts.control.is_live = parts.control.is_settled = False
    assert parts.health.report()["warming_up"] == {"phase": "control", "done": 3, "of": 10}
    parts.control.is_settled = True
    assert "warming_up" not in parts.health.report()


def test_report_tells_what_is_kept_and_gauges_show_it() -> None:
    parts = WatchedParts()
    parts.kept.told = {"restored": True, "age_seconds": 2.5, "writer_of": [0, 3]}
    assert parts.health.report()["state"] == parts.kept.told
    parts.health.refresh_gauges()
    assert (parts.gauge("state_age_seconds"), parts.gauge("state_partitions")) == (2.5, 2)


def test_gauges_show_what_is_still_to_be_released() -> None:
    parts = WatchedParts()
    parts.health.refresh_gauges()
    assert (parts.gauge("releases_due"), parts.gauge("release_oldest_seconds")) == (0, 0)
    parts.releases.leads = lambda _partition: True
    for name, since_ms in (("a", 1_700_000_000_000), ("b", 1_700_000_001_000)):
        kept = f'{{"symbol":"KCN/EUR","user_id":"alice","since_ms":{since_ms}}}'
        parts.releases.take_back(0, f"release/{name}", kept.encode())
    parts.health.refresh_gauges()
    assert (parts.gauge("releases_due"), parts.gauge("release_oldest_seconds")) == (2, 0.5)


def test_process_without_an_account_or_a_control_topic_is_ready_and_says_nothing_of_them() -> None:
    parts = WatchedParts(has_other_topics=False)
    assert parts.health.is_ready()
    assert parts.health.report()["status"] == "ok"
    parts.health.refresh_gauges()
    assert parts.gauge("consumer_lag", topic="events", partition="1") == 4
    assert parts.gauge("consumer_lag", topic="accounts", partition="2") is None
    assert parts.gauge("consumer_lag", topic="control", partition="0") is None


def test_problem_degrades_a_process_that_is_ready() -> None:
    parts = WatchedParts()
    parts.jwks.problem = "no keys"
    assert parts.health.is_ready()
    report = parts.health.report()
    assert (report["status"], report["problems"]) == ("degraded", ["no keys"])


def test_gauges_are_those_of_the_moment_of_the_scrape() -> None:
    parts = WatchedParts()
    parts.driven.connect("trades.KCN/EUR")
    balances = Accounts()
    parts.private.balances = balances.channel
    balances.listen()
    parts.health.refresh_gauges()
    assert parts.gauge("clients") == 1
    assert parts.gauge("ready") == 1
    assert parts.gauge("subscriptions", kind="trades") == 1
    assert parts.gauge("subscriptions", kind="account.orders") == 0
    assert parts.gauge("subscriptions", kind="account.balances") == 1
    assert (parts.gauge("known_accounts"), parts.gauge("consumer_lag", topic="accounts", partition="2")) == (5, 6)
    assert (parts.gauge("armed_timers"), parts.gauge("consumer_lag", topic="control", partition="0")) == (9, 8)
    assert parts.gauge("consumer_lag", topic="events", partition="1") == 4
    assert parts.gauge("consumer_lag", topic="orders", partition="0") == 1
    problems = {kind: parts.gauge("problem", kind=kind) for kind in ("bus", "jwks", "redis")}
    assert problems == {"bus": 0, "jwks": 0, "redis": 0}
    parts.bus.connected, parts.jwks.problem = False, "no keys"
    parts.health.refresh_gauges()
    assert parts.gauge("ready") == 0
    assert (parts.gauge("problem", kind="bus"), parts.gauge("problem", kind="jwks")) == (1, 1)
