/**
 * The orders placed on this page, and what became of them.
 *
 * A fill can be on the stream before the HTTP answer that names its order, so the symbol's fills are followed before
 * the order is sent, and the last ones are kept and searched when its id becomes known. Where fills may have been
 * missed, orders are marked `gap`.
 */

import { add, compare, divide, keyOf, multiply, parse, ZERO } from "./decimal.js";
import { newOrderId, postCancel, postOrder } from "./order-api.js";

/** @typedef {import("./decimal.js").Decimal} Decimal */
/** @typedef {import("./market-feed.js").Trade} Trade */
/** @typedef {import("./market-feed.js").Fill} Fill */
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

/** @param {Fill} fill @param {Order} order */
const isFillOf = (fill, order) => fill.buyOrderId === order.orderId || fill.sellOrderId === order.orderId;

/** Public trades name no orders. What they do say tells ours from others well enough to mark it. @param {Trade | Fill} trade */
const nameOf = ({ symbol, time, price, quantity }) => `${symbol} ${time} ${keyOf(price)} ${keyOf(quantity)}`;

/** @param {Order} order @param {Fill} trade */
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
  /** @type {Fill[]} oldest first */
  #recentFills = [];
  /** @type {Set<string>} trades in which one of ours took part, oldest first */
  #ownTrades = new Set();
  /** @type {string[]} symbols of orders on their way */
  #placing = [];
  #followed;
  /** @type {Map<string, Order>} */
  #byOrderId = new Map();

  /**
   * @param {() => Promise<boolean>} followed resolves when the fills of `symbolsInPlay` come by (true), or when that is
   *   not to be waited for
   */
  constructor(followed) {
    super();
    this.#followed = followed;
  }

  /**
   * @param {Omit<OrderBody, "client_order_id">} terms
   * @returns {Promise<{answer: Answer, order: Order | null}>} no order where it is certain that there is none
   */
  async place(terms) {
    /** @type {OrderBody} */
    const body = { ...terms, client_order_id: newOrderId() };
    const placedAt = Date.now();
    this.#placing.push(body.symbol);
    this.#changed();
    const followed = await this.#followed();
    const answer = await postOrder(body);
    this.#placing.splice(this.#placing.indexOf(body.symbol), 1);
    if (answer.outcome === "refused" || answer.outcome === "not_sent") {
      this.#changed();
      return { answer, order: null };
    }
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
      gap: !followed,
      note: "",
    };
    this.orders.unshift(order);
    this.#forgetOldest();
    if (order.orderId) {
      this.#byOrderId.set(order.orderId, order);
      for (const fill of this.#recentFills) if (isFillOf(fill, order)) this.#fold(order, fill);
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

  /** @param {Fill} fill */
  onFill(fill) {
    this.#recentFills.push(fill);
    if (this.#recentFills.length >= FILLS_KEPT * 2) this.#recentFills.splice(0, FILLS_KEPT);
    const orders = [fill.buyOrderId, fill.sellOrderId].map((id) => this.#byOrderId.get(id));
    for (const order of new Set(orders)) if (order) this.#fold(order, fill);
    if (orders.some(Boolean)) this.#changed();
  }

  /** @param {Order} order @param {Fill} fill */
  #fold(order, fill) {
    fold(order, fill);
    this.#ownTrades.add(nameOf(fill));
    if (this.#ownTrades.size > FILLS_KEPT) this.#ownTrades.delete(this.#ownTrades.values().next().value ?? "");
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

  /** Fills of a symbol were missed. @param {string} symbol */
  onGap(symbol) {
    const open = this.orders.filter((order) => order.body.symbol === symbol && isOpen(order) && !order.gap);
    for (const order of open) order.gap = true;
    if (open.length) this.#changed();
  }

  /** @param {Trade} trade @returns {boolean} whether one of its two orders is ours */
  isOwn(trade) {
    return this.#ownTrades.size > 0 && this.#ownTrades.has(nameOf(trade));
  }

  /** @returns {string[]} symbols with orders that may still trade */
  symbolsInPlay() {
    return [...new Set([...this.#placing, ...this.orders.filter(isOpen).map((order) => order.body.symbol)])];
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
