"""What operators watch: counters, histograms and gauges in a registry of the gateway's own, and their Prometheus text.

What happens in every tick is counted once a tick, however many clients it is about; what would need a walk over them is
asked for when a scrape comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

import core.messages.account_records
import core.messages.control_records
import core.messages.events
import core.messages.order_records
import core.messages.times
from core.delivery.observer import Observer
from core.errors import PoisonedRecord
from core.log_throttle import QuietLog
from core.orders.order_observer import OrderObserver
from core.telemetry.counters import Counter, Counters, Tally, Timing

log = logging.getLogger("gateway")

# Upper ends of buckets, seconds: of work on the loop, and of what goes over a network.
WORK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ACK_BUCKETS = WAY_BUCKETS[:12]

C = TypeVar("C", bound=Collector)

ORDER_OUTCOMES = (
    "accepted", "duplicate", "not_written", "unknown", "refused",
    "max_quantity", "max_notional", "price_band_percent", "max_open_orders", "blocked", "halted",
)  # fmt: skip
FAULT_PLACES = ("market", "orders", "channels", "consumer", "accounts", "control")
SLOW_CAUSES = ("overflow", "stuck", "history")

KNOWN_EVENTS = frozenset(
    {
        "fill",
        "orderbook_snapshot",
        "orderbook_delta",
        "order_accepted",
        "order_filled",
        "order_cancelled",
        "order_rejected",
        "order_amended",
        "order_amend_rejected",
    }
)


# What a gauge of several workers is as one number; one that is not named is told for each, with the label `worker`.
ACROSS_WORKERS = {
    "gateway_clients": "sum",
    "gateway_signed_in": "sum",
    "gateway_known_orders": "max",
    "gateway_known_accounts": "max",
    "gateway_armed_timers": "max",
    "gateway_blocked_users": "max",
    "gateway_halts": "max",
    "gateway_held_connections": "max",
    "gateway_subscriptions": "sum",
    "gateway_outbox_bytes": "sum",
    "gateway_consumer_lag": "max",
    "gateway_state_age_seconds": "max",
    "gateway_state_partitions": "sum",
    "gateway_releases_due": "sum",
    "gateway_release_oldest_seconds": "max",
    "gateway_problem": "max",
    "gateway_ready": "min",
}


class Metrics(Observer):
    """Every metric once."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the one that Kafka's timestamps are of: seconds since the epoch."""
        self._clock = clock
        self._quiet_log = QuietLog(log)
        self.registry = CollectorRegistry()
        self.clients = self._gauge("clients", "Open WebSocket connections")
        self.subscriptions = self._gauge("subscriptions", "Subscriptions, by kind of channel", "kind")
        self.connections = self._counter("connections", "WebSocket connections opened")
        self.closes = self._counters("closes", "WebSocket connections closed, by cause", "cause")
        self.records = self._counter("records", "Kafka records read")
        self.record_bytes = self._counter("record_bytes", "Bytes of Kafka records read")
        self.poisoned = self._counters("poisoned_records", "Records that were skipped, by reason", "reason")
        self.odd_times = self._counters(
            "odd_times", "Times of records and events that were not taken as they were written, by why", "why"
        )
        self.events = self._counters("events", "Market events folded in, by type", "type")
        self.stale_books = self._counters("stale_books", "Books that could no longer be trusted, by cause", "cause")
        self.faults = self._counters(
            "faults", "Faults of ours that cost no more than the record, or the call, they befell, by where", "where"
        )
        self.deliveries = self._counter("deliveries", "Writes to connections; each carries a tick's frames")
        self.delivered_bytes = self._counter("delivered_bytes", "Bytes written to connections")
        self.notifications = self._counter("notifications", "Messages written to connections, each client's counted")
        self.tick_seconds = self._timing(
            "tick_seconds", "A look at the bus that brought something, with what was done about it", WORK_BUCKETS
        )
        self.fanout_seconds = self._timing(
            "fanout_seconds",
            "From the first of a tick's sends to the last, with what came between slices",
            WORK_BUCKETS,
        )
        self.loop_lag_seconds = self._timing("loop_lag_seconds", "How late a timer of the loop was", WORK_BUCKETS)
        self.record_to_socket_seconds = self._timing(
            "record_to_socket_seconds", "From a tick's oldest record, by Kafka's time, to its last send", WAY_BUCKETS
        )
        self.outbox_bytes = self._gauge("outbox_bytes", "Bytes that wait for slow readers")
        self.conflations = self._counters("conflations", "Slow readers that began to be skipped, by kind", "kind")
        self.slow_closes = self._counters("slow_closes", "Connections closed as slow consumers, by cause", "cause")
        self.resumes = self._counters("resumes", "Clients that came back with since, by where it was had", "outcome")
        self.messages = self._counter("client_messages", "Messages from WebSocket clients")
        self.refusals = self._counters("refusals", "Requests that were refused, by reason", "reason")
        self.orders = self._counters("orders", "Order commands, by kind and outcome", "kind", "outcome")
        self.rate_limited = self._counters("rate_limited", "Requests over a limit, by what is limited", "route")
        self.parked_events = self._counter("parked_events", "Order events that waited for their order's owner")
        self.ownerless_events = self._counters(
            "ownerless_events", "Order events whose owner is not known, by why", "why"
        )
        self.poisoned_commands = self._counters(
            "poisoned_commands", "Records of the order topic that were skipped, by reason", "reason"
        )
        self.poisoned_accounts = self._counters(
            "poisoned_accounts", "Records of the account topic that were skipped, by reason", "reason"
        )
        self.poisoned_control = self._counters(
            "poisoned_control", "Records of the control topic that were skipped, by reason", "reason"
        )
        self.timers = self._counters("timers", "Timers of users: written, joined, fired, or firing failed", "outcome")
        self.disconnects = self._counters(
            "cancel_on_disconnect", "Connections whose orders were cancelled or taken over, or could not be", "outcome"
        )
        self.armed_timers = self._gauge("armed_timers", "Users whose orders are cancelled unless they say so again")
        self.blocked_users = self._gauge("blocked_users", "Users whose orders are refused")
        self.halts = self._gauge("halts", "Symbols that are halted; a halt of all is one")
        self.held_connections = self._gauge(
            "held_connections", "Connections whose orders are cancelled with them, on all instances"
        )
        self.known_accounts = self._gauge("known_accounts", "Users whose balances are known")
        self.forgotten_orders = self._counter("forgotten_orders", "Closed orders that were kept long enough")
        self.known_orders = self._gauge("known_orders", "Orders in the directory")
        self.authenticated = self._gauge("signed_in", "Connections that are signed in")
        self.reservations = self._counters("reservations", "Requests to the accounts service, by outcome", "outcome")
        self.releases_due = self._gauge(
            "releases_due", "Ended orders that this instance has to have the account service release"
        )
        self.release_oldest = self._gauge("release_oldest_seconds", "Since when the first of those is due")
        self.order_ack_seconds = self._timing(
            "order_ack_seconds", "From producing an order command to its acknowledgement", ACK_BUCKETS
        )
        self.kafka_errors = self._counters("kafka_errors", "Errors that the Kafka clients told of, by name", "name")
        self.rebalances = self._counter("rebalances", "Changes of the group's assignment")
        self.state_age = self._gauge(
            "state_age_seconds", "Since the last writing of what this instance keeps the state of"
        )
        self.state_partitions = self._gauge("state_partitions", "Partitions whose state this instance writes")
        self.state_records = self._counters("state_records", "Records of the state topic, written or read", "way")
        self.state_bytes = self._counters("state_bytes", "Bytes of those, before compression", "way")
        self.state_seconds = self._timing(
            "state_write_seconds", "From the moment that a writing of state is of to its commit", WAY_BUCKETS
        )
        self.state_unused_partitions = self._counters(
            "state_unused", "Partitions whose state was there and was not used, by why", "why"
        )
        self.lag = self._gauge("consumer_lag", "Records of a partition not read yet", "topic", "partition")
        self.ready = self._gauge("ready", "1 when /ready answers 200")
        self.problem = self._gauge("problem", "1 while this is wrong", "kind")
        # Memory, descriptors, processor time; the interpreter, and its collections of garbage.
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        # What somebody is to be woken for begins at 0: of a series that begins at 1 Prometheus sees no increase.
        for kind in ("place", "cancel", "amend"):
            for outcome in ORDER_OUTCOMES:
                self.orders.labels(kind, outcome)
        for counters, values in (
            (self.faults, FAULT_PLACES),
            (self.odd_times, core.messages.times.KINDS),
            (self.slow_closes, SLOW_CAUSES),
            (self.poisoned, core.messages.events.REASONS),
            (self.poisoned_commands, core.messages.order_records.REASONS),
            (self.poisoned_accounts, core.messages.account_records.REASONS),
            (self.poisoned_control, core.messages.control_records.REASONS),
            (self.timers, ("written", "joined", "fired", "failed")),
            (self.disconnects, ("cancelled", "taken_over", "failed")),
            (self.ownerless_events, ("unknown", "overflow")),
            (self.reservations, ("released", "release_refused", "release_failed")),
            (self.refusals, ("internal",)),
            (self.state_unused_partitions, ("poisoned", "version", "epoch", "retention", "cursor", "topics")),
        ):
            for value in values:
                counters.labels(value)

        self._events_of: dict[str, Tally] = {}
        self._lagging: dict[str, frozenset[int]] = {}
        # Kafka's time of the oldest record of what is being sent; 0: nothing is, or it is not known.
        self._oldest_ms = self._later_ms = 0

    def count_event(self, kind: str) -> None:
        """One event; what is not one of the contract's types counts as `unknown`."""
        counter = self._events_of.get(kind)
        if counter is None:
            label = kind if kind in KNOWN_EVENTS else "unknown"
            counter = self.events.labels(label)
            if label == kind:
                self._events_of[kind] = counter
        counter.inc()

    def count_order(self, kind: str, outcome: str) -> None:
        """One order command: `place`, `cancel` or `amend`, and what became of it."""
        self.orders.labels(kind, outcome).inc()

    def count_timer(self, what: str) -> None:
        """One request or firing of a user's timer, and what became of it."""
        self.timers.labels(what).inc()

    def count_disconnect(self, what: str) -> None:
        """A connection that had ended, and what became of its orders."""
        self.disconnects.labels(what).inc()

    def publishing(self, oldest_ms: int) -> None:
        """What is said next was news at this time, by Kafka's clock; without a time of Kafka's it is below 1."""
        if self._oldest_ms <= 0:
            self._oldest_ms = oldest_ms
        elif self._later_ms <= 0:
            # It may go along with what is under way, or be sent after it.
            self._later_ms = oldest_ms

    def published(self, is_everyone_told: bool) -> None:
        """It has been said. Unless some are still to be told, nothing more is sent of it, and perhaps nothing was."""
        if is_everyone_told:
            self._oldest_ms = self._later_ms = 0

    def set_lag(self, topic: str, lag: Mapping[int, int]) -> None:
        """By partition. What is not in it is read by somebody else now."""
        for gone in self._lagging.get(topic, frozenset()) - lag.keys():
            self.lag.remove(topic, str(gone))
        for partition, records in lag.items():
            self.lag.labels(topic, str(partition)).set(records)
        self._lagging[topic] = frozenset(lag)

    def delivered(self, writes: int, size: int, messages: int) -> None:
        self.deliveries.value += writes
        self.delivered_bytes.value += size
        self.notifications.value += messages

    def fanned_out(self, seconds: float, is_all: bool) -> None:
        self.fanout_seconds.observe(seconds)
        if self._oldest_ms > 0:
            # The clocks of two machines differ: what came before it was sent took no time.
            self.record_to_socket_seconds.observe(max(0.0, self._clock() - self._oldest_ms / 1000))
        self._oldest_ms = 0 if is_all else self._later_ms
        self._later_ms = 0

    def fault(self, where: str, error: Exception, place: str) -> None:
        """One fault of ours, in one of `FAULT_PLACES`: counted, and logged with its traceback once a minute."""
        self.faults.labels(where).inc()
        self._quiet_log.fault(
            f"{where} {type(error).__name__}", error, "a fault in the %s was contained: %s", where, place
        )

    def odd_time(self, why: str, what: str, given: int) -> None:
        """A time of somebody else's was not taken as it was written: counted, and told once a minute by what had it."""
        self.odd_times.labels(why).inc()
        more = "more than a minute ahead of our clock" if why == core.messages.times.AHEAD else f"in {why}"
        self._quiet_log.warning(f"{why} {what}", "the time of a %s is %s: %d", what, more, given)

    # As `KeeperObserver`.

    def state_written(self, records: int, size: int, seconds: float) -> None:
        """Of one partition, and committed."""
        self.state_records.labels("written").inc(records)
        self.state_bytes.labels("written").inc(size)
        self.state_seconds.observe(seconds)

    def state_restored(self, records: int, size: int, seconds: float) -> None:
        """Of all that was read at once."""
        self.state_records.labels("read").inc(records)
        self.state_bytes.labels("read").inc(size)

    def state_unused(self, why: str) -> None:
        """One partition is warmed up by time."""
        self.state_unused_partitions.labels(why).inc()

    def conflated(self, kind: str) -> None:
        self.conflations.labels(kind).inc()

    def slow_closed(self, cause: str) -> None:
        self.slow_closes.labels(cause).inc()

    def resumed(self, outcome: str) -> None:
        self.resumes.labels(outcome).inc()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"gateway_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return self._registered(Counter(f"gateway_{name}", text))

    def _counters(self, name: str, text: str, *labels: str) -> Counters:
        return self._registered(Counters(f"gateway_{name}", text, labels))

    def _timing(self, name: str, text: str, buckets: tuple[float, ...]) -> Timing:
        return self._registered(Timing(f"gateway_{name}", text, buckets))

    def _registered(self, collector: C) -> C:
        self.registry.register(collector)
        return collector

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4. Takes milliseconds: not for the loop."""
        return generate_latest(self.registry)


class AccountCounts:
    """What is skipped of the account topic: counted, and logged."""

    def __init__(self, metrics: Metrics, quiet_log: QuietLog, topic: str) -> None:
        self._metrics = metrics
        self._quiet_log = quiet_log
        self._topic = topic

    def poisoned(self, error: PoisonedRecord, partition: int, offset: int) -> None:
        self._metrics.poisoned_accounts.labels(error.reason).inc()
        self._quiet_log.warning(
            f"poisoned account {error.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            error.reason, self._topic, partition, offset, error.detail,
        )  # fmt: skip

    def failed(self, error: Exception, place: str) -> None:
        self._metrics.fault("accounts", error, place)


class ControlCounts:
    """What is skipped of the control topic: counted, and logged."""

    def __init__(self, metrics: Metrics, quiet_log: QuietLog, topic: str) -> None:
        self._metrics = metrics
        self._quiet_log = quiet_log
        self._topic = topic

    def poisoned(self, error: PoisonedRecord, partition: int, offset: int) -> None:
        self._metrics.poisoned_control.labels(error.reason).inc()
        self._quiet_log.warning(
            f"poisoned control {error.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            error.reason, self._topic, partition, offset, error.detail,
        )  # fmt: skip

    def failed(self, error: Exception, place: str) -> None:
        self._metrics.fault("control", error, place)


class OrderCounts(OrderObserver):
    """What the order directory tells: counted, and where somebody has to act, logged."""

    def __init__(self, metrics: Metrics, quiet_log: QuietLog, order_topic: str) -> None:
        self._metrics = metrics
        self._quiet_log = quiet_log
        self._order_topic = order_topic
        self._parked = metrics.parked_events
        self._unknown = metrics.ownerless_events.labels("unknown")
        self._overflow = metrics.ownerless_events.labels("overflow")
        self._poisoned = metrics.poisoned_commands
        self._forgotten = metrics.forgotten_orders

    def event_came_early(self) -> None:
        self._parked.inc()

    def event_was_nobodys(self) -> None:
        self._unknown.inc()

    def early_events_overflow(self) -> None:
        self._overflow.inc()

    def poisoned_command(self, partition: int, offset: int, error: PoisonedRecord) -> None:
        self._poisoned.labels(error.reason).inc()
        self._quiet_log.warning(
            f"poisoned command {error.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            error.reason, self._order_topic, partition, offset, error.detail,
        )  # fmt: skip

    def failed(self, error: Exception, place: str) -> None:
        self._metrics.fault("orders", error, place)

    def terminal_dropped(self, orders: int) -> None:
        self._forgotten.inc(orders)
