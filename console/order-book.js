/**
 * One symbol's book, kept from `orderbook_snapshot` and `orderbook_delta` events.
 *
 * The invariant: a book that is `known` and not `stale` is never crossed, and each side is sorted best first.
 * Whatever breaks it (a crossed or malformed event) makes the book stale until the engine's next snapshot.
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

/** @param {{price: unknown, quantity: unknown}} entry @returns {Level} */
function readLevel(entry) {
  const price = parse(entry.price);
  return { price, key: keyOf(price), quantity: parse(entry.quantity) };
}

export class OrderBook {
  /** A snapshot was seen. */
  known = false;
  /** What is held may be wrong; it is replaced by the next snapshot. */
  stale = false;
  /** @type {Level[]} best (highest) first */
  #bids = [];
  /** @type {Level[]} best (lowest) first */
  #asks = [];

  /** @param {{bids: any[], asks: any[]}} event */
  applySnapshot(event) {
    this.known = true;
    this.stale = false;
    try {
      this.#bids = this.#readSide(event.bids, "bid");
      this.#asks = this.#readSide(event.asks, "ask");
    } catch {
      this.#bids = [];
      this.#asks = [];
      this.stale = true;
    }
    if (this.#isCrossed()) this.stale = true;
  }

  /**
   * @param {{deltas: {action: string, side: Side, price: unknown, quantity: unknown}[]}} event
   * @returns {boolean} whether it was applied; false while the book is unknown or stale, or becomes so by this event
   */
  applyDelta(event) {
    if (!this.known || this.stale) return false;
    try {
      for (const delta of event.deltas) {
        if (delta.side !== "bid" && delta.side !== "ask") throw new SyntaxError(`no such side: ${delta.side}`);
        const quantity = delta.action === "remove" ? ZERO : parse(delta.quantity);
        this.#set(delta.side, parse(delta.price), quantity);
      }
    } catch {
      this.stale = true;
      return false;
    }
    if (this.#isCrossed()) this.stale = true;
    return !this.stale;
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

  /** @param {any[]} entries @param {Side} side @returns {Level[]} */
  #readSide(entries, side) {
    const order = side === "bid" ? -1 : 1;
    const levels = entries.map(readLevel).filter((level) => !isZero(level.quantity));
    return levels.sort((a, b) => order * compare(a.price, b.price));
  }

  /** @param {Side} side @param {Decimal} price @param {Decimal} quantity zero removes the level */
  #set(side, price, quantity) {
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
