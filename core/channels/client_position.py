"""Where a client that comes back stopped: what it says in `since`, checked and read once."""

from __future__ import annotations

from dataclasses import dataclass

EXPECTED = "expected a seq, or an object with epoch and seq"
MAX_SEQ = (1 << 63) - 1
MAX_PARTITION_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Since:
    """The last offset that a client has, by partition or (None) on its symbol's, and of which epoch."""

    positions: dict[int | None, int]
    epoch: str | None


def read_since(value: object, spans_partitions: bool) -> Since:
    """From `seq` or `{epoch, seq}`; of a channel that spans partitions the seq is an object of partition to seq.

    Raises ValueError, with what was expected, if it is something else.
    """
    epoch = None
    if isinstance(value, dict) and "seq" in value:
        epoch, value = value.get("epoch"), value["seq"]
    if not isinstance(epoch, str | None):
        raise ValueError(EXPECTED)
    if not spans_partitions:
        return Since({None: _read_seq(value)}, epoch)
    if not isinstance(value, dict):
        raise ValueError(EXPECTED)
    return Since({_read_partition(partition): _read_seq(seq) for partition, seq in value.items()}, epoch)


def _read_seq(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_SEQ:
        raise ValueError(EXPECTED)
    return value


def _read_partition(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) <= MAX_PARTITION_DIGITS):
        raise ValueError(EXPECTED)
    return int(name)
