from __future__ import annotations

import pytest

from core.messages.kept_state import Journal, order_partition


def test_journal_names_what_changed_since_a_generation() -> None:
    journal = Journal()
    journal.touch(0, "a")
    second = journal.rotate()
    journal.touch(0, "b")
    journal.touch(1, "c")
    assert journal.since(0, 0) == {"a", "b"}
    assert journal.since(0, second) == {"b"}
    assert journal.since(1, second) == {"c"}
    assert journal.since(2, 0) == set()


def test_journal_keeps_the_current_generation_whatever_is_dropped() -> None:
    journal = Journal()
    journal.touch(0, "a")
    second = journal.rotate()
    journal.touch(0, "b")
    journal.drop_before(second + 5)
    assert journal.generation == second
    assert journal.since(0, second) == {"b"}
    with pytest.raises(LookupError):
        journal.since(0, second - 1)


def test_order_partition_is_where_librdkafka_puts_the_symbol() -> None:
    assert order_partition("KCN/EUR", 4) == 0x79C6099D % 4
    assert order_partition("KCN/EUR", 1) == 0
