/**
 * The whole of it: one gateway (or any instance behind one address) as a program sees it. Streams and orders over one
 * WebSocket that connects again by itself, and questions over HTTP.
 */

import { ConnectionLost, GatewayError, NotAuthorised, typed } from "./errors.js";
import { GatewayClient } from "./gateway-client.js";
import { systemClock } from "./gateway-connection.js";
import { expiryOf, isPassing, isUnauthorised } from "./gateway-protocol.js";
import { LiveBook } from "./live-book.js";
import { Orders } from "./orders.js";
import { Rest } from "./rest.js";
import { Latest, Lossless } from "./streams.js";
import { balancesOf, candleOf, eventsOf, fillOf, orderOf, tickerOf, tradeOf } from "./values.js";

/** @typedef {import("./streams.js").Stream} Stream */
/** @typedef {import("./streams.js").Since} Since */
/** @typedef {string | (() => string | Promise<string>)} Token */
/**
 * @typedef {object} ExchangeOptions
 * @property {Token | null} [token] a JWT, or a function that gives one whenever one is needed; none: market data alone
 * @property {number} [timeoutMs] that a command or a question may take, with all its repeats, unless it says `withinMs`
 * @property {number} [bound] items of a lossless stream that may wait for the program
 * @property {typeof fetch} [fetch]
 * @property {() => number} [now] milliseconds since the Unix epoch, which tokens end by
 */

const TIMEOUT_MS = 10_000;
/** Some megabytes. */
const BOUND = 10_000;
const CANDLES_KEPT = 1500;
const REFILL_PAGE = 1000;
/** A token is asked for anew so long before it ends, or at a fifth of its life if that is less. */
const RENEW_MS = 60_000;
const SOONEST_RENEWAL_MS = 1_000;
/** What a timer takes. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const TOKEN_PAUSE_MS = 250;
const LONGEST_TOKEN_PAUSE_MS = 10_000;

export class Exchange {
  #client;
  #orders;
  #rest;
  #owner;
  #given;
  #timeoutMs;
  #bound;
  #now;
  /** @type {Map<string, Stream>} */
  #streams = new Map();
  /** @type {Set<string>} */
  #staleSymbols = new Set();
  #isClosed = false;
  /** The last one that the gateway took, or that was got for HTTP. @type {string | null} */
  #token = null;
  /** The gateway does not know (any more) whose this is. */
  #isUnknown;
  #isSigningIn = false;
  /** Why there is no token that the gateway takes. @type {GatewayError | null} */
  #refused = null;
  /** What is told where nothing came in time. @type {unknown} */
  #lastError = null;
  /** @type {any} */
  #renewTimer = null;
  /** Those who wait for something to change. @type {Set<() => void>} */
  #waiting = new Set();

  /**
   * @param {string} url `http://host:port`, also https, ws, wss, a path in front, or the address of `/ws` itself
   * @param {ExchangeOptions & import("./gateway-protocol.js").Options} [options]
   */
  constructor(url, { token = null, timeoutMs = TIMEOUT_MS, bound = BOUND, fetch: fetchFunction, now = Date.now, ...options } = {}) {
    const [, secure, rest] = /^(?:http|ws)(s?):\/\/([^/].*?)(?:\/ws)?\/*$/.exec(url) ?? [];
    if (rest === undefined) throw new TypeError(`${url}: expected http://, https://, ws:// or wss:// and a host`);
    const clock = options.clock ?? systemClock();
    const random = options.random ?? Math.random;
    this.#given = token;
    this.#isUnknown = token !== null;
    this.#timeoutMs = timeoutMs;
    this.#bound = bound;
    this.#now = now;
    const client = new GatewayClient(`ws${secure}://${rest}/ws`, { requestTimeoutMs: timeoutMs, ...options });
    this.#client = client;
    const pause = (/** @type {number} */ ms) => new Promise((resolve) => clock.setTimeout(() => resolve(undefined), ms));
    this.#owner = { client, clock, random, pause, ended: (/** @type {Stream} */ stream) => this.#forget(stream) };
    const ready = (/** @type {number} */ ms) => this.#ready(ms);
    const renew = () => this.#renew();
    const isClosed = () => this.#isClosed;
    this.#orders = new Orders({ ...this.#owner, ready, renew, isClosed, canRenew: typeof token === "function" }, timeoutMs);
    const owner = { clock, random, pause, token: (/** @type {string | null} */ refused) => this.#tokenForHttp(refused) };
    // Bound, for a browser's fetch wants its window.
    this.#rest = new Rest(`http${secure}://${rest}`, owner, timeoutMs, fetchFunction ?? ((...args) => fetch(...args)));
    client.on("state", (change) => this.#onState(change));
    client.on("auth", ({ status }) => this.#onAuth(status));
    client.on("status", (message) => this.#onStatus(message));
    client.on("refused", ({ channel, error }) => this.#streams.get(channel)?.fail(typed(error)));
  }

  /**
   * @param {string} url
   * @param {ExchangeOptions & import("./gateway-protocol.js").Options} [options]
   * @returns {Promise<Exchange>} connected, and signed in where there is a token. Rejects with ConnectionLost after
   *   `timeoutMs`, with NotAuthorised for a bad token.
   */
  static async open(url, options) {
    const exchange = new Exchange(url, options);
    try {
      await exchange.connect();
    } catch (error) {
      exchange.close();
      throw error;
    }
    return exchange;
  }

  /** Connects, and keeps trying until `close()`; resolves and rejects as `open`. */
  async connect() {
    this.#isClosed = false;
    if (this.#isUnknown) this.#signIn();
    this.#client.connect();
    await this.#ready(this.#timeoutMs);
  }

  /** Ends all streams and the connection. Orders stay as they are. */
  close() {
    this.#isClosed = true;
    this.#isUnknown = this.#given !== null;
    this.#owner.clock.clearTimeout(this.#renewTimer);
    this.#client.close();
    for (const stream of [...this.#streams.values()]) stream.close();
    this.#changed();
  }

  /** What this stands on: states of the connection, other channels, other methods. */
  get client() {
    return this.#client;
  }

  /** There is a connection, signed in where there is a token. */
  get isLive() {
    return this.#client.state === "live" && !this.#isUnknown;
  }

  /** Who this is, by the gateway's word. */
  get userId() {
    return this.#client.userId;
  }

  /** Symbols that the gateway cannot read at the moment, as it told listeners of `trades` and `events`. */
  get staleSymbols() {
    return /** @type {ReadonlySet<string>} */ (this.#staleSymbols);
  }

  // Streams

  /** @param {string} symbol @param {{depth?: number | "all", interval?: string, grouping?: number | string}} [view] */
  book(symbol, { depth = 10, interval = "100ms", grouping = "none" } = {}) {
    return this.#add(new LiveBook(this.#owner, `book.${symbol}.${grouping}.${depth}.${interval}`, symbol));
  }

  /** The last hundred trades, then each. @param {string} symbol @param {{since?: Since | null}} [from] */
  trades(symbol, { since } = {}) {
    return this.#lossless(`trades.${symbol}`, {
      since,
      read: ({ trades }) => trades.map((/** @type {any[]} */ one) => tradeOf(symbol, one)),
      refill: {
        page: (after) => this.tradesPage(symbol, { after, limit: REFILL_PAGE }),
        idOf: (trade) => trade.trade_id,
      },
    });
  }

  /** Every public event of a symbol, or of all, as the engine wrote it, books first. */
  /** @param {string | null} [symbol] @param {{since?: Since | null}} [from] */
  events(symbol = null, { since } = {}) {
    const read = (/** @type {any} */ notification, /** @type {object} */ meta) => eventsOf({ ...meta, notification });
    return this.#lossless(symbol === null ? "events" : `events.${symbol}`, { since, read });
  }

  /** One's open orders, then each state that one takes; after a reconnect the open ones again. @param {{since?: Since | null}} [from] */
  orders({ since } = {}) {
    return this.#lossless("account.orders", { since, read: ({ orders }) => orders.map(orderOf) });
  }

  /** The last hundred of one's fills, then each. @param {{since?: Since | null}} [from] */
  fills({ since } = {}) {
    const keyOf = (/** @type {any} */ { fill_id: id, side }) => `${id} ${side}`;
    return this.#lossless("account.trades", { since, read: ({ trades }) => trades.map(fillOf), keyOf });
  }

  /** The newest ticker; `stale` while nobody can tell. @param {string} symbol @param {string} [interval] */
  ticker(symbol, interval = "1000ms") {
    const read = (/** @type {any} */ told) => [[symbol, tickerOf(symbol, told)]];
    return this.#latest(`ticker.${symbol}.${interval}`, { read, stale });
  }

  /** The newest ticker of each symbol that changed. @param {string} [interval] */
  tickers(interval = "1000ms") {
    const read = (/** @type {any} */ { tickers }) => entries(tickers).map(([name, one]) => [name, tickerOf(name, one)]);
    return this.#latest(`tickers.${interval}`, { read, stale });
  }

  /** The last two candles, then those that changed. What changed over a reconnect is asked for. */
  /** @param {string} symbol @param {string} [interval] */
  candles(symbol, interval = "1m") {
    const keyed = (/** @type {any[]} */ candles) => candles.map((one) => [one.open_time_ms, one]);
    const read = (/** @type {any} */ { candles }) => keyed(candles.map(candleOf));
    const refill = async (/** @type {any} */ { open_time_ms: fromMs }) =>
      keyed(await this.candlesPage(symbol, interval, { fromMs, limit: CANDLES_KEPT }));
    return this.#latest(`candles.${symbol}.${interval}`, { bound: CANDLES_KEPT, read, refill });
  }

  /** What one has of each currency, then what changed; `stale` while nobody can tell. */
  balances() {
    const read = (/** @type {any} */ { balances }) => balancesOf(balances).map((one) => [one.currency, one]);
    const gone = (/** @type {any} */ last) => ({ ...last, available: "0", reserved: "0", stale: false });
    return this.#latest("account.balances", { read, stale, gone });
  }

  /** What the exchange says of itself. */
  status() {
    const read = (/** @type {any} */ body) => [["closing_in_ms" in body ? "closing" : "state", body]];
    return this.#latest("status", { read });
  }

  // Commands

  /** A limit order, or without a price a market order. The bus has it then; `orders` tells what became of it. */
  /** @param {any} order @param {{withinMs?: number}} [options] */
  place(order, { withinMs } = {}) {
    return this.#orders.place(order, withinMs);
  }

  /** Rejects with what `place` would, as far as that can be known before. @param {any} order @param {{withinMs?: number}} [options] */
  validate(order, { withinMs } = {}) {
    return this.#orders.validate(order, withinMs);
  }

  /** @param {any} which @param {{withinMs?: number}} [options] */
  cancel(which, { withinMs } = {}) {
    return this.#orders.cancel(which, withinMs);
  }

  /** @param {any} change @param {{withinMs?: number}} [options] */
  amend(change, { withinMs } = {}) {
    return this.#orders.amend(change, withinMs);
  }

  /** @param {any[]} commands @param {{withinMs?: number}} [options] */
  batch(commands, { withinMs } = {}) {
    return this.#orders.batch(commands, withinMs);
  }

  /** @param {{symbol?: string, withinMs?: number}} [options] */
  cancelAll({ symbol, withinMs } = {}) {
    return this.#orders.cancelAll(symbol, withinMs);
  }

  /** @param {number} seconds @param {{withinMs?: number}} [options] */
  cancelAllAfter(seconds, { withinMs } = {}) {
    return this.#orders.cancelAllAfter(seconds, withinMs);
  }

  // Questions

  instruments() {
    return this.#rest.instruments();
  }

  timeMs() {
    return this.#rest.timeMs();
  }

  /** @param {string} symbol @param {{limit?: number, before?: string, after?: string}} [which] */
  tradesPage(symbol, which) {
    return this.#rest.tradesPage(symbol, which);
  }

  /** @param {string} symbol @param {string} [interval] @param {{fromMs?: number, toMs?: number, limit?: number}} [which] */
  candlesPage(symbol, interval, which) {
    return this.#rest.candlesPage(symbol, interval, which);
  }

  tickersPage() {
    return this.#rest.tickersPage();
  }

  /** @param {{order_id: string} | {client_order_id: string}} which */
  order(which) {
    return this.#rest.order(which);
  }

  openOrders() {
    return this.#rest.openOrders();
  }

  /** @param {{symbol?: string, fromMs?: number, toMs?: number, limit?: number, before?: string}} [which] */
  history(which) {
    return this.#rest.history(which);
  }

  /** @param {{symbol?: string, order_id?: string, limit?: number, before?: string, after?: string}} [which] */
  fillsPage(which) {
    return this.#rest.fillsPage(which);
  }

  balance() {
    return this.#rest.balance();
  }

  // Streams as the connection sees them

  /** @param {string} channel @param {Omit<ConstructorParameters<typeof Lossless>[2], "bound">} how */
  #lossless(channel, how) {
    return this.#add(new Lossless(this.#owner, channel, { ...how, bound: this.#bound }));
  }

  /** @param {string} channel @param {any} how */
  #latest(channel, how) {
    return this.#add(new Latest(this.#owner, channel, how));
  }

  /** @template {Stream} S @param {S} stream @returns {S} */
  #add(stream) {
    const { channel } = stream;
    if (this.#streams.has(channel)) throw new TypeError(`${channel} is listened to already: close that one first`);
    const why = stream.isPrivate && (this.#given === null ? noToken() : this.#refused);
    this.#streams.set(channel, stream);
    if (why) stream.fail(why);
    else stream.join();
    return stream;
  }

  /** @param {Stream} stream */
  #forget(stream) {
    if (this.#streams.get(stream.channel) === stream) this.#streams.delete(stream.channel);
  }

  /** @param {import("./gateway-protocol.js").StateChange} change */
  #onState({ state, reason }) {
    if (reason) this.#lastError = new GatewayError("disconnected", reason);
    // Also of one that was never live as a whole: some channels may have been joined.
    if (state !== "live") {
      this.#staleSymbols.clear();
      for (const stream of this.#streams.values()) stream.onLost();
    }
    if (state === "live" && this.#refused && typeof this.#given === "function") this.#renew();
    this.#changed();
  }

  /** @param {any} message */
  #onStatus({ type, status, symbols = [] }) {
    if (type !== "stream_status") return;
    for (const symbol of symbols) {
      if (status === "stale") this.#staleSymbols.add(symbol);
      else this.#staleSymbols.delete(symbol);
    }
  }

  // Who this is

  /** @param {import("./gateway-protocol.js").AuthChange["status"]} status */
  #onAuth(status) {
    if (status !== "expired" && status !== "refused") return;
    for (const stream of this.#streams.values()) if (stream.isPrivate) stream.onLost();
    this.#renew();
  }

  /** The token is not taken any more: another one is asked for. */
  #renew() {
    this.#isUnknown = true;
    this.#signIn();
  }

  /** Hands a token over, a new one from who gives it; without a good one what is private is refused. */
  async #signIn() {
    if (this.#isSigningIn || this.#given === null) return;
    this.#isSigningIn = true;
    this.#refused = null;
    this.#owner.clock.clearTimeout(this.#renewTimer);
    try {
      const error = await this.#handOver(this.#given);
      if (error) this.#refuse(error);
    } finally {
      this.#isSigningIn = false;
      this.#changed();
    }
  }

  /** @param {Token} given @returns {Promise<GatewayError | null>} why the gateway takes no token */
  async #handOver(given) {
    const { random, pause } = this.#owner;
    let refusals = 0;
    for (let step = TOKEN_PAUSE_MS; !this.#isClosed; step = Math.min(LONGEST_TOKEN_PAUSE_MS, step * 2)) {
      try {
        const token = typeof given === "string" ? given : await given();
        if (this.#isClosed) break;
        await this.#client.signIn(token, { renews: true });
        this.#isUnknown = false;
        this.#token = token;
        if (typeof given === "function") this.#renewBefore(token);
        break;
      } catch (error) {
        this.#lastError = error;
        if (isUnauthorised(error)) {
          refusals += 1;
          if (typeof given === "string" || refusals === 2) return typed(error);
          continue;
        }
        // Closed: the loop ends, unless it was opened again meanwhile.
        if (error instanceof GatewayError && error.code === "closed") continue;
        if (error instanceof GatewayError && !isPassing(error)) return typed(error);
        // Who gives tokens could not, or the gateway has no time: both pass.
        await pause(step * (0.5 + random() / 2));
      }
    }
    return null;
  }

  /** @param {GatewayError} error */
  #refuse(error) {
    this.#isUnknown = true;
    this.#refused = error;
    for (const stream of [...this.#streams.values()]) if (stream.isPrivate) stream.fail(error);
  }

  /** @param {string} token */
  #renewBefore(token) {
    const ends = expiryOf(token);
    const left = ends === null ? 0 : ends - this.#now();
    // The gateway has just taken it: if it is over by the clock here, that is wrong, and the gateway says when.
    if (left <= 0) return;
    const wait = Math.max(SOONEST_RENEWAL_MS, left - Math.min(RENEW_MS, left / 5));
    this.#renewTimer = this.#owner.clock.setTimeout(() => this.#signIn(), Math.min(wait, LONGEST_TIMER_MS));
  }

  /** @param {string | null} refused that is not taken any more @returns {Promise<string | null>} another one, if there is one */
  async #tokenForHttp(refused) {
    if (typeof this.#given !== "function") return this.#given;
    if (this.#token === refused) this.#token = null;
    this.#token ??= await this.#given();
    return this.#token;
  }

  /** @param {number} ms */
  async #ready(ms) {
    const { clock } = this.#owner;
    const deadline = clock.now() + ms;
    for (;;) {
      if (this.#isClosed) throw new ConnectionLost("the exchange was closed");
      if (this.isLive) return;
      if (this.#refused) throw this.#refused;
      const left = deadline - clock.now();
      if (left <= 0) {
        const why = this.#lastError instanceof Error ? this.#lastError.message : "it was not made in time";
        throw new ConnectionLost(`no connection to ${this.#client.url}: ${why}`, this.#lastError);
      }
      await new Promise((resolve) => {
        const timer = clock.setTimeout(() => done(), left);
        const done = () => {
          clock.clearTimeout(timer);
          this.#waiting.delete(done);
          resolve(undefined);
        };
        this.#waiting.add(done);
      });
    }
  }

  #changed() {
    for (const done of [...this.#waiting]) done();
  }
}

const stale = (/** @type {object} */ last) => ({ ...last, stale: true });

const entries = (/** @type {Record<string, any>} */ object) => Object.entries(object);

const noToken = () => new NotAuthorised(10000, "there is no token");
