"""The same bytes to many: one send a connection and tick, in slices that leave the loop its turns.

What is said to an audience within one tick is gathered; `flush` then goes over the connections once and gives each all
that it is to get in a single send. When a slice of time is used up, the rest is served in later turns of the loop. What is
said meanwhile to the same audiences goes to the rest in the same send, and to those before them afterwards: so it waits for
one round over the connections at most, not for two. Anything else is gathered for the next round. The invariant: to each
connection everything goes out in the order in which it was said. So whatever is sent past the gathering (an answer, a
snapshot, a replay) is preceded by `catch_up`.

Of the time that a send takes beyond the kernel's, most goes into fetching a connection's objects from memory: they are
scattered, and the kernel has used the cache meanwhile. So who gets what is worked out once for the audiences of a tick (a
`_Plan`: lists of nothing but the calls that send) and kept until somebody joins, leaves, or does not take all at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, cast

from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import DIRECT_CHANGES, EXEMPT, LOSSLESS, Conflatable, Offer, Send, Tag
from core.delivery.subscriber import Crowd, Members, Subscriber

# A look at the clock, and what else is done for each run of sends, costs as much as a twentieth of a send.
SENDS_BETWEEN_LOOKS: Final = 32
# How many connections the plans that are kept may name together, and what a plan counts for besides: some 70 bytes each.
MOST_PLANNED: Final = 65_536
PLAN_ITSELF: Final = 16
# This much of a slice comes before a look at whether anybody else wants the loop.
LEAST_OF_A_SLICE: Final = 0.1
# So few things, each said to one alone, are sooner sent one by one than planned.
FEW_JOBS: Final = 8
# How often a round may take in what was said meanwhile: each time divides it into more parts.
MOST_JOINS: Final = 8

ScheduleSlice = Callable[[Callable[[], None]], object]


class Load:
    """What some connections get in one send: the frames of several bundles, joined once."""

    __slots__ = ("_deflated", "messages", "parts", "plain")

    def __init__(self, parts: tuple[tuple[Bundle, Tag], ...]) -> None:
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

    def of(self, source: object) -> list[Conflatable]:
        """The tags of a source's frames, oldest first."""
        return [tag for _, tag in self.parts if isinstance(tag, Conflatable) and tag.source is source]

    def without(self, tags: Collection[Conflatable]) -> Load | None:
        """What is left of it when the frames of these are taken out."""
        parts = tuple(part for part in self.parts if part[1] not in tags)
        return Load(parts) if parts else None


class _Job:
    """One bundle and who is to get it, but for those who have been given it ahead of their turn."""

    __slots__ = ("ahead", "audience", "bundle", "tag")

    def __init__(self, bundle: Bundle, audience: Members, tag: Tag) -> None:
        self.bundle = bundle
        self.audience = audience
        self.tag = tag
        self.ahead: set[Subscriber] = set()

    def exclude(self, subscriber: Subscriber) -> bool:
        """Leave one out; False if it is not to get this, or not any more."""
        if subscriber not in self.audience or subscriber in self.ahead:
            return False
        self.ahead.add(subscriber)
        return True

    def left(self) -> Members:
        """Who is still to get it."""
        if not self.ahead:
            return self.audience
        return Members({subscriber: None for subscriber in self.audience if subscriber not in self.ahead})


class _Group:
    """Connections that get the same of a tick's bundles, in the same form, and at the same places what sends to them."""

    __slots__ = ("_places", "deflates", "numbers", "sends", "subscribers")

    def __init__(self, numbers: tuple[int, ...], deflates: bool) -> None:
        self.numbers = numbers
        self.deflates = deflates
        self.subscribers: list[Subscriber] = []
        self.sends: list[Send] = []
        self._places: dict[Subscriber, int] | None = None

    def place(self, subscriber: Subscriber) -> int:
        """Where a connection is, or -1."""
        if self._places is None:
            self._places = {one: place for place, one in enumerate(self.subscribers)}
        return self._places.get(subscriber, -1)


class _Plan:
    """How to serve some audiences, until `DIRECT_CHANGES`: groups, and who cannot be sent to directly."""

    __slots__ = ("groups", "others")

    def __init__(self, audiences: tuple[Members, ...]) -> None:
        self.others: list[tuple[Subscriber, tuple[int, ...]]] = []
        groups: dict[tuple[tuple[int, ...], bool], _Group] = {}
        for subscriber, numbers in _combined(audiences):
            send = subscriber.outbox.sender()
            if send is None:
                self.others.append((subscriber, numbers))
                continue
            key = (numbers, subscriber.deflates)
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(*key)
            group.subscribers.append(subscriber)
            group.sends.append(send)
        self.groups = tuple(groups.values())


def _combined(audiences: tuple[Members, ...]) -> Iterable[tuple[Subscriber, tuple[int, ...]]]:
    """Everybody once, with the numbers of the audiences it belongs to."""
    combinations: dict[Subscriber, tuple[int, ...]] = dict.fromkeys(audiences[0], (0,))
    known = combinations.get
    for number, audience in enumerate(audiences[1:], 1):
        one = (number,)
        for subscriber in audience:
            combinations[subscriber] = known(subscriber, ()) + one
    return combinations.items()


class _Delivery:
    """A part of a group, what it is given, and how far that has come."""

    __slots__ = ("at", "begin", "end", "group", "load")

    def __init__(self, group: _Group, load: Load, begin: int, end: int) -> None:
        self.group = group
        self.load = load
        self.begin = self.at = begin
        self.end = end


class _Round:
    """What is under way: its deliveries, and the parts that have been served."""

    __slots__ = ("deliveries", "joins", "later", "plan", "served")

    def __init__(self, plan: _Plan | None = None) -> None:
        self.plan = plan
        self.deliveries: deque[_Delivery] = deque()
        # Parts of groups that have been given all there was then.
        self.served: list[tuple[_Group, int, int]] = []
        self.joins = 0
        # How many of the deliveries, the last ones, are for what was said when others had been given theirs.
        self.later = 0

    def step(self) -> None:
        """The first delivery has come to its end."""
        delivery = self.deliveries.popleft()
        self.served.append((delivery.group, delivery.begin, delivery.end))

    def join(self, load: Callable[[tuple[int, ...]], Load]) -> None:
        """Give what was said meanwhile to everybody, as `load` has it for each combination of audiences."""
        self.joins += 1
        joined: dict[Load, Load] = {}
        for delivery in self.deliveries:
            if delivery.at > delivery.begin:
                self.served.append((delivery.group, delivery.begin, delivery.at))
                delivery.begin = delivery.at
            if delivery.load not in joined:
                joined[delivery.load] = Load(delivery.load.parts + load(delivery.group.numbers).parts)
            delivery.load = joined[delivery.load]
        served, self.served = self.served, []
        self.later += len(served)
        self.deliveries.extend([_Delivery(group, load(group.numbers), begin, end) for group, begin, end in served])


def _loads(jobs: list[_Job]) -> Callable[[tuple[int, ...]], Load]:
    """What those get who belong to these of the jobs' audiences; made once for all of them."""
    loads: dict[tuple[int, ...], Load] = {}

    def load(numbers: tuple[int, ...]) -> Load:
        if numbers not in loads:
            loads[numbers] = Load(tuple([(jobs[number].bundle, jobs[number].tag) for number in numbers]))
        return loads[numbers]

    return load


def _each_with_its_own(jobs: list[_Job]) -> dict[Subscriber, Load]:
    """What each one gets."""
    parts: dict[Subscriber, tuple[tuple[Bundle, Tag], ...]] = {}
    for job in jobs:
        for subscriber in job.left():
            parts[subscriber] = (*parts.get(subscriber, ()), (job.bundle, job.tag))
    return {subscriber: Load(some) for subscriber, some in parts.items()}


class Fanout:
    """Gathers what is said, and sends it. `on_trouble` is told who did not take what it was sent, and the tag of that."""

    def __init__(
        self,
        clock: Callable[[], float],
        observer: Observer,
        on_trouble: Callable[[Subscriber, Offer, Tag], None],
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._observer = observer
        self._on_trouble = on_trouble
        self._jobs: list[_Job] = []
        self._plans: dict[tuple[Members, ...], _Plan] = {}
        self._planned = 0
        # `DIRECT_CHANGES` when the plans were made, and when what is under way was last looked after.
        self._planned_at = self._known_at = DIRECT_CHANGES.count
        # What is under way; who is served apart from the others; and who has been served ahead of them.
        self._round = _Round()
        self._apart: dict[Subscriber, Load] = {}
        self._ahead: set[Subscriber] = set()
        # A slice is under way, or another turn of the loop has been asked for.
        self._is_taken = False
        self._began = 0.0
        # Without a loop to give turns to, a slice has no end. `others_wait` tells whether somebody waits for a turn.
        self.slice_seconds = float("inf")
        self.others_wait: Callable[[], bool] = lambda: False
        self.schedule_slice: ScheduleSlice = lambda go_on: go_on()
        # When the last slice ended.
        self._ended_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether some connections have not been given yet what was said before."""
        return bool(self._round.deliveries or self._apart or self._jobs)

    @property
    def takes_more(self) -> bool:
        """Whether what is said now can still go along with what is under way; what waits already goes first."""
        return not self._jobs and self._takes_more()

    def _takes_more(self) -> bool:
        under_way = self._round
        return (
            len(under_way.deliveries) > under_way.later
            and under_way.joins < MOST_JOINS
            and self._planned_at == DIRECT_CHANGES.count
            and not self._ahead
        )

    def gather(self, bundle: Bundle, audience: Iterable[Subscriber], tag: Tag = LOSSLESS) -> None:
        """Say something to an audience, as it is now, with the next flush."""
        if bundle:
            members = audience.members() if isinstance(audience, Crowd) else Members(dict.fromkeys(audience))
            self._jobs.append(_Job(bundle, members, tag))

    def send(self, bundle: Bundle, subscribers: Iterable[Subscriber], tag: Tag = LOSSLESS) -> None:
        """Say something to a few, behind everything that was said to them before."""
        if not bundle:
            return
        trouble: list[tuple[Subscriber, Offer, Tag]] = []
        writes = size = 0
        for subscriber in subscribers:
            if self.is_busy:
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

    def tell(self, frame: bytes | memoryview, subscriber: Subscriber) -> None:
        """The same of one message to one client alone, in its frame: an answer."""
        if self.is_busy:
            self.catch_up(subscriber)
        outcome = subscriber.outbox.offer(cast("bytes", frame))  # it is only read
        if outcome is Offer.ACCEPTED:
            self._observer.delivered(1, len(frame), 1)
        else:
            self._on_trouble(subscriber, outcome, LOSSLESS)

    def send_parts(self, parts: Iterable[tuple[Bundle, Tag]], subscriber: Subscriber) -> None:
        """Say several things to one, in one send, behind everything that was said to it before."""
        if self.is_busy:
            self.catch_up(subscriber)
        self._offer(subscriber, Load(tuple(parts)))

    def catch_up(self, subscriber: Subscriber) -> None:
        """Give one connection now what it would get in its turn."""
        load = self._take_out(subscriber)
        if load is not None:
            self._offer(subscriber, load)
        for job in self._jobs:
            if job.exclude(subscriber):
                self._offer(subscriber, Load(((job.bundle, job.tag),)))

    def drop(self, subscriber: Subscriber, source: object, refused: Conflatable | None = None) -> Conflatable | None:
        """What a source said is not to reach this connection any more; `refused` its outbox did not take just now.

        Returns the tag of the oldest of it, None if all has reached it.
        """
        oldest = subscriber.outbox.drop(source) or refused
        load = self._take_out(subscriber)
        if load is not None:
            tags = load.of(source)
            left = load.without(tags) if tags else load
            if left is not None:
                self._apart[subscriber] = left
            oldest = oldest or next(iter(tags), None)
        for job in self._jobs:
            if isinstance(job.tag, Conflatable) and job.tag.source is source and job.exclude(subscriber):
                oldest = oldest or job.tag
        return oldest

    def _take_out(self, subscriber: Subscriber) -> Load | None:
        """Take one out of what is under way, with what it was to get; None if it has had it."""
        load = self._apart.pop(subscriber, None)
        if load is None and subscriber not in self._ahead:
            for delivery in self._round.deliveries:
                if delivery.at <= delivery.group.place(subscriber) < delivery.end:
                    self._ahead.add(subscriber)
                    return delivery.load
        return load

    def flush(self) -> None:
        """Send what was gathered, or as much of it as a slice allows; the rest follows by itself.

        Behind a slice that was used up the loop gets its turn first: what comes meanwhile is sent afterwards.
        """
        if self._is_taken:
            return
        if self._round.deliveries or self._apart:  # a slice has failed, and left this
            self._serve(0.0)
            return
        if self._planned_at != DIRECT_CHANGES.count or self._planned > MOST_PLANNED:
            self._plans.clear()
            self._planned = 0
            self._planned_at = DIRECT_CHANGES.count
        if not self._jobs:
            return
        self._began = self._clock()
        jobs, self._jobs = self._jobs, []
        if len(jobs) <= FEW_JOBS and all(len(job.audience) == 1 for job in jobs):
            self._apart = _each_with_its_own(jobs)
            self._serve_few()
            return
        plan = self._plan(tuple([job.left() for job in jobs]))
        load = _loads(jobs)
        self._round = _Round(plan)
        self._ahead.clear()
        self._round.deliveries.extend(
            [_Delivery(group, load(group.numbers), 0, len(group.sends)) for group in plan.groups]
        )
        self._apart = {subscriber: load(numbers) for subscriber, numbers in plan.others}
        self._known_at = self._planned_at
        self._serve(0.0)

    def _join(self) -> None:
        """Let what was said meanwhile go along with what is under way, if it is for the very same audiences."""
        if not self._jobs or not self._takes_more() or any(job.ahead for job in self._jobs):
            return
        plan = self._round.plan
        if plan is None or self._plans.get(tuple([job.audience for job in self._jobs])) is not plan:
            return
        jobs, self._jobs = self._jobs, []
        load = _loads(jobs)
        self._round.join(load)
        self._apart = {subscriber: load(numbers) for subscriber, numbers in plan.others}

    def _plan(self, audiences: tuple[Members, ...]) -> _Plan:
        plan = self._plans.get(audiences)
        if plan is None:
            plan = self._plans[audiences] = _Plan(audiences)
            self._planned += PLAN_ITSELF + sum([len(audience) for audience in audiences])
        return plan

    def _go_on(self) -> None:
        self._is_taken = False
        if self._round.deliveries or self._apart:
            self._join()
            self._serve(self._clock() - self._ended_at)
        else:
            self.flush()

    def _serve(self, waited: float) -> None:
        self._is_taken = True
        try:
            used = self._slice(waited)
        finally:
            self._is_taken = False
        if self.is_busy or used >= self.slice_seconds / 2:
            self._is_taken = True
            self.schedule_slice(self._go_on)

    def _serve_few(self) -> None:
        """So few that no slice comes to its end."""
        self._is_taken = True
        try:
            self._serve_apart()
        finally:
            self._is_taken = False
        self._ended_at = self._clock()
        self._observer.fanned_out(self._ended_at - self._began, not self._jobs)
        if self._jobs:
            self._is_taken = True
            self.schedule_slice(self._go_on)

    def _serve_apart(self) -> None:
        for subscriber in tuple(self._apart):
            load = self._apart.pop(subscriber, None)
            if load is not None:
                self._offer(subscriber, load)

    def _slice(self, waited: float) -> float:
        """Serve for `slice_seconds`; while others wait only for as long as this was waited for, but a tenth at least.

        Takes and returns seconds: how long it has been waited for, and how long it took.
        """
        began = self._clock()
        ends = began + self.slice_seconds
        may_end = began + max(waited, self.slice_seconds * LEAST_OF_A_SLICE)
        is_known = self._known_at == DIRECT_CHANGES.count and not self._ahead
        deliveries = self._round.deliveries
        in_time = True
        while deliveries and in_time:
            in_time = self._deliver(deliveries[0], is_known, may_end, ends)
            if deliveries[0].at == deliveries[0].end:
                self._round.step()
        if is_known:
            # Whichever outbox has changed meanwhile did so because it was served.
            self._known_at = DIRECT_CHANGES.count
        self._serve_apart()
        self._ended_at = self._clock()
        if not (deliveries or self._apart):
            self._round = _Round()
            self._ahead.clear()
            self._observer.fanned_out(self._ended_at - self._began, not self._jobs)
        return self._ended_at - began

    def _deliver(self, delivery: _Delivery, is_known: bool, may_end: float, ends: float) -> bool:
        """Serve a part of a group, or some of it; False once time is up. `is_known`: its connections are as they were."""
        clock = self._clock
        load, group = delivery.load, delivery.group
        frames = load.deflated if group.deflates else load.plain
        end = delivery.end
        writes = 0
        is_late = False
        while delivery.at < end and not is_late:
            at, delivery.at = delivery.at, min(delivery.at + SENDS_BETWEEN_LOOKS, end)
            if is_known:
                writes += self._send(load, frames, group.subscribers, group.sends, at, delivery.at)
            else:
                subscribers, sends = self._look_through(load, group.subscribers[at : delivery.at])
                writes += self._send(load, frames, subscribers, sends, 0, len(sends))
            now = clock()
            is_late = now >= ends or (now >= may_end and self.others_wait())
        if writes:
            self._observer.delivered(writes, writes * len(frames), writes * load.messages)
        return not is_late

    def _look_through(self, load: Load, few: list[Subscriber]) -> tuple[list[Subscriber], list[Send]]:
        """Those of a few who have not been served ahead of the others, if they can be sent to directly."""
        subscribers: list[Subscriber] = []
        sends: list[Send] = []
        for subscriber in few:
            if subscriber in self._ahead:
                continue
            send = subscriber.outbox.sender()
            if send is None:
                self._apart[subscriber] = load
            else:
                subscribers.append(subscriber)
                sends.append(send)
        return subscribers, sends

    def _send(
        self, load: Load, frames: bytes, subscribers: list[Subscriber], sends: list[Send], at: int, end: int
    ) -> int:
        """Returns to how many."""
        whole, count = len(frames), end - at
        while at < end:
            try:
                for send in sends[at:end]:
                    at += 1
                    sent = send(frames)
                    if sent != whole:
                        subscribers[at - 1].outbox.left_over(frames, sent)
            except BlockingIOError:
                subscribers[at - 1].outbox.left_over(frames, 0)
            except OSError:
                closed = subscribers[at - 1]
                closed.outbox.close()
                self._apart[closed] = load
                count -= 1
        return count

    def _offer(self, subscriber: Subscriber, load: Load) -> None:
        """To one whose socket is not ready for all of it at once: each channel's frames by their own right."""
        deflates = subscriber.deflates
        parts: Iterable[tuple[bytes, Tag, int]]
        if subscriber.outbox.is_direct:
            parts = ((load.deflated if deflates else load.plain, EXEMPT, load.messages),)
        else:
            parts = [(bundle.deflated if deflates else bundle.plain, tag, len(bundle)) for bundle, tag in load.parts]
        refused: list[object] = []
        for frames, tag, messages in parts:
            if isinstance(tag, Conflatable) and tag.source in refused:
                continue
            outcome = subscriber.outbox.offer(frames, tag)
            if outcome is Offer.ACCEPTED:
                self._observer.delivered(1, len(frames), messages)
            else:
                if isinstance(tag, Conflatable):
                    refused.append(tag.source)
                self._on_trouble(subscriber, outcome, tag)
                if outcome is not Offer.CONFLATED:
                    return
