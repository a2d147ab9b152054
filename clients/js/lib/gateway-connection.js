/**
 * One WebSocket after the other to the same address: it reconnects by itself (full jitter, exponential), matches answers
 * with requests, and notices a connection that died silently. What is said on it is its owner's: `gateway-client.js`.
 */

import { readExactJson } from "./decimal.js";
import { CLOSE_WORDS, GatewayError, ignoreGatewayError, isConnectionLoss, isPassing, TOO_BIG } from "./gateway-protocol.js";

/** @typedef {import("./gateway-protocol.js").State} State */
/** @typedef {import("./gateway-protocol.js").StateChange} StateChange */
/** @typedef {import("./gateway-protocol.js").Clock} Clock */
/** @typedef {import("./gateway-protocol.js").Options} Options */

/**
 * @typedef {object} Owner what is told of the connection
 * @property {() => Promise<void>} establish everything that a fresh connection needs before it is live; a GatewayError of
 *   connection loss, or one that is passing, ends the connection, and another is tried later
 * @property {() => void} dropped the connection is gone, and with it what the gateway knew of it
 * @property {(message: any) => void} message an object that answers no request
 * @property {(change: StateChange) => void} state
 * @property {(fault: unknown) => void} fault a message that could not be read, or that answers nothing
 */

const OPEN = 1;
const GOING_AWAY = 1001;
const POLICY = 1008;
/** There was no closing handshake. */
const NO_CLOSE = 1006;
/** After a close for flooding, waits start this many doublings up. */
const POLICY_ATTEMPT = 5;

const DEFAULTS = {
  backoffBaseMs: 250,
  backoffCapMs: 10_000,
  stableAfterMs: 5_000,
  goingAwayMs: 500,
  connectTimeoutMs: 10_000,
  requestTimeoutMs: 10_000,
  quietMs: 8_000,
  pingTimeoutMs: 4_000,
  random: Math.random,
};

/** @returns {Clock} */
export const systemClock = () => ({
  now: () => performance.now(),
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
});

/**
 * Full jitter: uniform below a ceiling that doubles. A fleet of pages that lost the same server at the same moment
 * comes back spread out, which a fixed or merely jiggled wait would not do.
 *
 * @param {number} attempt 0 for the first wait
 * @param {{backoffBaseMs: number, backoffCapMs: number}} bounds
 * @param {() => number} random
 * @returns {number} milliseconds
 */
export function backoffMs(attempt, { backoffBaseMs, backoffCapMs }, random) {
  return random() * Math.min(backoffCapMs, backoffBaseMs * 2 ** Math.min(attempt, 30));
}

/** Tells its {@link Owner} what happens; `request` says something. */
export class GatewayConnection {
  /** @type {State} */
  #state = "closed";
  /** @type {WebSocket | null} */
  #socket = null;
  #attempt = 0;
  #nextId = 1;
  /** With the length of what was sent. */
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void, timer: any, size: number, onResult?: () => void}>} */
  #pending = new Map();
  /** @type {number | null} */
  #heardAt = null;
  /** Messages so far: two within one tick of a coarse clock are told apart. */
  #heard = 0;
  #liveAt = 0;
  /** Why the last connection ended, shown until the next one is live. */
  #reason = "";
  /** @type {any} */ #retryTimer = null;
  /** @type {any} */ #connectTimer = null;
  /** @type {any} */ #quietTimer = null;

  /** @param {string} url @param {Options} options @param {Owner} owner */
  constructor(url, options, owner) {
    this.url = url;
    this.options = { ...DEFAULTS, ...options };
    this.clock = options.clock ?? systemClock();
    this.WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.WebSocket) throw new TypeError("there is no WebSocket here (Node before 22): give one as an option");
    this.owner = owner;
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The present one, open or not: who awaits something can tell whether it is still the same. @returns {WebSocket | null} */
  get socket() {
    return this.#socket;
  }

  /** Whether requests can be sent. @returns {boolean} */
  get isOpen() {
    return this.#socket?.readyState === OPEN;
  }

  /** Milliseconds since anything arrived; Infinity before the first connection. @returns {number} */
  get silentForMs() {
    return this.#heardAt === null ? Infinity : this.clock.now() - this.#heardAt;
  }

  /** Starts, and keeps trying until `close()`. */
  connect() {
    if (this.#state !== "closed") return;
    this.#attempt = 0;
    this.#open();
  }

  /** Tries at once instead of waiting out the backoff. */
  reconnectNow() {
    if (this.#state !== "reconnecting" || this.#socket) return;
    this.#clearTimers();
    this.#open();
  }

  /** Ends the connection and every request; `connect()` starts again. */
  close() {
    this.#drop();
    this.#settleAll(new GatewayError("closed", "the client was closed"));
    this.#setState("closed", "");
  }

  /**
   * @param {string} method
   * @param {object} [params]
   * @param {{timeoutMs?: number, onResult?: () => void}} [options] `onResult` is called before anything that comes
   *   behind the answer is looked at
   * @returns {Promise<any>} the result; rejects with {@link GatewayError}, with `unsent` in its data where nothing was sent
   */
  request(method, params = {}, { timeoutMs = this.options.requestTimeoutMs, onResult } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== OPEN) {
        reject(new GatewayError("disconnected", "there is no connection", { unsent: true }));
        return;
      }
      const id = this.#nextId++;
      const text = JSON.stringify({ id, method, params });
      const timer = this.clock.setTimeout(() => {
        this.#pending.delete(id);
        reject(new GatewayError("timeout", `no answer to ${method} within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#pending.set(id, { resolve, reject, timer, size: text.length, onResult });
      this.#socket.send(text);
    });
  }

  /** Gives up a connection without waiting for its closing handshake, which a dead peer never answers. @param {string} reason */
  lose(reason) {
    this.#noteStable();
    this.#drop();
    this.#settleAll(new GatewayError("disconnected", reason));
    this.#retry(reason);
  }

  /** Another connection at once, for a reason that is no failure. @param {string} reason */
  startOver(reason) {
    this.#noteStable();
    this.#drop();
    this.#settleAll(new GatewayError("disconnected", reason));
    this.#wait(0, reason);
  }

  #open() {
    this.#setState(this.#state === "closed" ? "connecting" : "reconnecting", this.#reason, 0);
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.WebSocket(this.url);
    } catch (error) {
      this.#retry(error instanceof Error ? error.message : String(error));
      return;
    }
    this.#socket = socket;
    const current = (/** @type {(event: any) => void} */ handler) => (/** @type {any} */ event) => {
      if (socket === this.#socket) handler(event);
    };
    let isOpened = false;
    socket.onopen = current(() => {
      isOpened = true;
      this.#onOpen();
    });
    socket.onmessage = current((event) => this.#onMessage(event.data));
    socket.onclose = current((event) => this.#onClose(event.code, event.reason));
    // A close follows, but not of a connection that could not be made in Node 20. Listened to it is in any case: some
    // implementations throw what nobody listens to.
    socket.onerror = current(() => {
      if (!isOpened) this.#onClose(NO_CLOSE, "");
    });
    this.#connectTimer = this.clock.setTimeout(
      () => this.lose("the server did not answer"),
      this.options.connectTimeoutMs,
    );
  }

  async #onOpen() {
    this.clock.clearTimeout(this.#connectTimer);
    this.#heardAt = this.clock.now();
    this.#watch();
    const socket = this.#socket;
    try {
      await this.owner.establish();
    } catch (error) {
      if (!isConnectionLoss(error) && !isPassing(error)) throw error;
      if (socket === this.#socket) this.lose(isPassing(error) ? busy(error) : "the server did not answer");
      return;
    }
    if (socket !== this.#socket) return;
    this.#liveAt = this.clock.now();
    this.#reason = "";
    this.#setState("live", "");
  }

  /** @param {string} text */
  #onMessage(text) {
    this.#heardAt = this.clock.now();
    this.#heard += 1;
    let message;
    try {
      message = readExactJson(text);
    } catch (error) {
      this.owner.fault(error);
      return;
    }
    if (typeof message !== "object" || message === null) {
      this.owner.fault(new Error("a message that is not an object"));
    } else if (message.channel_name === undefined && "id" in message && ("result" in message || "error" in message)) {
      this.#answer(message);
    } else {
      this.owner.message(message);
    }
  }

  /** @param {any} message */
  #answer(message) {
    const pending = this.#pending.get(message.id);
    if (!pending) {
      if (message.error) this.owner.fault(new GatewayError(message.error.code, message.error.message));
      return;
    }
    this.#pending.delete(message.id);
    this.clock.clearTimeout(pending.timer);
    const { error } = message;
    if (error) {
      pending.reject(new GatewayError(error.code, error.message, error.data));
    } else {
      pending.onResult?.();
      pending.resolve(message.result);
    }
  }

  /** Probes a connection that has been quiet; one timer, armed again for what is left of the silence. */
  #watch() {
    const { quietMs, pingTimeoutMs } = this.options;
    const left = quietMs - this.silentForMs;
    if (left > 0) {
      this.#quietTimer = this.clock.setTimeout(() => this.#watch(), left);
      return;
    }
    const before = this.#heard;
    this.request("public/ping", {}, { timeoutMs: pingTimeoutMs }).catch(ignoreGatewayError);
    this.#quietTimer = this.clock.setTimeout(() => {
      // Anything heard meanwhile proves the connection, answer or not.
      if (this.#heard !== before) this.#watch();
      else this.lose("nothing was heard any more");
    }, pingTimeoutMs);
  }

  /** @param {number} code @param {string} reason */
  #onClose(code, reason) {
    const told = CLOSE_WORDS.get(code) ?? (reason || `closed with code ${code}`);
    const words = this.#state === "live" || code !== NO_CLOSE ? told : "the server cannot be reached";
    this.#noteStable();
    this.#drop();
    this.#settleAll(new GatewayError("disconnected", words), code);
    if (code === POLICY) this.#attempt = Math.max(this.#attempt, POLICY_ATTEMPT);
    // A draining server says so: another instance, or this one restarted, is there soon. Once, lest a server that
    // accepts and closes in a circle be hammered.
    if (code === GOING_AWAY && this.#attempt === 0) {
      this.#attempt = 1;
      this.#wait(this.options.random() * this.options.goingAwayMs, words);
    } else {
      this.#retry(words);
    }
  }

  #noteStable() {
    if (this.#state === "live" && this.clock.now() - this.#liveAt >= this.options.stableAfterMs) this.#attempt = 0;
  }

  /** @param {string} reason */
  #retry(reason) {
    const ms = backoffMs(this.#attempt, this.options, this.options.random);
    this.#attempt += 1;
    this.#wait(ms, reason);
  }

  /** @param {number} ms @param {string} reason */
  #wait(ms, reason) {
    this.#retryTimer = this.clock.setTimeout(() => this.#open(), ms);
    this.#reason = reason;
    this.#setState("reconnecting", reason, ms);
  }

  #drop() {
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    this.owner.dropped();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #clearTimers() {
    for (const timer of [this.#retryTimer, this.#connectTimer, this.#quietTimer]) this.clock.clearTimeout(timer);
  }

  /** @param {GatewayError} error @param {number} [close] the code of the close, if there was one */
  #settleAll(error, close) {
    // The largest was too big, or lies behind the one that was; what lies before that may have been done.
    const largest = Math.max(...Array.from(this.#pending.values(), ({ size }) => size));
    for (const { reject, timer, size } of this.#pending.values()) {
      this.clock.clearTimeout(timer);
      reject(close === TOO_BIG && size === largest ? new GatewayError(TOO_BIG, "the message is too big") : error);
    }
    this.#pending.clear();
  }

  /** @param {State} state @param {string} reason @param {number} [retryInMs] */
  #setState(state, reason, retryInMs) {
    const previous = this.#state;
    if (state === previous && retryInMs === undefined) return;
    this.#state = state;
    this.owner.state({ state, previous, reason, attempt: this.#attempt, retryInMs });
  }
}

/** @param {unknown} error one that is passing */
export const busy = (error) => `the server is busy: ${/** @type {Error} */ (error).message}`;
