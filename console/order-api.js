/**
 * Orders over HTTP: what is asked, and what an answer means in words. A caller with a token sends it as `Authorization`.
 *
 * The outcome is the point: "refused" and "not_sent" may be tried again, "unknown" may already be in the market.
 */

/**
 * @typedef {object} OrderBody as `POST /api/order` takes it
 * @property {string} symbol
 * @property {"bid" | "ask"} side
 * @property {"limit" | "market"} order_type
 * @property {string} [price]
 * @property {string} quantity
 * @property {string} time_in_force
 * @property {string} client_order_id
 */
/**
 * @typedef {object} Answer
 * @property {"accepted" | "refused" | "not_sent" | "unknown"} outcome
 * @property {number} status the HTTP status; 0 where no answer came
 * @property {string} headline
 * @property {string} detail
 * @property {{field: string, message: string}[]} errors
 * @property {string | null} orderId
 * @property {string | null} requestId
 * @property {any} body
 */

/** @typedef {{outcome: "accepted" | "refused" | "unknown", status: number, orders: any[]}} Found */

import { readExactJson } from "./client/decimal.js";

const ANSWER_TIMEOUT_MS = 20_000;
const URN = "urn:mexchange:problem:";

/** @type {Record<number, {outcome: Answer["outcome"], headline: string, detail: (retryAfter: string | null, said: string) => string}>} */
const WORDS = {
  400: { outcome: "refused", headline: "The gateway could not read the request", detail: () => "" },
  401: {
    outcome: "refused",
    headline: "Not signed in",
    detail: () => "This gateway takes orders only with a valid token: sign in first. Nothing was sent.",
  },
  403: { outcome: "refused", headline: "Not allowed", detail: () => "" },
  404: { outcome: "refused", headline: "No such order", detail: () => "It is unknown, or somebody else's." },
  409: { outcome: "refused", headline: "That conflicts with what is known of the order", detail: () => "" },
  422: { outcome: "refused", headline: "Refused", detail: () => "" },
  429: {
    outcome: "not_sent",
    headline: "Too many orders",
    detail: (seconds) => `Nothing was sent. Try again ${seconds ? `in ${seconds} s` : "in a moment"}.`,
  },
  503: {
    outcome: "not_sent",
    headline: "Not sent: the market cannot be reached",
    detail: () => "The order is certainly not in the market. It can be placed again.",
  },
  504: {
    outcome: "unknown",
    headline: "Outcome unknown",
    detail: () =>
      "The market did not confirm in time: the order may or may not be in it. It is listed below; " +
      "fills would show there, and it can be cancelled.",
  },
};

/** @type {(typeof WORDS)[number]} */
const REFUSED_TOKEN = {
  outcome: "refused",
  headline: "Your token is not accepted any more",
  detail: (_, said) => `The gateway says: ${said || "it is not valid"}. Sign in again. Nothing was sent.`,
};

/** @param {string | null} token @returns {Record<string, string>} */
const headersFor = (token) => ({
  accept: "application/json, application/problem+json",
  ...(token === null ? {} : { authorization: `Bearer ${token}` }),
});

/**
 * @param {number} status
 * @param {any} body the parsed problem document, or null
 * @param {string | null} retryAfter
 * @param {boolean} signedIn whether there was a token
 * @returns {Answer}
 */
export function explain(status, body, retryAfter = null, signedIn = false) {
  // A 503 of a proxy may come when the gateway has read the order, and a success without a body that can be read is cut short.
  const isUnsure = (status === 503 && !String(body?.type ?? "").startsWith(URN)) || status < 400;
  const known = status === 401 && signedIn ? REFUSED_TOKEN : WORDS[isUnsure ? 504 : status];
  const said = body?.detail ?? body?.error ?? body?.title ?? "";
  const orderId = body?.order_id ?? null;
  return {
    // What is not in the table and not a client's fault (a proxy's 502, a 500) tells nothing about the order.
    outcome: known?.outcome ?? (status >= 500 ? "unknown" : "refused"),
    status,
    headline: known?.headline ?? body?.title ?? `The server answered ${status}`,
    detail: known?.detail(retryAfter, said) || said || (status >= 500 ? "Whether the order was placed is not known." : ""),
    errors: Array.isArray(body?.errors) ? body.errors : [],
    orderId: orderId === null ? null : String(orderId),
    requestId: body?.request_id ?? null,
    body,
  };
}

/**
 * @param {string} path
 * @param {object} content
 * @param {string | null} token
 * @returns {Promise<Answer>} never rejects
 */
async function post(path, content, token) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { ...headersFor(token), "content-type": "application/json" },
      body: JSON.stringify(content),
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
  } catch {
    return {
      outcome: "unknown",
      status: 0,
      headline: "No answer",
      detail: "The connection broke before an answer came: whether the request was carried out is not known.",
      errors: [],
      orderId: null,
      requestId: null,
      body: null,
    };
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null) {
    return explain(response.status, body, response.headers.get("retry-after"), token !== null);
  }
  return {
    outcome: "accepted",
    status: response.status,
    headline: "Accepted",
    detail: "",
    errors: [],
    orderId: body.order_id === undefined ? null : String(body.order_id),
    requestId: null,
    body,
  };
}

/** @param {OrderBody} body @param {string | null} token */
export const postOrder = (body, token) => post("api/order", body, token);

/** @param {{order_id: string, symbol: string}} body @param {string | null} token */
export const postCancel = (body, token) => post("api/order/cancel", body, token);

/** @param {{order_id: string, symbol: string, price?: string, quantity?: string}} body @param {string | null} token */
export const postAmend = (body, token) => post("api/order/amend", body, token);

/** @param {{symbol?: string}} body @param {string | null} token */
export const postCancelAll = (body, token) => post("api/order/cancel_all", body, token);

/**
 * @param {{orderId: string} | {clientOrderId: string}} which
 * @param {string | null} token
 * @returns {Promise<Found>} the order's last known state, digits untouched; never rejects
 */
export async function getOrders(which, token) {
  const path =
    "orderId" in which
      ? `api/order/${encodeURIComponent(which.orderId)}`
      : `api/order?client_order_id=${encodeURIComponent(which.clientOrderId)}`;
  try {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const response = await fetch(path, { headers: headersFor(token), signal });
    if (!response.ok) return { outcome: "refused", status: response.status, orders: [] };
    const body = readExactJson(await response.text());
    return { outcome: "accepted", status: response.status, orders: body.orders ?? [body] };
  } catch {
    return { outcome: "unknown", status: 0, orders: [] };
  }
}
