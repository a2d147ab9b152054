"""A user's own fills: what traded of whose order, and what was paid (docs/contract.md#own-fills).

Each side of a fill is one of its order's owner, so who trades with himself has two. A fill's name is the place of its record;
under it and its side it is kept once, however often that record is read. They are kept packed, some 230 bytes each: the newest
of each user, and of all users those of who traded last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import starmap
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import msgspec

from core.messages.events import Fill
from core.messages.model import OrderType, Side, TimeInForce, decimal_text
from core.orders.order import Order
from core.orders.pieces import PIECE, GiveWay, in_pieces, nobody_else, sort_in_pieces

# What a user has at most; told in docs/contract.md.
MOST_OF_A_USER: Final = 1_000
MOST_FILLS: Final = 500_000

_MAX_NUMBER_DIGITS: Final = 19

Liquidity = Literal["maker", "taker"]


class FillKey(NamedTuple):
    """Where a fill's record is on the market topic, and which side of it is meant."""

    partition: int
    offset: int
    side: Side

    @property
    def fill_id(self) -> str:
        """Its name, which both sides have."""
        return f"{self.partition}-{self.offset}"


class OwnFill(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is kept of one side, but for its key and its owner.

    `price` (quote per base), `quantity` (base) and `fee` (of `fee_currency`) are decimals in plain notation. `time_ms` is the
    trade's, milliseconds since the Unix epoch.
    """

    order_id: str
    client_order_id: str | None
    symbol: str
    price: str
    quantity: str
    time_ms: int
    liquidity: Liquidity | None = None
    fee: str | None = None
    fee_currency: str | None = None


class KnownFill(NamedTuple):
    """A fill of somebody's, under its key."""

    key: FillKey
    fill: OwnFill

    @property
    def place(self) -> tuple[int, int, int]:
        """What fills are sorted by: the trade's time, then the place of its record."""
        return self.fill.time_ms, self.key.partition, self.key.offset

    def shown(self) -> dict[str, object]:
        """The fill as its owner is shown it: decimals as text, `time` in seconds."""
        fill = self.fill
        return {
            "fill_id": self.key.fill_id,
            "order_id": fill.order_id,
            "client_order_id": fill.client_order_id,
            "symbol": fill.symbol,
            "side": self.key.side.value,
            "price": fill.price,
            "quantity": fill.quantity,
            "liquidity": fill.liquidity,
            "fee": fill.fee,
            "fee_currency": fill.fee_currency,
            "time": fill.time_ms / 1000,
        }


_by_place = attrgetter("place", "key.side")
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(OwnFill).decode


def own_side(order: Order, event: Fill, partition: int, offset: int) -> KnownFill:
    """The side of a fill that is this order's. The record of the fill is at that place of the market topic."""
    side = Side.BID if event.buy_order_id == order.order_id else Side.ASK
    fee = event.buy_fee if side is Side.BID else event.sell_fee
    return KnownFill(
        FillKey(partition, offset, side),
        OwnFill(
            order.order_id,
            order.client_order_id,
            order.symbol,
            decimal_text(event.price),
            decimal_text(event.quantity),
            event.timestamp_ms,
            _liquidity(order, event, side),
            None if fee is None else decimal_text(fee),
            None if fee is None else event.fee_currency,
        ),
    )


def _liquidity(order: Order, event: Fill, side: Side) -> Liquidity | None:
    if event.taker_side is not None:
        return "taker" if event.taker_side is side else "maker"
    # What never rests has taken.
    takes = order.order_type is OrderType.MARKET or order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    return "taker" if takes else None


def read_fill_id(text: str) -> tuple[int, int]:
    """Partition and offset of a fill's name. Raises ValueError."""
    partition, dash, offset = text.partition("-")
    if not (dash and _is_number(partition, 31) and _is_number(offset, 63)):
        raise ValueError("expected a fill_id")
    return int(partition), int(offset)


def _is_number(text: str, bits: int) -> bool:
    is_short = text.isascii() and text.isdecimal() and len(text) <= _MAX_NUMBER_DIGITS
    return is_short and int(text).bit_length() <= bits


class OwnFills:
    """All fills of all users. Who keeps them on the state topic is told of each that comes or goes."""

    def __init__(self, most_of_a_user: int = MOST_OF_A_USER, most: int = MOST_FILLS) -> None:
        self._most_of_a_user = most_of_a_user
        self._most = most
        self._count = 0
        # Who traded last is last. Of each the packed fills under packed keys, as they came.
        self._users: OrderedDict[str, dict[int, bytes]] = OrderedDict()
        # Called with a user, a key and its symbol, whenever that comes or goes.
        self.on_change: Callable[[str, FillKey, str], None] = _untold
        # By partition of the market topic, from where on what is kept has all fills; what is missing is where reading began.
        self.kept_from: dict[int, int] = {}
        self.read_from: Callable[[], Mapping[int, int]] = dict
        # By partition, the last fill that was dropped, whoever's it was.
        self.dropped_to: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, user_id: str, known: KnownFill) -> bool:
        """Whether it is news."""
        fills = self._users.setdefault(user_id, {})
        packed_key = _pack_key(known.key)
        if packed_key in fills:
            return False
        fills[packed_key] = _pack(known.fill)
        self._count += 1
        self._users.move_to_end(user_id)
        self.on_change(user_id, known.key, known.fill.symbol)
        self._keep_bounds(user_id)
        return True

    def add_older(self, user_id: str, older: Iterable[KnownFill]) -> None:
        """Fills of one user of before those that are known; those of these that are among them are as they are told now."""
        if user_id not in self._users:
            self._users[user_id] = {}
            self._users.move_to_end(user_id, last=False)
        fills = self._users[user_id]
        for one in older:
            packed_key, packed = _pack_key(one.key), _pack(one.fill)
            if fills.get(packed_key) != packed:
                self._count += packed_key not in fills
                fills[packed_key] = packed
                self.on_change(user_id, one.key, one.fill.symbol)
        self._users[user_id] = {key: fills[key] for key in (_pack_key(one.key) for one in self.of(user_id))}
        self._keep_bounds(user_id)

    def _drop(self, user_id: str, packed_key: int) -> None:
        fills = self._users[user_id]
        symbol = _unpack(fills.pop(packed_key)).symbol
        self._count -= 1
        if not fills:
            del self._users[user_id]
        self.on_change(user_id, _unpack_key(packed_key), symbol)

    def _drop_for_room(self, user_id: str) -> None:
        packed_key = next(iter(self._users[user_id]))
        key = _unpack_key(packed_key)
        self.dropped_to[key.partition] = max(key.offset, self.dropped_to.get(key.partition, 0))
        self._drop(user_id, packed_key)

    def _keep_bounds(self, user_id: str) -> None:
        while len(self._users[user_id]) > self._most_of_a_user:
            self._drop_for_room(user_id)
        while self._count > self._most:
            self._drop_for_room(next(iter(self._users)))

    def get(self, user_id: str, key: FillKey) -> OwnFill | None:
        """One of a user's, if it is kept."""
        packed = self._users.get(user_id, {}).get(_pack_key(key))
        return None if packed is None else _unpack(packed)

    def of(self, user_id: str) -> list[KnownFill]:
        """All of a user's, oldest first. Three microseconds each."""
        return sorted(self._of(user_id), key=_by_place)

    def _of(self, user_id: str) -> Iterator[KnownFill]:
        return starmap(_known, self._users.get(user_id, {}).items())

    async def page(
        self,
        user_id: str,
        limit: int,
        wanted: Callable[[OwnFill], bool],
        give_way: GiveWay = nobody_else,
        *,
        before: tuple[int, int] | None = None,
        after: tuple[int, int] | None = None,
    ) -> list[KnownFill]:
        """Some of a user's: those behind `after`, oldest first, else those before `before`, or the last, newest first.

        They are those of when it was asked; `give_way`: see `core.orders.pieces`.
        One more than `limit` where that would part the two sides of one fill. Raises LookupError if the fill that was named
        is none of the user's, or is not kept any more.
        """
        kept = list(self._users.get(user_id, {}).items())
        known = [_known(*each) async for piece in in_pieces(kept, give_way) for each in piece]
        known = await sort_in_pieces(known, _by_place, give_way, PIECE)
        named = before if after is None else after
        places = [at for at, one in enumerate(known) if one.key[:2] == named]
        if named is not None and not places:
            raise LookupError(named)
        known = known[places[-1] + 1 :] if after is not None else known[: places[0] if places else None][::-1]
        found = [one for one in known if wanted(one.fill)]
        if len(found) > limit and found[limit].key[:2] == found[limit - 1].key[:2]:
            limit += 1
        return found[:limit]

    def since(self, user_id: str, positions: Mapping[int, int]) -> list[KnownFill]:
        """A user's behind these offsets, by partition; oldest first."""
        return [one for one in self.of(user_id) if one.key.offset > positions.get(one.key.partition, -1)]

    def has_all_since(self, user_id: str, positions: Mapping[int, int], read_to: Mapping[int, int]) -> bool:
        """Whether every fill of a user's behind these offsets, by partition, is kept. One that is not named is read whole.

        `read_to`: by partition of the market topic, the last offset that was read.
        """
        begins = self.begins()
        at = {partition: positions.get(partition, -1) + 1 for partition in read_to}
        if any(at[partition] < begins.get(partition, read + 1) for partition, read in read_to.items()):
            return False
        if len(self._users.get(user_id, ())) < self._most_of_a_user and self._count < self._most:
            return True
        # Some may have been dropped: on each partition only such as are older than the ones that are kept.
        oldest: dict[int, int] = {}
        for key, _ in self._of(user_id):
            oldest[key.partition] = min(key.offset, oldest.get(key.partition, key.offset))
        dropped = {partition: self.dropped_to.get(partition, -1) + 1 for partition in read_to}
        return all(
            next_one >= min(dropped[number], oldest.get(number, dropped[number])) for number, next_one in at.items()
        )

    def begins(self) -> dict[int, int]:
        """By partition of the market topic, from where on all fills were read, or are among what was taken back."""
        return {**self.read_from(), **self.kept_from}

    def clear(self) -> None:
        """The market topic is another one, and names other fills so."""
        for user_id in list(self._users):
            for packed_key in list(self._users[user_id]):
                self._drop(user_id, packed_key)
        self.kept_from = {}
        self.dropped_to = {}

    # Kept, and taken back.

    def walk(self) -> Iterator[tuple[str, KnownFill]]:
        """All there are when each user's turn comes, for who takes a few at a time."""
        for user_id in list(self._users):
            for known in list(self._of(user_id)):
                yield user_id, known

    def take_back(self, user_id: str, key: FillKey, fill: OwnFill | None) -> None:
        """As it was kept; None: it was dropped. Followed by `resume`."""
        packed_key = _pack_key(key)
        if fill is not None:
            fills = self._users.setdefault(user_id, {})
            self._count += packed_key not in fills
            fills[packed_key] = _pack(fill)
        elif packed_key in self._users.get(user_id, {}):
            self._drop(user_id, packed_key)

    def discard(self, is_of: Callable[[str], bool]) -> None:
        """Drop those of all symbols of which `is_of` says so."""
        for user_id, known in list(self.walk()):
            if is_of(known.fill.symbol):
                self._drop(user_id, _pack_key(known.key))

    def resume(self, kept_from: Mapping[int, int]) -> None:
        """All is taken back that there is: it goes by time from here on. See `kept_from`."""
        self.kept_from = dict(kept_from)
        newest: dict[str, int] = {}
        for user_id, fills in self._users.items():
            known = self.of(user_id)
            newest[user_id] = known[-1].fill.time_ms
            self._users[user_id] = {key: fills[key] for key in (_pack_key(one.key) for one in known)}
        for user_id in sorted(newest, key=newest.__getitem__):
            self._users.move_to_end(user_id)
        for user_id in newest:
            if user_id in self._users:
                self._keep_bounds(user_id)


def _untold(_user_id: str, _key: FillKey, _symbol: str) -> None:
    """Nobody keeps them."""


# One number in place of an object of three: a third of the memory.


def _pack_key(key: FillKey) -> int:
    return key.offset << 32 | key.partition << 1 | (key.side is Side.ASK)


def _known(packed_key: int, packed: bytes) -> KnownFill:
    return KnownFill(_unpack_key(packed_key), _unpack(packed))


def _unpack_key(packed: int) -> FillKey:
    return FillKey(packed >> 1 & 0x7FFF_FFFF, packed >> 32, Side.ASK if packed & 1 else Side.BID)
