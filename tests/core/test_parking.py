from __future__ import annotations

from core.events import OrderEvent, read_event
from core.parking import Parked, Parking


def event() -> OrderEvent:
    read = read_event(b'{"type":"order_filled","order_id":"a"}')
    assert isinstance(read, OrderEvent)
    return read


def parking_with(*order_ids: str, most: int = 100) -> Parking:
    parking = Parking(most)
    for order_id in order_ids:
        parking.park(order_id, event(), 1, True)
    return parking


def names(parked: list[Parked]) -> list[tuple[int, str]]:
    return [(one.number, one.order_id) for one in parked]


def asked(parking: Parking) -> Parking:
    parking.ask_mark()
    return parking


# taking


def test_parking_gives_the_events_of_an_order_once_and_in_order() -> None:
    parking = parking_with("a", "b", "a")
    assert names(parking.take("a")) == [(1, "a"), (3, "a")]
    assert parking.take("a") == []
    assert len(parking) == 1


def test_parking_keeps_what_it_was_given() -> None:
    parking = Parking(1)
    filled = event()
    parking.park("a", filled, 17, False)
    (parked,) = parking.take("a")
    assert parked.event is filled
    assert (parked.time_ms, parked.live) == (17, False)


def test_parking_gives_up_the_oldest_when_full() -> None:
    parking = parking_with("a", "b", "a", most=3)
    first = parking.park("c", event(), 1, True)
    assert first is not None and first.number == 1
    second = parking.park("a", event(), 1, True)
    assert second is not None and (second.number, second.order_id) == (2, "b")
    assert parking.take("b") == []
    assert names(parking.take("a")) == [(3, "a"), (5, "a")]


def test_parking_that_is_always_full_keeps_no_more() -> None:
    parking = parking_with(*(str(number) for number in range(1_000)), most=10)
    assert len(parking) == len(parking._numbers_of) == 10
    assert names(parking.take("999")) == [(1_000, "999")]


# asking


def test_parking_wants_a_mark_only_for_events() -> None:
    parking = parking_with()
    assert not parking.wants_mark
    parking.park("a", event(), 1, True)
    assert parking.wants_mark
    parking.take("a")
    assert not parking.wants_mark


def test_parking_wants_no_second_mark_while_a_question_is_under_way() -> None:
    parking = asked(parking_with("a"))
    parking.park("b", event(), 1, True)
    assert not parking.wants_mark


def test_parking_wants_a_mark_again_when_a_question_failed() -> None:
    parking = asked(parking_with("a"))
    assert not parking.answer_mark(None)
    assert parking.wants_mark


def test_parking_wants_no_mark_while_an_answer_is_waited_out() -> None:
    parking = asked(parking_with("a"))
    assert not parking.answer_mark({0: 5})
    parking.park("b", event(), 1, True)
    assert not parking.wants_mark
    assert parking.move(0, 5)
    assert names(parking.release()) == [(1, "a")]
    assert parking.wants_mark


def test_parking_has_no_use_for_an_answer_to_nothing() -> None:
    parking = parking_with("a")
    assert not parking.answer_mark({})
    assert parking.wants_mark


# reaching


def test_parking_is_reached_at_once_when_the_topic_was_read_that_far() -> None:
    parking = asked(parking_with("a"))
    assert not parking.move(0, 5)
    assert not parking.move(1, 7)
    assert parking.answer_mark({0: 5, 1: 6})
    assert names(parking.release()) == [(1, "a")]


def test_parking_is_reached_at_once_when_the_topic_is_empty() -> None:
    assert asked(parking_with("a")).answer_mark({0: 0, 1: 0})


def test_parking_waits_for_every_partition() -> None:
    parking = asked(parking_with("a"))
    assert not parking.answer_mark({0: 2, 1: 3, 2: 0})
    assert not parking.move(0, 1)
    assert not parking.move(0, 2)
    assert not parking.move(0, 9)
    assert not parking.move(2, 9)
    assert not parking.move(1, 2)
    assert parking.move(1, 4)


def test_parking_never_moves_back() -> None:
    parking = parking_with("a")
    assert not parking.move(0, 9)
    assert not parking.move(0, 3)
    assert asked(parking).answer_mark({0: 9})


# releasing


def test_parking_releases_what_the_question_covered() -> None:
    parking = asked(parking_with("a", "b"))
    parking.park("c", event(), 1, True)
    assert parking.answer_mark({})
    assert names(parking.release()) == [(1, "a"), (2, "b")]
    assert len(parking) == 1


def test_parking_releases_an_order_whole_and_all_in_the_order_of_their_coming() -> None:
    parking = asked(parking_with("a", "b", "a"))
    for order_id in ("c", "b", "a"):
        parking.park(order_id, event(), 1, True)
    assert parking.answer_mark({})
    assert names(parking.release()) == [(1, "a"), (2, "b"), (3, "a"), (5, "b"), (6, "a")]
    assert names(parking.take("c")) == [(4, "c")]


def test_parking_releases_nothing_that_became_known_meanwhile() -> None:
    parking = asked(parking_with("a", "b"))
    assert not parking.answer_mark({0: 1})
    parking.take("a")
    assert parking.move(0, 1)
    assert names(parking.release()) == [(2, "b")]


# another topic of the same name


def test_parking_that_forgot_its_positions_takes_no_answer_of_before() -> None:
    parking = asked(parking_with("a"))
    parking.move(0, 100)
    parking.forget_positions()
    assert not parking.wants_mark  # the question is still under way
    assert not parking.answer_mark({0: 100})
    assert parking.wants_mark
    assert not asked(parking).answer_mark({0: 1})
    assert parking.move(0, 1)


def test_parking_that_forgot_its_positions_asks_anew_for_what_it_waited_out() -> None:
    parking = asked(parking_with("a"))
    assert not parking.answer_mark({0: 100})
    parking.forget_positions()
    assert parking.wants_mark
    assert not parking.move(0, 100)
