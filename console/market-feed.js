/**
 * The market as the page sees it: a book, the last trades and the direction of each symbol.
 *
 * How the news comes (today the `events` channels) is known here and nowhere else in the page, so other channels can
 * take their place without a view noticing. Memory is bounded per symbol by `TRADES_KEPT`.
 */

import { compare, isZero, parse, toPixels } from "./decimal.js";
import { OrderBook } from "./order-book.js";

/** @typedef {import("./decimal.js").Decimal} Decimal */
/**
 * @typedef {object} Trade
 * @property {number} time milliseconds since the epoch, by the engine's clock
 * @property {Decimal} price
 * @property {Decimal} quantity
 * @property {"buy" | "sell" | null} aggressor null where nothing tells
 * @property {number} pixel the price as a float, for the price line's geometry alone
 * @property {string} buyOrderId
 * @property {string} sellOrderId
 */
/**
 * @typedef {object} Quote the best prices at a time, as floats: for the price line's geometry alone
 * @property {number} time
 * @property {number} bid NaN from where nothing is known
 * @property {number} ask
 */
/**
 * @typedef {object} Instrument
 * @property {string} symbol
 * @property {string | null} [tick]
 * @property {string | null} [lot]
 * @property {string | null} [min_quantity]
 */

const TRADES_KEPT = 4000;
const TRADES_DROPPED_AT_ONCE = 500;
/** Up to here every symbol is followed, so that the strip of symbols is live and switching shows its past at once. */
const QUOTES_KEPT = 1500;
const QUOTE_EVERY_MS = 200;
/** Beyond this the engine's clock was set, and what was known of it is forgotten. */
const CLOCK_STEP_MS = 5_000;
const FOLLOW_ALL_UP_TO = 16;
const INSTRUMENTS_RETRY_MS = 3_000;

export class Market {
  /** @param {string} symbol */
  constructor(symbol) {
    this.symbol = symbol;
    this.book = new OrderBook();
    /** @type {Trade[]} oldest first */
    this.trades = [];
    /** Trades ever seen; what a view has drawn is told by this, as the list above is cut. */
    this.tradeCount = 0;
    /** @type {Decimal | null} */
    this.lastPrice = null;
    /** @type {"up" | "down" | "level"} against the last different price */
    this.direction = "level";
    /** The gateway says that it cannot read this symbol's partition. */
    this.unread = false;
    /** Most digits after the point seen in a price and in a quantity: how many to show, so that columns line up. */
    this.priceScale = 0;
    this.quantityScale = 0;
    /** @type {number} performance.now() when anything of this symbol came last; 0 for never */
    this.heardAt = 0;
    /** @type {Quote[]} oldest first, at most one every `QUOTE_EVERY_MS` */
    this.quotes = [];
    /** @type {number | null} the engine's clock minus performance.now(), as of the record that was fastest to come */
    this.clockOffset = null;
  }

  /** The time on the engine's clock, whatever this machine's says. @returns {number} milliseconds since the epoch */
  now() {
    return this.clockOffset === null ? Date.now() : performance.now() + this.clockOffset;
  }

  /** @param {any} event */
  apply(event) {
    this.#hear(event);
    if (event.type === "orderbook_snapshot") {
      this.book.applySnapshot(event);
      this.unread = false;
      for (const side of /** @type {const} */ (["bid", "ask"])) {
        for (const level of this.book.levels(side)) this.#noteScale(level.price, level.quantity);
      }
    } else if (event.type === "orderbook_delta") {
      this.book.applyDelta(event);
      const first = event.deltas?.[0];
      if (first && this.book.known && !this.book.stale) {
        this.#noteScale(parse(first.price), first.action === "remove" ? null : parse(first.quantity));
      }
    }
    this.#noteQuote();
  }

  /** @param {any} event a fill @returns {Trade} */
  addFill(event) {
    this.#hear(event);
    const price = parse(event.price);
    const quantity = parse(event.quantity);
    const trade = {
      time: Number(event.timestamp),
      price,
      quantity,
      pixel: toPixels(price),
      aggressor: this.#aggressor(event, price),
      buyOrderId: String(event.buy_order_id),
      sellOrderId: String(event.sell_order_id),
    };
    const change = this.lastPrice ? compare(price, this.lastPrice) : 0;
    if (change !== 0) this.direction = change > 0 ? "up" : "down";
    this.lastPrice = price;
    this.#noteScale(price, quantity);
    this.trades.push(trade);
    this.tradeCount += 1;
    if (this.trades.length >= TRADES_KEPT + TRADES_DROPPED_AT_ONCE) this.trades.splice(0, TRADES_DROPPED_AT_ONCE);
    return trade;
  }

  /**
   * Who came to the other: what the engine says, else the quote rule, else the tick rule (Lee and Ready 1991).
   *
   * @param {any} event @param {Decimal} price
   */
  #aggressor(event, price) {
    if (event.taker_side === "bid") return "buy";
    if (event.taker_side === "ask") return "sell";
    const ask = this.book.best("ask");
    const bid = this.book.best("bid");
    if (ask && compare(price, ask.price) >= 0) return "buy";
    if (bid && compare(price, bid.price) <= 0) return "sell";
    const change = this.lastPrice ? compare(price, this.lastPrice) : 0;
    if (change !== 0) return change > 0 ? "buy" : "sell";
    return this.trades.at(-1)?.aggressor ?? null;
  }

  /** @param {any} event */
  #hear(event) {
    this.heardAt = performance.now();
    const offset = Number(event.timestamp) - this.heardAt;
    if (!Number.isFinite(offset) || event.timestamp === null) return;
    if (this.clockOffset === null || offset > this.clockOffset || offset < this.clockOffset - CLOCK_STEP_MS) {
      this.clockOffset = offset;
    }
  }

  /** From now on the best prices are not known: the price line breaks off instead of going on level. */
  noteGap() {
    const last = this.quotes.at(-1);
    if (last && !Number.isNaN(last.bid)) this.quotes.push({ time: this.now(), bid: NaN, ask: NaN });
  }

  #noteQuote() {
    const last = this.quotes.at(-1);
    const bid = this.book.stale ? undefined : this.book.best("bid");
    const ask = this.book.stale ? undefined : this.book.best("ask");
    const now = this.now();
    if (!bid || !ask) this.noteGap();
    else if (!last || Number.isNaN(last.bid) || now - last.time >= QUOTE_EVERY_MS) {
      this.quotes.push({ time: now, bid: toPixels(bid.price), ask: toPixels(ask.price) });
    }
    if (this.quotes.length > QUOTES_KEPT) this.quotes.shift();
  }

  /** @param {Decimal} price @param {Decimal | null} quantity */
  #noteScale(price, quantity) {
    if (price.scale > this.priceScale) this.priceScale = price.scale;
    if (quantity && !isZero(quantity) && quantity.scale > this.quantityScale) this.quantityScale = quantity.scale;
  }
}

/**
 * Events: "instruments" (the list changed), "change" `{symbol}`, "fill" `{symbol, trade}`, "order" (an engine event
 * about one's own order, once signed in).
 */
export class MarketFeed extends EventTarget {
  /** @type {Map<string, Market>} */
  markets = new Map();
  /** @type {Map<string, Instrument>} */
  instruments = new Map();
  /** Engine events so far, for the rate. */
  eventCount = 0;

  /** @type {Set<string>} symbols that must be followed whatever their number */
  #needed = new Set();
  /** @type {Set<string>} */
  #following = new Set();
  #client;
  #fetch;
  /** @type {any} */
  #retryTimer = null;
  /** The number of instruments decides which channels to follow, so the first answer (or failure) is waited for. */
  #asked = false;
  /** One function for every channel, so that taking it off again finds it. */
  #listener = (/** @type {any} */ notification) => this.#onEvent(notification.event);

  /**
   * @param {import("./gateway-client.js").GatewayClient} client
   * @param {typeof fetch} fetchFunction
   */
  constructor(client, fetchFunction = (...args) => fetch(...args)) {
    super();
    this.#client = client;
    this.#fetch = fetchFunction;
    client.on("state", ({ state, previous }) => {
      if (state === "live" && this.#asked) this.#loadInstruments();
      else if (previous === "live") {
        for (const market of this.markets.values()) {
          market.noteGap();
          this.#changed(market);
        }
      }
    });
    client.on("status", (message) => this.#onStatus(message));
    client.on("event", (event) => this.#onEvent(event));
  }

  /** Connects, and asks meanwhile what can be traded. */
  start() {
    this.#client.connect();
    this.#loadInstruments();
  }

  /** @returns {string[]} in the gateway's order, then those only seen in the stream */
  get symbols() {
    const seen = [...this.markets.values()].filter((market) => market.heardAt > 0);
    return [...new Set([...this.instruments.keys(), ...seen.map((market) => market.symbol)])];
  }

  /** @param {string} symbol @returns {Market} */
  market(symbol) {
    let market = this.markets.get(symbol);
    if (!market) {
      market = new Market(symbol);
      this.markets.set(symbol, market);
    }
    return market;
  }

  /** Follows these symbols at least: the one on show, and those with orders of ours. @param {string[]} symbols */
  need(symbols) {
    this.#needed = new Set(symbols);
    this.#follow();
  }

  async #loadInstruments() {
    clearTimeout(this.#retryTimer);
    try {
      const answer = await this.#fetch("api/instruments", { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(`instruments: ${answer.status}`);
      const { instruments } = await answer.json();
      this.instruments = new Map(instruments.map((/** @type {Instrument} */ each) => [each.symbol, each]));
      this.dispatchEvent(new CustomEvent("instruments"));
    } catch {
      // The stream names the symbols too; this only adds tick and lot, so a failure is not worth a word.
    }
    this.#asked = true;
    // A gateway without configured instruments learns its symbols from the stream, perhaps after this page.
    if (this.instruments.size === 0 && this.#client.state === "live") {
      this.#retryTimer = setTimeout(() => this.#loadInstruments(), INSTRUMENTS_RETRY_MS);
    }
    this.#follow();
  }

  #follow() {
    if (!this.#asked) return;
    const all = this.instruments.size <= FOLLOW_ALL_UP_TO;
    const wanted = new Set(all ? ["events"] : [...this.#needed].map((symbol) => `events.${symbol}`));
    const more = [...wanted].filter((channel) => !this.#following.has(channel));
    const less = [...this.#following].filter((channel) => !wanted.has(channel));
    this.#following = wanted;
    // Without the old ones first: `events` and `events.{symbol}` together would count each fill twice.
    if (less.length) this.#client.unsubscribe(less, this.#listener);
    if (more.length) {
      this.#client.subscribe(more, this.#listener).catch(() => {
        for (const channel of more) this.#following.delete(channel);
      });
    }
  }

  /** @param {any} event */
  #onEvent(event) {
    this.eventCount += 1;
    const { type, symbol } = event;
    if (typeof type === "string" && type.startsWith("order_")) {
      this.dispatchEvent(new CustomEvent("order", { detail: event }));
      return;
    }
    if (typeof symbol !== "string") return;
    const market = this.market(symbol);
    const isNew = market.heardAt === 0;
    if (type === "fill") {
      try {
        const trade = market.addFill(event);
        this.dispatchEvent(new CustomEvent("fill", { detail: { symbol, trade } }));
      } catch (error) {
        console.warn("unreadable fill", error);
      }
    } else if (type === "orderbook_snapshot" || type === "orderbook_delta") {
      market.apply(event);
    }
    if (isNew && !this.instruments.has(symbol)) this.dispatchEvent(new CustomEvent("instruments"));
    this.#changed(market);
  }

  /** @param {{type: string, status?: string, symbols?: string[]}} message */
  #onStatus({ type, status, symbols = [] }) {
    if (type !== "stream_status") return;
    for (const symbol of symbols) {
      const market = this.market(symbol);
      market.unread = status === "stale";
      if (market.unread) market.noteGap();
      this.#changed(market);
    }
  }

  /** @param {Market} market */
  #changed(market) {
    this.dispatchEvent(new CustomEvent("change", { detail: { symbol: market.symbol } }));
  }
}

/**
 * @param {Market} market
 * @param {Instrument | undefined} instrument
 * @returns {{price: number, quantity: number}} digits after the point to show
 */
export function displayScales(market, instrument) {
  const scaleOf = (/** @type {string | null | undefined} */ step) => (step ? parse(step).scale : 0);
  return {
    price: Math.max(market.priceScale, scaleOf(instrument?.tick)),
    quantity: Math.max(market.quantityScale, scaleOf(instrument?.lot)),
  };
}

