"""What falls due when an order ends, who tells the service, and what is left of it for whoever comes next."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from core.messages.kept_state import order_partition
from core.orders.releases import LONG_MS, MOST
from tests.core.fake_orders import SYMBOL, command, event, fill, placed
from tests.core.orders.ending import Ending, cursor

ENDED = {"cancelled": "order_cancelled", "rejected": "order_rejected"}


def kept(symbol: str = SYMBOL, user_id: str = "alice", since_ms: int = 5) -> bytes:
    return json.dumps({"symbol": symbol, "user_id": user_id, "since_ms": since_ms}).encode()


# what falls due


@pytest.mark.parametrize("live", [True, False], ids=["live", "replayed"])
@pytest.mark.parametrize("kind", ENDED.values())
def test_order_that_ends_unfilled_falls_due_once_the_engine_has_said_so(kind: str, live: bool) -> None:
    one = Ending().lead().commands(command("a"), live=live).events(event("order_accepted", "a"), live=live)
    assert one.asked() == []
    one.events(event(kind, "a"), live=live)
    assert (one.asked(), one.asked(), "a" in one.releases) == (["a"], [], True)
    one.releases.confirm("a")
    one.releases.confirm("a")
    assert ("a" in one.releases, one.releases.ours) == (False, 0)


def test_what_is_left_of_a_partly_filled_order_falls_due() -> None:
    one = Ending().lead().commands(command("a")).events(fill("a", "x"))
    assert one.asked() == []
    assert one.events(event("order_cancelled", "a", filled_quantity="0.5")).asked() == ["a"]


@pytest.mark.parametrize(
    "events",
    [
        [event("order_filled", "a")],
        [fill("a", "x", "2.0")],
        [event("order_cancelled", "a", filled_quantity="2.00")],
        [event("order_filled", "a"), event("order_cancelled", "a")],
    ],
    ids=["filled", "filled by a fill", "cancelled when nothing was left", "cancelled too late"],
)
def test_order_that_was_filled_completely_leaves_nothing(events: list[object]) -> None:
    one = Ending().lead().commands(command("a"))
    one.events(*events)  # type: ignore[arg-type]
    assert (one.asked(), one.releases.ours) == ([], 0)


def test_order_of_nobody_or_that_the_service_cannot_know_is_never_due() -> None:
    asked: list[tuple[str, str]] = []

    def may_be_reserved(order_id: str, user_id: str) -> bool:
        asked.append((order_id, user_id))
        return False

    one = Ending(may_be_reserved=may_be_reserved).lead()
    one.commands(command("a", None), command("b", "böse")).events(
        event("order_cancelled", "a"), event("order_cancelled", "b")
    )
    assert (one.asked(), asked) == ([], [("b", "böse")])


def test_nothing_is_due_without_a_service_and_what_is_kept_stays_kept() -> None:
    one = Ending(may_be_reserved=None).ended(a="order_cancelled").lead(kept={"release/b": kept()})
    assert (one.releases.count(0), "a" in one.releases, one.written()) == (None, False, {"release/b": kept_as_is()})


def kept_as_is() -> bytes:
    return kept().replace(b" ", b"")


def test_end_that_comes_before_its_order_is_due_once_the_order_is_known() -> None:
    one = Ending().lead().events(event("order_cancelled", "a"))
    assert one.asked() == []
    assert one.commands(command("a")).asked() == ["a"]


@pytest.mark.parametrize(
    ("kind", "said", "is_due"),
    [
        ("order_cancelled", {"user_id": "alice", "symbol": SYMBOL}, True),
        ("order_rejected", {"user_id": "alice", "symbol": SYMBOL}, True),
        ("order_cancelled", {"user_id": "alice"}, False),
        ("order_cancelled", {"symbol": SYMBOL}, False),
        ("order_filled", {"user_id": "alice", "symbol": SYMBOL}, False),
    ],
)
def test_end_of_an_order_that_is_not_known_counts_if_it_tells_whose_it_was(
    kind: str, said: dict[str, str], is_due: bool
) -> None:
    one = Ending().lead().events(event(kind, "a", **said), fill("x", "y", user_id="alice")).mark()
    assert one.asked() == (["a"] if is_due else [])


def test_early_end_that_has_to_go_for_another_counts_as_one_of_an_order_that_is_not_known() -> None:
    one = Ending(max_early_events=1).lead()
    one.events(event("order_cancelled", "a", user_id="alice", symbol=SYMBOL), event("order_cancelled", "b"))
    assert one.asked() == ["a"]


def test_first_record_of_an_order_that_had_ended_by_then_has_the_last_word_on_whose_it_is() -> None:
    one = Ending(partitions=3)
    one.directory.register("a", "alice", placed("my-1", symbol="A/EUR"), 1)
    one.events(event("order_cancelled", "a"))
    here, there = (order_partition(symbol, 3) for symbol in ("A/EUR", SYMBOL))
    assert (here != there, one.releases.count(here), one.releases.count(there)) == (True, 1, 0)
    one.commands(command("a", "alice", "my-1"))
    assert (one.releases.count(here), one.releases.count(there)) == (0, 1)
    one.lead(there, cursor(1))
    assert one.asked() == [], "it keeps its place"


# when the service is told, and of which first


def test_oldest_is_released_first() -> None:
    one = Ending()
    for now, name in ((3.0, "c"), (2.0, "b"), (4.0, "d")):
        one.now = now
        one.ended(**{name: "order_cancelled"})
    assert one.lead(kept={"release/a": kept(since_ms=1)}).asked() == ["a", "b", "c", "d"]
    assert (one.releases.ours, sorted(one.releases.our_ids())) == (4, ["a", "b", "c", "d"])
    assert one.releases.oldest_ms() == 1


def test_failed_release_is_tried_again_after_a_pause_that_doubles_up_to_a_minute() -> None:
    one, now = Ending().lead().ended(a="order_cancelled"), 100.0
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        assert one.asked(now) == ["a"]
        one.releases.failed("a", now)
        assert one.asked(now + seconds - 0.01) == []
        now += seconds
    assert one.asked(now) == ["a"]


def test_refused_release_is_tried_again_after_a_minute() -> None:
    one = Ending().lead().ended(a="order_cancelled")
    assert one.asked(100.0) == ["a"]
    one.releases.failed("a", 100.0, is_refused=True)
    one.releases.failed("b", 100.0)
    assert (one.asked(159.9), one.asked(160.0)) == ([], ["a"])


def test_who_may_tell_the_service_is_woken_and_nobody_else() -> None:
    one = Ending(partitions=3).lead(order_partition(SYMBOL, 3))
    woken = one.wakes
    one.ended(a="order_filled")
    assert one.wakes == woken
    one.ended(b="order_cancelled")
    assert one.wakes > woken


def test_id_that_lives_again_keeps_what_it_has_until_that_order_has_ended() -> None:
    one = Ending().lead().ended(a="order_cancelled")
    one.now += 200
    one.directory.sweep(int(one.now * 1000))
    assert one.directory.get("a") is None
    one.directory.register("a", "alice", placed("my-1"), 1)
    assert (one.asked(0.0), one.asked(0.9)) == ([], [])
    one.events(event("order_cancelled", "a"))
    assert one.asked(1.0) == ["a"]


@pytest.mark.parametrize("is_told", [True, False], ids=["it ends", "it had ended before it was taken over"])
def test_id_that_lived_again_and_was_filled_leaves_nothing(is_told: bool) -> None:
    one = Ending().commands(command("a"))
    if not is_told:
        one.events(event("order_filled", "a"))
    one.lead(kept={"release/a": kept()})
    assert "a" in one.releases
    if is_told:
        one.events(event("order_filled", "a"))
    assert (one.asked(), "a" in one.releases) == ([], False)


def test_who_asks_for_funds_is_told_what_was_released_meanwhile() -> None:
    one = Ending().lead().ended(a="order_cancelled", b="order_cancelled")
    with one.releases.watching() as outer:
        with one.releases.watching() as inner:
            one.releases.confirm("a")
        one.releases.confirm("b")
        assert ("a" in inner, "b" in inner, "a" in outer, "b" in outer) == (True, False, True, True)
    assert one.releases._watching == []


# who leads


def test_nothing_is_told_but_by_who_leads_the_partition_of_the_symbol() -> None:
    one = Ending(partitions=3).ended(a="order_cancelled")
    partition = order_partition(SYMBOL, 3)
    assert one.lead((partition + 1) % 3).asked() == []
    assert (one.releases.ours, one.releases.oldest_ms()) == (0, None)
    assert one.lead(partition).asked() == ["a"]
    one.releases.failed("a", 0.0)
    one.led.clear()
    assert one.asked(100.0) == [], "others lead it now"
    assert one.lead(partition).asked(100.0) == ["a"]


def test_what_ended_before_the_cursor_and_is_not_kept_has_been_released() -> None:
    one = Ending().ended(a="order_cancelled", b="order_cancelled", c="order_cancelled")
    assert one.lead(0, cursor(2, releases=1), {"release/a": kept()}).asked() == ["a", "c"]


def test_what_ended_before_the_cursor_stays_due_where_its_event_may_have_waited_there() -> None:
    one = Ending().ended(a="order_cancelled", b="order_cancelled", c="order_cancelled")
    assert one.lead(0, cursor(3, ended_to={0: 1, 7: 5})).asked() == ["b", "c"]


@pytest.mark.parametrize("told", [None, cursor(9, releases=None)], ids=["of no use", "does not know"])
def test_all_stays_due_where_the_cursor_says_nothing(told: object) -> None:
    one = Ending().ended(a="order_cancelled")
    one.lead(0, told, {"release/b": kept(since_ms=1)})  # type: ignore[arg-type]
    assert one.asked() == ["b", "a"]


def test_what_was_taken_back_is_due_while_it_is_kept() -> None:
    one = Ending()
    for name in ("a", "b"):
        one.kept.take_back(0, f"release/{name}", kept())
    assert one.lead(0, cursor(0, releases=1), {"release/b": kept()}).asked() == ["b"]


def test_end_that_is_read_again_gives_what_was_taken_back_its_place() -> None:
    one = Ending()
    one.kept.take_back(0, "release/a", kept())
    one.ended(a="order_cancelled")
    assert one.lead(0, cursor(0)).asked() == ["a"]


def test_place_in_a_topic_that_was_made_again_is_before_any_cursor() -> None:
    one = Ending().ended(a="order_cancelled")
    one.directory.forget_event_topic()
    assert one.lead(0, cursor(0)).asked() == []


def test_all_that_is_due_is_written_again_by_who_takes_over() -> None:
    one = Ending().ended(a="order_cancelled", b="order_cancelled")
    one.kept.journal.rotate()
    one.lead(0, cursor(1, releases=1), {"release/c": kept(), "release/d": b"{"})
    assert one.changed() == {"release/a", "release/b", "release/c", "release/d"}
    assert one.written(one.changed()) == {
        "release/b": b'{"symbol":"KCN/EUR","user_id":"alice","since_ms":1000}',
        "release/c": kept_as_is(),
        "release/d": None,
    }


def test_what_becomes_of_orders_while_a_partition_is_taken_over_counts() -> None:
    one = Ending().ended(a="order_cancelled", b="order_cancelled", c="order_cancelled")
    pieces = one.releases.take_over(0, cursor(2, releases=1), {"release/d": kept(), "release/e": kept(since_ms=6)})
    one.releases.confirm("a")
    next(pieces)
    assert "b" not in one.releases
    next(pieces)
    one.releases.confirm("d")
    one.ended(f="order_cancelled")
    next(pieces)
    one.ended(g="order_cancelled")
    one.led.add(0)
    assert one.asked() == [], "not all of it is there yet"
    assert next(pieces, None) is None
    assert (one.asked(), list(one.releases.our_ids())) == (["e", "c", "f", "g"], ["e", "c", "f", "g"])
    assert one.changed() >= {f"release/{name}" for name in "abcdefg"}


def test_record_that_cannot_be_read_at_a_take_over_is_told(caplog: pytest.LogCaptureFixture) -> None:
    one = Ending().lead(kept={"release/a": b"{"})
    assert (one.asked(), ["release/a" in record.getMessage() for record in caplog.records]) == ([], [True])


def test_what_others_wrote_last_says_what_is_due_no_more() -> None:
    one = Ending().ended(a="order_cancelled", b="order_cancelled")
    assert one.releases.behind(1_000) == []
    assert one.releases.behind(1_001 + LONG_MS) == [0]
    one.releases.seen(0, cursor(1, releases=1))
    assert one.releases.count(0) == 2, "which of them is due is not known"
    one.releases.seen(0, cursor(1, releases=None))
    assert one.releases.count(0) == 2
    one.releases.seen(0, cursor(1))
    assert one.lead().asked() == ["b"]
    assert one.releases.behind(1_001 + LONG_MS) == [], "who leads knows"


def test_of_too_much_what_is_kept_is_left_to_who_takes_over() -> None:
    one = Ending().ended(**{f"n{number}": "order_cancelled" for number in range(MOST + 1)})
    assert one.releases.behind(1_000) == [0]
    one.releases.seen(0, cursor(MOST, releases=5))
    assert (one.releases.count(0), one.releases.behind(1_000)) == (1, [])
    assert one.lead(0, cursor(MOST, releases=1), {"release/n3": kept(since_ms=1)}).asked() == ["n3", f"n{MOST}"]


def test_order_whose_partition_was_not_known_finds_it_later() -> None:
    one = Ending(partitions=0).ended(a="order_cancelled")
    one.partitions = 1
    one.lead()
    assert one.asked() == []
    one.releases.behind(0)
    assert (one.asked(), one.changed()) == (["a"], {"release/a"})


# without leaders


def test_alone_each_instance_releases_what_it_took_itself() -> None:
    one = Ending()
    one.releases.act_alone(True)
    one.directory.register("a", "alice", placed(), 1)
    one.commands(command("a"), command("b")).events(event("order_cancelled", "a"), event("order_cancelled", "b"))
    assert (one.asked(), one.releases.ours, "b" in one.releases) == (["a"], 1, False)
    assert one.releases.behind(1_000_000) == []


def test_who_is_alone_from_now_on_leaves_to_others_what_they_took() -> None:
    one = Ending()
    one.directory.register("a", "alice", placed(), 1)
    one.ended(a="order_cancelled", b="order_cancelled")
    for _ in range(2):
        one.releases.act_alone(True)
        assert ("a" in one.releases, "b" in one.releases) == (True, False)
    assert one.asked() == ["a"]
    one.releases.failed("a", 0.0)
    one.releases.act_alone(False)
    one.releases.act_alone(False)
    assert one.ended(c="order_cancelled").asked(100.0) == []
    assert sorted(one.lead().asked(100.0)) == ["a", "c"]


@pytest.mark.parametrize("what", ["withdrawn", "forgotten", "filled"])
def test_order_that_lives_no_more_is_nobodys_own(what: str) -> None:
    one = Ending()
    order = one.directory.register("a", "alice", placed(), 1)
    if what == "withdrawn":
        assert one.directory.withdraw(order)
    elif what == "forgotten":
        one.directory.mark_unknown(order)
        one.directory.sweep(1_000_000)
    else:
        one.events(event("order_filled", "a"))
    assert one.releases._own == set()


def test_without_a_service_nothing_is_noted_of_orders() -> None:
    one = Ending(may_be_reserved=None)
    one.directory.register("a", "alice", placed(), 1, Decimal(1))
    assert one.releases._own == set()


# what is kept


def test_what_is_due_is_written_and_forgotten_when_it_is_released() -> None:
    one = Ending().lead().ended(a="order_cancelled", b="order_cancelled")
    one.releases.confirm("b")
    assert one.changed() == {"release/a", "release/b"}
    assert list(one.written(one.changed())) == ["release/a"], "what was never written needs no tombstone"
    assert list(one.written()) == ["release/a"]
    one.kept.journal.rotate()
    one.releases.confirm("a")
    assert one.changed() == {"release/a"}
    assert one.written(one.changed()) == {"release/a": None}
    assert one.written(one.changed()) == {}


def test_what_is_due_comes_back_with_the_orders_that_ended() -> None:
    one = Ending().lead().ended(a="order_cancelled", b="order_cancelled")
    one.releases.confirm("b")
    again = Ending()
    for piece in one.kept.cut(0, None, is_whole=True):
        for key, value in piece:
            again.kept.take_back(0, key, value)
    again.kept.resume({0: cursor(2, releases=1)})
    again.events(event("order_cancelled", "a"), event("order_cancelled", "b"))
    assert again.lead(0, cursor(2, releases=1), {"release/a": kept(since_ms=1_000)}).asked() == ["a"]


def test_record_that_is_taken_back_replaces_the_one_before() -> None:
    one = Ending()
    for value in (kept(since_ms=1), kept(since_ms=2)):
        one.kept.take_back(0, "release/a", value)
    one.led.add(0)
    assert one.releases.oldest_ms() == 2
    one.kept.take_back(0, "release/a", None)
    one.kept.take_back(0, "release/a", None)
    assert "a" not in one.releases


def test_record_of_one_order_in_two_partitions_counts_once() -> None:
    one = Ending(partitions=3)
    here, there = (order_partition(symbol, 3) for symbol in ("A/EUR", SYMBOL))
    one.kept.take_back(here, "release/a", kept("A/EUR"))
    one.kept.take_back(there, "release/a", kept())
    one.kept.take_back(there, "release/a", None)
    assert (one.releases.count(here), one.releases.count(there)) == (1, 0)


def test_what_was_taken_back_and_is_not_used_is_due_no_more() -> None:
    one = Ending()
    one.kept.take_back(0, "release/a", kept())
    one.ended(b="order_cancelled")
    one.kept.discard(0)
    one.kept.discard(1)
    assert ("a" in one.releases, "b" in one.releases) == (False, True)


def test_events_that_wait_are_told_by_the_first_of_each_partition() -> None:
    one = Ending()
    for partition, offset in ((0, 5), (1, 3), (0, 6)):
        one.directory.fold_event(event("order_cancelled", f"{offset}"), partition, offset, 5, True)
    early = one.directory.early_events
    early.keep("late", event("order_cancelled", "late"), 0, 4, 5, True)  # type: ignore[arg-type]
    assert early.first_waiting() == {0: 4, 1: 3}


def test_taking_over_that_was_given_up_holds_nobody_up() -> None:
    one = Ending(partitions=3).ended(a="order_cancelled").lead(order_partition(SYMBOL, 3))
    pieces = one.releases.take_over((order_partition(SYMBOL, 3) + 1) % 3, None, {"release/b": kept("A/EUR")})
    next(pieces)
    assert one.asked() == []
    del pieces
    assert one.asked() == ["a"]
