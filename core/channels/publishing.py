"""News on its way out: each channel takes it in, and says it to its crowd when it is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from core.channels.backlog import Backlog
from core.channels.channel import Channel
from core.channels.first_notification import FirstNotifications
from core.channels.membership import Membership
from core.channels.resume import Resume
from core.channels.schedule import HEARTBEAT_SECONDS, RETRY_SECONDS, Schedule
from core.channels.slices import Slices
from core.channels.slow_consumers import SlowConsumers
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import Tag
from core.delivery.subscriber import Subscriber
from core.market.market import Market
from core.market.partitions import Partitions
from core.market.symbol_market import News

# Between looks at what has left the 24 hours: it is told within a second (docs/contract.md#channels). A look at a symbol takes
# one or two microseconds; 10,000 symbols at once would hold up the loop for 17 ms.
AGE_SECONDS: Final = 0.5
AGED_A_BEAT: Final = 250
# So few channels that are due at once are said at once, in whichever order.
FEW_DUE: Final = 16


class Publishing:
    """What a drain brought becomes one run of frames per channel, built once however many read it."""

    def __init__(
        self,
        market: Market,
        members: Membership,
        partitions: Partitions,
        fanout: Fanout,
        first_notifications: FirstNotifications,
        resume: Resume,
        slow_consumers: SlowConsumers,
        schedule: Schedule,
        slices: Slices,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        """`slices` are of `say_next` among others."""
        self._market = market
        self._members = members
        self._partitions = partitions
        self._fanout = fanout
        self._first_notifications = first_notifications
        self._resume = resume
        self._slow_consumers = slow_consumers
        self._schedule = schedule
        self._clock = clock
        self._observer = observer
        self._backlog = Backlog()
        self._slices = slices
        # Conflatable channels that may be due; those of many that have no place yet; and whether the one whose turn it is says something, to whom alone what.
        self._due: list[Channel] = []
        self._to_place = deque[Channel]()
        self.at_once = FEW_DUE
        self._is_in_turn = False
        self._said_to_one: dict[Subscriber, list[tuple[Bundle, Tag]]] = {}
        self._untrusted: set[str] = set()
        self._age_at = clock()
        self._to_age: list[str] = []

    def publish(self, news: list[News]) -> None:
        """Say what one drain brought, to everybody concerned, in the order of the records."""
        members = self._members
        if members.stream:
            self._fanout.gather(Bundle([item.event.payload for item in news]), members.stream)
        if members.joining_stream:
            for subscriber, to_come in tuple(members.joining_stream.items()):
                # What only changes a book is in the snapshot that is to come.
                texts = [n.event.payload for n in news if n.trade is not None or n.event.symbol not in to_come]
                self._fanout.send(Bundle(texts, private=True), (subscriber,))
        if not members.channels:
            self._fanout.flush()
            return
        touched: dict[Channel, None] = {}
        lossless_of, unmarked_of = members.lossless_of, members.unmarked
        due, schedule = self._due, self._schedule.schedule
        everything = lossless_of.get(None)
        now = self._clock()
        for item in news:
            symbol = item.event.symbol
            if symbol in lossless_of:
                for lossless in lossless_of[symbol].values():
                    lossless.note(item)
                    touched[lossless] = None
            if everything:
                for lossless in everything.values():
                    lossless.note(item)
                    touched[lossless] = None
            if item.trade is not None:
                market = self._market.of(symbol)
                # What comes while the book cannot be shown ends in a snapshot, which has no trades.
                market.tape.note(item.trade, market.book.live)
            unmarked = unmarked_of.get(symbol)
            if unmarked:
                for conflated in unmarked:
                    conflated.dirty = True
                    if now >= conflated.next_news_at:
                        due.append(conflated)
                    else:
                        schedule(conflated, now)
                unmarked.clear()
        if members.overviews:
            self.touch_overviews(dict.fromkeys(item.event.symbol for item in news), now)
        for channel in touched:
            self.say_when_due(channel, now)
        self.say_in_turns(now)
        self._fanout.flush()
        if self._slow_consumers.to_pull:
            self._slow_consumers.send_pulled()

    def touch_overviews(self, symbols: Collection[str], now: float, at_once: bool = False) -> None:
        """Channels of all symbols may have something to tell of these; `at_once`: whatever their interval is.

        So it is where one was said to be out of date, and is not any more.
        """
        for channel in self._members.overviews.values():
            channel.touch(symbols)
            if at_once or channel.has_healed(symbols):
                channel.next_news_at = now
            if channel.dirty and now >= channel.next_news_at:
                self._backlog.add(channel)
            else:
                self._schedule.schedule(channel, now)

    def mark_untrusted(self, symbol: str) -> None:
        """A symbol's book cannot be trusted any more; told at the next beat, unless it was healed by then."""
        self._untrusted.add(symbol)

    def say_what_is_due(self, now: float) -> None:
        """Conflated news, heartbeats, what has left the 24 hours, and which books cannot be trusted."""
        if self._untrusted and self._members.overviews:
            self.touch_overviews(tuple(self._untrusted), now, at_once=True)
        while self._untrusted:
            for channel in self._members.channels_of.get(self._untrusted.pop(), {}).values():
                if not channel.lossless and not channel.is_fresh():
                    self.go_stale(channel)
        for channel in self._schedule.take_due(now):
            self.say_soon(channel, now)
        if now >= self._age_at and not self._to_age:
            self._age_at = now + AGE_SECONDS
            if self._members.overviews:
                self._to_age = self._market.known()
            else:
                self._to_age = [symbol for symbol in self._members.channels_of if symbol is not None]
        if self._to_age:
            self._age(now)
        self.say_in_turns(now)

    def _age(self, now: float) -> None:
        """Trades leave the 24 hours without an event. Symbols that nobody looks at are not looked at here either."""
        symbols = self._to_age[-AGED_A_BEAT:]
        del self._to_age[-AGED_A_BEAT:]
        has_overviews = bool(self._members.overviews)
        all_aged = []
        for symbol in symbols:
            channels = self._members.channels_of.get(symbol, {})
            if not (channels or has_overviews):
                continue
            has_aged = self._market.has_aged(symbol)
            if has_aged:
                all_aged.append(symbol)
            for channel in tuple(channels.values()):
                if has_aged or channel.follows_clock:
                    channel.age()
                    if channel.dirty:
                        self.say_soon(channel, now)
        if all_aged:
            self.touch_overviews(all_aged, now)

    def say_soon(self, channel: Channel, now: float) -> None:
        """What a channel has to say now: at once where nothing may be left out, else when it is its turn (`say_in_turns`)."""
        if channel.lossless:
            self.say_when_due(channel, now)
        elif channel.is_overview:
            self._backlog.add(channel)
        else:
            self._due.append(channel)

    def say_in_turns(self, now: float) -> None:
        """Begin with those who are to be said soon, or go on with who was before them."""
        due, self._due = self._due, []
        if len(due) > self.at_once or self._backlog or self._to_place:
            self._to_place.extend(due)
            self._slices.go_on()
        else:
            for channel in due:
                self.say_when_due(channel, now)

    def say_next(self) -> bool:
        """Serve the next channel of those whose turn it is, once all have their places; False if there is none."""
        if self._to_place:
            self._backlog.add(self._to_place.popleft())
            return True
        if not self._backlog:
            return False
        channel = self._backlog.pop()
        if channel.has_subscribers():
            if not self._prepared(channel):
                self._backlog.add(channel)
                return True
            self._is_in_turn = True
            try:
                self.say_when_due(channel, self._clock())
            finally:
                self._is_in_turn = False
        return True

    def _prepared(self, channel: Channel) -> bool:
        """Whether it can be said what it has to say; where a part of it fails, the rest can."""
        try:
            return channel.prepare()
        except Exception as error:
            self._observer.fault("channels", error, channel.name.text)
            return True

    def end_turn(self) -> None:
        """Send what was said in turns."""
        self._fanout.flush()
        while self._said_to_one:
            subscriber, parts = self._said_to_one.popitem()
            self._fanout.send_parts(parts, subscriber)

    def say_when_due(self, channel: Channel, now: float) -> None:
        """What a channel has to say now; the rest is put on the schedule. One that fails keeps no other from its turn."""
        try:
            self._say_when_due(channel, now)
        except Exception as error:
            self._observer.fault("channels", error, channel.name.text)
            if not channel.lossless:
                # What it took may not have been told: a snapshot, not a change, comes next.
                channel.stale = channel.stale or bool(channel.settled)
                channel.dirty = True
                channel.next_news_at = now + RETRY_SECONDS
            self._schedule.schedule(channel, now)

    def _say_when_due(self, channel: Channel, now: float) -> None:
        if channel.owes_stale:
            self._tell_stale(channel)
        if channel.dirty and now >= channel.next_news_at:
            self._say(channel, now)
        elif channel.heartbeats and now >= channel.said_at + HEARTBEAT_SECONDS and self._is_told(channel):
            self._broadcast(channel, channel.heartbeat_texts)
            channel.said_at = now
        if channel.awaiting:
            # Only now: the history they are served from has what was just said.
            self._resume.begin_waiting(channel)
        self._schedule.schedule(channel, now)

    def go_stale(self, channel: Channel) -> None:
        """Its state can no longer be trusted, which is told once, when it is its turn (`say_in_turns`)."""
        if not channel.stale:
            channel.stale = channel.owes_stale = True
            self._due.append(channel)

    def _tell_stale(self, channel: Channel) -> None:
        channel.owes_stale = False
        self._broadcast(channel, lambda: [channel.stale_text()])

    def _say(self, channel: Channel, now: float) -> None:
        channel.dirty = False
        if not channel.lossless:
            self._members.await_news(channel)
        is_read = channel.lossless or channel.is_overview or self._partitions.are_read(channel.partitions())
        if not (is_read and channel.is_known()):
            return
        if not channel.is_fresh():
            if not channel.stale:
                channel.stale = True
                self._tell_stale(channel)
            return
        healed, channel.stale = channel.stale, False
        said = channel.take(anew=healed)
        if healed:
            self._broadcast(channel, lambda: channel.snapshot_texts(channel.held(), begins=False))
        elif said:
            self._broadcast(channel, channel.news_texts)
        channel.has_told()
        if healed or said:
            channel.said_at = now
            channel.next_news_at = now if channel.has_more() else now + channel.interval_seconds
        if channel.awaiting:
            self._first_notifications.send_to_all(channel, self._members.on(channel, channel.awaiting))

    def _broadcast(self, channel: Channel, texts_for: Callable[[], list[bytes]]) -> None:
        """The same bytes to everyone settled."""
        settled = channel.settled
        if settled:
            bundle = Bundle([b"{" + text for text in texts_for()])
            if self._is_in_turn and len(settled) == 1:
                # A hundred audiences of one and the same client are no plan for the fan-out.
                [subscriber] = settled
                self._said_to_one.setdefault(subscriber, []).append((bundle, channel.tag()))
            else:
                self._fanout.gather(bundle, settled, channel.tag())

    def _is_told(self, channel: Channel) -> bool:
        """Whether there is a told state that still holds, as a heartbeat says."""
        is_trusted = channel.is_known() and channel.is_fresh() and not channel.stale
        return is_trusted and self._partitions.are_read(channel.partitions())
