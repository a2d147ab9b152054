from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.frames import text_frame
from core.outbox import CHUNK_BYTES, Offer, Outbox
from tests.core.fakes import PING, TEXT, FakeTransport, read_frames


def connected(max_bytes: int = 1000, room: float = float("inf")) -> tuple[Outbox, FakeTransport]:
    transport = FakeTransport(room)
    outbox = Outbox(transport, max_bytes)
    transport.on_drained = outbox.drained
    return outbox, transport


# The property: whatever the kernel takes, whenever it drains and whenever a ping comes between.


@dataclass(frozen=True)
class Offered:
    size: int
    exempt: bool
    count: int = 1


@dataclass(frozen=True)
class Takes:
    size: int


class Turn:
    def __repr__(self) -> str:
        return "Turn()"


class Ping:
    def __repr__(self) -> str:
        return "Ping()"


SIZES = st.sampled_from([0, 1, 7, 125, 126, 130, 1000]) | st.sampled_from([9_000, 30_000, 65_536, 70_000])
STEPS = st.one_of(
    st.builds(Offered, SIZES, st.booleans(), st.integers(1, 3)),
    st.builds(Offered, SIZES, st.just(False)),
    st.builds(Takes, st.sampled_from([1, 2, 3, 10, 100, 5_000, 66_000, 1_000_000])),
    st.just(Turn()),
    st.just(Ping()),
)


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(STEPS, max_size=60), st.sampled_from([0, 10, 500, 80_000]), st.sampled_from([0, 1, 50, 10_000]))
def test_outbox_lets_out_exactly_the_accepted_frames_in_order(
    steps: list[Offered | Takes | Turn | Ping], max_bytes: int, room: int
) -> None:
    outbox, transport = connected(max_bytes, room)
    accepted: list[bytes] = []  # payloads
    waiting: deque[tuple[int, bool]] = deque()  # offers that the outbox itself has to hold: bytes, exempt
    pings = 0

    def handed_bytes() -> int:
        return len(transport.wire) + len(transport.buffer) - 2 * pings

    total = 0
    handed_offers = 0
    for number, step in enumerate(steps):
        if isinstance(step, Takes):
            transport.take(step.size)
        elif isinstance(step, Turn):
            transport.turn()
        elif isinstance(step, Ping):
            transport.ping()
            pings += 1
        else:
            payloads = [f"{number}.{part}:".encode().ljust(step.size, b"x") for part in range(step.count)]
            frames = b"".join(map(text_frame, payloads))
            goes_at_once = transport.is_empty() and not transport.awaited
            counted = sum(size for size, exempt in waiting if not exempt)
            fits = step.exempt or counted + len(frames) <= max_bytes
            outcome = outbox.offer(frames, step.exempt)
            assert outcome is (Offer.ACCEPTED if goes_at_once or fits else Offer.OVERFLOW)
            if outcome is Offer.ACCEPTED:
                accepted += payloads
                total += len(frames)
                waiting.append((len(frames), step.exempt))
        while waiting and handed_offers + waiting[0][0] <= handed_bytes():
            handed_offers += waiting.popleft()[0]
        if waiting and handed_bytes() > handed_offers:
            raise AssertionError("an offer was handed over in part")
        assert outbox.waiting_bytes == total - handed_bytes() == sum(size for size, _ in waiting)
        # An offer that met an empty socket may be larger than the bound; what came behind it never is.
        assert sum(size for size, exempt in waiting if not exempt) <= max_bytes
    transport.settle()
    assert outbox.waiting_bytes == 0
    frames_out, rest = read_frames(bytes(transport.wire))
    assert rest == b""
    assert [payload for opcode, payload in frames_out if opcode == TEXT] == accepted
    assert [payload for opcode, payload in frames_out if opcode == PING] == [b""] * pings


# One claim each.


def test_outbox_sends_at_once_and_hands_over_the_very_bytes_when_nothing_waits() -> None:
    outbox, transport = connected()
    frames = text_frame(b"hello")
    assert outbox.offer(frames) is Offer.ACCEPTED
    assert transport.sends[0] is frames
    assert outbox.waiting_bytes == 0
    assert not transport.awaited


def test_outbox_leaves_to_the_transport_what_the_kernel_did_not_take() -> None:
    outbox, transport = connected(room=3)
    assert outbox.offer(b"abcdef") is Offer.ACCEPTED
    assert (bytes(transport.wire), bytes(transport.buffer)) == (b"abc", b"def")
    assert outbox.waiting_bytes == 0


def test_outbox_waits_behind_a_ping_of_the_transport() -> None:
    outbox, transport = connected(room=0)
    transport.ping()
    assert outbox.offer(b"abc") is Offer.ACCEPTED
    assert outbox.waiting_bytes == 3
    transport.settle()
    assert transport.wire == b"\x89\x00abc"


def test_outbox_keeps_waiting_while_the_ping_that_came_meanwhile_is_not_out() -> None:
    outbox, transport = connected(room=0)
    outbox.offer(b"abc")
    outbox.offer(b"def")
    transport.ping()
    transport.take(3)
    transport.turn()
    assert (bytes(transport.wire), bytes(transport.buffer)) == (b"abc", b"\x89\x00")
    assert outbox.waiting_bytes == 3
    transport.settle()
    assert transport.wire == b"abc\x89\x00def"


def test_outbox_overflows_at_one_byte_over_its_bound_and_takes_smaller_frames_afterwards() -> None:
    outbox, _ = connected(max_bytes=10, room=0)
    outbox.offer(b"goes to the transport")
    assert outbox.offer(b"12345") is Offer.ACCEPTED
    assert outbox.offer(b"678901") is Offer.OVERFLOW
    assert outbox.offer(b"67890") is Offer.ACCEPTED
    assert outbox.waiting_bytes == 10
    assert outbox.offer(b"1") is Offer.OVERFLOW


def test_outbox_does_not_count_exempt_frames() -> None:
    outbox, transport = connected(max_bytes=10, room=0)
    outbox.offer(b"goes to the transport")
    assert outbox.offer(b"x" * 5000, exempt=True) is Offer.ACCEPTED
    assert outbox.offer(b"1234567890") is Offer.ACCEPTED
    assert outbox.offer(b"1") is Offer.OVERFLOW
    assert outbox.offer(b"y" * 5000, exempt=True) is Offer.ACCEPTED
    transport.settle()
    assert transport.wire == b"goes to the transport" + b"x" * 5000 + b"1234567890" + b"y" * 5000


def test_outbox_counts_again_from_nothing_after_exempt_frames_have_gone() -> None:
    outbox, transport = connected(max_bytes=10, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * 5000, exempt=True)
    transport.settle()
    transport.room = 0
    outbox.offer(b"second")
    assert outbox.offer(b"12345678901") is Offer.OVERFLOW
    assert outbox.offer(b"1234567890") is Offer.ACCEPTED


def test_outbox_counts_exactly_after_counted_frames_have_waited_and_gone() -> None:
    outbox, transport = connected(max_bytes=10, room=0)
    outbox.offer(b"first")
    outbox.offer(b"1234567890")
    transport.settle()
    transport.room = 0
    outbox.offer(b"second")
    assert outbox.offer(b"1234567890") is Offer.ACCEPTED
    assert outbox.offer(b"1") is Offer.OVERFLOW


def test_outbox_awaits_the_transport_once_however_much_waits() -> None:
    outbox, transport = connected(room=0)
    for _ in range(5):
        outbox.offer(b"abc")
    assert len(transport.awaited) == 1


def test_outbox_gives_the_transport_no_more_than_a_chunk_at_once() -> None:
    outbox, transport = connected(max_bytes=1 << 20, room=0)
    outbox.offer(b"first")
    for _ in range(10):
        outbox.offer(b"x" * 20_000)
    transport.take(5)
    transport.turn()
    assert transport.buffer == b"x" * 60_000
    assert outbox.waiting_bytes == 140_000


def test_outbox_takes_one_offer_whole_even_if_it_is_more_than_a_chunk() -> None:
    outbox, transport = connected(max_bytes=1 << 20, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * (CHUNK_BYTES + 1))
    outbox.offer(b"y")
    transport.take(5)
    transport.turn()
    assert transport.buffer == b"x" * (CHUNK_BYTES + 1)
    assert outbox.waiting_bytes == 1


@pytest.mark.parametrize("exempt", [False, True])
def test_outbox_is_closed_by_a_socket_that_raises(exempt: bool) -> None:
    outbox, transport = connected()
    transport.broken = True
    assert outbox.offer(b"abc", exempt) is Offer.CLOSED
    assert outbox.closed
    transport.broken = False
    assert outbox.offer(b"abc", exempt) is Offer.CLOSED
    assert transport.wire == b""


def test_outbox_is_closed_by_a_socket_that_raises_while_it_drains() -> None:
    outbox, transport = connected(room=0)
    outbox.offer(b"abc")
    outbox.offer(b"def")
    transport.take(3)
    transport.broken = True
    transport.turn()
    assert outbox.closed
    assert outbox.waiting_bytes == 0
    assert outbox.offer(b"ghi") is Offer.CLOSED


def test_outbox_forgets_what_waits_when_it_is_closed() -> None:
    outbox, transport = connected(room=0)
    outbox.offer(b"abc")
    outbox.offer(b"def")
    outbox.offer(b"ghi", exempt=True)
    outbox.close()
    assert outbox.waiting_bytes == 0
    transport.settle()
    assert transport.wire == b"abc"
