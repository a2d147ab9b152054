/**
 * A client of the gateway's WebSocket: channels to listeners, whatever becomes of connections. `exchange.js` builds
 * streams and orders on it, and the page its own views.
 *
 *     const client = new GatewayClient("wss://example.org/ws");
 *     client.on("state", ({ state, reason }) => console.log(state, reason));
 *     client.subscribe(["trades.KCN/EUR"], (notification, { recovered }) => console.log(recovered, notification.trades));
 *     client.connect();
 *
 * It reconnects by itself (full jitter, exponential), subscribes again to what the page still wants, and notices a
 * connection that died silently: a browser shows no pings to a page, so after a quiet spell it asks `public/ping`.
 * `trades`, `events` and `account.trades` go on where they were: the client hands back the epoch and seq that it had, and
 * `recovered` in the first notification's meta says whether nothing is missing. The others begin with a snapshot.
 *
 * `signIn(token)` makes `account.*` channels and `private/*` methods work. The client keeps the token in memory, hands it
 * over first on every new connection, and never writes it anywhere. `account.*` channels may be wanted before: they
 * are asked for whenever somebody is signed in.
 */

import { busy, GatewayConnection } from "./gateway-connection.js";
import {
  byMethod,
  GatewayError,
  ignoreGatewayError,
  INSUFFICIENT_SCOPE,
  isConnectionLoss,
  isLossless,
  isPassing,
  isPrivate,
  isUnauthorised,
  Position,
} from "./gateway-protocol.js";

export { backoffMs } from "./gateway-connection.js";
export { GatewayError };

/** @typedef {import("./gateway-protocol.js").State} State */
/** @typedef {import("./gateway-protocol.js").StateChange} StateChange */
/** @typedef {import("./gateway-protocol.js").Meta} Meta */
/** @typedef {import("./gateway-protocol.js").Listener} Listener */
/** @typedef {import("./gateway-protocol.js").Channel} Channel */
/** @typedef {import("./gateway-protocol.js").Unanswered} Unanswered */
/** @typedef {import("./gateway-protocol.js").SigningIn} SigningIn */
/** @typedef {import("./gateway-protocol.js").AuthChange} AuthChange */
/** @typedef {import("./gateway-protocol.js").Options} Options */

/**
 * Events (`on`, or `addEventListener` with the payload in `detail`):
 * - "state" {@link StateChange}
 * - "event" an engine event outside any channel: the default stream, and one's own order events once signed in
 * - "status" a message about the connection itself: `stream_status`, `auth_status`
 * - "auth" {@link AuthChange}
 * - "refused" `{channel, error}`: a channel the server no longer gives after a reconnect
 * - "fault" an Error: a message that could not be read, or that answers nothing
 */
export class GatewayClient extends EventTarget {
  /** @type {GatewayConnection} */
  #connection;
  /** @type {Map<string, Channel>} */
  #channels = new Map();
  /** @type {Set<Unanswered>} */
  #unanswered = new Set();
  /** @type {string | null} */
  #token = null;
  /** @type {string | null} */
  #userId = null;
  /** @type {SigningIn | null} */
  #signingIn = null;
  /** What this connection knows: nobody yet, who it is, or that they were somebody until their token expired. */
  /** @type {"nobody" | "somebody" | "expired"} */
  #standing = "nobody";
  /** This connection is past the point where it hands over the token by itself. */
  #introduced = false;

  /** @param {string | URL} url of `/ws` @param {Options} [options] */
  constructor(url, options = {}) {
    super();
    const address = new URL(url);
    // Without this the server starts with every event of every symbol until the first subscribe narrows it.
    if (!options.defaultStream) address.searchParams.set("stream", "none");
    this.url = address.href;
    this.#connection = new GatewayConnection(this.url, options, {
      establish: () => this.#establish(),
      dropped: () => this.#onDropped(),
      message: (message) => this.#onMessage(message),
      state: (change) => this.#onState(change),
      fault: (fault) => this.#emit("fault", fault),
    });
  }

  /** @returns {State} */
  get state() {
    return this.#connection.state;
  }

  /** Who is signed in, by the gateway's word; kept while the connection is away. @returns {string | null} */
  get userId() {
    return this.#userId;
  }

  /** Milliseconds since anything arrived; Infinity before the first connection. @returns {number} */
  get silentForMs() {
    return this.#connection.silentForMs;
  }

  /**
   * @param {string} type
   * @param {(payload: any) => void} listener
   * @returns {() => void} takes the listener off again
   */
  on(type, listener) {
    const wrapped = (/** @type {Event} */ event) => listener(/** @type {CustomEvent} */ (event).detail);
    this.addEventListener(type, wrapped);
    return () => this.removeEventListener(type, wrapped);
  }

  /** Starts, and keeps trying until `close()`. */
  connect() {
    this.#connection.connect();
  }

  /** Tries at once instead of waiting out the backoff: the network came back, or somebody is looking again. */
  reconnectNow() {
    this.#connection.reconnectNow();
  }

  /** Ends the connection and every request; `connect()` starts again with the same subscriptions. */
  close() {
    this.#refuseSignIn(new GatewayError("closed", "the client was closed"));
    this.#connection.close();
  }

  /**
   * Signs in, on this connection and on every later one; while signed in it renews, for the same user. May be called
   * before `connect()`.
   *
   * @param {string} token
   * @param {{renews?: boolean}} [options] `renews`: it is certainly of the user who was signed in before, so that a
   *   connection on which their token has ended will do
   * @returns {Promise<string>} the user id. Rejects if the gateway refuses: then whoever was signed in still is. A
   *   connection lost meanwhile only delays the answer; another `signIn` replaces this one.
   */
  signIn(token, { renews = false } = {}) {
    this.#refuseSignIn(new GatewayError("replaced", "another token was given meanwhile"));
    return new Promise((resolve, reject) => {
      const attempt = { token, renews, resolve, reject };
      this.#signingIn = attempt;
      if (!this.#connection.isOpen || !this.#introduced) return;
      // Whose token ran out here may be somebody else now, which a connection cannot become.
      if (this.#standing === "expired" && !renews) this.#connection.startOver("signing in");
      else this.#signInNow(attempt);
    });
  }

  /** Forgets the token. The gateway knows no way back to nobody but another connection. */
  signOut() {
    this.#refuseSignIn(new GatewayError("replaced", "signed out meanwhile"));
    this.#token = null;
    this.#setUser(null);
    const known = this.#standing !== "nobody";
    this.#emitAuth("signed_out");
    if (known && this.#connection.socket) this.#connection.startOver("signing out");
  }

  /**
   * @param {string} method
   * @param {object} [params]
   * @param {{timeoutMs?: number}} [options]
   * @returns {Promise<any>} the result; rejects with {@link GatewayError}. After "timeout" or "disconnected" it is not
   *   known whether the server acted.
   */
  request(method, params, options) {
    return this.#connection.request(method, params, options);
  }

  /**
   * Wants channels from now on, over every reconnect. May be called before `connect()`.
   *
   * @param {string[]} channels
   * @param {Listener} listener
   * @param {{position?: Position}} [options] from where on the one channel is to go on, and how far it was told from then
   *   on: kept by the caller, for a channel that nobody else listens to
   * @returns {Promise<string[]>} the channels, once the server has agreed; rejects if it refuses, and then nothing is
   *   wanted. A connection lost meanwhile only delays the answer, and so does waiting for somebody to sign in.
   * @throws {TypeError} `account.*` channels and others in one call, as the gateway takes them in different requests
   */
  subscribe(channels, listener, { position } = {}) {
    const names = [...new Set(channels)];
    if (names.some(isPrivate) && !names.every(isPrivate)) throw new TypeError("account.* channels need a call of their own");
    for (const name of names) {
      const channel = this.#channels.get(name) ?? {
        listeners: new Set(),
        asked: false,
        joined: false,
        position: position ?? (isLossless(name) ? new Position() : null),
        isKept: position !== undefined,
        interrupted: false,
      };
      channel.listeners.add(listener);
      this.#channels.set(name, channel);
    }
    return new Promise((resolve, reject) => {
      const entry = { names, listener, asked: false, resolve, reject };
      this.#unanswered.add(entry);
      if (this.#connection.isOpen && this.#mayAsk(names)) this.#ask(entry);
    });
  }

  /**
   * @param {string[]} channels
   * @param {Listener} [listener] only this one; without it, all of them
   * @returns {Promise<string[]>} the channels that nobody wants any more
   */
  async unsubscribe(channels, listener) {
    const dropped = [];
    for (const name of new Set(channels)) {
      const channel = this.#channels.get(name);
      if (!channel) continue;
      if (listener) channel.listeners.delete(listener);
      if (!listener || channel.listeners.size === 0) {
        this.#channels.delete(name);
        dropped.push(name);
      }
    }
    for (const entry of this.#unanswered) {
      if (entry.names.some((name) => this.#channels.get(name)?.listeners.has(entry.listener))) continue;
      this.#unanswered.delete(entry);
      entry.resolve([]);
    }
    if (dropped.length && this.#connection.isOpen) {
      // A connection that is gone has no subscriptions either, and a refusal leaves nothing that anyone listens to.
      await this.request("unsubscribe", { channels: dropped }).catch(ignoreGatewayError);
    }
    return dropped;
  }

  /**
   * Asks for fresh snapshots of channels that are wanted already. Never fails: a connection that is gone, or a server
   * that refuses now, brings the snapshot when it is back.
   *
   * @param {string[]} channels
   */
  async refresh(channels) {
    for (const [method, names] of byMethod(channels.filter((name) => this.#channels.has(name)))) {
      if (this.#mayAsk(names)) await this.request(method, { channels: names }).catch(ignoreGatewayError);
    }
  }

  /**
   * Leaves channels that are wanted, and joins them again from where they were told: what is under way of them is not
   * taken in any more. Never fails, as `refresh`.
   *
   * @param {string[]} channels
   */
  async rejoin(channels) {
    const { socket } = this.#connection;
    for (const [method, names] of byMethod(channels.filter((name) => this.#channels.get(name)?.joined))) {
      for (const name of names) /** @type {Channel} */ (this.#channels.get(name)).joined = false;
      this.request("unsubscribe", { channels: names }).catch(ignoreGatewayError);
      try {
        await this.#subscribeAgain(method, names);
      } catch (error) {
        if (isPassing(error) && socket === this.#connection.socket) this.#connection.lose(busy(error));
      }
    }
  }

  /** What a fresh connection needs before it is live: to know who it is, then what is wanted. */
  async #establish() {
    await this.#introduce();
    // What was wanted meanwhile was asked for already.
    const waiting = [...this.#unanswered].filter(({ names, asked }) => !asked && this.#mayAsk(names));
    const names = [...this.#channels].filter(([name, { asked }]) => !asked && this.#mayAsk([name])).map(([name]) => name);
    for (const [method, part] of byMethod(names)) await this.#subscribeAgain(method, part);
    for (const entry of waiting) if (this.#unanswered.delete(entry)) entry.resolve(entry.names);
  }

  /** Hands over the token: one just given, and if that is refused the one that was good before. */
  async #introduce() {
    const { socket } = this.#connection;
    for (;;) {
      const attempt = this.#signingIn;
      const token = attempt?.token ?? this.#token;
      if (token === null) break;
      try {
        const { user_id: userId } = await this.#must("public/auth", { token });
        if (attempt ? attempt !== this.#signingIn : token !== this.#token) this.#abandon();
        this.#onSignedIn(token, String(userId), attempt);
        // Given while this one was under way.
        if (!this.#signingIn) break;
      } catch (error) {
        if (isConnectionLoss(error) || isPassing(error)) throw error;
        if (attempt) {
          if (attempt === this.#signingIn) this.#refuseSignIn(/** @type {GatewayError} */ (error));
        } else if (token === this.#token) {
          this.#token = null;
          this.#setUser(null);
          this.#emitAuth("refused", /** @type {GatewayError} */ (error));
        }
      }
    }
    if (socket === this.#connection.socket) this.#introduced = true;
  }

  /** @param {SigningIn} attempt */
  async #signInNow(attempt) {
    const { token } = attempt;
    try {
      const { user_id: userId } = await this.#must("public/auth", { token });
      if (attempt !== this.#signingIn) this.#abandon();
      const wasSomebody = this.#standing === "somebody";
      this.#onSignedIn(token, String(userId), attempt);
      if (!wasSomebody) await this.#subscribePrivate();
    } catch (error) {
      // Lost with the connection: the next one hands it over.
      if (isConnectionLoss(error)) return;
      if (attempt === this.#signingIn) this.#refuseSignIn(/** @type {GatewayError} */ (error));
      // Signed in, but not heard: another connection, after a while, asks again.
      else if (isPassing(error)) this.#connection.lose(busy(error));
    }
  }

  /** @param {string} token @param {string} userId @param {SigningIn | null} attempt */
  #onSignedIn(token, userId, attempt) {
    this.#token = token;
    this.#setUser(userId);
    this.#standing = "somebody";
    if (attempt) this.#signingIn = null;
    this.#emitAuth("signed_in");
    attempt?.resolve(userId);
  }

  /** What one user was told is nothing that another could go on from. @param {string | null} userId */
  #setUser(userId) {
    if (userId === this.#userId) return;
    this.#userId = userId;
    for (const [name, channel] of this.#channels) {
      if (!isPrivate(name) || channel.isKept) continue;
      channel.position?.forget();
      channel.interrupted = false;
    }
  }

  /** This connection became somebody whom the page does not want to be any more. @returns {never} */
  #abandon() {
    this.#connection.startOver("signing in");
    throw new GatewayError("disconnected", "signing in");
  }

  /** @param {GatewayError} error */
  #refuseSignIn(error) {
    const attempt = this.#signingIn;
    this.#signingIn = null;
    attempt?.reject(error);
  }

  async #subscribePrivate() {
    const waiting = [...this.#unanswered].filter(({ names, asked }) => !asked && names.every(isPrivate));
    const names = [...this.#channels].filter(([name, { asked }]) => !asked && isPrivate(name)).map(([name]) => name);
    if (names.length) await this.#subscribeAgain("private/subscribe", names);
    if (this.#standing !== "somebody") return;
    for (const entry of waiting) if (this.#unanswered.delete(entry)) entry.resolve(entry.names);
  }

  /** @param {string[]} names of one method @returns {boolean} */
  #mayAsk(names) {
    return this.#standing === "somebody" || !names.some(isPrivate);
  }

  /** Asks for what was wanted before this connection was. @param {string} method @param {string[]} names */
  async #subscribeAgain(method, names) {
    try {
      await this.#join(method, names);
    } catch (error) {
      if (isConnectionLoss(error) || isPassing(error)) throw error;
      await this.#subscribeOneByOne(method, names);
    }
  }

  /** One bad channel refuses its whole request, so after a refusal each is asked for by itself. */
  /** @param {string} method @param {string[]} names */
  async #subscribeOneByOne(method, names) {
    for (const name of names) {
      try {
        await this.#join(method, [name]);
      } catch (error) {
        if (isConnectionLoss(error) || isPassing(error)) throw error;
        // The token ran out just now: it is wanted still, and asked for with the next one.
        if (isPrivate(name) && isUnauthorised(error)) {
          this.#forgetAsked((other) => other === name);
          continue;
        }
        this.#channels.delete(name);
        this.#emit("refused", { channel: name, error });
        for (const entry of [...this.#unanswered].filter(({ names }) => names.includes(name))) {
          this.#withdraw(entry);
          entry.reject(/** @type {Error} */ (error));
        }
      }
    }
    const unwanted = names.filter((name) => !this.#channels.has(name));
    if (unwanted.length) await this.request("unsubscribe", { channels: unwanted }).catch(ignoreGatewayError);
  }

  /** What a refused subscribe asked for is not wanted any more. @param {Unanswered} entry */
  #withdraw(entry) {
    this.#unanswered.delete(entry);
    for (const name of entry.names) {
      const channel = this.#channels.get(name);
      channel?.listeners.delete(entry.listener);
      if (channel?.listeners.size === 0) this.#channels.delete(name);
    }
  }

  /** @param {string} method @param {string[]} channels @param {boolean} [resumes] from where they were told */
  async #join(method, channels, resumes = true) {
    /** @type {Record<string, any>} */
    const since = {};
    const known = channels.map((name) => this.#channels.get(name));
    for (const [at, channel] of known.entries()) {
      if (channel) channel.asked = true;
      if (resumes && channel?.position?.since) since[channels[at]] = channel.position.since;
    }
    const params = Object.keys(since).length ? { channels, since } : { channels };
    await this.#must(method, params, () => known.forEach((channel) => channel && (channel.joined = true)));
  }

  /** What a connection is of no use without: one that does not answer it is given up. */
  /** @param {string} method @param {object} params @param {() => void} [onResult] @returns {Promise<any>} */
  async #must(method, params, onResult) {
    const { socket } = this.#connection;
    try {
      return await this.#connection.request(method, params, { onResult });
    } catch (error) {
      const isUnanswered = /** @type {GatewayError} */ (error).code === "timeout";
      if (isUnanswered && socket === this.#connection.socket) this.#connection.lose("the server did not answer");
      throw error;
    }
  }

  /** @param {Unanswered} entry */
  async #ask(entry) {
    entry.asked = true;
    try {
      const method = entry.names.some(isPrivate) ? "private/subscribe" : "public/subscribe";
      // Who listens from now on has nothing to go on from, unless they say so.
      await this.#join(method, entry.names, this.#channels.get(entry.names[0])?.isKept);
    } catch (error) {
      // Lost with the connection: the next one asks for everything that is wanted, this included.
      if (isConnectionLoss(error) || !this.#unanswered.has(entry)) return;
      if (isUnauthorised(error) && entry.names.every(isPrivate)) {
        this.#forgetAsked(isPrivate);
        return;
      }
      this.#withdraw(entry);
      entry.reject(/** @type {Error} */ (error));
      return;
    }
    if (this.#unanswered.delete(entry)) entry.resolve(entry.names);
  }

  /** @param {any} message */
  #onMessage(message) {
    if (message.channel_name !== undefined) {
      this.#notify(message);
    } else if (message.type === "stream_status" || message.type === "auth_status") {
      if (message.type === "auth_status" && message.status === "expired") this.#onExpired();
      if (message.type === "auth_status" && message.status === "narrowed") {
        const error = new GatewayError(INSUFFICIENT_SCOPE, "the token does not allow it");
        for (const name of message.channels) if (this.#channels.delete(name)) this.#emit("refused", { channel: name, error });
      }
      this.#emit("status", message);
    } else {
      this.#emit("event", message);
    }
  }

  /** @param {any} message */
  #notify(message) {
    let { channel_name: name, seq, epoch, partition, recovered, notification } = message;
    const channel = this.#channels.get(name);
    if (!channel?.joined) return;
    let held;
    if (channel.position) {
      if (channel.position.misses(message)) {
        this.rejoin([name]);
        return;
      }
      // Lost before its first notification, there was nothing to resume from: what was missed is not known.
      if (channel.interrupted) recovered ??= false;
      channel.interrupted = false;
      held = { ...channel.position };
      channel.position.advance(message, recovered);
    }
    for (const listener of channel.listeners) {
      try {
        listener(notification, { channel: name, seq, epoch, partition, recovered });
      } catch (error) {
        // One listener's fault must not keep the others from the news.
        if (typeof reportError === "function") reportError(error);
        else this.#emit("fault", error);
        if (!channel.isKept) continue;
        // Nothing may be left out: another connection, after a while, goes on from before it.
        Object.assign(/** @type {Position} */ (channel.position), held);
        this.#connection.lose("a message could not be taken in");
      }
    }
  }

  /** The gateway has ended the private channels; they stay wanted. */
  #onExpired() {
    this.#standing = "expired";
    this.#token = null;
    this.#forgetAsked(isPrivate);
    this.#setUser(null);
    this.#emitAuth("expired");
    // Given before this was known, on a connection that can become nobody else.
    if (this.#signingIn && !this.#signingIn.renews) this.#connection.startOver("signing in");
  }

  /** The gateway knows a connection, and not a client: another one is nobody's. */
  #onDropped() {
    this.#standing = "nobody";
    this.#introduced = false;
    this.#forgetAsked(() => true);
  }

  /** What was asked for on this connection holds no more. @param {(name: string) => boolean} isConcerned */
  #forgetAsked(isConcerned) {
    for (const [name, channel] of this.#channels) if (isConcerned(name)) channel.asked = channel.joined = false;
    for (const entry of this.#unanswered) if (entry.names.every(isConcerned)) entry.asked = false;
  }

  /** @param {StateChange} change */
  #onState(change) {
    if (change.previous === "live") {
      for (const channel of this.#channels.values()) channel.interrupted = true;
    }
    this.#emit("state", change);
  }

  /** @param {AuthChange["status"]} status @param {GatewayError} [error] */
  #emitAuth(status, error) {
    this.#emit("auth", { status, userId: this.#userId, error });
  }

  /** @param {string} type @param {any} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
