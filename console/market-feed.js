/**
 * The market as the page sees it: a book, the last trades and the direction of each symbol.
 *
 * How the news comes is known here and nowhere else in the page: `book` for the symbol on show, `trades` for those that
 * were on show, `tickers` for all, and `events` where an order of ours may be filled, as only these name orders. Candles
 * come by themselves, in `candle-feed.js`.
 * Memory is bounded per symbol by `TRADES_KEPT`.
 */

import { compare, divide, format, isZero, multiply, padded, parse, subtract, toPixels } from "./client/decimal.js";
import { OrderBook } from "./client/order-book.js";

/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/**
 * @typedef {object} Trade
 * @property {string} symbol
 * @property {number} time milliseconds since the epoch, by the engine's clock
 * @property {Decimal} price
 * @property {Decimal} quantity
 * @property {"buy" | "sell"} aggressor
 * @property {number} pixel the price as a float, for the price line's geometry alone
 */
/**
 * @typedef {object} Fill a trade, and whose
 * @property {string} symbol
 * @property {number} time
 * @property {Decimal} price
 * @property {Decimal} quantity
 * @property {string} buyOrderId
 * @property {string} sellOrderId
 */
/**
 * @typedef {object} Notice something that happened to the news of a market, and when by performance.now()
 * @property {"conflated" | "unchained" | "recovered" | "lost"} kind
 * @property {number} at
 */
/**
 * @typedef {object} Quote the best prices at a time, as floats: for the price line's geometry alone
 * @property {number} time
 * @property {number} bid NaN from where nothing is known
 * @property {number} ask
 */
/**
 * @typedef {object} Day the last 24 hours
 * @property {Decimal} high
 * @property {Decimal} low
 * @property {Decimal} volume in the base currency
 * @property {Decimal} value in the quote currency
 * @property {Decimal} change last less open
 * @property {Decimal} open
 */
/**
 * @typedef {object} Instrument
 * @property {string} symbol
 * @property {string | null} [tick]
 * @property {string | null} [lot]
 * @property {string | null} [min_quantity]
 * @property {string} [max_quantity] of one order, as the two below
 * @property {string} [max_notional]
 * @property {string} [price_band_percent]
 */

const TRADES_KEPT = 4000;
const TRADES_DROPPED_AT_ONCE = 500;
const QUOTES_KEPT = 1500;
const QUOTE_EVERY_MS = 200;
/** Beyond this the engine's clock was set, and what was known of it is forgotten. */
const CLOCK_STEP_MS = 5_000;
/** Up to here the trades and best prices of every symbol that was on show are kept: going back to it shows its past at once. */
const FOLLOW_ALL_UP_TO = 16;
const INSTRUMENTS_RETRY_MS = 3_000;
/** More than the ladder's most rows. */
const BOOK_VIEW = "none.50.100ms";
/** Of all symbols on one channel: five hundred cost one subscription. */
const TICKERS = "tickers.1000ms";
/** A book that does not fit is asked for anew no more often than this. */
const MEND_EVERY_MS = 5_000;
/** An order does not wait longer than this for its symbol's fills to be followed. */
const FOLLOWED_WITHIN_MS = 1_000;

const bookChannel = (/** @type {string} */ symbol) => `book.${symbol}.${BOOK_VIEW}`;
const tradesChannel = (/** @type {string} */ symbol) => `trades.${symbol}`;
const eventsChannel = (/** @type {string} */ symbol) => `events.${symbol}`;
const milliseconds = (/** @type {unknown} */ seconds) => Math.round(Number(seconds) * 1000);

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** As the gateway spells an order id, whatever case the engine writes. @param {unknown} id */
const orderIdOf = (id) => (UUID.test(String(id)) ? String(id).toLowerCase() : String(id));

export class Market {
  /** @param {string} symbol */
  constructor(symbol) {
    this.symbol = symbol;
    this.book = new OrderBook();
    /** @type {Trade[]} oldest first */
    this.trades = [];
    /** Trades ever seen; what a view has drawn is told by this, as the list above is cut. */
    this.tradeCount = 0;
    /** How often the list was replaced as a whole. */
    this.tradeSnapshots = 0;
    /** @type {Notice | null} until the next snapshot */
    this.bookNotice = null;
    /** @type {Notice | null} until the next snapshot */
    this.tradesNotice = null;
    /** The gateway says that the ticker cannot be trusted now. */
    this.tickerStale = false;
    /** @type {Day | null} null where nothing was traded */
    this.day = null;
    /** @type {number} performance.now() when anything came of the book, a heartbeat too; 0 for never */
    this.bookHeardAt = 0;
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

  /** @param {any} notification of a `book` channel @returns {boolean} whether it fits what is held */
  applyBook(notification) {
    this.heardAt = this.bookHeardAt = performance.now();
    if (notification.stale) {
      this.book.markStale();
      this.#noteBookQuote();
      return true;
    }
    const { snapshot, conflated, bid_changes: bids, ask_changes: asks, trades, time } = notification;
    if (snapshot) {
      this.unread = false;
      this.bookNotice = conflated ? { kind: "conflated", at: performance.now() } : null;
    } else if (bids.length || asks.length || trades.length) {
      // Snapshots and heartbeats have the time of the last change, however long ago that was.
      this.#hearClock(milliseconds(time));
    }
    const fits = this.book.apply(notification);
    if (fits) {
      for (const [price, , quantity] of [...bids, ...asks]) this.#noteScale(parse(price), parse(quantity));
    } else {
      this.bookNotice = { kind: "unchained", at: performance.now() };
    }
    this.#noteBookQuote();
    return fits;
  }

  /**
   * @param {any} notification of a `trades` channel
   * @param {boolean} [recovered] what became of an interruption, if there was one
   */
  applyTrades(notification, recovered) {
    this.heardAt = performance.now();
    // Nor may what was before a hole stand next to what came after it.
    if (notification.snapshot || recovered === false) {
      this.trades = [];
      this.tradeSnapshots += 1;
    }
    if (recovered !== undefined) this.tradesNotice = { kind: recovered ? "recovered" : "lost", at: performance.now() };
    else if (notification.snapshot) this.tradesNotice = null;
    for (const [price, quantity, side, time] of notification.trades ?? []) {
      this.#addTrade(parse(price), parse(quantity), side, milliseconds(time));
    }
  }

  /**
   * @param {any} notification a ticker
   * @param {{isFresh: boolean, lastPrice: boolean, quote: boolean}} takes what no better channel tells, and whether it is
   *   of just now
   */
  applyTicker(notification, takes) {
    this.heardAt = performance.now();
    this.tickerStale = Boolean(notification.stale);
    if (this.tickerStale) {
      if (takes.quote) this.noteGap();
      return;
    }
    const [last, bid, ask] = ["last_price", "best_bid_price", "best_ask_price"].map((name) => parse(notification[name]));
    if ((takes.lastPrice || !this.lastPrice) && !isZero(last)) this.#noteLast(last);
    this.day = readDay(notification, last);
    if (!takes.quote) return;
    if (takes.isFresh) this.#hearClock(milliseconds(notification.mark_timestamp));
    // What is unknown is 0.
    this.#noteQuote(isZero(bid) ? null : bid, isZero(ask) ? null : ask);
  }

  /** @param {Decimal} price @param {Decimal} quantity @param {"buy" | "sell"} aggressor @param {number} time */
  #addTrade(price, quantity, aggressor, time) {
    this.trades.push({ symbol: this.symbol, time, price, quantity, aggressor, pixel: toPixels(price) });
    this.tradeCount += 1;
    if (this.trades.length >= TRADES_KEPT + TRADES_DROPPED_AT_ONCE) this.trades.splice(0, TRADES_DROPPED_AT_ONCE);
    this.#noteLast(price);
    this.#noteScale(price, quantity);
  }

  /** @param {Decimal} price */
  #noteLast(price) {
    const change = this.lastPrice ? compare(price, this.lastPrice) : 0;
    if (change !== 0) this.direction = change > 0 ? "up" : "down";
    this.lastPrice = price;
    this.#noteScale(price, null);
  }

  /** @param {number} time milliseconds since the epoch, of a record that came just now */
  #hearClock(time) {
    const offset = time - performance.now();
    if (!Number.isFinite(offset) || time === 0) return;
    if (this.clockOffset === null || offset > this.clockOffset || offset < this.clockOffset - CLOCK_STEP_MS) {
      this.clockOffset = offset;
    }
  }

  /** From now on the best prices are not known: the price line breaks off instead of going on level. */
  noteGap() {
    const last = this.quotes.at(-1);
    if (last && !Number.isNaN(last.bid)) this.quotes.push({ time: this.now(), bid: NaN, ask: NaN });
  }

  #noteBookQuote() {
    const { book } = this;
    if (book.stale) this.noteGap();
    else this.#noteQuote(book.best("bid")?.price ?? null, book.best("ask")?.price ?? null);
  }

  /** @param {Decimal | null} bid @param {Decimal | null} ask */
  #noteQuote(bid, ask) {
    const last = this.quotes.at(-1);
    const now = this.now();
    if (!bid || !ask) this.noteGap();
    else if (!last || Number.isNaN(last.bid) || now - last.time >= QUOTE_EVERY_MS) {
      this.quotes.push({ time: now, bid: toPixels(bid), ask: toPixels(ask) });
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
 * Events: "instruments" (the list changed), "change" `{symbol}`, "fill" {@link Fill} of symbols with orders of ours,
 * "missed" `{symbol}` (fills were).
 */
export class MarketFeed extends EventTarget {
  /** @type {Map<string, Market>} */
  markets = new Map();
  /** @type {Map<string, Instrument>} */
  instruments = new Map();
  /** Whether orders can be amended. */
  amends = false;
  /** What orders may carry besides, by name. @type {Record<string, import("./attributes.js").Declaration>} */
  attributes = {};
  /** How many a user may have open; 0 where that is not limited. */
  maxOpenOrders = 0;
  /** Notifications so far, for the rate. */
  updateCount = 0;

  /** The symbol on show. */
  #shown = "";
  /** @type {Set<string>} symbols that were on show */
  #seen = new Set();
  /** @type {string[]} symbols with orders of ours */
  #own = [];
  /** @type {Set<string>} */
  #following = new Set();
  /** @type {Map<string, number>} when a book was asked for anew, by performance.now() */
  #mendedAt = new Map();
  #client;
  #fetch;
  /** @type {any} */
  #retryTimer = null;
  /** The number of instruments decides which channels to follow, so the first answer (or failure) is waited for. */
  #asked = false;
  /** One function for every channel, so that taking it off again finds it. */
  #listener = (/** @type {any} */ notification, /** @type {import("./client/gateway-client.js").Meta} */ meta) =>
    this.#onNews(notification, meta);

  /**
   * @param {import("./client/gateway-client.js").GatewayClient} client
   * @param {typeof fetch} fetchFunction
   */
  constructor(client, fetchFunction = (...args) => fetch(...args)) {
    super();
    this.#client = client;
    this.#fetch = fetchFunction;
    client.on("state", ({ state }) => {
      if (state === "live") {
        if (this.#asked) this.#loadInstruments();
      } else {
        // Also of one that was never live as a whole: some channels may have been joined.
        for (const market of this.markets.values()) {
          market.book.markStale();
          market.noteGap();
          this.#changed(market);
        }
      }
    });
    client.on("status", (message) => this.#onStatus(message));
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

  /**
   * @param {string} shown the symbol on show
   * @param {string[]} own symbols where orders of ours may be filled
   * @returns {Promise<boolean>} once the fills of those are followed; false if that cannot be waited for
   */
  async need(shown, own) {
    this.#shown = shown;
    this.#seen.add(shown);
    this.#own = own;
    const agreed = this.#follow();
    if (this.#client.state !== "live") return false;
    const late = new Promise((resolve) => setTimeout(resolve, FOLLOWED_WITHIN_MS, false));
    return Promise.race([agreed, late]);
  }

  async #loadInstruments() {
    clearTimeout(this.#retryTimer);
    try {
      const answer = await this.#fetch("api/instruments", { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(`instruments: ${answer.status}`);
      const { instruments, amend, attributes, max_open_orders: maxOpenOrders } = await answer.json();
      this.amends = amend === true;
      this.attributes = attributes ?? {};
      this.maxOpenOrders = maxOpenOrders ?? 0;
      this.instruments = new Map(instruments.map((/** @type {Instrument} */ each) => [each.symbol, each]));
      this.dispatchEvent(new CustomEvent("instruments"));
    } catch {
      // It is asked again with every connection, and the symbol of the address needs no list.
    }
    this.#asked = true;
    // A gateway without configured instruments learns its symbols from the bus, perhaps after this page.
    const isConfigured = [...this.instruments.values()].some(({ tick }) => tick);
    if (!isConfigured && this.#client.state === "live") {
      this.#retryTimer = setTimeout(() => this.#loadInstruments(), INSTRUMENTS_RETRY_MS);
    }
    this.#follow();
  }

  /** @returns {string[]} the channels that should be subscribed, what matters most first */
  #wanted() {
    const all = this.instruments.size <= FOLLOW_ALL_UP_TO;
    const shown = this.#shown ? [this.#shown] : [];
    const seen = all ? [...this.#seen].filter((symbol) => this.instruments.has(symbol)) : [];
    return [
      ...shown.map(bookChannel),
      ...[...shown, ...seen].map(tradesChannel),
      ...this.#own.map(eventsChannel),
      TICKERS,
    ];
  }

  /** @returns {Promise<boolean>} once all of it is agreed to; false if something is refused */
  async #follow() {
    if (!this.#asked) return false;
    const wanted = new Set(this.#wanted());
    const more = [...wanted].filter((channel) => !this.#following.has(channel));
    const less = [...this.#following].filter((channel) => !wanted.has(channel));
    this.#following = wanted;
    if (less.length) this.#client.unsubscribe(less, this.#listener);
    for (const channel of less) {
      const [kind, symbol] = channel.split(".");
      // What nobody tells of any more must not be shown as if it were now.
      if (kind === "book") this.market(symbol).book.forget();
    }
    // One by one, as a refusal of one (an unlisted symbol) would refuse its whole request.
    const answers = more.map((channel) =>
      this.#client.subscribe([channel], this.#listener).then(
        () => true,
        () => {
          this.#following.delete(channel);
          return false;
        },
      ),
    );
    return (await Promise.all(answers)).every(Boolean);
  }

  /** @param {any} notification @param {import("./client/gateway-client.js").Meta} meta */
  #onNews(notification, { channel, recovered }) {
    this.updateCount += 1;
    // A symbol has no dot.
    const [kind, symbol] = channel.split(".");
    if (kind === "tickers") {
      this.#onTickers(notification.tickers, Boolean(notification.snapshot));
      return;
    }
    const market = this.market(symbol);
    const isNew = market.heardAt === 0;
    if (kind === "book") {
      const fits = market.applyBook(notification);
      if (!fits || (market.book.stale && market.bookNotice?.kind === "unchained")) this.#mend(symbol, channel);
    } else if (kind === "trades") {
      market.applyTrades(notification, recovered);
    } else if (kind === "events") {
      if (recovered === false) this.dispatchEvent(new CustomEvent("missed", { detail: { symbol } }));
      if (notification.event) this.#onEvent(notification.event);
      return;
    }
    if (isNew && !this.instruments.has(symbol)) this.dispatchEvent(new CustomEvent("instruments"));
    this.#changed(market);
  }

  /** @param {Record<string, any>} tickers those that changed @param {boolean} snapshot they may be of long ago */
  #onTickers(tickers, snapshot) {
    const all = this.instruments.size <= FOLLOW_ALL_UP_TO;
    let isNew = false;
    for (const [symbol, ticker] of Object.entries(tickers)) {
      const market = this.market(symbol);
      isNew ||= market.heardAt === 0 && !this.instruments.has(symbol);
      market.applyTicker(ticker, {
        isFresh: !snapshot,
        lastPrice: !this.#following.has(tradesChannel(symbol)),
        quote: all && !this.#following.has(bookChannel(symbol)),
      });
      this.#changed(market);
    }
    if (isNew) this.dispatchEvent(new CustomEvent("instruments"));
  }

  /** Must not happen; but if it does, a fresh snapshot ends it. @param {string} symbol @param {string} channel */
  #mend(symbol, channel) {
    const now = performance.now();
    if (now - (this.#mendedAt.get(symbol) ?? -Infinity) < MEND_EVERY_MS) return;
    this.#mendedAt.set(symbol, now);
    console.warn(`a change of ${channel} does not fit; asking for a fresh book`);
    this.#client.refresh([channel]);
  }

  /** @param {any} event the engine's own */
  #onEvent(event) {
    const { type, symbol } = event;
    if (type === "fill") {
      /** @type {Fill} */
      const fill = {
        symbol,
        time: Number(event.timestamp),
        price: parse(event.price),
        quantity: parse(event.quantity),
        buyOrderId: orderIdOf(event.buy_order_id),
        sellOrderId: orderIdOf(event.sell_order_id),
      };
      this.dispatchEvent(new CustomEvent("fill", { detail: fill }));
    }
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

/** @param {any} ticker @param {Decimal} last @returns {Day | null} */
function readDay(ticker, last) {
  if ([ticker.high_price_24h, ticker.volume_24h].some((each) => each === undefined)) return null;
  const names = ["high_price_24h", "low_price_24h", "volume_24h", "value_24h", "change_24h"];
  const [high, low, volume, value, change] = names.map((name) => parse(ticker[name]));
  // What is unknown is 0.
  return isZero(volume) ? null : { high, low, volume, value, change, open: subtract(last, change) };
}

/** @param {Day} day @returns {"up" | "down" | "level"} */
export const directionOf = ({ change }) => (change.units > 0n ? "up" : change.units < 0n ? "down" : "level");

/** @param {Day} day @returns {string} in percent of the price 24 hours ago */
export function percentText({ change, open }) {
  if (isZero(open)) return "–";
  const percent = divide(multiply(change, { units: 100n, scale: 0 }), open, 2);
  return `${change.units > 0n ? "+" : ""}${format(percent)} %`;
}

/** @param {Day} day @param {number} scale @returns {string} */
export const changeText = (day, scale) => `${day.change.units > 0n ? "+" : ""}${padded(day.change, scale)} (${percentText(day)})`;

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

