"""What one process says of itself: whether traffic may come, the body of `/health`, and the gauges of a scrape.

Everything here is known already; nothing is asked of anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from core.accounts.account_balances import ACCOUNT_BALANCES
from core.channels.hub import Hub
from core.channels.names import STATUS
from core.config.settings import Kafka
from core.orders.account_trades import ACCOUNT_TRADES
from core.orders.directory import OrderDirectory
from core.orders.private_feed import ACCOUNT_ORDERS, PrivateFeed
from core.telemetry.metrics import Metrics

log = logging.getLogger("gateway")

# Between looks whether traffic may come.
LOOK_SECONDS: Final = 0.02


class BusState(Protocol):
    """Knows whether Kafka answers."""

    @property
    def connected(self) -> bool:
        """Whether it did, the last time."""


class TopicReader(Protocol):
    """A topic as it is read."""

    @property
    def topic(self) -> str:
        """Its name."""

    @property
    def assigned(self) -> int:
        """Partitions that this process reads or is about to read."""

    @property
    def is_live(self) -> bool:
        """Whether all of those have been read to their end once."""

    @property
    def is_partial(self) -> bool:
        """Whether the topic has more."""

    def known_since_ms(self) -> int | None:
        """From when on everything is known; milliseconds since the epoch."""

    def lag(self) -> dict[int, int]:
        """Records not read yet, by partition."""

    def warm_up(self) -> tuple[int, int] | None:
        """Of those that were there at the beginning, how many records have been read, and how many there are; None
        after all have.
        """


class OrderWriter(Protocol):
    """The way of orders to Kafka."""

    @property
    def warm(self) -> bool:
        """Whether the first order will not wait for connections."""


class CheckedPart(Protocol):
    """A part that can be in trouble while the process goes on."""

    @property
    def problem(self) -> str | None:
        """A sentence for as long as it is."""


class KeptStateReport(Protocol):
    """What is kept of the state."""

    def health(self) -> dict[str, Any]:
        """The member `state`."""

    def warming_up(self) -> tuple[int, int] | None:
        """Records that were read of it, and how many there are; None while it is not being read."""


class KeyedTopic(Protocol):
    """A compacted topic as it is read, and what it says."""

    @property
    def topic(self) -> str:
        """Its name."""

    @property
    def is_settled(self) -> bool:
        """Whether it has been read to its end once, or cannot be."""

    def lag(self) -> dict[int, int]:
        """Records not read yet, by partition."""

    def warm_up(self) -> tuple[int, int] | None:
        """As of a `TopicReader`."""


class AccountTopic(KeyedTopic, Protocol):
    """The account topic."""

    @property
    def users(self) -> int:
        """Whose balances are known."""


class ControlReport(KeyedTopic, Protocol):
    """The control topic."""

    @property
    def armed(self) -> int:
        """Users whose orders are to be cancelled unless they say so again."""

    @property
    def blocks(self) -> int:
        """Users whose orders are refused."""

    @property
    def halts(self) -> int:
        """Symbols that are halted; a halt of all is one."""

    @property
    def held(self) -> int:
        """Connections whose orders are cancelled with them, on all instances."""


class Health:
    """Asked by `/health`, `/ready` and `/metrics`, and by the parent process."""

    def __init__(
        self,
        version: str,
        kafka: Kafka,
        metrics: Metrics,
        bus: BusState,
        feed: TopicReader,
        order_feed: TopicReader,
        event_feed: TopicReader | None,
        order_log: OrderWriter,
        hub: Hub,
        directory: OrderDirectory,
        private: PrivateFeed,
        parts: Mapping[str, CheckedPart | None],
        state: KeptStateReport,
        accounts: AccountTopic | None = None,
        control: ControlReport | None = None,
        *,
        is_draining: Callable[[], bool],
        started_at: float,
        monotonic: Callable[[], float] = time.monotonic,
        status_listeners: Callable[[], int] = lambda: 0,
    ) -> None:
        """`status_listeners` counts the connections on the channel `status`.

        `parts`: by kind of problem whoever tells of it, None where the settings want no such part; so are
        `accounts` and `control`.
        """
        self._version = version
        self._kafka = kafka
        self._metrics = metrics
        self._bus = bus
        self._feed = feed
        self._order_feed = order_feed
        self._event_feed = event_feed
        self._order_log = order_log
        self._hub = hub
        self._directory = directory
        self._private = private
        self._parts = parts
        self._state = state
        self._accounts = accounts
        self._control = control
        named: dict[str, KeyedTopic | None] = {"accounts": accounts, "control": control}
        self._keyed_topics = {name: topic for name, topic in named.items() if topic is not None}
        self._is_draining = is_draining
        self._started_at = started_at
        self._monotonic = monotonic
        self._status_listeners = status_listeners

    def is_ready(self) -> bool:
        """Whether traffic may come."""
        return (
            not self._is_draining()
            and self._bus.connected
            and self._feed.is_live
            and self._order_feed.is_live
            and (self._event_feed is None or self._event_feed.is_live)
            and self._order_log.warm
            and all(topic.is_settled for topic in self._keyed_topics.values())
        )

    async def ready(self) -> None:
        """Until traffic may come, which is told in the log."""
        while not self.is_ready():  # noqa: ASYNC110 (it hangs on a dozen things, and is asked for a few seconds of a life)
            await asyncio.sleep(LOOK_SECONDS)
        log.info("ready %.1f s after the start", self._monotonic() - self._started_at)

    def report(self) -> dict[str, Any]:
        """The body of `/health`, for this process."""
        since_ms = self._feed.known_since_ms()
        problems = [problem for problem in self._problems().values() if problem is not None]
        healthy = self.is_ready() and not problems
        return {
            "status": "ok" if healthy else "degraded",
            "version": self._version,
            "uptime_seconds": round(self._monotonic() - self._started_at, 3),
            "clients": len(self._hub.subscribers),
            "kafka": {
                "connected": self._bus.connected,
                "group": self._kafka.group_id,
                "consume": self._kafka.consume,
                "partitions": self._feed.assigned,
                "partial": self._feed.is_partial,
                "lag": sum(self._feed.lag().values()),
            },
            "known_since": None if since_ms is None else since_ms / 1000,
            **self._kept(),
            **({"problems": problems} if problems else {}),
        }

    def _kept(self) -> dict[str, Any]:
        """What is kept, and what is being read at the moment before this process is ready."""
        state, reading = self._state.health(), self._state.warming_up()
        phases = {"state": reading, "orders": self._order_feed.warm_up(), "market": self._feed.warm_up()}
        phases |= {name: topic.warm_up() for name, topic in self._keyed_topics.items() if not topic.is_settled}
        phase = next((name for name, progress in phases.items() if progress is not None), None)
        told: dict[str, Any] = {"state": state}
        if phase is not None:
            done, of = phases[phase] or (0, 0)
            told["warming_up"] = {"phase": phase, "done": done, "of": of}
        return told

    def refresh_gauges(self) -> None:
        """At a scrape, for nobody keeps them meanwhile: a millisecond with 10,000 clients."""
        metrics = self._metrics
        metrics.clients.set(len(self._hub.subscribers))
        metrics.outbox_bytes.set(self._hub.waiting_bytes())
        metrics.ready.set(self.is_ready())
        metrics.known_orders.set(len(self._directory))
        releases = self._directory.releases
        oldest_ms = releases.oldest_ms()
        metrics.releases_due.set(releases.ours)
        metrics.release_oldest.set(
            0 if oldest_ms is None else max(0, self._directory.times.now_ms() - oldest_ms) / 1000
        )
        metrics.authenticated.set(self._private.connections)
        own = {
            ACCOUNT_ORDERS: self._private.listeners,
            ACCOUNT_TRADES: self._private.trades.listeners,
            STATUS: self._status_listeners(),
        }
        if self._private.balances is not None:
            own[ACCOUNT_BALANCES] = self._private.balances.listeners
        subscriptions = {**self._hub.subscriptions(), **own}
        for kind, count in subscriptions.items():
            metrics.subscriptions.labels(kind).set(count)
        state = self._state.health()
        metrics.state_age.set(state["age_seconds"] or 0)
        metrics.state_partitions.set(len(state["writer_of"]))
        metrics.problem.labels("bus").set(not self._bus.connected)
        for kind, problem in self._problems().items():
            metrics.problem.labels(kind).set(problem is not None)
        for feed in (self._feed, self._order_feed):
            metrics.set_lag(feed.topic, feed.lag())
        for topic in self._keyed_topics.values():
            metrics.set_lag(topic.topic, topic.lag())
        if self._accounts is not None:
            metrics.known_accounts.set(self._accounts.users)
        if self._control is not None:
            metrics.armed_timers.set(self._control.armed)
            metrics.blocked_users.set(self._control.blocks)
            metrics.halts.set(self._control.halts)
            metrics.held_connections.set(self._control.held)

    def _problems(self) -> dict[str, str | None]:
        """What can be wrong besides not being ready: a sentence where it is, None where it is not."""
        return {kind: part.problem if part is not None else None for kind, part in self._parts.items()}
