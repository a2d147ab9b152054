"""The channel of candles: those that changed, by a trade or by the clock."""

from __future__ import annotations

from core.channels.conflated_channels import ConflatedChannel
from core.channels.names import ChannelName
from core.market.book_views import NOTHING_HELD, Held
from core.market.candles import CANDLE_INTERVALS_MS, start_of
from core.market.market import Market

# So many of the last ones a snapshot has: who listens knows of no other whether it has ended.
SNAPSHOT_CANDLES = 2


class CandlesChannel(ConflatedChannel):
    """`candles.{symbol}.{interval}`: the candles that changed as a whole, a snapshot of the last two."""

    follows_clock = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        self._interval = name.candles
        self._width_ms = CANDLE_INTERVALS_MS[self._interval]
        self._candles = self.market.candles
        self._changed = self._candles.follow(self._interval)
        # The last ones as they were told, by their starts; when the first of those that go on ends; and of which revision they are.
        self._told: dict[int, str] = {}
        self._is_told = False
        self._ends_ms = 0
        self._revision = -1
        self._news: list[str] = []
        if self.is_known():
            self.take()

    def is_fresh(self) -> bool:
        return True  # whatever the book is

    def take(self, anew: bool = False) -> bool:
        market, candles = self.market, self.market.candles
        if candles is not self._candles:
            # All that was known has gone, and its partition was read anew.
            self._candles, self._changed = candles, candles.follow(self._interval)
        elif self._revision == candles.revision and not (anew or self._is_over()) and self._is_told:
            return False
        rows = candles.rows(self._interval, limit=SNAPSHOT_CANDLES, as_numbers=True)
        last = {start_of(row): row for row in rows}
        changed = candles.rows_at(self._interval, self._changed)
        self._changed.clear()
        if rows:
            # What was told last may have ended more than one period ago, and the newest fill may be as late.
            newest = {next(reversed(self._told or last)), candles.newest_ms(self._interval)}
            for start_ms in newest - last.keys():
                changed += candles.rows(self._interval, start_ms=start_ms, limit=1, as_numbers=True)
        found = {start_of(row): row for row in changed} | last
        self._news = [row for start, row in sorted(found.items()) if self._told.get(start) != row]
        self._told, self._is_told, self._revision = last, True, candles.revision
        # A fill may be ahead of the clock, and its period told of before the one before has ended.
        now_ms, ends = candles.now_ms(), [start_ms + self._width_ms for start_ms in last]
        self._ends_ms = next((end_ms for end_ms in ends if end_ms > now_ms), ends[-1] if ends else 0)
        self.seq = market.offset
        return bool(self._news)

    def _is_over(self) -> bool:
        return bool(self._told) and self._candles.now_ms() >= self._ends_ms

    def age(self) -> None:
        self.dirty = self.dirty or self._is_over()

    def news_texts(self) -> list[bytes]:
        return [self.text(self.seq, f'{{"candles":[{",".join(self._news)}]}}')]

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        if not self._is_told:
            return []
        extra = ',"conflated":true' if conflated else ""
        return [self.text(self.seq, f'{{"candles":[{",".join(self._told.values())}],"snapshot":true{extra}}}')]

    def empty_text(self) -> bytes:
        return self.text(max(self.seq, 0), '{"candles":[]}')

    def unknown(self) -> str:
        return '"candles":[]'

    def close(self) -> None:
        self._candles.unfollow(self._interval, self._changed)
        super().close()
