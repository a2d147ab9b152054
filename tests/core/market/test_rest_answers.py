from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from core.market.ladder import Ladder
from core.market.rest_answers import LevelTexts, levels_text
from core.messages.model import Side

PRICES = st.sampled_from([Decimal(text) for text in ("9", "9.0", "9.5", "10", "1E+1", "10.25", "0.0000000000001")])
# An object for each, as records of the engine have.
QUANTITIES = st.sampled_from(["0", "1", "1.0", "2.5", "1E-9"]).map(Decimal)
WHOLE = st.lists(st.tuples(PRICES, QUANTITIES), max_size=6)


@given(WHOLE, st.lists(st.one_of(st.tuples(PRICES, QUANTITIES), WHOLE, st.integers(0, 8))))
def test_levels_that_are_written_again_and_again_are_as_if_all_were_written_anew(
    whole: list[tuple[Decimal, Decimal]], steps: list[tuple[Decimal, Decimal] | list[tuple[Decimal, Decimal]] | int]
) -> None:
    ladder, texts = Ladder(Side.BID, whole), LevelTexts()
    for step in steps:
        if isinstance(step, list):
            ladder.replace(step)
        elif isinstance(step, tuple):
            ladder.put(*step)
        else:
            assert texts.text(ladder.levels(step)) == levels_text(ladder.levels(step))


def test_no_more_is_kept_than_a_third_beyond_what_was_asked_for_last() -> None:
    texts = LevelTexts()
    for first in range(0, 100, 10):
        texts.text([(Decimal(first + number), Decimal(1)) for number in range(12)])
    assert 12 <= len(texts._written) <= 16
