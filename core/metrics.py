"""What operators watch: counters and gauges in a registry of the gateway's own, and their Prometheus text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from core.errors import PoisonedRecord
from core.observer import Observer
from core.orders import OrderObserver
from core.quiet_log import QuietLog

ACK_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

KNOWN_EVENTS = frozenset(
    {
        "fill",
        "orderbook_snapshot",
        "orderbook_delta",
        "order_accepted",
        "order_filled",
        "order_cancelled",
        "order_rejected",
    }
)


# What a gauge of several workers is as one number; one that is not named is told for each, with the label `worker`.
ACROSS_WORKERS = {
    "gateway_clients": "sum",
    "gateway_signed_in": "sum",
    "gateway_known_orders": "max",
    "gateway_consumer_lag": "max",
    "gateway_ready": "min",
}


class Metrics(Observer):
    """Every metric once. Hot ones are unlabelled or have their children kept by whoever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.clients = Gauge("gateway_clients", "Open WebSocket connections", registry=self.registry)
        self.connections = self._counter("connections", "WebSocket connections opened")
        self.closes = self._counter("closes", "WebSocket connections closed, by cause", "cause")
        self.records = self._counter("records", "Kafka records read")
        self.record_bytes = self._counter("record_bytes", "Bytes of Kafka records read")
        self.poisoned = self._counter("poisoned_records", "Records that were skipped, by reason", "reason")
        self.events = self._counter("events", "Market events folded in, by type", "type")
        self.stale_books = self._counter("stale_books", "Books that could no longer be trusted, by cause", "cause")
        self.deliveries = self._counter("deliveries", "Writes to connections; each carries a tick's frames")
        self.delivered_bytes = self._counter("delivered_bytes", "Bytes written to connections")
        self.conflations = self._counter("conflations", "Slow readers that began to be skipped, by kind", "kind")
        self.slow_closes = self._counter("slow_closes", "Connections closed as slow consumers, by cause", "cause")
        self.resumes = self._counter("resumes", "Clients that came back with since, by where it was had", "outcome")
        self.messages = self._counter("client_messages", "Messages from WebSocket clients")
        self.refusals = self._counter("refusals", "Requests that were refused, by reason", "reason")
        self.orders = self._counter("orders", "Order commands, by kind and outcome", "kind", "outcome")
        self.rate_limited = self._counter("rate_limited", "Requests over a limit, by what is limited", "route")
        self.parked_events = self._counter("parked_events", "Order events that waited for their order's owner")
        self.ownerless_events = self._counter(
            "ownerless_events", "Order events whose owner is not known, by why", "why"
        )
        self.poisoned_commands = self._counter(
            "poisoned_commands", "Records of the order topic that were skipped, by reason", "reason"
        )
        self.forgotten_orders = self._counter("forgotten_orders", "Closed orders that were kept long enough")
        self.known_orders = Gauge("gateway_known_orders", "Orders in the directory", registry=self.registry)
        self.authenticated = Gauge("gateway_signed_in", "Connections that are signed in", registry=self.registry)
        self.reservations = self._counter("reservations", "Requests to the accounts service, by outcome", "outcome")
        self.order_ack_seconds = Histogram(
            "gateway_order_ack_seconds",
            "From producing an order command to its acknowledgement",
            buckets=ACK_BUCKETS,
            registry=self.registry,
        )
        self.kafka_errors = self._counter("kafka_errors", "Errors that the Kafka clients told of, by name", "name")
        self.rebalances = self._counter("rebalances", "Changes of the group's assignment")
        self.lag = Gauge(
            "gateway_consumer_lag", "Records of a partition not read yet", ["partition"], registry=self.registry
        )
        self.ready = Gauge("gateway_ready", "1 when /ready answers 200", registry=self.registry)

        self._events_of: dict[str, Counter] = {}
        self._orders_of: dict[tuple[str, str], Counter] = {}

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
        """One order command: `place` or `cancel`, and what became of it."""
        counter = self._orders_of.get((kind, outcome))
        if counter is None:
            counter = self._orders_of[kind, outcome] = self.orders.labels(kind, outcome)
        counter.inc()

    def delivered(self, writes: int, size: int) -> None:
        self.deliveries.inc(writes)
        self.delivered_bytes.inc(size)

    def conflated(self, kind: str) -> None:
        self.conflations.labels(kind).inc()

    def slow_closed(self, cause: str) -> None:
        self.slow_closes.labels(cause).inc()

    def resumed(self, outcome: str) -> None:
        self.resumes.labels(outcome).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gateway_{name}", text, labels, registry=self.registry)

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4. Takes milliseconds: not for the loop."""
        return generate_latest(self.registry)


class OrderCounts(OrderObserver):
    """What the order directory tells: counted, and where somebody has to act, logged."""

    def __init__(self, metrics: Metrics, quiet_log: QuietLog, order_topic: str) -> None:
        self._quiet_log = quiet_log
        self._order_topic = order_topic
        self._parked = metrics.parked_events
        self._unknown = metrics.ownerless_events.labels("unknown")
        self._overflow = metrics.ownerless_events.labels("overflow")
        self._poisoned = metrics.poisoned_commands
        self._forgotten = metrics.forgotten_orders

    def parked(self) -> None:
        self._parked.inc()

    def parked_dropped(self) -> None:
        self._unknown.inc()

    def parking_overflow(self) -> None:
        self._overflow.inc()

    def poisoned_command(self, partition: int, offset: int, error: PoisonedRecord) -> None:
        self._poisoned.labels(error.reason).inc()
        self._quiet_log.warning(
            f"poisoned command {error.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            error.reason, self._order_topic, partition, offset, error.detail,
        )  # fmt: skip

    def terminal_dropped(self, orders: int) -> None:
        self._forgotten.inc(orders)
