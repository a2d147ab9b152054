/**
 * The candles on show: subscribed to as long as they are, with their past from `GET /api/candles`.
 *
 * Each snapshot of the channel says that older ones may have changed, so each has the past read anew; what the channel tells
 * meanwhile waits, and what the past knows already (by `seq`) is left out.
 */

import { Candles } from "./candles.js";
import { readExactJson } from "./client/decimal.js";

const AT_ONCE = 500;
const MOST = 1500;
const RETRY_MS = 3_000;

/** Events: "change" `{from}` the index of the first candle that is different, "state" whenever what else is told here is. */
export class CandleFeed extends EventTarget {
  symbol = "";
  /** Empty for none on show. */
  interval = "";
  /** @type {Candles | null} null until the past was read */
  candles = null;
  /** The gateway says that they cannot be trusted now, or the connection is away. */
  stale = false;
  /** Why there is nothing to show, or nothing more; a sentence, or empty. */
  problem = "";
  #client;
  #fetch;
  #channel = "";
  #loading = false;
  #again = false;
  /** There is nothing older. */
  #complete = false;
  /** @type {{seq: number, rows: any[][]}[]} what came while the past is read */
  #waiting = [];
  /** @type {any} */
  #retryTimer = null;
  /** What was asked before the last `show` is not for what is on show now. */
  #turn = 0;
  #listener = (/** @type {any} */ notification, /** @type {import("./client/gateway-client.js").Meta} */ meta) =>
    this.#onNews(notification, meta);

  /** @param {import("./client/gateway-client.js").GatewayClient} client @param {typeof fetch} fetchFunction */
  constructor(client, fetchFunction = (...args) => fetch(...args)) {
    super();
    this.#client = client;
    this.#fetch = fetchFunction;
    client.on("state", ({ state }) => {
      if (state === "live" || !this.candles) return;
      this.stale = true;
      this.#told("state");
    });
  }

  /** @param {string} symbol @param {string} interval one of `INTERVALS`, or empty for none */
  show(symbol, interval) {
    if (symbol === this.symbol && interval === this.interval) return;
    clearTimeout(this.#retryTimer);
    if (this.#channel) this.#client.unsubscribe([this.#channel], this.#listener);
    this.#turn += 1;
    Object.assign(this, { symbol, interval, candles: null, stale: false, problem: "" });
    this.#waiting = [];
    this.#loading = this.#again = this.#complete = false;
    this.#channel = symbol && interval ? `candles.${symbol}.${interval}` : "";
    this.#told("state");
    if (!this.#channel) return;
    const turn = this.#turn;
    this.#client.subscribe([this.#channel], this.#listener).catch((error) => {
      if (turn !== this.#turn) return;
      this.problem = `No candles: ${error.message}`;
      this.#told("state");
    });
  }

  /** Reads what was before the oldest one that is held, if there is more. */
  async loadOlder() {
    const { candles } = this;
    if (!candles?.list.length || this.#complete || this.#loading) return;
    const turn = this.#turn;
    this.#loading = true;
    const answer = await this.#ask(`&limit=${AT_ONCE}&to=${candles.list[0].time - 1}`);
    if (turn !== this.#turn) return;
    this.#loading = false;
    // Not had, it is asked for with the next move; a past that does not join cannot be shown.
    if (answer && !candles.prepend(answer.candles)) this.#complete = true;
    this.#drain(-Infinity);
    if (answer) this.#told("change", { from: 0 });
    if (this.#again) this.#load();
  }

  /** @param {any} notification @param {import("./client/gateway-client.js").Meta} meta */
  #onNews(notification, { seq }) {
    if (notification.stale) {
      this.stale = true;
      this.#told("state");
      return;
    }
    this.#waiting.push({ seq: Number(seq), rows: notification.candles });
    if (notification.snapshot) this.#load();
    else if (this.candles && !this.#loading) this.#drain(-Infinity);
  }

  async #load() {
    clearTimeout(this.#retryTimer);
    this.#again = this.#loading;
    if (this.#loading) return;
    const turn = this.#turn;
    this.#loading = true;
    const count = Math.min(MOST, Math.max(AT_ONCE, this.candles?.list.length ?? 0));
    const answer = await this.#ask(`&limit=${count}`);
    if (turn !== this.#turn) return;
    this.#loading = false;
    if (answer) {
      this.candles ??= new Candles(this.interval);
      this.candles.replace(answer.candles);
      this.stale = Boolean(answer.stale);
      this.problem = "";
      this.#complete = false;
      this.#drain(Number(answer.seq));
      this.#told("change", { from: 0 });
    } else {
      // Only the newest wait, however long there is no past to be had.
      this.#waiting = this.#waiting.slice(-MOST);
      this.problem = "The past of this chart could not be had yet";
      this.#retryTimer = setTimeout(() => this.#load(), RETRY_MS);
    }
    this.#told("state");
    if (this.#again) this.#load();
  }

  /** @param {string} more @returns {Promise<any>} null where it could not be had */
  async #ask(more) {
    const query = `symbol=${encodeURIComponent(this.symbol)}&interval=${this.interval}${more}`;
    try {
      const answer = await this.#fetch(`api/candles?${query}`, { headers: { accept: "application/json" } });
      return answer.ok ? readExactJson(await answer.text()) : null;
    } catch {
      return null;
    }
  }

  /** @param {number} known what is older than this seq is in what is held */
  #drain(known) {
    const waiting = this.#waiting.filter(({ seq }) => !(seq < known));
    this.#waiting = [];
    let from = Infinity;
    for (const { rows } of waiting) from = Math.min(from, this.candles?.apply(rows) ?? Infinity);
    if (from < (this.candles?.list.length ?? 0)) this.#told("change", { from });
  }

  /** @param {string} name @param {object} [detail] */
  #told(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
