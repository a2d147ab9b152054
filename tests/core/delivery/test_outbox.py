from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.delivery.frames import text_frame
from core.delivery.outbox import CHUNK_BYTES, EXEMPT, LOSSLESS, PULLS_PER_TURN, Conflatable, Offer, Outbox, Tag
from tests.core.fakes import PING, TEXT, FakeTransport, read_frames


def connected(max_bytes: int = 1000, room: float = float("inf")) -> tuple[Outbox, FakeTransport]:
    transport = FakeTransport(room)
    outbox = Outbox(transport, max_bytes)
    transport.on_drained = outbox.drained
    transport.on_own_write = outbox.others_wrote
    return outbox, transport


# The property: whatever the kernel takes, whenever it drains and whenever a ping comes between.

A, B = Conflatable("a"), Conflatable("b")


@dataclass(frozen=True)
class Offered:
    size: int
    tag: Tag = None
    count: int = 1


@dataclass(frozen=True)
class Dropped:
    source: object


@dataclass(frozen=True)
class Pullable:
    size: int


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
    st.builds(Offered, SIZES, st.sampled_from([None, EXEMPT, A, B]), st.integers(1, 3)),
    st.builds(Dropped, st.sampled_from([A.source, B.source])),
    st.builds(Offered, SIZES),
    st.builds(Pullable, SIZES),
    st.builds(Takes, st.sampled_from([1, 2, 3, 10, 100, 5_000, 66_000, 1_000_000])),
    st.just(Turn()),
    st.just(Ping()),
)


class Naive:
    """The bound as the contract has it, over a list of what was offered and has not been handed to the transport."""

    def __init__(self, max_bytes: int, room: int) -> None:
        self.max_bytes = max_bytes
        self.outbox, self.transport = connected(max_bytes, room)
        self.outbox.pull = self.pull
        self.outbox.on_dropped = self.on_dropped
        self.waiting: deque[tuple[int, Tag, list[bytes]]] = deque()
        self.sent: list[bytes] = []
        self.pullable: deque[tuple[bytes, bytes]] = deque()
        self.handed = 0
        self.pings = 0
        self.dropped: list[Tag] = []

    def pull(self) -> bytes | None:
        self.hand_over()
        assert sum(size for size, _, _ in self.waiting) <= self.max_bytes // 8, "before there is room"
        if not self.pullable:
            return None
        payload, frame = self.pullable.popleft()
        self.waiting.append((len(frame), EXEMPT, [payload]))
        return frame

    def on_dropped(self, tags: Collection[Conflatable]) -> None:
        self.dropped += tags

    def drop(self, source: object) -> None:
        self.hand_over()
        lost = [tag for _, tag, _ in self.waiting if isinstance(tag, Conflatable) and tag.source is source]
        assert self.outbox.drop(source) is next(iter(lost), None)
        self.waiting = deque(item for item in self.waiting if item[1] not in lost)

    def counted(self) -> int:
        return sum(size for size, tag, _ in self.waiting if tag is not EXEMPT)

    def offer(self, step: Offered, number: int) -> None:
        payloads = [f"{number}.{part}:".encode().ljust(step.size, b"x") for part in range(step.count)]
        frames = b"".join(map(text_frame, payloads))
        expected = Offer.ACCEPTED
        lost: list[Tag] = []
        if self.transport.buffer or self.transport.awaited:
            if step.tag in (A, B) and self.counted() + len(frames) > self.max_bytes // 2:
                expected = Offer.CONFLATED
            elif step.tag is None and self.counted() + len(frames) > self.max_bytes:
                lost = list(dict.fromkeys(tag for _, tag, _ in self.waiting if tag in (A, B)))
                self.waiting = deque(item for item in self.waiting if item[1] not in (A, B))
                if self.counted() + len(frames) > self.max_bytes:
                    expected = Offer.OVERFLOW
        self.dropped.clear()
        assert self.outbox.offer(frames, step.tag) is expected
        assert self.dropped == lost
        if expected is Offer.ACCEPTED:
            self.waiting.append((len(frames), step.tag, payloads))

    def hand_over(self) -> None:
        """Take from the waiting what the transport has by now; it never has an offer in part."""
        has = len(self.transport.wire) + len(self.transport.buffer) - 2 * self.pings
        while self.waiting and self.handed + self.waiting[0][0] <= has:
            size, _, payloads = self.waiting.popleft()
            self.handed += size
            self.sent += payloads
        assert self.handed == has, "an offer was handed over in part"

    def check(self) -> None:
        self.hand_over()
        assert self.outbox.waiting_bytes == sum(size for size, _, _ in self.waiting)
        # An offer that met an empty socket may be larger than the bound; what came behind it never is.
        assert self.counted() <= self.max_bytes


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(STEPS, max_size=60), st.sampled_from([0, 10, 500, 80_000]), st.sampled_from([0, 1, 50, 10_000]))
def test_outbox_lets_out_exactly_the_accepted_frames_in_order(
    steps: list[Offered | Dropped | Pullable | Takes | Turn | Ping], max_bytes: int, room: int
) -> None:
    naive = Naive(max_bytes, room)
    for number, step in enumerate(steps):
        if isinstance(step, Takes):
            naive.transport.take(step.size)
        elif isinstance(step, Turn):
            naive.transport.turn()
        elif isinstance(step, Ping):
            naive.transport.ping()
            naive.pings += 1
        elif isinstance(step, Pullable):
            payload = f"{number}.pulled:".encode().ljust(step.size, b"y")
            naive.pullable.append((payload, text_frame(payload)))
        elif isinstance(step, Dropped):
            naive.drop(step.source)
        else:
            naive.offer(step, number)
        naive.check()
    naive.transport.settle()
    naive.outbox.send_pulled()
    naive.transport.settle()
    naive.check()
    assert naive.outbox.waiting_bytes == 0
    assert not naive.pullable, "all is pulled once the socket has drained"
    frames_out, rest = read_frames(bytes(naive.transport.wire))
    assert rest == b""
    assert [payload for opcode, payload in frames_out if opcode == TEXT] == naive.sent
    assert [payload for opcode, payload in frames_out if opcode == PING] == [b""] * naive.pings


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
    assert outbox.offer(b"x" * 5000, EXEMPT) is Offer.ACCEPTED
    assert outbox.offer(b"1234567890") is Offer.ACCEPTED
    assert outbox.offer(b"1") is Offer.OVERFLOW
    assert outbox.offer(b"y" * 5000, EXEMPT) is Offer.ACCEPTED
    transport.settle()
    assert transport.wire == b"goes to the transport" + b"x" * 5000 + b"1234567890" + b"y" * 5000


def test_outbox_does_not_count_any_of_several_exempt_frames() -> None:
    outbox, _ = connected(max_bytes=10, room=0)
    outbox.offer(b"goes to the transport")
    for frame in (b"first snapshot", b"second snapshot"):
        assert outbox.offer(frame, EXEMPT) is Offer.ACCEPTED
    assert outbox.offer(b"1234567890") is Offer.ACCEPTED
    assert outbox.offer(b"1") is Offer.OVERFLOW


def test_outbox_does_not_count_what_it_pulled_while_that_waits_nor_afterwards() -> None:
    most = CHUNK_BYTES * 16
    outbox, transport = connected(max_bytes=most, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * CHUNK_BYTES)
    parts = [b"y" * CHUNK_BYTES, b"z" * CHUNK_BYTES]
    outbox.pull = lambda: parts.pop(0) if parts else None
    for room in (5, CHUNK_BYTES):  # with each chunk that goes one is pulled
        transport.take(room)
        transport.turn()
        assert outbox.waiting_bytes == CHUNK_BYTES
    assert parts == []
    assert outbox.offer(b"1" * most) is Offer.ACCEPTED
    assert outbox.offer(b"1") is Offer.OVERFLOW
    transport.settle()
    transport.room = 0
    outbox.offer(b"goes to the transport")
    assert outbox.offer(b"1" * (most + 1)) is Offer.OVERFLOW
    assert outbox.offer(b"1" * most) is Offer.ACCEPTED


def test_outbox_counts_again_from_nothing_after_exempt_frames_have_gone() -> None:
    outbox, transport = connected(max_bytes=10, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * 5000, EXEMPT)
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


def test_outbox_gives_the_transport_a_chunk_to_its_last_byte() -> None:
    outbox, transport = connected(max_bytes=1 << 20, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * (CHUNK_BYTES - 1))
    outbox.offer(b"y")
    transport.take(5)
    transport.turn()
    assert outbox.waiting_bytes == 0


def test_outbox_stays_direct_when_what_the_transport_wrote_has_gone_at_once() -> None:
    outbox, transport = connected()
    outbox.others_wrote()
    assert outbox.is_direct
    assert not transport.awaited


def test_outbox_takes_one_offer_whole_even_if_it_is_more_than_a_chunk() -> None:
    outbox, transport = connected(max_bytes=1 << 20, room=0)
    outbox.offer(b"first")
    outbox.offer(b"x" * (CHUNK_BYTES + 1))
    outbox.offer(b"y")
    transport.take(5)
    transport.turn()
    assert transport.buffer == b"x" * (CHUNK_BYTES + 1)
    assert outbox.waiting_bytes == 1


@pytest.mark.parametrize("tag", [LOSSLESS, EXEMPT, A], ids=["lossless", "exempt", "conflatable"])
def test_outbox_is_closed_by_a_socket_that_raises(tag: Tag) -> None:
    outbox, transport = connected()
    transport.broken = True
    assert outbox.offer(b"abc", tag) is Offer.CLOSED
    assert outbox.closed
    transport.broken = False
    assert outbox.offer(b"abc", tag) is Offer.CLOSED
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
    outbox.offer(b"ghi", EXEMPT)
    outbox.close()
    assert outbox.waiting_bytes == 0
    transport.settle()
    assert transport.wire == b"abc"


def test_outbox_that_is_closed_bears_calls_that_come_late() -> None:
    outbox, transport = connected(room=0)
    outbox.offer(b"abc")
    outbox.close()
    assert outbox.sender() is None
    outbox.left_over(b"def", 1)
    outbox.others_wrote()
    outbox.drained()
    outbox.send_pulled()
    assert not outbox.is_stuck(1000, 30)
    transport.settle()
    assert transport.wire == b"abc"


# Watermarks.


def test_outbox_takes_no_conflatable_frame_above_the_high_watermark_which_is_half() -> None:
    outbox, transport = connected(max_bytes=20, room=0)
    outbox.offer(b"goes to the transport", A)
    assert outbox.offer(b"1234567890", A) is Offer.ACCEPTED
    assert outbox.offer(b"1", A) is Offer.CONFLATED
    assert outbox.offer(b"1234567890", LOSSLESS) is Offer.ACCEPTED
    transport.settle()
    assert transport.wire == b"goes to the transport" + b"1234567890" * 2


def test_outbox_drops_what_is_conflatable_before_it_overflows_and_says_what() -> None:
    outbox, transport = connected(max_bytes=20, room=0)
    told: list[Conflatable] = []
    outbox.on_dropped = told.extend
    outbox.offer(b"goes to the transport")
    outbox.offer(b"aaa", A)
    outbox.offer(b"11111", LOSSLESS)
    outbox.offer(b"b", B)
    outbox.offer(b"a", Conflatable(A.source))
    outbox.offer(b"snapshot", EXEMPT)
    assert outbox.offer(b"2222222222", LOSSLESS) is Offer.ACCEPTED
    assert told == []
    assert outbox.offer(b"33333", LOSSLESS) is Offer.ACCEPTED
    assert told == [A, B], "the oldest of each"
    assert outbox.offer(b"4", LOSSLESS) is Offer.OVERFLOW
    assert told == [A, B]
    transport.settle()
    assert transport.wire == b"goes to the transport11111snapshot222222222233333"


def test_outbox_drops_what_is_conflatable_when_nobody_wants_to_be_told() -> None:
    outbox, _ = connected(max_bytes=20, room=0)
    outbox.offer(b"goes to the transport")
    outbox.offer(b"1234567890", A)
    assert outbox.offer(b"2" * 20) is Offer.ACCEPTED
    assert outbox.waiting_bytes == 20


def test_outbox_pulls_at_once_when_nothing_waits_and_no_more_than_the_socket_takes() -> None:
    outbox, transport = connected(room=9)
    parts = [b"pulled one", b"pulled two", b"pulled three"]
    outbox.pull = lambda: parts.pop(0) if parts else None
    outbox.send_pulled()
    assert (transport.wire, transport.buffer) == (b"pulled on", b"e")
    assert len(parts) == 2
    outbox.send_pulled()
    assert len(parts) == 2, "the transport is not empty"
    transport.settle()
    assert transport.wire == b"pulled onepulled twopulled three"


def test_outbox_pulls_only_below_the_low_watermark_which_is_an_eighth() -> None:
    outbox, transport = connected(max_bytes=CHUNK_BYTES * 16, room=0)
    parts = [b"pulled"]
    outbox.pull = lambda: parts.pop(0) if parts else None
    outbox.offer(b"first")
    for _ in range(4):
        outbox.offer(b"x" * CHUNK_BYTES)
    for left in (3, 2):
        transport.take(CHUNK_BYTES if left < 3 else 5)
        transport.turn()
        assert outbox.waiting_bytes == left * CHUNK_BYTES
        assert parts == [b"pulled"]
    transport.take(CHUNK_BYTES)
    transport.turn()
    assert parts == []
    assert outbox.waiting_bytes == CHUNK_BYTES + len(b"pulled")


def test_outbox_leaves_the_rest_of_a_long_fetch_to_another_turn_of_the_loop() -> None:
    outbox, transport = connected()
    pulled = 0

    def pull() -> bytes | None:
        nonlocal pulled
        pulled += 1
        return b"x" if pulled <= 3 * PULLS_PER_TURN else None

    outbox.pull = pull
    outbox.send_pulled()
    assert pulled == PULLS_PER_TURN
    assert len(transport.wire) == PULLS_PER_TURN
    transport.turn()
    assert pulled == 2 * PULLS_PER_TURN
    transport.settle()
    assert len(transport.wire) == 3 * PULLS_PER_TURN


def test_outbox_awaits_the_transport_once_when_a_long_fetch_ends_with_a_full_socket() -> None:
    outbox, transport = connected(room=PULLS_PER_TURN - 1)
    outbox.pull = lambda: b"x"
    outbox.send_pulled()
    assert len(transport.wire) == PULLS_PER_TURN - 1
    assert len(transport.awaited) == 1


def test_outbox_lets_what_is_offered_during_a_pull_go_behind_what_waits() -> None:
    outbox, transport = connected(room=0)
    outbox.offer(b"first ")
    outbox.offer(b"waits ")

    def pull() -> bytes | None:
        outbox.pull = lambda: None
        outbox.offer(b"offered ")
        return b"pulled"

    outbox.pull = pull
    transport.settle()
    assert transport.wire == b"first waits offered pulled"


def test_outbox_sends_nothing_more_when_a_pull_closes_it() -> None:
    outbox, transport = connected()

    def pull() -> bytes | None:
        outbox.close()
        return b"too late"

    outbox.pull = pull
    outbox.send_pulled()
    assert transport.wire == b""
    assert outbox.waiting_bytes == 0


def test_outbox_pulls_behind_a_ping_of_the_transport() -> None:
    outbox, transport = connected(room=0)
    transport.ping()
    parts = [b"pulled"]
    outbox.pull = lambda: parts.pop() if parts else None
    outbox.send_pulled()
    transport.settle()
    assert transport.wire == b"\x89\x00pulled"


# Stuck.


def test_outbox_is_stuck_when_no_byte_has_left_for_so_long() -> None:
    outbox, transport = connected(room=0)
    assert not outbox.is_stuck(0, 30)
    assert not outbox.is_stuck(100, 30), "nothing waits"
    outbox.offer(b"abc")
    assert not outbox.is_stuck(100, 30)
    assert not outbox.is_stuck(129, 30)
    assert outbox.is_stuck(130, 30)
    transport.take(1)
    assert not outbox.is_stuck(131, 30), "a byte has left"
    assert not outbox.is_stuck(160, 30)
    transport.acknowledged += 1
    assert not outbox.is_stuck(161, 30), "the peer has read a byte of what left before"
    assert not outbox.is_stuck(190, 30)
    assert outbox.is_stuck(191, 30)
    transport.settle()
    assert not outbox.is_stuck(1000, 30)
