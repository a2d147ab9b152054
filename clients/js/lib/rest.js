/** What is asked for once, over HTTP. A question changes nothing, so it is asked again as long as there is time. */

import { readExactJson } from "./decimal.js";
import { ConnectionLost, NotAuthorised, NotFound, ofProblem, TooManyRequests, Unavailable } from "./errors.js";
import { balancesOf, candleOf, fillOf, orderOf, restTradeOf, tickerOf } from "./values.js";

const FIRST_PAUSE_MS = 100;
const PAGE = 100;

/**
 * @typedef {object} Owner
 * @property {import("./gateway-protocol.js").Clock} clock
 * @property {() => number} random
 * @property {(ms: number) => Promise<void>} pause
 * @property {(refused: string | null) => Promise<string | null>} token of the user who asks; another one, if there is one
 */

/** Questions. */
export class Rest {
  #base;
  #owner;
  #timeoutMs;
  #fetch;

  /** @param {string} base address of the gateway, without a path of its own @param {Owner} owner @param {number} timeoutMs @param {typeof fetch} fetchFunction */
  constructor(base, owner, timeoutMs, fetchFunction) {
    this.#base = base;
    this.#owner = owner;
    this.#timeoutMs = timeoutMs;
    this.#fetch = fetchFunction;
  }

  /** @param {string} path @param {Record<string, any>} [query] @param {{isPrivate?: boolean}} [options] @returns {Promise<any>} */
  async get(path, query = {}, { isPrivate = false } = {}) {
    const { clock, random, pause, token } = this.#owner;
    const deadline = clock.now() + this.#timeoutMs;
    const asked = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const search = new URLSearchParams(asked.map(([name, value]) => [name, String(value)])).toString();
    const address = `${this.#base}${path}${search && `?${search}`}`;
    let isRenewed = false;
    for (let step = FIRST_PAUSE_MS; ; step *= 2) {
      const bearer = isPrivate ? await token(null) : null;
      /** @type {Record<string, string>} */
      const headers = bearer === null ? {} : { authorization: `Bearer ${bearer}` };
      const told = await this.#ask(address, headers, Math.max(1, deadline - clock.now()));
      if (!told.error) return told.body;
      const { error } = told;
      if (error instanceof NotAuthorised && bearer !== null && !isRenewed) {
        isRenewed = true;
        if ((await token(bearer)) !== bearer) continue;
      }
      if (![ConnectionLost, TooManyRequests, Unavailable].some((kind) => error instanceof kind)) throw error;
      const wait = (error.retryAfterMs ?? 0) + step * (1 + random());
      if (clock.now() + wait >= deadline) throw error;
      await pause(wait);
    }
  }

  /** @param {string} address @param {Record<string, string>} headers @param {number} ms */
  async #ask(address, headers, ms) {
    let answer;
    let text;
    try {
      answer = await this.#fetch(address, { headers, signal: AbortSignal.timeout(Math.ceil(ms)) });
      text = await answer.text();
    } catch (error) {
      return { error: new ConnectionLost(`GET ${address}: ${error instanceof Error ? error.message : error}`, error) };
    }
    if (answer.ok) return { body: readExactJson(text) };
    let body = null;
    try {
      body = readExactJson(text);
    } catch {
      // Of a proxy in between.
    }
    const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
    return { error: ofProblem(answer.status, isObject ? body : null, answer.headers.get("retry-after")) };
  }

  // The market

  instruments() {
    return this.get("/api/instruments");
  }

  /** @returns {Promise<number>} */
  async timeMs() {
    return Number((await this.get("/api/time")).time_ms);
  }

  /** @param {string} symbol @param {{limit?: number, before?: string, after?: string}} [which] */
  async tradesPage(symbol, { limit = PAGE, before, after } = {}) {
    const { trades, gap, epoch } = await this.get("/api/trades", { symbol, limit, before, after });
    return pageOf(trades.map((/** @type {any} */ one) => restTradeOf(symbol, one)), { limit, after, isWhole: !gap, epoch });
  }

  /** @param {string} symbol @param {string} [interval] @param {{fromMs?: number, toMs?: number, limit?: number}} [which] */
  async candlesPage(symbol, interval = "1m", { fromMs, toMs, limit } = {}) {
    return (await this.get("/api/candles", { symbol, interval, from: fromMs, to: toMs, limit })).candles.map(candleOf);
  }

  async tickersPage() {
    const { tickers } = await this.get("/api/ticker");
    return Object.fromEntries(Object.entries(tickers).map(([symbol, one]) => [symbol, tickerOf(symbol, one)]));
  }

  // One's own

  /** @param {{order_id: string} | {client_order_id: string}} which */
  async order(which) {
    const options = { isPrivate: true };
    if ("order_id" in which) return orderOf(await this.get(`/api/order/${encodeURIComponent(which.order_id)}`, {}, options));
    const { orders } = await this.get("/api/order", { client_order_id: which.client_order_id }, options);
    if (!orders.length) throw new NotFound("not-found", `there is no order ${which.client_order_id}`);
    return orderOf(orders[0]);
  }

  async openOrders() {
    return (await this.get("/api/order", {}, { isPrivate: true })).orders.map(orderOf);
  }

  /** @param {{symbol?: string, fromMs?: number, toMs?: number, limit?: number, before?: string}} [which] */
  async history({ symbol, fromMs, toMs, limit, before } = {}) {
    const query = { symbol, from: fromMs, to: toMs, limit, before };
    return (await this.get("/api/order/history", query, { isPrivate: true })).orders.map(orderOf);
  }

  /** @param {{symbol?: string, order_id?: string, limit?: number, before?: string, after?: string}} [which] */
  async fillsPage({ symbol, order_id, limit = PAGE, before, after } = {}) {
    const query = { symbol, order_id, limit, before, after };
    const { fills, epoch } = await this.get("/api/fills", query, { isPrivate: true });
    return pageOf(fills.map(fillOf), { limit, after, isWhole: true, epoch });
  }

  async balance() {
    return balancesOf((await this.get("/api/balance", {}, { isPrivate: true })).balances);
  }
}

/** Oldest first: without `after` the gateway tells the newest first. */
/** @param {any[]} items @param {{limit: number, after?: string, isWhole: boolean, epoch: string}} of */
const pageOf = (items, { limit, after, isWhole, epoch }) => ({
  items: after === undefined ? items.reverse() : items,
  isWhole,
  isLast: items.length < limit,
  epoch,
});
