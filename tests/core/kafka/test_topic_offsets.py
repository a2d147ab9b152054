from __future__ import annotations

import asyncio

import pytest

from core.kafka.topic_offsets import TopicOffsets
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import FakeConsumer, InlineCalls


@pytest.fixture
def offsets(monkeypatch: pytest.MonkeyPatch) -> TopicOffsets:
    monkeypatch.setattr("core.kafka.topic_offsets.Consumer", FakeConsumer)
    return TopicOffsets("market-events", {}, InlineCalls(), lambda: 0.0)  # type: ignore[arg-type]


def test_client_is_made_for_the_first_question_and_let_go_with_the_last(offsets: TopicOffsets) -> None:
    offsets.close()
    assert offsets._client is None, "nobody has asked anything"
    client = offsets._asked()
    assert isinstance(client, FakeConsumer) and offsets._asked() is client
    offsets.close()
    assert client.closed == 1


def test_throwing_away_is_given_up_at_the_end(offsets: TopicOffsets) -> None:
    async def scene() -> None:
        offsets.stop()  # with nothing under way
        offsets._closed = False
        offsets._asked()
        offsets._calls.gate.clear()  # type: ignore[attr-defined]
        offsets.throw_reports_away()
        emptying = offsets._emptying
        assert emptying is not None
        await turns()
        offsets.stop()
        with pytest.raises(asyncio.CancelledError):
            await emptying

    run(scene())
