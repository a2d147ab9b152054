from __future__ import annotations

from core.channels.requests import Request


def test_request_tells_that_it_is_done_also_who_asks_afterwards() -> None:
    told: list[str] = []
    request = Request(iter(()))
    request.when_done(lambda: told.append("before"))
    assert told == []
    request.finish()
    request.when_done(lambda: told.append("after"))
    assert told == ["before", "after"]
