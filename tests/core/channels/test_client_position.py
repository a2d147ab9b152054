from __future__ import annotations

from typing import Any

import pytest

from core.channels.client_position import Since, read_since


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (5, Since({None: 5}, None)),
        (-1, Since({None: -1}, None)),
        ((1 << 63) - 1, Since({None: (1 << 63) - 1}, None)),
        ({"seq": 0}, Since({None: 0}, None)),
        ({"epoch": None, "seq": 5}, Since({None: 5}, None)),
        ({"epoch": "e", "seq": 5}, Since({None: 5}, "e")),
    ],
)
def test_since_of_a_symbol_is_one_position(given: Any, read: Since) -> None:
    assert read_since(given, spans_partitions=False) == read


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, Since({}, None)),
        ({"0": 5, "12": -1}, Since({0: 5, 12: -1}, None)),
        ({"epoch": "e", "seq": {"0": 5}}, Since({0: 5}, "e")),
        ({"seq": {}}, Since({}, None)),
    ],
)
def test_since_of_all_symbols_is_a_position_a_partition(given: Any, read: Since) -> None:
    assert read_since(given, spans_partitions=True) == read


@pytest.mark.parametrize("given", [None, "5", True, 5.0, -2, 1 << 63, {}, {"0": 5}, {"seq": {"0": 5}},
                                   {"epoch": 1, "seq": 5}, {"seq": None}])  # fmt: skip
def test_since_of_a_symbol_is_refused_when_it_is_no_position(given: Any) -> None:
    with pytest.raises(ValueError, match="expected a seq"):
        read_since(given, spans_partitions=False)


@pytest.mark.parametrize("given", [5, None, {"seq": 5}, {"x": 5}, {"٣": 5}, {"12345678901": 5}, {"": 5}, {"0": -2},
                                   {"0": True}, {"0": {"seq": 5}}, {"epoch": 1, "seq": {}}])  # fmt: skip
def test_since_of_all_symbols_is_refused_when_it_is_no_position(given: Any) -> None:
    with pytest.raises(ValueError, match="expected a seq"):
        read_since(given, spans_partitions=True)
