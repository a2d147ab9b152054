"""Streams: what a channel tells, item by item, over reconnects and restarts of either side.

Lossless ones (`trades`, `events`, `orders`, `fills`) leave nothing out. What a program has not taken yet is kept up to a
bound. Beyond it that channel alone is left, so that nothing else on the connection waits, and joined again with `since`
once the program has caught up: no hole, no repeat, and no more memory. Conflated ones (`ticker`, `tickers`, `candles`,
`balances`, `status`) keep the newest of each symbol, candle or currency, and a slow program sees that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from mexchange.errors import MExchangeError
from mexchange.models import Gap, Position
from mexchange.subscriptions import Owner, Subscription

T = TypeVar("T")
Message = dict[str, Any]
Seq = int | dict[str, int] | None

# Items by which a repeat is known: as many fills as the gateway keeps of one user.
KNOWN = 1000


class Page(NamedTuple, Generic[T]):
    """What REST tells behind an item, oldest first. `is_whole`: nothing between that item and these is left out."""

    items: list[T]
    is_whole: bool
    is_last: bool
    epoch: str


class Refill(NamedTuple, Generic[T]):
    """How what a channel of one partition could not tell is had over REST: behind the item of an id, `partition-offset`."""

    page: Callable[[str], Awaitable[Page[T]]]
    id_of: Callable[[T], str | None]


class _Missed(NamedTuple, Generic[T]):
    """Stands where a channel did not go on from what was held; up to `seq` REST may tell more than its snapshot does."""

    after: str | None
    epoch: str
    is_same_epoch: bool
    seq: int
    snapshot: list[T]


class _Stream(Subscription):
    def __init__(self, owner: Owner, channel: str) -> None:
        super().__init__(owner, channel)
        self._waiter: asyncio.Future[None] | None = None

    async def _wait(self) -> None:
        self._raise_if_over()
        if self._waiter is not None:
            raise RuntimeError(f"{self.channel} is read by two tasks at once")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Lossless(_Stream, Generic[T]):
    """Every item, in order, each once, beginning with the channel's snapshot; a `Gap` where that could not be.

    Args:
        read: a notification's items, from the whole message.
        bound: how many items may wait for the program before the channel is left for a while.
        since: from where on, instead of the snapshot.
        refill: of a channel whose snapshot repeats what was told: how what is missing is had.
        key: of a channel that may repeat items when it goes on: what is the same of two that are one.
    """

    def __init__(
        self,
        owner: Owner,
        channel: str,
        read: Callable[[Message], list[T]],
        *,
        bound: int,
        since: Position | None = None,
        refill: Refill[T] | None = None,
        key: Callable[[T], Hashable] | None = None,
    ) -> None:
        super().__init__(owner, channel)
        self._read = read
        self._bound = bound
        self._refill = refill
        self._key = key
        self._known: dict[Hashable, None] = {}
        # What was taken in last, which is ahead of what the program was told by those that wait.
        self._epoch = since.epoch if since else None
        self._seq: Seq = since.seq if since else None
        self._last_id: str | None = None
        self._is_first = True
        self._is_full = False
        # Each with the epoch and seq that are reached with it; None within a notification.
        self._items: deque[tuple[T | Gap | _Missed[T], str | None, Seq]] = deque()
        self._told: tuple[str | None, Seq] = (self._epoch, self._seq)

    @property
    def position(self) -> Position | None:
        """How far the program has read: all of what came up to there was handed out."""
        epoch, seq = self._told
        return None if epoch is None or seq is None else Position(epoch, seq)

    def since(self) -> Position | None:
        return None if self._epoch is None or self._seq is None else Position(self._epoch, self._seq)

    def take(self, message: Message) -> None:
        epoch = message.get("epoch")
        if epoch is not None:
            self._begin(message, epoch)
        elif self._is_missing_one(message):
            self._rejoin()
        else:
            items = self._read_new(message)
            self._advance(message)
            self._push(items)

    def _read_new(self, message: Message) -> list[T]:
        """Its items, less those that were told before."""
        items = self._read(message)
        if self._key is None:
            return items
        new = {key: one for one in items if (key := self._key(one)) not in self._known}
        self._known.update(dict.fromkeys(new))
        for key in [*islice(self._known, max(0, len(self._known) - KNOWN))]:
            del self._known[key]
        return [*new.values()]

    def _begin(self, message: Message, epoch: str) -> None:
        """The first after joining, or after its partition came back."""
        items = self._read_new(message)
        recovered = message.get("recovered", None if self._is_first else False)
        is_same_epoch, after = epoch == self._epoch, self._last_id
        self._is_first = False
        self._epoch = epoch
        if recovered is not True:
            self._seq = None
        self._advance(message)
        if recovered is not False:
            self._push(items)
        elif self._refill is None:
            self._push([Gap(self.channel, "what was missed cannot be had any more"), *items])
        else:
            self._push([_Missed(after, epoch, is_same_epoch, message["seq"], items)])
            self._note(items)

    def _is_missing_one(self, message: Message) -> bool:
        """The channel tells what this one before it was, and that was not taken in (docs/contract.md#notifications)."""
        before = message.get("prev_seq", -1)
        if before < 0 or self._seq is None:
            return False
        held = self._seq.get(str(message.get("partition"))) if isinstance(self._seq, dict) else self._seq
        return held is not None and bool(before > held)

    def _advance(self, message: Message) -> None:
        seq, partition = message["seq"], message.get("partition")
        if partition is not None:
            held = self._seq if isinstance(self._seq, dict) else {}
            self._seq = {**held, str(partition): seq} if seq >= 0 else held
        elif isinstance(seq, dict) and isinstance(self._seq, dict):
            self._seq = self._seq | seq
        else:
            self._seq = seq

    def _push(self, items: list[Any]) -> None:
        if not items:
            return
        if len(items) > 1:
            self._items.extend((item, self._epoch, self._seq_within(item, self._seq)) for item in items[:-1])
        self._items.append((items[-1], self._epoch, self._seq))
        self._note(items)
        if len(self._items) >= self._bound and not self._is_full:
            self._is_full = True
            self.is_wanted = False
            self._owner.leave(self)
        self._wake()

    def _seq_within(self, item: Any, seq: Seq) -> Seq:
        """How far an item that is not the last of its notification reaches: of a trade its own offset is known."""
        if self._refill is None or not isinstance(seq, int) or isinstance(item, Gap):
            return None
        name = self._refill.id_of(item)
        return None if name is None else _offset(name)

    def _note(self, items: list[Any]) -> None:
        if self._refill is not None and items and not isinstance(items[-1], _Missed):
            self._last_id = self._refill.id_of(items[-1]) or self._last_id

    async def __anext__(self) -> T | Gap:
        # What is there already is not waited for: half of what an item costs.
        if self._items and type(self._items[0][0]) is not _Missed:
            return self._pop()
        item: T | Gap = await super().__anext__()
        return item

    async def _next(self) -> T | Gap:
        while True:
            while not self._items:
                await self._wait()
            item, epoch, seq = self._items[0]
            if not isinstance(item, _Missed):
                return self._pop()
            found = await self._find(item)  # it stays in its place should the program give up waiting for it
            self._items.popleft()
            if not found:
                self._told = (epoch, seq)
            for number, one in enumerate(reversed(found)):
                self._items.appendleft((one, epoch, self._seq_within(one, seq) if number else seq))

    def _pop(self) -> T | Gap:
        first: Any = self._items.popleft()
        item: T | Gap = first[0]
        _, epoch, seq = first
        if seq is not None:
            self._told = (epoch, seq)
        if self._is_full and len(self._items) <= self._bound // 2:
            self._is_full = False
            self._want()
        return item

    async def _find(self, missed: _Missed[T]) -> list[T | Gap]:
        """What was missed, with a gap before it unless it is whole."""
        assert self._refill is not None
        page, id_of = self._refill
        after, snapshot = missed.after, missed.snapshot
        if not missed.is_same_epoch:
            return [Gap(self.channel, "the topic was made anew"), *snapshot]
        if after is None:
            return [Gap(self.channel, "what was missed cannot be had any more"), *snapshot]
        ids = [id_of(item) for item in snapshot]
        if after in ids:  # the snapshot reaches back to what was told
            return [*snapshot[len(ids) - ids[::-1].index(after) :]]
        found: list[T] = []
        is_whole, name = True, after
        try:
            while True:
                told = await page(name)
                is_whole = is_whole and told.is_whole and told.epoch == missed.epoch
                found += [item for item in told.items if _offset(id_of(item)) <= missed.seq]
                last = id_of(told.items[-1]) if told.items else None
                if told.is_last or last is None or _offset(last) > missed.seq:
                    break
                name = last
        except MExchangeError as error:
            behind = [item for item in snapshot if _offset(id_of(item)) > _offset(after)]
            return [Gap(self.channel, f"what was missed could not be asked for: {error}"), *behind]
        return [*found] if is_whole else [Gap(self.channel, "a part of what was missed is not kept any more"), *found]


class Latest(_Stream, Generic[T]):
    """The newest of each key.

    Args:
        read: a notification's items with their keys.
        stale: what an item becomes when nobody tells of it any more; None: it is left as it is.
        gone: what an item becomes that a later snapshot does not have any more; None: all have it.
        refill: what has to be asked for behind an item once a later snapshot says that more may have changed.
        bound: so many are kept for a program that does not come; beyond it the oldest go.
    """

    def __init__(
        self,
        owner: Owner,
        channel: str,
        read: Callable[[Message], Iterable[tuple[Any, T]]],
        *,
        stale: Callable[[T], T] | None = None,
        gone: Callable[[T], T] | None = None,
        refill: Callable[[T], Awaitable[Iterable[tuple[Any, T]]]] | None = None,
        bound: int | None = None,
    ) -> None:
        super().__init__(owner, channel)
        self._read = read
        self._stale = stale
        self._gone = gone
        self._refill = refill
        self._bound = bound
        self._items: dict[Hashable, T] = {}
        # What was told last, where that may have to be taken back, or gone on from.
        self._last: dict[Hashable, T] = {}
        self._refill_from: T | None = None

    def take(self, message: Message) -> None:
        is_later_snapshot = self._last and "snapshot" in message["notification"]
        if is_later_snapshot and self._refill is not None and self._refill_from is None:
            self._refill_from = next(iter(self._last.values()))
        news = dict(self._read(message))
        self._put(news.items())
        if is_later_snapshot and self._gone is not None:
            gone = [(key, self._gone(item)) for key, item in self._last.items() if key not in news]
            self._put(gone)
            for key, _ in gone:
                del self._last[key]

    def on_lost(self) -> None:
        if self._stale is not None:
            stale = [(key, self._stale(item)) for key, item in self._last.items()]
            self._put([(key, item) for key, item in stale if item != self._last[key]])

    def _put(self, news: Iterable[tuple[Any, T]]) -> None:
        for key, item in news:
            self._items.pop(key, None)
            self._items[key] = item
            if self._refill is not None:
                self._last = {key: item}
            elif self._stale is not None:
                self._last[key] = item
        while self._bound is not None and len(self._items) > self._bound:
            del self._items[next(iter(self._items))]
        self._wake()

    async def _next(self) -> T | Gap:
        while not self._items:
            await self._wait()
        if self._refill_from is not None and self._refill is not None:
            after = self._refill_from
            try:
                found = dict(await self._refill(after))
            except MExchangeError as error:
                self._refill_from = None
                return Gap(self.channel, f"what was missed could not be asked for: {error}")
            self._refill_from = None
            self._items = dict(sorted({**found, **self._items}.items()))
        return self._items.pop(next(iter(self._items)))


def _offset(name: str | None) -> int:
    """Of the item of this name, `partition-offset`; -1 where it has none."""
    return -1 if name is None else int(name.rpartition("-")[2])
