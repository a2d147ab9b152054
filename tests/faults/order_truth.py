"""What traders were told, held against what is on the order topic.

A command carries the time at which it was made, and a trader asks again only when it has heard, or lost hope: so each
record belongs to the one attempt within which its time lies, and it shows which answer was true.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.faults.order_load import LATE, NO_ANSWER, ClientOrder, Load, Told
from tests.support.kafka import Record

# Commands have whole milliseconds.
CLOCK_SECONDS = 0.002
ANSWERS = frozenset({202, 503, 504})


@dataclass
class Verdict:
    """What was found. `lies` is empty if every answer was true; the rest are counts for whoever is curious."""

    orders: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    duplicates: int = 0
    accepted: int = 0
    given_up: int = 0
    open: int = 0
    records: int = 0
    repeats: int = 0
    # Of orders that nobody placed again: the producer's own.
    unasked: int = 0
    longest_wait_seconds: float = 0.0
    lies: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(self.answers.items()))
        return (
            f"{self.orders} orders ({self.accepted} accepted, {self.given_up} given up, {self.open} open); "
            f"answers {told}; {self.duplicates} told duplicate; {self.records} records, {self.repeats} repeats "
            f"({self.unasked} unasked); "
            f"longest wait {self.longest_wait_seconds:.1f} s"
        )


class Silence(Enum):
    """Which requests may have no answer."""

    NONE = "none"
    UNREAD = "those that were not read, when the connection was closed in order"
    ANY = "any, when the gateway was killed"


def judge(load: Load, records: Iterable[Record], silence: Silence = Silence.NONE) -> Verdict:
    """Every answer of a load whose traders have gone home."""
    verdict = Verdict(orders=len(load.orders), answers=load.counts)
    commands = _by_client_order(records, verdict)
    for order in load.orders:
        found = commands.pop((order.user_id, order.client_order_id), [])
        verdict.lies += [f"{_history(order, found)}: {lie}" for lie in _lies(order, found, silence)]
        verdict.accepted += order.is_accepted
        verdict.given_up += order.is_settled and not order.is_accepted
        verdict.open += not order.is_settled
        verdict.duplicates += sum(one.duplicate for one in order.told)
        verdict.repeats += max(0, len(found) - 1)
        verdict.unasked += max(0, len(found) - len(order.told))
        verdict.longest_wait_seconds = max([verdict.longest_wait_seconds, *(one.waited_seconds for one in order.told)])
    verdict.lies += [f"nobody ordered {key}" for key in commands]
    return verdict


def _by_client_order(
    records: Iterable[Record], verdict: Verdict
) -> dict[tuple[str, str], list[tuple[Record, dict[str, Any]]]]:
    commands: dict[tuple[str, str], list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
    for record in records:
        verdict.records += 1
        command = json.loads(record.value or b"")
        commands[command["user_id"], command["client_order_id"]].append((record, command))
    return commands


def _lies(order: ClientOrder, found: Sequence[tuple[Record, dict[str, Any]]], silence: Silence) -> list[str]:
    """What is not as it was told, of one order."""
    lies = [f"an answer that the contract does not have: {one}" for one in order.told if _is_odd(one)]
    ids = {command["order_id"] for _, command in found}
    ids |= {one.order_id for one in order.told if one.order_id is not None}
    if len(ids) > 1:
        lies.append(f"several ids: {ids}")
    if silence is Silence.NONE and NO_ANSWER in order.statuses:
        lies.append("a request without an answer")
    if order.is_accepted and not found:
        lies.append("accepted, and not on the topic")
    if found and set(order.statuses) == {503}:
        lies.append("certainly not written, and on the topic")
    for record, command in found:
        if record.key != order.symbol.encode() or not order.body.items() <= command.items():
            lies.append(f"other terms: {command}")
        lies += _lies_about(order, command["timestamp"] / 1000, silence)
    lies += _lies_in_turn(order)
    return lies


def _is_odd(told: Told) -> bool:
    if told.status == NO_ANSWER:
        return False
    return told.status not in ANSWERS or (told.status in (202, 504) and told.order_id is None)


def _lies_about(order: ClientOrder, made: float, silence: Silence) -> list[str]:
    """Of the attempt that a record stems from."""
    attempts = [one for one in order.told if one.began - CLOCK_SECONDS <= made <= one.ended + CLOCK_SECONDS]
    if not attempts:
        return [f"a record of no attempt, made at {made}"]
    [attempt] = attempts
    if attempt.status == 503:
        return ["an attempt that was certainly not written is on the topic"]
    if attempt.status == NO_ANSWER and silence is Silence.UNREAD:
        return ["an order that was under way is on the topic, and its trader was not answered"]
    if attempt.duplicate:
        return ["a repeat that was told duplicate was written again"]
    return []


def _lies_in_turn(order: ClientOrder) -> list[str]:
    """Of answers that cannot come after those before them."""
    lies = []
    unknown: set[int] = set()  # instances that have said so
    is_open = False
    for one in order.told:
        if one.status == 503 and one.instance in unknown:
            lies.append("certainly not written, says who did not know about the attempt before")
        if one.duplicate and not is_open:
            lies.append("a duplicate of nothing")
        if one.status == 504:
            unknown.add(one.instance)
        is_open = is_open or one.status in (202, 504, NO_ANSWER, LATE)
    return lies


def _history(order: ClientOrder, found: Sequence[tuple[Record, dict[str, Any]]]) -> str:
    told = " ".join(f"{one.status}{'d' if one.duplicate else ''}@{one.instance}" for one in order.told)
    places = " ".join(f"{record.partition}:{record.offset}" for record, _ in found)
    return f"{order.user_id} {order.client_order_id} was told [{told}], is at [{places}]"
