/**
 * The orders placed on this page, and what became of them.
 *
 * A fill can be on the stream before the HTTP answer that names its order, so the last fills are kept and searched
 * when an order id becomes known. What happened while the stream was away is not seen: such orders are marked `gap`.
 */

import { add, compare, divide, keyOf, multiply, parse, ZERO } from "./decimal.js";
import { newOrderId, postCancel, postOrder } from "./order-api.js";

/** @typedef {import("./decimal.js").Decimal} Decimal */
/** @typedef {import("./market-feed.js").Trade} Trade */
/** @typedef {import("./order-api.js").Answer} Answer */
/** @typedef {import("./order-api.js").OrderBody} OrderBody */
/** @typedef {"accepted" | "partially_filled" | "filled" | "cancelled" | "rejected" | "unknown"} Status */
/**
 * @typedef {object} Order
 * @property {OrderBody} body as it was posted
 * @property {string | null} orderId
 * @property {Status} status
 * @property {boolean} cancelRequested
 * @property {number} placedAt milliseconds since the epoch, this machine's clock
 * @property {Decimal} filled
 * @property {Decimal} cost sum of price times quantity over the fills
 * @property {Decimal[]} prices the distinct prices of the fills, in the order they came
 * @property {boolean} gap fills may have been missed
 * @property {string} note the last thing said about it: a cancel's refusal, the engine's reason
 */

const FILLS_KEPT = 2000;
const ORDERS_KEPT = 200;
const PRICES_KEPT = 50;

/** @param {Order} order */
export const isOpen = (order) => !["filled", "cancelled", "rejected"].includes(order.status);

/** Rests in the book if it does not trade at once. @param {Order} order */
export const rests = (order) => order.body.order_type === "limit" && order.body.time_in_force === "GTC";

/** @param {Order} order @param {number} digits @returns {Decimal | null} */
export const averagePrice = (order, digits) =>
  order.filled.units === 0n ? null : divide(order.cost, order.filled, digits);

/** @param {Trade} trade @param {Order} order */
const isFillOf = (trade, order) => trade.buyOrderId === order.orderId || trade.sellOrderId === order.orderId;

/** @param {Order} order @param {Trade} trade */
function fold(order, trade) {
  order.filled = add(order.filled, trade.quantity);
  order.cost = add(order.cost, multiply(trade.price, trade.quantity));
  const isNewPrice = !order.prices.some((price) => compare(price, trade.price) === 0);
  if (isNewPrice && order.prices.length < PRICES_KEPT) order.prices.push(trade.price);
  if (compare(order.filled, parse(order.body.quantity)) >= 0) order.status = "filled";
  else if (isOpen(order)) order.status = "partially_filled";
}

/** Event "change" whenever an order appears or changes. */
export class SessionOrders extends EventTarget {
  /** @type {Order[]} newest first */
  orders = [];
  /** @type {Trade[]} oldest first */
  #recentFills = [];
  /** @type {Map<string, Order>} */
  #byOrderId = new Map();

  /**
   * @param {Omit<OrderBody, "client_order_id">} terms
   * @returns {Promise<{answer: Answer, order: Order | null}>} no order where it is certain that there is none
   */
  async place(terms) {
    /** @type {OrderBody} */
    const body = { ...terms, client_order_id: newOrderId() };
    const placedAt = Date.now();
    const answer = await postOrder(body);
    if (answer.outcome === "refused" || answer.outcome === "not_sent") return { answer, order: null };
    /** @type {Order} */
    const order = {
      body,
      orderId: answer.orderId,
      status: answer.outcome === "accepted" ? "accepted" : "unknown",
      cancelRequested: false,
      placedAt,
      filled: ZERO,
      cost: ZERO,
      prices: [],
      gap: false,
      note: "",
    };
    this.orders.unshift(order);
    this.#forgetOldest();
    if (order.orderId) {
      this.#byOrderId.set(order.orderId, order);
      for (const trade of this.#recentFills) if (isFillOf(trade, order)) fold(order, trade);
    }
    this.#changed();
    return { answer, order };
  }

  /** @param {Order} order @returns {Promise<Answer | null>} null where there is no id to cancel by */
  async cancel(order) {
    if (!order.orderId) return null;
    const answer = await postCancel({ order_id: order.orderId, symbol: order.body.symbol });
    order.cancelRequested = answer.outcome === "accepted" || answer.outcome === "unknown";
    order.note = answer.outcome === "accepted" ? "" : `Cancel: ${answer.headline}`;
    this.#changed();
    return answer;
  }

  /** @param {Trade} trade */
  onFill(trade) {
    this.#recentFills.push(trade);
    if (this.#recentFills.length >= FILLS_KEPT * 2) this.#recentFills.splice(0, FILLS_KEPT);
    const orders = [trade.buyOrderId, trade.sellOrderId].map((id) => this.#byOrderId.get(id));
    for (const order of new Set(orders)) if (order) fold(order, trade);
    if (orders.some(Boolean)) this.#changed();
  }

  /** An engine event about one's own order; arrives once signed in. @param {any} event */
  onOrderEvent(event) {
    const order = this.#byOrderId.get(String(event.order_id));
    if (!order) return;
    if (event.type === "order_cancelled") order.status = "cancelled";
    else if (event.type === "order_filled") order.status = "filled";
    else if (event.type === "order_rejected") {
      order.status = "rejected";
      order.note = String(event.reason ?? "");
    }
    this.#changed();
  }

  /** The stream was away: what was filled meanwhile did not come by. */
  onGap() {
    const open = this.orders.filter((order) => isOpen(order) && !order.gap);
    for (const order of open) order.gap = true;
    if (open.length) this.#changed();
  }

  /** @param {Trade} trade @returns {boolean} whether one of its two orders is ours */
  isOwn(trade) {
    return this.#byOrderId.has(trade.buyOrderId) || this.#byOrderId.has(trade.sellOrderId);
  }

  /** @returns {string[]} symbols with orders that may still trade */
  symbolsInPlay() {
    return [...new Set(this.orders.filter(isOpen).map((order) => order.body.symbol))];
  }

  /** @param {string} symbol @param {"bid" | "ask"} side @returns {Set<string>} keys of prices where ours rest */
  restingPrices(symbol, side) {
    const resting = this.orders.filter(
      (order) => order.body.symbol === symbol && order.body.side === side && rests(order) && isOpen(order),
    );
    return new Set(resting.filter((order) => !order.cancelRequested).map((order) => keyOf(parse(order.body.price))));
  }

  #forgetOldest() {
    while (this.orders.length > ORDERS_KEPT) {
      const closed = this.orders.findLastIndex((order) => !isOpen(order));
      const [order] = this.orders.splice(closed === -1 ? this.orders.length - 1 : closed, 1);
      if (order.orderId) this.#byOrderId.delete(order.orderId);
    }
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("change"));
  }
}
