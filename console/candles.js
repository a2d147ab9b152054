/**
 * The candles of one symbol and interval: what `GET /api/candles` and the `candles` channel tell, put together.
 *
 * They are without holes: a period in which nothing was traded repeats the close before it, as the gateway tells it too.
 */

import { parse, ZERO } from "./client/decimal.js";

/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/**
 * @typedef {object} Candle
 * @property {number} time when it opens, milliseconds since the epoch
 * @property {Decimal} open
 * @property {Decimal} high
 * @property {Decimal} low
 * @property {Decimal} close
 * @property {Decimal} volume in the base currency
 * @property {number} trades
 * @property {boolean} closed
 */

const MINUTE_MS = 60_000;
/** @type {Record<string, number>} milliseconds */
export const INTERVALS = {
  "1m": MINUTE_MS,
  "5m": 5 * MINUTE_MS,
  "15m": 15 * MINUTE_MS,
  "1h": 60 * MINUTE_MS,
  "4h": 240 * MINUTE_MS,
  "1d": 1440 * MINUTE_MS,
};
/** A page that is left open for days drops what is oldest. */
const KEPT = 6000;
const DROPPED_AT_ONCE = 1000;

/** @param {any[]} row as the gateway tells it @returns {Candle} */
export function readCandle([time, open, high, low, close, volume, , trades, closed]) {
  return {
    time: Number(time),
    open: parse(open),
    high: parse(high),
    low: parse(low),
    close: parse(close),
    volume: parse(volume),
    trades: Number(trades),
    closed: Boolean(closed),
  };
}

/** @param {number} time @param {Decimal} price @returns {Candle} of a period without a trade */
const flat = (time, price) => {
  return { time, open: price, high: price, low: price, close: price, volume: ZERO, trades: 0, closed: true };
};

export class Candles {
  /** @type {Candle[]} oldest first */
  list = [];
  #intervalMs;

  /** @param {string} interval one of `INTERVALS` */
  constructor(interval) {
    this.#intervalMs = INTERVALS[interval];
  }

  /** @param {any[][]} rows oldest first: all that is known from now on */
  replace(rows) {
    this.list = rows.map(readCandle);
  }

  /** @param {any[][]} rows oldest first @returns {boolean} whether they end where the others begin, and are held now */
  prepend(rows) {
    const older = rows.map(readCandle);
    const joins = older.length > 0 && older[older.length - 1].time + this.#intervalMs === this.list[0]?.time;
    if (joins) this.list = [...older, ...this.list];
    return joins;
  }

  /**
   * @param {any[][]} rows those that changed, oldest first
   * @returns {number} the index of the first one that is different now; the length of the list for none
   */
  apply(rows) {
    let first = Infinity;
    for (const candle of rows.map(readCandle)) first = Math.min(first, this.#put(candle));
    if (this.list.length >= KEPT + DROPPED_AT_ONCE) {
      this.list.splice(0, DROPPED_AT_ONCE);
      return 0;
    }
    return Math.min(first, this.list.length);
  }

  /** @param {Candle} candle @returns {number} */
  #put(candle) {
    const { list } = this;
    if (!list.length) return list.push(candle) - 1;
    const index = (candle.time - list[0].time) / this.#intervalMs;
    // Older than what is held, or of no period at all.
    if (index < 0 || !Number.isInteger(index)) return Infinity;
    const first = Math.min(index, list.length);
    while (list.length < index && list.length < KEPT + DROPPED_AT_ONCE) {
      const before = list[list.length - 1];
      list.push(flat(before.time + this.#intervalMs, before.close));
    }
    list[Math.min(index, list.length)] = candle;
    // Those behind a candle that was changed late repeat its new close, and are not told for that.
    for (let at = index + 1; at < list.length && list[at].trades === 0; at += 1) {
      list[at] = { ...flat(list[at].time, candle.close), closed: list[at].closed };
    }
    return first;
  }
}
