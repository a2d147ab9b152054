"""Events of orders that are not known yet, and how long they wait."""

from __future__ import annotations

from core.messages.events import OrderEvent, read_event
from core.orders.early_events import EarlyEvent, EarlyEvents


def event() -> OrderEvent:
    read = read_event(b'{"type":"order_filled","order_id":"a"}')
    assert isinstance(read, OrderEvent)
    return read


def names(events: list[EarlyEvent]) -> list[tuple[int, str]]:
    return [(one.number, one.order_id) for one in events]


class Waiting(EarlyEvents):
    """Events of these orders wait; `answered` and `read` tell what they let go."""

    def __init__(self, *order_ids: str, most: int = 100) -> None:
        super().__init__(most, self._let_go)
        self._released: list[tuple[int, str]] | None = None
        self.come(*order_ids)

    def _let_go(self, events: list[EarlyEvent]) -> None:
        self._released = names(events)

    def _since(self) -> list[tuple[int, str]] | None:
        released, self._released = self._released, None
        return released

    def answered(self, ends: dict[int, int] | None) -> list[tuple[int, str]] | None:
        self.on_ends(ends)
        return self._since()

    def read(self, partition: int, position: int) -> list[tuple[int, str]] | None:
        self.read_to(partition, position)
        return self._since()

    def come(self, *order_ids: str) -> Waiting:
        for order_id in order_ids:
            self.keep(order_id, event(), 0, 0, 1, True)
        return self

    def asked(self) -> Waiting:
        self.ends_asked()
        return self


# taking


def test_early_events_give_the_events_of_an_order_once_and_in_order() -> None:
    waiting = Waiting("a", "b", "a")
    assert names(waiting.take("a")) == [(1, "a"), (3, "a")]
    assert waiting.take("a") == []
    assert len(waiting) == 1


def test_early_events_keep_what_it_was_given() -> None:
    waiting = Waiting(most=1)
    filled = event()
    waiting.keep("a", filled, 3, 5, 17, False)
    (kept,) = waiting.take("a")
    assert kept.event is filled
    assert (kept.partition, kept.offset, kept.time_ms, kept.live, kept.kept_by) == (3, 5, 17, False, None)


def test_early_events_give_up_the_oldest_when_there_are_too_many() -> None:
    waiting = Waiting("a", "b", "a", most=3)
    first = waiting.keep("c", event(), 0, 0, 1, True)
    assert first is not None and first.number == 1
    second = waiting.keep("a", event(), 0, 0, 1, True)
    assert second is not None and (second.number, second.order_id) == (2, "b")
    assert waiting.take("b") == []
    assert names(waiting.take("a")) == [(3, "a"), (5, "a")]


def test_early_events_that_are_always_full_keep_no_more() -> None:
    waiting = Waiting(*(str(number) for number in range(1_000)), most=10)
    assert len(waiting) == len(waiting._numbers_of) == 10
    assert names(waiting.take("999")) == [(1_000, "999")]


# asking


def test_early_events_want_a_mark_only_for_events() -> None:
    waiting = Waiting()
    assert not waiting.needs_ends
    waiting.keep("a", event(), 0, 0, 1, True)
    assert waiting.needs_ends
    waiting.take("a")
    assert not waiting.needs_ends


def test_early_events_want_no_second_mark_while_a_question_is_under_way() -> None:
    waiting = Waiting("a").asked()
    waiting.come("b")
    assert not waiting.needs_ends


def test_early_events_want_a_mark_again_when_a_question_failed() -> None:
    waiting = Waiting("a").asked()
    assert waiting.answered(None) is None
    assert waiting.needs_ends


def test_early_events_want_no_mark_while_an_answer_is_waited_out() -> None:
    waiting = Waiting("a").asked()
    assert waiting.answered({0: 5}) is None
    waiting.come("b")
    assert not waiting.needs_ends
    assert waiting.read(0, 5) == [(1, "a")]
    assert waiting.needs_ends


def test_early_events_have_no_use_for_an_answer_to_nothing() -> None:
    waiting = Waiting("a")
    assert waiting.answered({}) is None
    assert waiting.needs_ends


# reaching


def test_early_events_are_reached_at_once_when_the_topic_was_read_that_far() -> None:
    waiting = Waiting("a").asked()
    assert waiting.read(0, 5) is None
    assert waiting.read(1, 7) is None
    assert waiting.answered({0: 5, 1: 6}) == [(1, "a")]


def test_early_events_are_reached_at_once_when_the_topic_is_empty() -> None:
    assert Waiting("a").asked().answered({0: 0, 1: 0}) == [(1, "a")]


def test_early_events_wait_for_every_partition() -> None:
    waiting = Waiting("a").asked()
    assert waiting.answered({0: 2, 1: 3, 2: 0}) is None
    assert waiting.read(0, 1) is None
    assert waiting.read(0, 2) is None
    assert waiting.read(0, 9) is None
    assert waiting.read(2, 9) is None
    assert waiting.read(1, 2) is None
    assert waiting.read(1, 4) == [(1, "a")]


def test_early_events_never_move_back() -> None:
    waiting = Waiting("a")
    assert waiting.read(0, 9) is None
    assert waiting.read(0, 3) is None
    assert waiting.asked().answered({0: 9}) == [(1, "a")]


# releasing


def test_early_events_release_what_the_question_covered() -> None:
    waiting = Waiting("a", "b").asked()
    waiting.keep("c", event(), 0, 0, 1, True)
    assert waiting.answered({}) == [(1, "a"), (2, "b")]
    assert len(waiting) == 1


def test_early_events_release_an_order_whole_and_all_in_the_order_of_their_coming() -> None:
    waiting = Waiting("a", "b", "a").asked()
    waiting.come("c", "b", "a")
    assert waiting.answered({}) == [(1, "a"), (2, "b"), (3, "a"), (5, "b"), (6, "a")]
    assert names(waiting.take("c")) == [(4, "c")]


def test_early_events_release_nothing_that_became_known_meanwhile() -> None:
    waiting = Waiting("a", "b").asked()
    assert waiting.answered({0: 1}) is None
    waiting.take("a")
    assert waiting.read(0, 1) == [(2, "b")]


# another topic of the same name


def test_early_events_that_forgot_their_positions_take_no_answer_of_before() -> None:
    waiting = Waiting("a").asked()
    waiting.read_to(0, 100)
    waiting.forget_positions()
    assert not waiting.needs_ends  # the question is still under way
    assert waiting.answered({0: 100}) is None
    assert waiting.needs_ends
    assert waiting.asked().answered({0: 1}) is None
    assert waiting.read(0, 1) == [(1, "a")]


def test_early_events_that_forgot_their_positions_ask_anew_for_what_it_waited_out() -> None:
    waiting = Waiting("a").asked()
    assert waiting.answered({0: 100}) is None
    waiting.forget_positions()
    assert waiting.needs_ends
    assert waiting.read(0, 100) is None
