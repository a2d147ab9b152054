"""Trades into a file, each digit as it was told: CSV, or Parquet with pyarrow (`pip install 'mexchange[parquet]'`)."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from mexchange.models import Gap, Trade

COLUMNS = ("time", "symbol", "side", "price", "quantity", "trade_id", "gap")
# So many rows are written at once.
ROW_GROUP = 10_000


class Recording(Protocol):
    """A context manager; what was written is whole once it has ended."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, symbol: str, item: Trade | Gap) -> None: ...


def recording(path: Path) -> Recording:
    """By the file's name: `.csv` or `.parquet`. ValueError for another one; what is there is written over."""
    kinds: dict[str, type[_Csv | _Parquet]] = {".csv": _Csv, ".parquet": _Parquet}
    if path.suffix not in kinds:
        raise ValueError(f"{path}: expected .csv or .parquet")
    return kinds[path.suffix](path)


def _row(symbol: str, item: Trade | Gap) -> tuple[Any, ...]:
    """A gap has a row of its own, where it is."""
    if isinstance(item, Gap):
        return (None, symbol, None, None, None, None, item.reason)
    return (item.time, symbol, item.side, item.price, item.quantity, item.trade_id, None)


class _Csv:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def write(self, symbol: str, item: Trade | Gap) -> None:
        time, *rest = _row(symbol, item)
        self._writer.writerow([time, *(format(one, "f") if hasattr(one, "as_tuple") else one for one in rest)])


class _Parquet:
    """Prices and quantities as decimal128 with 18 digits behind the point; one that does not fit is refused."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
            import pyarrow.parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise ValueError("Parquet needs pyarrow: pip install 'mexchange[parquet]'") from error

        self._arrow: Any = pyarrow
        number = pyarrow.decimal128(38, 18)
        kinds = {"time": pyarrow.timestamp("ms", tz="UTC"), "price": number, "quantity": number}
        self._schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
        self._writer: Any = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, symbol: str, item: Trade | Gap) -> None:
        time, *rest = _row(symbol, item)
        self._rows.append((None if time is None else int(time * 1000), *rest))
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [self._arrow.array(column, one.type) for column, one in zip(columns, self._schema, strict=True)]
            self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
            self._rows = []
