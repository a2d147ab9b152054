from __future__ import annotations

from core.control.broker_clock import BrokerClock


def test_age_is_never_told_too_long_and_by_the_last_record_almost_right() -> None:
    now = 1000.0
    clock = BrokerClock(lambda: now)
    clock.heard(50_000)  # appended ten seconds before it is read
    assert clock.age(50_000) == 0.0
    now += 3
    assert clock.age(50_000) == 3.0
    clock.heard(63_000)
    assert (clock.age(50_000), clock.age(63_000)) == (13.0, 0.0)
    clock.heard(55_000)  # one that took longer says nothing new
    assert clock.age(50_000) == 13.0
