"""The same bytes to many: one send a connection and tick, in slices that leave the loop its turns.

What is said to an audience within one tick is gathered; `flush` then goes over the connections once and gives each all
that it is to get in a single send. When a slice of time is used up, the rest is served in later turns of the loop; what is
said meanwhile is gathered again and joined. The invariant: to each connection everything goes out in the order in which it
was said. So whatever is sent past the gathering (an answer, a snapshot, a replay) is preceded by `catch_up`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import repeat
from typing import Final

from core.frames import Bundle
from core.observer import Observer
from core.outbox import EXEMPT, LOSSLESS, Offer
from core.subscriber import Subscriber

# A look at the clock costs as much as a hundredth of a send.
SENDS_BETWEEN_LOOKS: Final = 16

Again = Callable[[Callable[[], None]], object]


class Load:
    """What some connections get in one send: the frames of several bundles, joined once."""

    __slots__ = ("_deflated", "messages", "parts", "plain")

    def __init__(self, parts: tuple[tuple[Bundle, Hashable], ...]) -> None:
        self.parts = parts
        self.messages = sum([len(bundle) for bundle, _ in parts])
        self.plain = parts[0][0].plain if len(parts) == 1 else b"".join([bundle.plain for bundle, _ in parts])
        self._deflated: bytes | None = None

    @property
    def deflated(self) -> bytes:
        """The same for connections with compression."""
        if self._deflated is None:
            self._deflated = b"".join([bundle.deflated for bundle, _ in self.parts])
        return self._deflated

    def without(self, tag: Hashable) -> Load | None:
        """What is left of it when one channel's frames are taken out."""
        parts = tuple(part for part in self.parts if part[1] is not tag)
        return Load(parts) if parts else None


class _Job:
    """One bundle and who is to get it."""

    __slots__ = ("audience", "bundle", "tag")

    def __init__(self, bundle: Bundle, audience: set[Subscriber], tag: Hashable) -> None:
        self.bundle = bundle
        self.audience = audience
        self.tag = tag


class Fanout:
    """Gathers what is said, and sends it. `on_trouble` is told who did not take what it was sent, and the tag of that."""

    def __init__(
        self,
        clock: Callable[[], float],
        observer: Observer,
        on_trouble: Callable[[Subscriber, Offer, Hashable], None],
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._observer = observer
        self._on_trouble = on_trouble
        self._jobs: list[_Job] = []
        self._rest: dict[Subscriber, Load] = {}
        self._is_scheduled = False
        self._began = 0.0
        # Without a loop to give turns to, a slice has no end.
        self.slice_seconds = float("inf")
        self.again: Again = lambda go_on: go_on()

    @property
    def is_busy(self) -> bool:
        """Whether some connections have not been given yet what was said before."""
        return bool(self._rest)

    def gather(self, bundle: Bundle, audience: Iterable[Subscriber], tag: Hashable = LOSSLESS) -> None:
        """Say something to an audience, as it is now, with the next flush."""
        if bundle:
            self._jobs.append(_Job(bundle, set(audience), tag))

    def send(self, bundle: Bundle, subscribers: Iterable[Subscriber], tag: Hashable = LOSSLESS) -> None:
        """Say something to a few, behind everything that was said to them before."""
        if not bundle:
            return
        trouble: list[tuple[Subscriber, Offer, Hashable]] = []
        writes = size = 0
        for subscriber in subscribers:
            if self._rest or self._jobs:
                self.catch_up(subscriber)
            frames = bundle.deflated if subscriber.deflates else bundle.plain
            outcome = subscriber.outbox.offer(frames, tag)
            if outcome is Offer.ACCEPTED:
                writes += 1
                size += len(frames)
            else:
                trouble.append((subscriber, outcome, tag))
        self._observer.delivered(writes, size, writes * len(bundle))
        for one in trouble:
            self._on_trouble(*one)

    def catch_up(self, subscriber: Subscriber) -> None:
        """Give one connection now what it would get in its turn."""
        load = self._rest.pop(subscriber, None)
        if load is not None:
            self._offer(subscriber, load)
        for job in self._jobs:
            if subscriber in job.audience:
                job.audience.discard(subscriber)
                self._offer(subscriber, Load(((job.bundle, job.tag),)))

    def drop(self, subscriber: Subscriber, tag: Hashable) -> None:
        """What was said with this tag is not to reach this connection any more."""
        load = self._rest.get(subscriber)
        if load is not None:
            left = load.without(tag)
            if left is None:
                del self._rest[subscriber]
            else:
                self._rest[subscriber] = left
        for job in self._jobs:
            if job.tag is tag:
                job.audience.discard(subscriber)

    def flush(self) -> None:
        """Send what was gathered, or as much of it as a slice allows; the rest follows by itself."""
        if self._rest or not self._jobs:
            return
        self._began = self._clock()
        jobs, self._jobs = self._jobs, []
        if len(jobs) == 1:
            (job,) = jobs
            load = Load(((job.bundle, job.tag),))
            self._serve(zip(job.audience, repeat(load)))
        else:
            self._serve(iter(_plan(jobs).items()))

    def _go_on(self) -> None:
        self._is_scheduled = False
        rest, self._rest = self._rest, {}
        self._serve(iter(rest.items()))
        if not self._rest:
            self.flush()

    def _serve(self, pairs: Iterator[tuple[Subscriber, Load]]) -> None:
        clock = self._clock
        ends = clock() + self.slice_seconds
        left = SENDS_BETWEEN_LOOKS
        writes = size = messages = 0
        others: list[tuple[Subscriber, Load]] = []
        for subscriber, load in pairs:
            outbox = subscriber.outbox
            direct = outbox.direct
            if direct is None:
                others.append((subscriber, load))
            else:
                frames = load.deflated if subscriber.deflates else load.plain
                try:
                    sent = direct(frames)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    outbox.close()
                    others.append((subscriber, load))
                    continue
                whole = len(frames)
                if sent != whole:
                    outbox.left_over(frames, sent)
                writes += 1
                size += whole
                messages += load.messages
            left -= 1
            if not left:
                left = SENDS_BETWEEN_LOOKS
                if clock() >= ends:
                    self._rest = dict(pairs)
                    break
        if writes:
            self._observer.delivered(writes, size, messages)
        for subscriber, load in others:
            self._offer(subscriber, load)
        if not self._rest:
            self._observer.fanned_out(clock() - self._began)
        elif not self._is_scheduled:
            self._is_scheduled = True
            self.again(self._go_on)

    def _offer(self, subscriber: Subscriber, load: Load) -> None:
        """To one whose socket is not ready for all of it at once: each channel's frames by their own right."""
        deflates = subscriber.deflates
        parts: Iterable[tuple[bytes, Hashable, int]]
        if subscriber.outbox.direct is not None:
            parts = ((load.deflated if deflates else load.plain, EXEMPT, load.messages),)
        else:
            parts = [(bundle.deflated if deflates else bundle.plain, tag, len(bundle)) for bundle, tag in load.parts]
        refused: set[Hashable] = set()
        for frames, tag, messages in parts:
            if tag in refused:
                continue
            outcome = subscriber.outbox.offer(frames, tag)
            if outcome is Offer.ACCEPTED:
                self._observer.delivered(1, len(frames), messages)
            else:
                refused.add(tag)
                self._on_trouble(subscriber, outcome, tag)
                if outcome is not Offer.CONFLATED:
                    return


def _plan(jobs: list[_Job]) -> dict[Subscriber, Load]:
    """For each connection all that it is to get, joined once for all who get the same."""
    combinations: dict[Subscriber, tuple[int, ...]] = {}
    for number, job in enumerate(jobs):
        one = (number,)
        if not combinations:
            combinations = dict.fromkeys(job.audience, one)
            continue
        known = combinations.get
        for subscriber in job.audience:
            combinations[subscriber] = known(subscriber, ()) + one
    loads: dict[tuple[int, ...], Load] = {}
    plan: dict[Subscriber, Load] = {}
    for subscriber, combination in combinations.items():
        load = loads.get(combination)
        if load is None:
            load = loads[combination] = Load(tuple((jobs[number].bundle, jobs[number].tag) for number in combination))
        plan[subscriber] = load
    return plan
