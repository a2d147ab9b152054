"""What is known of each user's balances, and when that may be told.

A user's record is on one partition, and of that the last one counts, whatever its time says. Only where a key is found on two
(the topic was given more partitions) the later time does. What cannot be read now is not told: neither what a lost
or unread partition said last, nor that somebody has nothing while one is missing that might say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from core.errors import BalancesUnavailable, PoisonedRecord
from core.messages.account_records import Balance, Balances, read_account_key, read_account_record
from core.messages.feed_record import KeyedRecord
from core.messages.times import Times

_decode: Final = msgspec.json.Decoder(Balances).decode


class _Account(NamedTuple):
    """`balances` are packed: a third of what they take as objects."""

    partition: int
    time_ms: int
    balances: bytes


class Known(NamedTuple):
    """What somebody has. `time_ms`: as of when, Unix epoch; None where no record tells of the user."""

    balances: Balances
    time_ms: int | None


class KnownBalances:
    """All that the account topic says. As `KeyedTable` it is told by who reads that."""

    def __init__(
        self,
        times: Times,
        *,
        is_read: Callable[[int | None], bool],
        on_change: Callable[[str], None],
        on_poisoned: Callable[[PoisonedRecord, int, int], None],
    ) -> None:
        """`is_read`: whether what is known of a partition is up to date; of None: of all there are. `on_change` is told of whom
        there is news; `on_poisoned` of a record that is skipped, with its partition and offset.
        """
        self._times = times
        self._is_read = is_read
        self._on_change = on_change
        self._on_poisoned = on_poisoned
        self._accounts: dict[str, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, user_id: str) -> Known:
        """What the user has now. Raises BalancesUnavailable where that cannot be told."""
        account = self._accounts.get(user_id)
        if not self._is_read(None if account is None else account.partition):
            raise BalancesUnavailable()
        return Known({}, None) if account is None else Known(_decode(account.balances), account.time_ms)

    # As `KeyedTable`.

    def take(self, keyed: KeyedRecord) -> None:
        """One record; None as its value: of the user there is nothing any more."""
        partition, offset, time_ms, value, _ = keyed
        try:
            user_id = read_account_key(keyed.key)
            record = None if value is None else read_account_record(user_id, value)
        except PoisonedRecord as error:
            self._on_poisoned(error, partition, offset)
            return
        before = self._accounts.get(user_id)
        is_elsewhere = before is not None and before.partition != partition
        if record is None:
            if before is not None and not is_elsewhere:
                del self._accounts[user_id]
                self._on_change(user_id)
            return
        written_ms = self._times.in_account(record.timestamp_ms, time_ms)
        if before is None or not is_elsewhere or written_ms >= before.time_ms:
            self._accounts[user_id] = _Account(partition, written_ms, msgspec.json.encode(record.balances))
            self._on_change(user_id)

    def forget(self, partition: int) -> None:
        """What the partition said is not known any more."""
        for user_id in [user_id for user_id, account in self._accounts.items() if account.partition == partition]:
            del self._accounts[user_id]


def balances_text(balances: Balances) -> str:
    """As JSON text: by currency available and reserved, decimals as strings."""
    return json.dumps({currency: one._asdict() for currency, one in balances.items()}, separators=(",", ":"))


def changed(before: Balances, after: Balances) -> Balances:
    """What is another one now; of a currency that is gone there is 0."""
    gone = dict.fromkeys((currency for currency in before if currency not in after), Balance("0", "0"))
    return {currency: one for currency, one in after.items() if before.get(currency) != one} | gone
