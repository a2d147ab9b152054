/**
 * One symbol's live book, which says when it cannot be trusted. What is held, and whether a change fits, is `order-book.js`'s.
 */

import { format } from "./decimal.js";
import { GatewayError } from "./gateway-protocol.js";
import { OrderBook } from "./order-book.js";
import { Stream } from "./streams.js";

/** @typedef {import("./order-book.js").Level} Level */
/** @typedef {import("./order-book.js").Side} Side */

/** A book without news says so every five seconds (docs/contract.md#quiet-or-dead): after two of them it is distrusted. */
const QUIET_MS = 10_000;
/** A book that does not fit is asked for anew no more often than this. */
const MEND_MS = 5_000;

const levelText = (/** @type {Level} */ { price, quantity }) => ({ price: format(price), quantity: format(quantity) });

const bestText = (/** @type {Level | null} */ level) => level && levelText(level);

/**
 * As an async iterator it gives itself after each change, also when it becomes stale: what comes while the program is busy is one
 * change, so a slow program sees the newest book and never an old one.
 */
export class LiveBook extends Stream {
  /** @type {string | null} the topic's life */
  epoch = null;
  /** Offset of the last record in it; -1 before the first snapshot. */
  seq = -1;
  /** Of the last change, seconds. */
  time = "0";
  /** Of the whole side, beyond the depth too. */
  totalBidAmount = "0";
  totalAskAmount = "0";
  /** How often it did not fit what came, and was asked for anew. */
  mended = 0;

  #book = new OrderBook();
  #isNews = false;
  #heardAt;
  #mendedAt = -Infinity;
  /** @type {any} */ #quietTimer = null;
  /** @type {any} */ #mendTimer = null;

  /** @param {import("./streams.js").Owner} owner @param {string} channel @param {string} symbol */
  constructor(owner, channel, symbol) {
    super(owner, channel);
    this.symbol = symbol;
    this.#heardAt = owner.clock.now();
  }

  /** Not to be traded on: not there yet, cut off, not fitting, said to be so, or silent for ten seconds. */
  get stale() {
    return !this.#book.known || this.#book.stale || this.isOver || this.#isQuiet();
  }

  /** Best first. Those of a stale book are the last that were known. */
  get bids() {
    return this.#book.levels("bid").map(levelText);
  }

  /** Best first. */
  get asks() {
    return this.#book.levels("ask").map(levelText);
  }

  get bestBid() {
    return bestText(this.#book.best("bid"));
  }

  get bestAsk() {
    return bestText(this.#book.best("ask"));
  }

  /** Best first, to calculate with. @param {Side} side @param {number} [count] @returns {readonly Level[]} */
  levels(side, count) {
    return this.#book.levels(side, count);
  }

  /** Waits for the next change. @returns {Promise<this>} rejects with what ended the book */
  async changed() {
    const { done } = await this.next();
    if (done) throw new GatewayError("closed", `${this.channel} was closed`);
    return this;
  }

  /** Waits until it is not stale. @returns {Promise<this>} */
  async live() {
    while (this.stale) await this.changed();
    return this;
  }

  close() {
    for (const timer of [this.#quietTimer, this.#mendTimer]) this.owner.clock.clearTimeout(timer);
    super.close();
  }

  pull() {
    if (!this.#isNews) return undefined;
    this.#isNews = false;
    return this;
  }

  /** @param {any} notification @param {import("./gateway-protocol.js").Meta} meta */
  take(notification, { seq, epoch }) {
    this.#heardAt = this.owner.clock.now();
    if (this.#quietTimer === null) this.#watch();
    const wasTrusted = this.#isTrusted;
    if (notification.stale) {
      this.#distrust();
      return;
    }
    if (!this.#book.apply(notification)) {
      this.#told();
      this.#mend();
      return;
    }
    if (!this.#isTrusted) return;
    this.epoch = epoch ?? this.epoch;
    this.seq = Number(seq);
    const { bid_changes: bids, ask_changes: asks, snapshot, time } = notification;
    if (!bids.length && !asks.length && !snapshot && wasTrusted) return;
    this.time = String(time);
    this.totalBidAmount = String(notification.total_bid_amount);
    this.totalAskAmount = String(notification.total_ask_amount);
    this.#told();
  }

  onLost() {
    this.#distrust();
  }

  get #isTrusted() {
    return this.#book.known && !this.#book.stale;
  }

  #isQuiet() {
    return this.#isTrusted && this.owner.clock.now() - this.#heardAt > QUIET_MS;
  }

  #told() {
    this.#isNews = true;
    this.wake();
  }

  #distrust() {
    if (!this.#isTrusted) return;
    this.#book.markStale();
    this.#told();
  }

  /** One timer, armed again for what is left of the silence. */
  #watch() {
    const { clock } = this.owner;
    this.#quietTimer = null;
    if (this.isOver) return;
    if (this.#isQuiet()) {
      this.#distrust();
      this.#mend();
      return;
    }
    const left = this.#heardAt + QUIET_MS + 1 - clock.now();
    if (this.#isTrusted || left > 0) this.#quietTimer = clock.setTimeout(() => this.#watch(), Math.max(left, 1));
  }

  #mend() {
    const { client, clock } = this.owner;
    this.mended += 1;
    const wait = Math.max(0, this.#mendedAt + MEND_MS - clock.now());
    this.#mendedAt = clock.now() + wait;
    clock.clearTimeout(this.#mendTimer);
    if (wait > 0) this.#mendTimer = clock.setTimeout(() => client.rejoin([this.channel]), wait);
    else client.rejoin([this.channel]);
  }
}
