/**
 * What the client knows of the gateway's protocol: kinds of channels, positions in them, codes, what they mean, and the
 * client's own types.
 */

/** @typedef {"closed" | "connecting" | "live" | "reconnecting"} State */
/**
 * @typedef {object} StateChange
 * @property {State} state
 * @property {State} previous
 * @property {string} reason in words, empty when there is nothing to say
 * @property {number} attempt failed attempts since the last stable connection
 * @property {number} [retryInMs] only with "reconnecting"
 */
/** @typedef {number | Record<string, number>} Seq offset of the last record folded in; of several partitions, by partition */
/**
 * @typedef {object} Meta what a notification carries beside its body
 * @property {string} channel
 * @property {Seq} seq
 * @property {string} [epoch] on the first notification after subscribing
 * @property {number} [partition] on `events` alone
 * @property {boolean} [recovered] on the first notification after an interruption of a lossless channel: true, and
 *   everything that was missed follows; false, and here is a snapshot instead of what was missed
 */
/** @typedef {(notification: any, meta: Meta) => void} Listener */
/**
 * @typedef {object} Channel what is known of one that is wanted
 * @property {Set<Listener>} listeners
 * @property {boolean} asked it was asked for on this connection
 * @property {boolean} joined the gateway has agreed on this connection: what comes before that was for who listened before
 * @property {Position | null} position of channels that can be resumed
 * @property {boolean} isKept somebody else keeps the position, whoever is signed in
 * @property {boolean} interrupted
 */
/**
 * @typedef {object} Unanswered a `subscribe` call that the server has not agreed to yet
 * @property {string[]} names
 * @property {Listener} listener
 * @property {boolean} asked by a request of its own, on this connection
 * @property {(names: string[]) => void} resolve
 * @property {(error: Error) => void} reject
 */
/**
 * @typedef {object} SigningIn a `signIn` call that the server has not answered yet
 * @property {string} token
 * @property {boolean} renews it is of the same user as before
 * @property {(userId: string) => void} resolve
 * @property {(error: Error) => void} reject
 */
/**
 * @typedef {object} AuthChange
 * @property {"signed_in" | "signed_out" | "expired" | "refused"} status "refused": a token that was good is not any more
 * @property {string | null} userId
 * @property {GatewayError} [error] only with "refused"
 */
/**
 * @typedef {object} Clock
 * @property {() => number} now milliseconds, monotonic
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */
/**
 * @typedef {object} Options
 * @property {boolean} [defaultStream] true: the gateway's default stream; every public event arrives as "event"
 * @property {number} [backoffBaseMs]
 * @property {number} [backoffCapMs]
 * @property {number} [stableAfterMs] a connection this old resets the backoff
 * @property {number} [goingAwayMs] after Close 1001 the client is back within this time
 * @property {number} [connectTimeoutMs]
 * @property {number} [requestTimeoutMs]
 * @property {number} [quietMs] silence after which the connection is probed
 * @property {number} [pingTimeoutMs] silence after the probe that ends it
 * @property {typeof WebSocket} [WebSocket]
 * @property {Clock} [clock]
 * @property {() => number} [random] uniform in [0, 1)
 */

/** Channels that leave nothing out, and can be resumed. */
const LOSSLESS = /^(?:trades\.|events(?:\.|$)|account\.trades$)/;
/** Channels of the user who is signed in. */
const PRIVATE = /^account\./;
const NOT_AUTHORISED = 10000;
export const INSUFFICIENT_SCOPE = 10006;
/** The close code after which the same message would be too big again. */
export const TOO_BIG = 1009;
/** Refusals that say nothing about what was asked: too many requests, and the bus is away. */
const PASSING = [10003, 10004];

/** What a close code means, in words. */
export const CLOSE_WORDS = new Map([
  [1000, "closed by the server"],
  [1001, "the server is restarting"],
  [1006, "the connection was lost"],
  [1008, "refused: too many requests"],
  [1009, "a message was too big"],
  [1011, "a fault in the server"],
  [1012, "the server is restarting"],
  [1013, "the server is overloaded"],
  [4008, "this page was too slow to keep up"],
  [4009, "nothing was heard of this page"],
]);

/** A refusal by the gateway (`code` is its number), or `code` "timeout", "disconnected", "closed" or "replaced". */
export class GatewayError extends Error {
  /** @param {number | string} code @param {string} message @param {any} [data] */
  constructor(code, message, data) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.data = data;
  }

  /** How long not to ask again, where the answer says so. @returns {number | null} */
  get retryAfterMs() {
    const seconds = this.data?.retry_after;
    return seconds === undefined || seconds === null ? null : Number(seconds) * 1000;
  }
}

/** How far a channel was told, by which it is resumed. */
export class Position {
  /** @param {{epoch?: string, seq?: Seq}} [known] */
  constructor({ epoch, seq } = {}) {
    this.epoch = epoch;
    this.seq = seq;
  }

  /** From where on the channel is to go on; null for its beginning. @returns {{epoch: string, seq: Seq} | null} */
  get since() {
    return this.epoch === undefined || this.seq === undefined ? null : { epoch: this.epoch, seq: this.seq };
  }

  /** What was counted means nothing any more. */
  forget() {
    this.epoch = this.seq = undefined;
  }

  /** Whether something between what was told and this message is missing. @param {any} message */
  misses({ epoch, prev_seq: before = -1, partition }) {
    if (epoch !== undefined || before < 0 || this.seq === undefined) return false;
    const held = typeof this.seq === "object" ? this.seq[String(partition)] : this.seq;
    return held !== undefined && before > held;
  }

  /** @param {any} message @param {boolean | undefined} recovered what became of an interruption, if there was one */
  advance({ epoch, seq, partition }, recovered) {
    if (epoch !== undefined) {
      // What was counted in another life of the topic means nothing in this one.
      if (epoch !== this.epoch || recovered !== true) this.seq = undefined;
      this.epoch = epoch;
    }
    const held = typeof this.seq === "object" ? this.seq : {};
    // Before there is any record of a partition its seq is -1.
    if (partition !== undefined) this.seq = seq < 0 ? held : { ...held, [partition]: seq };
    else this.seq = typeof seq === "object" ? { ...held, ...seq } : seq;
  }
}

/** @returns {string} a version 4 UUID, to name an order by; `crypto.randomUUID` exists on https and localhost only */
export function newOrderId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * @param {string} token
 * @returns {number | null} its `exp` in milliseconds since the epoch; null if that cannot be read
 */
export function expiryOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(part));
    return Number.isFinite(exp) ? exp * 1000 : null;
  } catch {
    return null;
  }
}

/** @param {string} name */
export const isLossless = (name) => LOSSLESS.test(name);

/** @param {unknown} error */
export const isConnectionLoss = (error) =>
  error instanceof GatewayError && ["timeout", "disconnected", "closed"].includes(String(error.code));

/** @param {unknown} error */
export const isPassing = (error) => error instanceof GatewayError && PASSING.includes(Number(error.code));

/** @param {unknown} error */
export const isUnauthorised = (error) => error instanceof GatewayError && error.code === NOT_AUTHORISED;

/** @param {string} name */
export const isPrivate = (name) => PRIVATE.test(name);

/** A request for more channels could be larger than a message may be. */
const CHANNELS_PER_REQUEST = 100;

/** @param {string[]} names @returns {[string, string[]][]} those that are asked for by the same method, together */
export const byMethod = (names) => {
  /** @type {[string, string[]][]} */
  const groups = [
    ["public/subscribe", names.filter((name) => !isPrivate(name))],
    ["private/subscribe", names.filter(isPrivate)],
  ];
  return groups.flatMap(([method, group]) => {
    const parts = Math.ceil(group.length / CHANNELS_PER_REQUEST);
    const part = (/** @type {number} */ at) => group.slice(at * CHANNELS_PER_REQUEST, (at + 1) * CHANNELS_PER_REQUEST);
    return Array.from({ length: parts }, (_, at) => /** @type {[string, string[]]} */ ([method, part(at)]));
  });
};

/** @param {unknown} error */
export const ignoreGatewayError = (error) => {
  if (!(error instanceof GatewayError)) throw error;
};
