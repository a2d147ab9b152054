/**
 * Streams: what a channel tells, item by item, over reconnects and restarts of either side.
 *
 * Lossless ones (`trades`, `events`, `orders`, `fills`) leave nothing out. What a program has not taken yet is kept up to a
 * bound. Beyond it that channel alone is left, so that nothing else on the connection waits, and joined again with `since`
 * once the program has caught up: no hole, no repeat, and no more memory. Conflated ones (`ticker`, `candles`, ...) keep the
 * newest of each symbol, candle or currency, and a slow program sees that.
 */

import { typed } from "./errors.js";
import { GatewayError, isPassing, isPrivate, Position } from "./gateway-protocol.js";
import { Gap } from "./values.js";

/** @typedef {import("./gateway-protocol.js").Meta} Meta */
/** @typedef {import("./gateway-protocol.js").Seq} Seq */
/** @typedef {{epoch: string, seq: Seq}} Since */
/**
 * @typedef {object} Owner the exchange, as a stream sees it
 * @property {import("./gateway-client.js").GatewayClient} client
 * @property {import("./gateway-protocol.js").Clock} clock
 * @property {(ms: number) => Promise<void>} pause
 * @property {(stream: Stream) => void} ended
 */

const PASSING_PAUSE_MS = 200;
/** Items by which a repeat is known: as many fills as the gateway keeps of one user. */
const KNOWN = 1000;

/** One channel as an async iterator. To break out of its loop closes it; `next()` takes one item. */
export class Stream {
  /** @type {Position | undefined} */
  #position;
  #isWanted = false;
  /** How often that was said: an attempt to join that is older than another one gives up. */
  #wish = 0;
  #isClosed = false;
  #isReading = false;
  /** @type {GatewayError | null} */
  #error = null;
  /** Grows with all that a reader should look at. */
  #news = 0;
  /** @type {() => void} */
  #resume = () => {};
  #listener = (/** @type {any} */ notification, /** @type {Meta} */ meta) => this.take(notification, meta);

  /** @param {Owner} owner @param {string} channel @param {Position} [position] of a channel that can be resumed */
  constructor(owner, channel, position) {
    this.owner = owner;
    this.channel = channel;
    this.#position = position;
  }

  get isPrivate() {
    return isPrivate(this.channel);
  }

  get isOver() {
    return this.#isClosed || this.#error !== null;
  }

  /** @returns {Promise<IteratorResult<any, undefined>>} rejects with what ended the stream, if something did */
  async next() {
    if (this.#isReading) throw new Error(`${this.channel} is read twice at once`);
    this.#isReading = true;
    try {
      for (;;) {
        const seen = this.#news;
        if (this.#isClosed) return { value: undefined, done: true };
        const value = await this.pull();
        if (value !== undefined) return { value, done: false };
        if (this.#error) throw this.#error;
        if (seen === this.#news) await new Promise((resolve) => (this.#resume = () => resolve(undefined)));
      }
    } finally {
      this.#isReading = false;
    }
  }

  /** @returns {Promise<IteratorResult<any, undefined>>} */
  async return() {
    this.close();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Ends the stream; whoever reads it comes to an end. */
  close() {
    this.#isClosed = true;
    this.#end();
  }

  // What the exchange calls, and what each kind of stream does

  /** The gateway does not give it: whoever reads is told so, behind what came before. @param {GatewayError} error */
  fail(error) {
    if (this.isOver) return;
    this.#error = error;
    this.#end();
  }

  /** Wants the channel, from where it was told. */
  async join() {
    if (this.isOver || this.#isWanted) return;
    this.#isWanted = true;
    const wish = (this.#wish += 1);
    while (this.#isWanted && wish === this.#wish) {
      try {
        await this.owner.client.subscribe([this.channel], this.#listener, { position: this.#position });
        return;
      } catch (error) {
        const why = typed(error);
        if (!isPassing(error)) {
          this.fail(why);
          return;
        }
        await this.owner.pause(why.retryAfterMs ?? PASSING_PAUSE_MS);
      }
    }
  }

  /** Nothing of it is taken in from now on, until it is joined again. */
  leave() {
    this.#isWanted = false;
    this.owner.client.unsubscribe([this.channel], this.#listener);
  }

  /** Whoever reads looks again. */
  wake() {
    this.#news += 1;
    this.#resume();
  }

  /** A notification. @param {any} _notification @param {Meta} _meta */
  take(_notification, _meta) {}

  /** Nothing comes any more until the channel is joined again. */
  onLost() {}

  /** @returns {any} the next item, or a promise of it; undefined where there is none yet */
  pull() {}

  #end() {
    this.leave();
    this.owner.ended(this);
    this.wake();
  }
}

/**
 * @typedef {object} Page what REST tells behind an item, oldest first
 * @property {any[]} items
 * @property {boolean} isWhole nothing between that item and these is left out
 * @property {boolean} isLast
 * @property {string} epoch
 */
/**
 * @typedef {object} Refill how what a channel of one partition could not tell is had over REST
 * @property {(after: string) => Promise<Page>} page behind the item of an id, `partition-offset`
 * @property {(item: any) => string | null} idOf
 */

/** Stands where a channel did not go on from what was held; up to `seq` REST may tell more than its snapshot does. */
class Missed {
  /** @param {{after: string | null, epoch: string, isSameEpoch: boolean, seq: number, snapshot: any[]}} what */
  constructor({ after, epoch, isSameEpoch, seq, snapshot }) {
    this.after = after;
    this.epoch = epoch;
    this.isSameEpoch = isSameEpoch;
    this.seq = seq;
    this.snapshot = snapshot;
  }
}

/** Every item, in order, each once, beginning with the channel's snapshot; a `Gap` where that could not be. */
export class Lossless extends Stream {
  /** What was taken in last, which is ahead of what the program was told by those that wait. @type {Position} */
  #taken;
  /** @type {string | undefined} */
  #epoch;
  /** @type {Since | null} */
  #told;
  /** @type {string | null} */
  #lastId = null;
  #isFirst;
  #isFull = false;
  /** Each with the position that is reached with it; null within a notification. */
  /** @type {{item: any, since: Since | null}[]} */
  #items = [];
  #read;
  #bound;
  #refill;
  #keyOf;
  /** @type {Set<string>} */
  #known = new Set();

  /**
   * @param {Owner} owner
   * @param {string} channel
   * @param {object} how
   * @param {(notification: any, meta: Meta) => any[]} how.read
   * @param {number} how.bound items that may wait for the program before the channel is left for a while
   * @param {Since | null} [how.since] from where on, instead of the snapshot
   * @param {Refill} [how.refill]
   * @param {(item: any) => string} [how.keyOf] of a channel that may repeat items when it goes on: what is the same of two that are one
   */
  constructor(owner, channel, { read, bound, since = null, refill, keyOf }) {
    const position = new Position(since ?? {});
    super(owner, channel, position);
    this.#taken = position;
    this.#epoch = since?.epoch;
    this.#told = since;
    this.#isFirst = since === null;
    this.#read = read;
    this.#bound = bound;
    this.#refill = refill;
    this.#keyOf = keyOf;
  }

  /** How far the program has read, for `since` in another run: all up to there was handed out. @returns {Since | null} */
  get position() {
    return this.#told;
  }

  /** @param {any} notification @param {Meta} meta */
  take(notification, meta) {
    const items = this.#new(this.#read(notification, meta));
    if (meta.epoch === undefined) {
      this.#push(items);
      return;
    }
    // The first after joining, or after its partition came back.
    const isSameEpoch = meta.epoch === this.#epoch;
    const isMissing = !this.#isFirst && meta.recovered !== true;
    this.#isFirst = false;
    this.#epoch = meta.epoch;
    if (!isMissing) {
      this.#push(items);
    } else if (!this.#refill) {
      this.#push([new Gap(this.channel, "what was missed cannot be had any more"), ...items]);
    } else {
      const missed = { after: this.#lastId, epoch: meta.epoch, isSameEpoch, seq: Number(meta.seq), snapshot: items };
      this.#push([new Missed(missed)]);
      this.#note(items);
    }
  }

  /** Less those that were told before. @param {any[]} items */
  #new(items) {
    const keyOf = this.#keyOf;
    if (!keyOf) return items;
    const found = items.filter((item) => !this.#known.has(keyOf(item)));
    for (const item of found) this.#known.add(keyOf(item));
    for (const key of this.#known) {
      if (this.#known.size <= KNOWN) break;
      this.#known.delete(key);
    }
    return found;
  }

  /** @returns {any} */
  pull() {
    if (!this.#items.length) return undefined;
    if (this.#items[0].item instanceof Missed) return this.#pullMissed(this.#items[0]);
    const { item, since } = /** @type {{item: any, since: Since | null}} */ (this.#items.shift());
    this.#told = since ?? this.#told;
    if (this.#isFull && this.#items.length <= this.#bound / 2) {
      this.#isFull = false;
      this.join();
    }
    return item;
  }

  /** @param {any[]} items */
  #push(items) {
    if (!items.length) return;
    const reached = this.#taken.since;
    for (const item of items) this.#items.push({ item, since: this.#within(item, reached) });
    this.#items[this.#items.length - 1].since = reached;
    this.#note(items);
    if (this.#items.length >= this.#bound && !this.#isFull) {
      this.#isFull = true;
      this.leave();
    }
    this.wake();
  }

  /** How far an item that is not the last of its notification reaches: of a trade its own offset is known. */
  /** @param {any} item @param {Since | null} reached @returns {Since | null} */
  #within(item, reached) {
    if (!this.#refill || !reached || typeof reached.seq === "object" || item instanceof Gap || item instanceof Missed) return null;
    const id = this.#refill.idOf(item);
    return id === null ? null : { epoch: reached.epoch, seq: offsetOf(id) };
  }

  /** @param {any[]} items */
  #note(items) {
    const last = items.at(-1);
    if (this.#refill && last && !(last instanceof Missed)) this.#lastId = this.#refill.idOf(last) ?? this.#lastId;
  }

  /** @param {{item: Missed, since: Since | null}} entry */
  async #pullMissed(entry) {
    const found = await this.#find(entry.item);
    const entries = found.map((item) => ({ item, since: this.#within(item, entry.since) }));
    if (entries.length) entries[entries.length - 1].since = entry.since;
    else this.#told = entry.since;
    this.#items.splice(0, 1, ...entries);
    return this.pull();
  }

  /** What was missed, with a gap before it unless it is whole. @param {Missed} missed @returns {Promise<any[]>} */
  async #find({ after, epoch, isSameEpoch, seq, snapshot }) {
    const { page, idOf } = /** @type {Refill} */ (this.#refill);
    const gap = (/** @type {string} */ reason) => new Gap(this.channel, reason);
    if (!isSameEpoch) return [gap("the topic was made anew"), ...snapshot];
    if (after === null) return [gap("what was missed cannot be had any more"), ...snapshot];
    // The snapshot reaches back to what was told.
    const at = snapshot.map(idOf).lastIndexOf(after);
    if (at >= 0) return snapshot.slice(at + 1);
    const found = [];
    let isWhole = true;
    try {
      for (let name = after; ; ) {
        const told = await page(name);
        isWhole &&= told.isWhole && told.epoch === epoch;
        found.push(...told.items.filter((item) => offsetOf(idOf(item)) <= seq));
        const last = told.items.length ? idOf(told.items[told.items.length - 1]) : null;
        if (told.isLast || last === null || offsetOf(last) > seq) break;
        name = last;
      }
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      const behind = snapshot.filter((item) => offsetOf(idOf(item)) > offsetOf(after));
      return [gap(`what was missed could not be asked for: ${error.message}`), ...behind];
    }
    return isWhole ? found : [gap("a part of what was missed is not kept any more"), ...found];
  }
}

/** The newest of each key. */
export class Latest extends Stream {
  /** @type {Map<any, any>} in the order in which they became news */
  #items = new Map();
  /** What was told last, where that may have to be taken back, or gone on from. @type {Map<any, any>} */
  #last = new Map();
  /** @type {any} */
  #refillFrom = null;
  #read;
  #stale;
  #gone;
  #refill;
  #bound;

  /**
   * @param {Owner} owner
   * @param {string} channel
   * @param {object} how
   * @param {(notification: any) => [any, any][]} how.read a notification's items with their keys
   * @param {(item: any) => any} [how.stale] what an item becomes when nobody tells of it any more; else it is left as it is
   * @param {(item: any) => any} [how.gone] what an item becomes that a later snapshot does not have any more; else all have it
   * @param {(item: any) => Promise<[any, any][]>} [how.refill] what is asked for behind an item, by ascending keys, once a later
   *   snapshot says that more may have changed
   * @param {number} [how.bound] so many are kept for a program that does not come; beyond it the oldest go
   */
  constructor(owner, channel, { read, stale, gone, refill, bound = Infinity }) {
    super(owner, channel);
    this.#read = read;
    this.#stale = stale;
    this.#gone = gone;
    this.#refill = refill;
    this.#bound = bound;
  }

  /** @param {any} notification */
  take(notification) {
    if (this.#refill && this.#last.size && notification.snapshot) this.#refillFrom ??= [...this.#last.values()][0];
    const gone = this.#gone;
    if (gone && notification.stale) this.onLost();
    const news = this.#read(notification);
    this.#put(news);
    if (!gone || !notification.snapshot) return;
    const told = new Set(news.map(([key]) => key));
    const missing = [...this.#last].filter(([key]) => !told.has(key));
    this.#put(missing.map(([key, item]) => [key, gone(item)]));
    for (const [key] of missing) this.#last.delete(key);
  }

  onLost() {
    const stale = this.#stale;
    if (stale) this.#put([...this.#last].filter(([, item]) => !item.stale).map(([key, item]) => [key, stale(item)]));
  }

  /** @returns {any} */
  pull() {
    if (!this.#items.size) return undefined;
    if (this.#refillFrom !== null) return this.#pullRefilled();
    const [key, item] = /** @type {[any, any]} */ (this.#items.entries().next().value);
    this.#items.delete(key);
    return item;
  }

  async #pullRefilled() {
    try {
      const found = (await this.#refill?.(this.#refillFrom)) ?? [];
      const known = new Map([...found, ...this.#items]);
      this.#items = new Map([...known].sort(([a], [b]) => (a < b ? -1 : 1)));
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      return new Gap(this.channel, `what was missed could not be asked for: ${error.message}`);
    } finally {
      this.#refillFrom = null;
    }
    return this.pull();
  }

  /** @param {[any, any][]} news */
  #put(news) {
    for (const [key, item] of news) {
      this.#items.delete(key);
      this.#items.set(key, item);
      if (this.#refill) this.#last = new Map([[key, item]]);
      else if (this.#stale) this.#last.set(key, item);
    }
    while (this.#items.size > this.#bound) this.#items.delete(this.#items.keys().next().value);
    this.wake();
  }
}

/** @param {string | null} id `partition-offset`; -1 where there is none */
const offsetOf = (id) => (id === null ? -1 : Number(id.slice(id.lastIndexOf("-") + 1)));
