/**
 * One order of ours, and what is known of it.
 *
 * Of a signed-in user's orders the gateway tells the state itself (`told`): its status and filled quantity count. Of
 * anonymous ones only the public fills are seen, and nobody says when they are cancelled.
 */

import { add, compare, divide, format, keyOf, multiply, parse, ZERO } from "./client/decimal.js";
import { currencies } from "./dom.js";

/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/** @typedef {import("./market-feed.js").Fill} Fill */
/** @typedef {import("./market-feed.js").Trade} Trade */
/** @typedef {import("./order-api.js").OrderBody} OrderBody */
/**
 * @typedef {"accepted" | "unknown" | "gone" | "pending" | "open" | "partially_filled" | "filled" | "cancelled" |
 *   "rejected"} Status the gateway's words, and three of this page: "accepted", and more nobody tells; "unknown" whether
 *   it was placed; "gone", and what became of it could not be had
 */
/**
 * @typedef {object} Order
 * @property {OrderBody} body its terms
 * @property {string | null} orderId
 * @property {string | null} owner the user id; null for an anonymous one
 * @property {Status} status
 * @property {boolean} told the gateway tells what becomes of it
 * @property {boolean} placedHere on this page
 * @property {number | null} cancelRequestedAt
 * @property {number} placedAt or first heard of; milliseconds since the epoch, as all times here, by this machine's clock
 * @property {number | null} endedAt
 * @property {Decimal} filled
 * @property {Decimal} seen quantity of the fills that were seen here
 * @property {Decimal} cost sum of price times quantity over those
 * @property {Decimal[]} prices the distinct prices of those, in the order they came
 * @property {boolean} gap fills may have been missed
 * @property {string} note the last thing said about it: a cancel's refusal, the engine's reason
 */

const PRICES_KEPT = 50;
const CLOSED = ["filled", "cancelled", "rejected", "gone"];
/** A cancel that has not done anything by then may be asked for once more. */
const CANCEL_AGAIN_AFTER_MS = 10_000;

/**
 * @param {OrderBody} body
 * @param {Partial<Order>} known
 * @returns {Order}
 */
export const newOrder = (body, known) => ({
  body,
  orderId: null,
  owner: null,
  status: "unknown",
  told: false,
  placedHere: false,
  cancelRequestedAt: null,
  placedAt: Date.now(),
  endedAt: null,
  filled: ZERO,
  seen: ZERO,
  cost: ZERO,
  prices: [],
  gap: false,
  note: "",
  ...known,
});

/** @param {Order} order */
export const isOpen = (order) => !CLOSED.includes(order.status);

/** Rests in the book if it does not trade at once. @param {Order} order */
export const rests = (order) => order.body.order_type === "limit" && order.body.time_in_force === "GTC";

/** @param {Order} order */
export const isCancelling = (order) =>
  order.cancelRequestedAt !== null && Date.now() - order.cancelRequestedAt < CANCEL_AGAIN_AFTER_MS;

/** Over all its fills; null where there is none, or not all of them were seen. */
/** @param {Order} order @param {number} digits @returns {Decimal | null} */
export const averagePrice = (order, digits) =>
  order.seen.units === 0n || compare(order.seen, order.filled) !== 0 ? null : divide(order.cost, order.seen, digits);

/** Public trades name no orders. What they do say tells ours from others well enough to mark it. @param {Trade | Fill} trade */
export const nameOf = ({ symbol, time, price, quantity }) => `${symbol} ${time} ${keyOf(price)} ${keyOf(quantity)}`;

/** @param {Order} order @param {Fill} fill */
export function foldFill(order, fill) {
  order.seen = add(order.seen, fill.quantity);
  order.cost = add(order.cost, multiply(fill.price, fill.quantity));
  const isNewPrice = !order.prices.some((price) => compare(price, fill.price) === 0);
  if (isNewPrice && order.prices.length < PRICES_KEPT) order.prices.push(fill.price);
  if (order.told) return;
  order.filled = order.seen;
  if (compare(order.filled, parse(order.body.quantity)) >= 0) end(order, "filled");
  else if (isOpen(order)) order.status = "partially_filled";
}

/**
 * Takes in what the gateway says of it. What is closed stays so, whatever an instance that is behind says.
 *
 * @param {Order} order
 * @param {any} state as in `account.orders`
 */
export function foldState(order, state) {
  const open = !CLOSED.includes(state.status);
  if (order.told && open && !isOpen(order) && order.status !== "gone") return;
  order.told = true;
  order.body = bodyOf(state);
  order.filled = parse(state.filled_quantity);
  // That it is on its way says no more than was known of one whose outcome is not.
  if (order.status === "unknown" && state.status === "pending") return;
  if (order.status !== state.status) order.note = String(state.reason ?? "");
  if (state.amend_rejected) order.note = `Edit refused: ${state.amend_rejected}`;
  if (open) Object.assign(order, { status: state.status, endedAt: null });
  else end(order, state.status);
}

/** @param {Order} order @param {Status} status */
export function end(order, status) {
  order.status = status;
  order.endedAt ??= Date.now();
}

/** @param {any} state @returns {OrderBody} */
export const bodyOf = (state) => ({
  symbol: state.symbol,
  side: state.side,
  order_type: state.order_type,
  quantity: String(state.quantity),
  time_in_force: state.time_in_force ?? "",
  client_order_id: state.client_order_id ?? "",
  ...(state.price === null || state.price === undefined ? {} : { price: String(state.price) }),
});

/** @param {{body: OrderBody}} order @returns {string} as it is spoken of: "buy 0.5 KCN/EUR" */
export const nameOfOrder = ({ body }) => `${body.side === "bid" ? "buy" : "sell"} ${body.quantity} ${body.symbol}`;

/** @param {Order} order @param {Fill} fill @returns {string} */
export function describeFill({ body }, { price, quantity }) {
  const [base] = currencies(body.symbol);
  return `${body.side === "bid" ? "Bought" : "Sold"} ${format(quantity)} ${base} at ${format(price)}`;
}

/**
 * What became of an order, in a sentence.
 *
 * @param {Order} order
 * @returns {string}
 */
export function describe(order) {
  const [base] = currencies(order.body.symbol);
  const { quantity } = order.body;
  const average = averagePrice(order, Math.max(...order.prices.map((price) => price.scale), 0) + 2);
  let at = average ? ` at ${format(average)} on average` : "";
  if (average && order.prices.length === 1) at = ` at ${format(order.prices[0])}`;
  if (order.status === "filled") return `Filled: ${quantity} ${base}${at}`;
  if (order.status === "partially_filled") return `Partly filled: ${format(order.filled)} of ${quantity} ${base}${at}`;
  if (order.status === "cancelled") return "Cancelled";
  if (order.status === "rejected") return `Rejected by the market${order.note ? `: ${order.note}` : ""}`;
  if (order.status === "gone") return "Ended; what became of it could not be had";
  if (order.cancelRequestedAt !== null) return "Cancel requested";
  if (order.status === "pending") return "Accepted: on its way to the market";
  if (!rests(order)) return "Accepted; no fill seen so far";
  return "Accepted: waiting in the market";
}
