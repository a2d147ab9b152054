/**
 * One symbol's book, kept from the notifications of a `book` channel.
 *
 * The invariant: a book that is `known` and not `stale` is what the gateway holds: every change said what it replaces,
 * and it was there. Such a book is never crossed, and each side is sorted best first. Whatever does not fit makes the
 * book stale until the next snapshot.
 */

import { add, compare, format, isZero, keyOf, multiply, parse, subtract, ZERO } from "./decimal.js";

/** @typedef {import("./decimal.js").Decimal} Decimal */
/** @typedef {"bid" | "ask"} Side */
/**
 * @typedef {object} Level
 * @property {Decimal} price
 * @property {string} key the price in its shortest form; equal prices have equal keys
 * @property {Decimal} quantity the level's total
 */

export class OrderBook {
  /** A snapshot was seen. */
  known = false;
  /** What is held may be wrong; it is replaced by the next snapshot. */
  stale = false;
  /** @type {Level[]} best (highest) first */
  #bids = [];
  /** @type {Level[]} best (lowest) first */
  #asks = [];

  /**
   * @param {{snapshot?: boolean, bid_changes: unknown[][], ask_changes: unknown[][]}} notification changes are
   *   `[price, old quantity, new quantity]`; new 0 removes the level
   * @returns {boolean} whether it fits what is held; if not, the book is stale. Changes to a book that is unknown or
   *   stale are left out, and fit.
   */
  apply(notification) {
    if (notification.snapshot) {
      this.known = true;
      this.stale = false;
      this.#bids = [];
      this.#asks = [];
    } else if (!this.known || this.stale) return true;
    // A snapshot also names what was held and is gone, for clients that forget nothing by themselves.
    const isNews = (/** @type {unknown[]} */ [, , quantity]) => !notification.snapshot || !isZero(parse(quantity));
    try {
      for (const change of notification.bid_changes.filter(isNews)) this.#change("bid", change);
      for (const change of notification.ask_changes.filter(isNews)) this.#change("ask", change);
      if (this.#isCrossed()) throw new RangeError("the book is crossed");
    } catch {
      this.stale = true;
    }
    return !this.stale;
  }

  /** Nobody tells of it any more. */
  forget() {
    this.known = this.stale = false;
    this.#bids = [];
    this.#asks = [];
  }

  markStale() {
    if (this.known) this.stale = true;
  }

  /** @param {Side} side @param {number} [count] @returns {Level[]} best first */
  levels(side, count = Infinity) {
    const levels = side === "bid" ? this.#bids : this.#asks;
    return count >= levels.length ? levels : levels.slice(0, count);
  }

  /** @param {Side} side @returns {Level | null} */
  best(side) {
    return this.levels(side)[0] ?? null;
  }

  /** @returns {Decimal | null} best ask minus best bid */
  spread() {
    const bid = this.best("bid");
    const ask = this.best("ask");
    return bid && ask ? subtract(ask.price, bid.price) : null;
  }

  /**
   * What an order would take from the book as it is now.
   *
   * @param {Side} side the order's own side
   * @param {Decimal} quantity
   * @param {Decimal | null} limit the worst price it accepts, or null
   * @returns {{quantity: Decimal, cost: Decimal}} how much could be had, and its cost in the quote currency
   */
  cost(side, quantity, limit = null) {
    const worst = side === "bid" ? 1 : -1;
    let left = quantity;
    let cost = ZERO;
    for (const level of this.levels(side === "bid" ? "ask" : "bid")) {
      if (left.units <= 0n || (limit && compare(level.price, limit) === worst)) break;
      const taken = compare(level.quantity, left) < 0 ? level.quantity : left;
      cost = add(cost, multiply(level.price, taken));
      left = subtract(left, taken);
    }
    return { quantity: subtract(quantity, left), cost };
  }

  /** @param {Side} side @param {unknown[]} change */
  #change(side, [priceText, oldText, newText]) {
    const price = parse(priceText);
    const quantity = parse(newText);
    const levels = side === "bid" ? this.#bids : this.#asks;
    const order = side === "bid" ? -1 : 1;
    let low = 0;
    let high = levels.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order * compare(levels[middle].price, price) < 0) low = middle + 1;
      else high = middle;
    }
    const found = low < levels.length && compare(levels[low].price, price) === 0;
    if (compare(found ? levels[low].quantity : ZERO, parse(oldText)) !== 0) throw new RangeError("the chain is broken");
    if (isZero(quantity)) {
      if (found) levels.splice(low, 1);
    } else if (found) {
      levels[low] = { ...levels[low], quantity };
    } else {
      levels.splice(low, 0, { price, key: keyOf(price), quantity });
    }
  }

  #isCrossed() {
    const bid = this.#bids[0];
    const ask = this.#asks[0];
    return Boolean(bid && ask && compare(bid.price, ask.price) >= 0);
  }

  /** @returns {string} for logs and tests: `bids | asks`, best first */
  toString() {
    const text = (/** @type {Level} */ level) => `${format(level.quantity)}@${format(level.price)}`;
    return `${this.#bids.map(text).join(" ")} | ${this.#asks.map(text).join(" ")}`;
  }
}
