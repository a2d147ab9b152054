/**
 * What is told, as values: objects with the contract's own names. Prices, quantities and times in seconds are text with the
 * gateway's digits, for a binary float would not have them; what counts or numbers something is a number.
 */

import { format } from "./decimal.js";

/** @typedef {import("./decimal.js").Decimal} Decimal */

/** In place of what was missed and cannot be had. What follows is right again. */
export class Gap {
  /** @param {string} channel @param {string} reason */
  constructor(channel, reason) {
    this.channel = channel;
    this.reason = reason;
  }
}

/** @param {any} value a number that survived `readExactJson`, or its text; null stays @returns {string} */
const text = (value) => (typeof value === "number" ? String(value) : value);

/** @param {Record<string, any>} told @returns {any} each number of it as text */
const allText = (told) => Object.fromEntries(Object.entries(told).map(([name, value]) => [name, text(value)]));

/**
 * @param {unknown} value a decimal as a program has it
 * @returns {string} as it is sent
 * @throws {TypeError} for a number with a fraction, or beyond 2 ** 53: its digits are not those that were meant
 */
export function decimalText(value) {
  if (typeof value === "string") return value;
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return String(value);
  if (typeof value === "object" && value !== null && "units" in value) return format(/** @type {Decimal} */ (value));
  throw new TypeError(`${String(value)} is no exact decimal: give a string, a bigint, an integer or a Decimal`);
}

/** @param {string} symbol @param {any[]} told `[price, quantity, side, time, false, trade_id]` */
export const tradeOf = (symbol, [price, quantity, side, time, , tradeId = null]) => ({
  symbol,
  price: text(price),
  quantity: text(quantity),
  side,
  time: text(time),
  trade_id: tradeId,
});

/** @param {string} symbol @param {any} told by REST */
export const restTradeOf = (symbol, { price, quantity, side, time, trade_id: tradeId = null }) =>
  tradeOf(symbol, [price, quantity, side, time, false, tradeId]);

/** @param {any} told */
export const fillOf = (told) => allText(told);

/** Of an order's members: an attribute that is a whole number stays one. */
const ORDER_DECIMALS = new Set(["price", "quantity", "filled_quantity", "time"]);

/** @param {any} told @returns {any} */
export const orderOf = (told) =>
  Object.fromEntries(
    Object.entries(told).map(([name, value]) =>
      ORDER_DECIMALS.has(name) || !Number.isSafeInteger(value) ? [name, text(value)] : [name, value],
    ),
  );

/** @param {any[]} told `[open time, open, high, low, close, volume, value, trades, closed]` */
export const candleOf = ([openTime, open, high, low, close, volume, value, trades, closed]) => ({
  open_time_ms: Number(openTime),
  open: text(open),
  high: text(high),
  low: text(low),
  close: text(close),
  volume: text(volume),
  value: text(value),
  trades,
  closed,
});

/** @param {string} symbol @param {any} told */
export const tickerOf = (symbol, told) => ({ symbol, ...allText(told), stale: Boolean(told.stale) });

/** @param {Record<string, any>} told by currency */
export const balancesOf = (told) =>
  Object.entries(told).map(([currency, { available, reserved }]) => ({
    currency,
    available: text(available),
    reserved: text(reserved),
    stale: false,
  }));

/** @param {any} message of an `events` channel */
export const eventsOf = ({ notification: { event, snapshot }, partition = null, seq }) =>
  event === undefined
    ? []
    : [{ type: event.type, symbol: event.symbol ?? null, body: event, partition, seq, snapshot: Boolean(snapshot) }];
