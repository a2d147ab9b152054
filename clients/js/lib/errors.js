/** What can go wrong, by its name in the contract (docs/contract.md#codes, #problems): a table of codes, and one of problems. */

import { GatewayError, TOO_BIG } from "./gateway-protocol.js";

export { GatewayError };

/** There was no connection in the time given, and nothing was sent. */
export class ConnectionLost extends GatewayError {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super("disconnected", message);
    this.cause = cause;
  }
}

/** The gateway could not read what was sent, or does not take it so. */
export class BadRequest extends GatewayError {}

/** The method is unknown, or not offered here: amends, where `orders.amend` is off. */
export class NoSuchMethod extends GatewayError {}

/** The terms break a rule. */
export class InvalidFields extends GatewayError {
  /** One for each broken rule. @returns {{field: string, message: string}[]} */
  get errors() {
    return this.data?.errors ?? [];
  }
}

/** No token where one is needed, or one that is not accepted (any more). */
export class NotAuthorised extends GatewayError {}

/** Known, and not allowed: by the token's scope, a block, a halt. */
export class Forbidden extends GatewayError {}

/** No such symbol, order or path. */
export class NotFound extends GatewayError {}

/** The order was understood and refused: other terms under its client_order_id, or no funds. */
export class OrderRefused extends GatewayError {}

/** There is nothing of the caller's to cancel or amend. */
export class CancelFailed extends GatewayError {
  /** What became of a closed order. @returns {string | null} */
  get orderStatus() {
    return this.data?.order_status ?? this.data?.status ?? null;
  }
}

/** A limit was reached, and `retryAfterMs` is longer than the time that was given. */
export class TooManyRequests extends GatewayError {}

/** Certainly not done, as often as it was tried in the time given. The same may be sent again. */
export class Unavailable extends GatewayError {}

/** Perhaps done. The same may be sent again, under the same `clientOrderId`. `cause` is what the last attempt met. */
export class OutcomeUnknown extends GatewayError {
  /** @type {string | null} */
  clientOrderId = null;

  /** Which order to ask about, where the gateway named it. @returns {string | null} */
  get orderId() {
    return this.data?.order_id ?? null;
  }
}

/** A fault of the gateway's own, or of what stands behind it. */
export class GatewayFault extends GatewayError {}

/** Codes of answers. @type {Map<number | string, typeof GatewayError>} */
const CODES = new Map([
  [-32700, BadRequest],
  [-32600, BadRequest],
  [-32601, NoSuchMethod],
  [-32602, InvalidFields],
  [-32603, GatewayFault],
  [10000, NotAuthorised],
  [10001, OrderRefused],
  [10002, CancelFailed],
  [10003, TooManyRequests],
  [10004, Unavailable],
  [10005, OutcomeUnknown],
  [10006, Forbidden],
]);

/** Names of problems (HTTP). @type {Map<string, typeof GatewayError>} */
const PROBLEMS = new Map([
  ["not-json", BadRequest],
  ["bad-request", BadRequest],
  ["unauthorised", NotAuthorised],
  ["forbidden", Forbidden],
  ["insufficient_scope", Forbidden],
  ["blocked", Forbidden],
  ["halted", Forbidden],
  ["not-found", NotFound],
  ["method-not-allowed", BadRequest],
  ["request-timeout", BadRequest],
  ["conflict", OrderRefused],
  ["too-large", BadRequest],
  ["target-too-long", BadRequest],
  ["not-json-type", BadRequest],
  ["invalid-fields", InvalidFields],
  ["upgrade-required", BadRequest],
  ["too-many-requests", TooManyRequests],
  ["headers-too-large", BadRequest],
  ["internal", GatewayFault],
  ["bad-gateway", GatewayFault],
  ["bus-unavailable", Unavailable],
  ["unavailable", Unavailable],
  ["outcome-unknown", OutcomeUnknown],
  ["gateway-timeout", GatewayFault],
]);

/** What a problem of a name that is not in the table means: a later gateway may have more names. */
/** @type {Map<number, typeof GatewayError>} */
const BY_STATUS = new Map([
  [401, NotAuthorised],
  [403, Forbidden],
  [404, NotFound],
  [409, OrderRefused],
  [422, InvalidFields],
  [429, TooManyRequests],
  [503, Unavailable],
  [504, OutcomeUnknown],
]);

const URN = "urn:mexchange:problem:";

/**
 * @param {unknown} error what a `GatewayClient` rejects with
 * @returns {GatewayError} the same by its type
 */
export function typed(error) {
  if (!(error instanceof GatewayError)) throw error;
  if (error.constructor !== GatewayError) return error;
  const { code, message, data } = error;
  if (data?.unsent) return new ConnectionLost(message, error);
  if (code === TOO_BIG) return new BadRequest(code, message);
  if (typeof code === "string") return new OutcomeUnknown(code, `no answer: ${message}`, data);
  return ofAnswer(error);
}

/** @param {{code: number | string, message?: string, data?: any}} error of an answer @returns {GatewayError} */
export const ofAnswer = ({ code, message, data }) =>
  new (CODES.get(code) ?? GatewayError)(code, String(message ?? code), data);

/**
 * @param {number} status
 * @param {any} body the problem, or null where it is none
 * @param {string | null} retryAfter the header
 * @returns {GatewayError} for an HTTP answer that is no success, whoever wrote it
 */
export function ofProblem(status, body, retryAfter) {
  // RFC 9457's `status` is a number, and no order's.
  const { status: _, ...data } = body ?? {};
  const name = String(data.type ?? "").replace(URN, "");
  if (retryAfter !== null && /^\d+$/.test(retryAfter)) data.retry_after = Number(retryAfter);
  const kind = PROBLEMS.get(name) ?? BY_STATUS.get(status) ?? (status >= 500 ? GatewayFault : GatewayError);
  return new kind(name || status, String(data.detail ?? data.error ?? `HTTP ${status}`), data);
}
