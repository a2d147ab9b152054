/** What the client knows of the gateway's protocol: kinds of channels, codes, what they mean, and the client's own types. */

/** @typedef {"closed" | "connecting" | "live" | "reconnecting"} State */
/**
 * @typedef {object} StateChange
 * @property {State} state
 * @property {State} previous
 * @property {string} reason in words, empty when there is nothing to say
 * @property {number} attempt failed attempts since the last stable connection
 * @property {number} [retryInMs] only with "reconnecting"
 */
/**
 * @typedef {object} Meta what a notification carries beside its body
 * @property {string} channel
 * @property {number} seq offset of the last record folded in
 * @property {string} [epoch] on the first notification after subscribing
 * @property {number} [partition] on `events` alone
 * @property {boolean} [recovered] on the first notification after an interruption of a lossless channel: true, and
 *   everything that was missed follows; false, and here is a snapshot instead of what was missed
 */
/** @typedef {(notification: any, meta: Meta) => void} Listener */
/**
 * @typedef {object} Unanswered a `subscribe` call that the server has not agreed to yet
 * @property {string[]} names
 * @property {Listener} listener
 * @property {(names: string[]) => void} resolve
 * @property {(error: Error) => void} reject
 */
/**
 * @typedef {object} SigningIn a `signIn` call that the server has not answered yet
 * @property {string} token
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
    this.name = "GatewayError";
    this.code = code;
    this.data = data;
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

/** @param {string[]} names @returns {[string, string[]][]} those that are asked for by the same method, together */
export const byMethod = (names) => {
  /** @type {[string, string[]][]} */
  const groups = [
    ["public/subscribe", names.filter((name) => !isPrivate(name))],
    ["private/subscribe", names.filter(isPrivate)],
  ];
  return groups.filter(([, group]) => group.length > 0);
};

/** @param {unknown} error */
export const ignoreGatewayError = (error) => {
  if (!(error instanceof GatewayError)) throw error;
};
