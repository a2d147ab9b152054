"""Balances, from the account topic to those who ask: only where there is one (`kafka.account_topic`)."""

from __future__ import annotations

from typing import Final

from core.accounts.account_balances import AccountBalances
from core.accounts.balances import KnownBalances
from core.config.settings import Settings
from core.kafka.compacted_topic import CompactedTopic
from core.log_throttle import QuietLog
from core.telemetry.metrics import AccountCounts, Metrics
from wiring.bus import Bus
from wiring.market import MarketRoom
from wiring.orders import OrdersRoom


class AccountsRoom:
    """What is known of accounts, and its channel. As `AccountTopic` it is asked by `/health`."""

    name: Final = "accounts"

    def __init__(self, settings: Settings, bus: Bus, market: MarketRoom, metrics: Metrics, quiet_log: QuietLog) -> None:
        self.topic = topic = settings.kafka.account_topic
        counts = AccountCounts(metrics, quiet_log, topic)
        self.known = KnownBalances(
            bus.times,
            is_read=lambda partition: self.compacted.is_read(partition),
            on_change=lambda user_id: self.channel.on_change(user_id),
            on_poisoned=counts.poisoned,
        )
        self.channel = AccountBalances(market.hub.fanout.send, self.known.of)
        self.compacted = CompactedTopic(
            topic,
            bus.monitor,
            self.known,
            slice_seconds=settings.hub.slice_ms / 1000,
            on_failed=counts.failed,
            on_read=self.channel.look_at_all,
        )
        self.compacted.feed = bus.compacted_feed(topic, self.compacted)
        bus.monitor.on_change.append(self.compacted.look)

    def beat(self) -> bool:
        """Read what has come, and tell it; whether there was something, or is more."""
        has_come = self.compacted.read()
        return self.channel.flush() or has_come

    @property
    def is_settled(self) -> bool:
        """Whether the topic has been read to its end once, or was not there to be read."""
        return self.compacted.is_settled

    @property
    def users(self) -> int:
        """Whose balances are known."""
        return len(self.known)

    def lag(self) -> dict[int, int]:
        """Records not read yet, by partition."""
        return self.compacted.feed.lag()

    def warm_up(self) -> tuple[int, int] | None:
        """How many records have been read, of how many; None once all have."""
        return self.compacted.feed.warm_up()


def build_accounts(
    settings: Settings, bus: Bus, market: MarketRoom, orders: OrdersRoom, metrics: Metrics, quiet_log: QuietLog
) -> AccountsRoom | None:
    """None where there is no account topic. Who is signed in, the orders' private feed knows."""
    if not settings.kafka.account_topic:
        return None
    accounts = AccountsRoom(settings, bus, market, metrics, quiet_log)
    orders.private.balances = accounts.channel
    return accounts
