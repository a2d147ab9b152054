from __future__ import annotations

from core.orders.origin import Origin


def test_time_of_several_commands_is_that_of_the_slowest() -> None:
    origin = Origin()
    assert origin.bus_seconds is None
    for seconds in (0.2, 0.5, 0.3):
        origin.acknowledged(seconds)
    assert origin.bus_seconds == 0.5
