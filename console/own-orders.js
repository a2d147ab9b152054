/**
 * Our orders, and what became of them: those placed on this page, and once signed in all of the user's.
 *
 * What becomes of a user's orders `account.orders` tells, wherever they were placed. It names no trades, though: which
 * of these are ours, and at which price, only the `fill` events of a symbol tell, so they are followed too. A fill can be
 * on the stream before anything names its order, so the last ones are kept and searched when an id becomes known.
 * Anonymous orders are followed by their fills alone; where some may have been missed they are marked `gap`.
 */

import { keyOf, parse } from "./client/decimal.js";
import { newOrderId } from "./client/gateway-protocol.js";
import { bodyOf, end, foldFill, foldState, isCancelling, isOpen, nameOf, nameOfOrder, newOrder, rests } from "./order.js";
import { getOrders, postAmend, postCancel, postCancelAll, postOrder } from "./order-api.js";

/** @typedef {import("./market-feed.js").Trade} Trade */
/** @typedef {import("./market-feed.js").Fill} Fill */
/** @typedef {import("./order.js").Order} Order */
/** @typedef {import("./order-api.js").Answer} Answer */
/** @typedef {import("./order-api.js").OrderBody} OrderBody */
/** @typedef {{userId: string | null, token: string | null}} Caller */

const FILLS_KEPT = 2000;
/** Of those that are closed, or of which nobody tells whether they are. */
const ORDERS_KEPT = 200;
/** How long a user's order is listed after it ended. */
const ENDED_SHOWN_MS = 15 * 60_000;

/**
 * Event "change" whenever an order appears or changes, "news" {@link Order} for each whose status did, "placing" before one
 * is sent, "answer" `{asked, answer}` to each request, what was asked in words, and "fill" `{order, fill}` for each fill of ours.
 */
export class OwnOrders extends EventTarget {
  /** @type {Order[]} newest first */
  orders = [];
  /** @type {Fill[]} oldest first */
  #recentFills = [];
  /** @type {Map<string, string | null>} trades in which one of ours took part, oldest first, and whose order that was */
  #ownTrades = new Map();
  /** @type {string[]} symbols of orders on their way */
  #placing = [];
  /** @type {Map<string, Order>} */
  #byOrderId = new Map();
  /** @type {Set<Order>} those of unknown outcome, of which not even the id is known */
  #nameless = new Set();
  #caller;
  #followed;

  /**
   * @param {Caller} caller who is signed in, now and whenever it is looked at
   * @param {() => Promise<boolean>} followed resolves when the fills of `symbolsInPlay` come by (true), or when that is
   *   not to be waited for
   */
  constructor(caller, followed) {
    super();
    this.#caller = caller;
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
    this.dispatchEvent(new CustomEvent("placing"));
    const followed = await this.#followed();
    const { userId: owner, token } = this.#caller;
    const answer = await postOrder(body, token);
    this.#placing.splice(this.#placing.indexOf(body.symbol), 1);
    if (!this.#isStranger(owner)) this.#told("answer", { asked: nameOfOrder({ body }), answer });
    if (answer.outcome === "refused" || answer.outcome === "not_sent" || this.#isStranger(owner)) {
      this.#changed();
      return { answer, order: null };
    }
    const isKnown = answer.outcome === "accepted";
    // The gateway may have told of it before it answered.
    let order = this.#find(owner, answer.orderId, body.client_order_id);
    if (!order) {
      order = newOrder(body, { owner, placedAt, gap: !followed, status: isKnown ? "accepted" : "unknown" });
      this.orders.unshift(order);
      this.#nameless.add(order);
    } else if (!isKnown && order.status === "pending") {
      order.status = "unknown";
    }
    order.placedHere = true;
    if (answer.orderId) this.#name(order, answer.orderId);
    this.#forgetOldest();
    this.#changed();
    return { answer, order };
  }

  /**
   * Sends an order of unknown outcome once more, under the same client_order_id: so it is never placed twice.
   *
   * @param {Order} order
   * @returns {Promise<Answer>}
   */
  async askAgain(order) {
    const answer = await postOrder(order.body, this.#tokenFor(order));
    this.#told("answer", { asked: nameOfOrder(order), answer });
    if (answer.orderId) this.#name(order, answer.orderId);
    if (order.status === "unknown") {
      // Whatever refused this attempt, the one before may have come through.
      if (answer.outcome === "accepted") Object.assign(order, { status: order.told ? "pending" : "accepted", note: "" });
      else order.note = `Asked again: ${answer.headline}`;
    }
    this.#changed();
    return answer;
  }

  /** @param {Order} order @returns {Promise<Answer | null>} null where there is no id to cancel by */
  async cancel(order) {
    if (!order.orderId) return null;
    const answer = await postCancel({ order_id: order.orderId, symbol: order.body.symbol }, this.#tokenFor(order));
    this.#told("answer", { asked: `cancel ${nameOfOrder(order)}`, answer });
    const asked = answer.outcome === "accepted" || answer.outcome === "unknown";
    order.cancelRequestedAt = asked ? Date.now() : null;
    if (isOpen(order)) order.note = answer.outcome === "accepted" ? "" : `Cancel: ${answer.headline}`;
    // It had ended, and that was not heard here.
    if (answer.status === 409 && order.told && isOpen(order)) this.#look([order]);
    this.#changed();
    return answer;
  }

  /**
   * Asks for other terms; what becomes of that the order's state tells.
   *
   * @param {Order} order
   * @param {{price?: string, quantity?: string}} terms those that are to change
   * @returns {Promise<Answer | null>} null where there is no id to amend by
   */
  async amend(order, terms) {
    if (!order.orderId) return null;
    const answer = await postAmend({ order_id: order.orderId, symbol: order.body.symbol, ...terms }, this.#tokenFor(order));
    this.#told("answer", { asked: `amend ${nameOfOrder(order)}`, answer });
    const said = answer.errors[0] ? `${answer.errors[0].field}: ${answer.errors[0].message}` : answer.headline;
    if (isOpen(order)) order.note = answer.outcome === "accepted" ? "" : `Edit: ${said}`;
    if (answer.status === 409 && order.told && isOpen(order)) this.#look([order]);
    this.#changed();
    return answer;
  }

  /** @returns {Promise<Answer>} to the cancel of all open orders of the user who is signed in */
  async cancelAll() {
    const answer = await postCancelAll({}, this.#caller.token);
    this.#told("answer", { asked: "cancel all open orders", answer });
    for (const id of answer.body?.order_ids ?? []) {
      const order = this.#byOrderId.get(String(id));
      if (order && isOpen(order)) order.cancelRequestedAt = Date.now();
    }
    this.#changed();
    return answer;
  }

  /** @param {any} notification of `account.orders` @param {string} owner */
  onAccount({ orders: states, snapshot }, owner) {
    /** @type {Set<Order>} */
    const fresh = new Set();
    for (const state of states) {
      const id = String(state.order_id);
      let order = this.#find(owner, id, state.client_order_id);
      const before = order?.status;
      if (!order) {
        order = newOrder(bodyOf(state), { owner, status: "pending" });
        this.orders.unshift(order);
      }
      foldState(order, state);
      if (!order.orderId) {
        this.#enter(order, id);
        fresh.add(order);
      }
      if (!snapshot && before !== order.status) this.dispatchEvent(new CustomEvent("news", { detail: order }));
    }
    if (fresh.size) this.#foldRecent(fresh);
    if (snapshot) {
      const listed = new Set(states.map((/** @type {any} */ state) => String(state.order_id)));
      const ours = this.orders.filter((order) => order.owner === owner && isOpen(order));
      for (const order of ours) order.cancelRequestedAt = null;
      // It ended while nobody told: how, the gateway knows still.
      this.#look(ours.filter((order) => !listed.has(order.orderId ?? "")));
    }
    this.#forgetOldest();
    this.#changed();
  }

  /** @param {Fill} fill */
  onFill(fill) {
    this.#recentFills.push(fill);
    if (this.#recentFills.length >= FILLS_KEPT * 2) this.#recentFills.splice(0, FILLS_KEPT);
    if (this.#fold(fill)) this.#changed();
  }

  /** Fills of a symbol were missed. @param {string} symbol */
  onGap(symbol) {
    const open = this.orders.filter((order) => order.body.symbol === symbol && isOpen(order) && !order.told && !order.gap);
    for (const order of open) order.gap = true;
    if (open.length) this.#changed();
  }

  /** Nobody but these may see what belongs to users. @param {string | null} userId */
  keepOnlyOf(userId) {
    const kept = this.orders.filter(({ owner }) => owner === null || owner === userId);
    for (const [name, owner] of this.#ownTrades) if (owner !== null && owner !== userId) this.#ownTrades.delete(name);
    if (kept.length !== this.orders.length) this.#replaceOrders(kept);
  }

  /** Takes off the list what ended long ago. */
  forgetEnded() {
    const since = Date.now() - ENDED_SHOWN_MS;
    const kept = this.orders.filter(({ owner, endedAt }) => owner === null || endedAt === null || endedAt > since);
    if (kept.length !== this.orders.length) this.#replaceOrders(kept);
  }

  /** @param {Trade} trade @returns {boolean} whether one of its two orders is ours */
  isOwn(trade) {
    return this.#ownTrades.size > 0 && this.#ownTrades.has(nameOf(trade));
  }

  /** @returns {string[]} symbols with orders that may still trade */
  symbolsInPlay() {
    return [...new Set([...this.#placing, ...this.orders.filter(isOpen).map((order) => order.body.symbol)])];
  }

  /** @returns {number} open orders of who sits here; 0 for who is not signed in, whose orders are nobody's */
  get openCount() {
    const { userId } = this.#caller;
    return userId === null ? 0 : this.orders.filter((order) => order.owner === userId && isOpen(order)).length;
  }

  /** @param {string} symbol @param {"bid" | "ask"} side @returns {Set<string>} keys of prices where ours rest */
  restingPrices(symbol, side) {
    const keys = new Set();
    for (const order of this.orders) {
      const { body } = order;
      if (body.symbol !== symbol || body.side !== side || !rests(order) || !isOpen(order)) continue;
      if (!isCancelling(order)) keys.add(keyOf(parse(body.price)));
    }
    return keys;
  }

  /** Asks one by one what became of orders that nothing is told of any more. @param {Order[]} orders */
  async #look(orders) {
    for (const order of orders) {
      const { orderId, body } = order;
      const answer = await getOrders(orderId ? { orderId } : { clientOrderId: body.client_order_id }, this.#tokenFor(order));
      if (answer.outcome === "accepted" && answer.orders[0]) this.onAccount({ orders: answer.orders }, order.owner ?? "");
      else if (answer.status === 404 && order.told && isOpen(order)) end(order, "gone");
      // The next snapshot asks again for what could not be had now.
      else if (answer.outcome !== "accepted" && answer.status !== 404) break;
    }
    if (orders.length) this.#changed();
  }

  /**
   * @param {string | null} owner
   * @param {string | null} orderId
   * @param {string | null} clientOrderId
   * @returns {Order | undefined} by its id, or where that is not known yet by the name that this page gave it
   */
  #find(owner, orderId, clientOrderId) {
    const named = orderId === null ? undefined : this.#byOrderId.get(orderId);
    if (named || !clientOrderId) return named;
    return [...this.#nameless].find((order) => order.owner === owner && order.body.client_order_id === clientOrderId);
  }

  /** @param {Order} order @param {string} orderId */
  #name(order, orderId) {
    if (order.orderId) return;
    this.#enter(order, orderId);
    this.#foldRecent(new Set([order]));
  }

  /** @param {Order} order @param {string} orderId */
  #enter(order, orderId) {
    order.orderId = orderId;
    this.#byOrderId.set(orderId, order);
    this.#nameless.delete(order);
  }

  /** Fills that came before the names of these orders. @param {Set<Order>} fresh */
  #foldRecent(fresh) {
    for (const fill of this.#recentFills) this.#fold(fill, fresh);
  }

  /** @param {Fill} fill @param {Set<Order>} [only] @returns {boolean} whether it is a fill of ours */
  #fold(fill, only) {
    let ours = false;
    for (const id of new Set([fill.buyOrderId, fill.sellOrderId])) {
      const order = this.#byOrderId.get(id);
      if (!order || (only && !only.has(order))) continue;
      ours = true;
      foldFill(order, fill);
      this.#told("fill", { order, fill });
      this.#ownTrades.set(nameOf(fill), order.owner);
    }
    if (this.#ownTrades.size > FILLS_KEPT) this.#ownTrades.delete(this.#ownTrades.keys().next().value ?? "");
    return ours;
  }

  /** @param {Order} order */
  #tokenFor(order) {
    // The gateway lets nobody but nobody cancel what nobody placed.
    return order.owner === null ? null : this.#caller.token;
  }

  /** Signed out, or somebody else, since. @param {string | null} owner */
  #isStranger(owner) {
    return owner !== null && owner !== this.#caller.userId;
  }

  #forgetOldest() {
    let over = this.orders.filter((order) => !order.told || !isOpen(order)).length - ORDERS_KEPT;
    if (over <= 0) return;
    const dropped = new Set();
    for (const mayGo of [(/** @type {Order} */ order) => !isOpen(order), (/** @type {Order} */ order) => !order.told]) {
      for (let at = this.orders.length - 1; at >= 0 && over > 0; at -= 1) {
        if (dropped.has(this.orders[at]) || !mayGo(this.orders[at])) continue;
        dropped.add(this.orders[at]);
        over -= 1;
      }
    }
    this.#setOrders(this.orders.filter((order) => !dropped.has(order)));
  }

  /** @param {Order[]} orders */
  #replaceOrders(orders) {
    this.#setOrders(orders);
    this.#changed();
  }

  /** @param {Order[]} orders */
  #setOrders(orders) {
    this.orders = orders;
    this.#byOrderId = new Map();
    for (const order of orders) if (order.orderId) this.#byOrderId.set(order.orderId, order);
    this.#nameless = new Set(orders.filter((order) => !order.orderId));
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("change"));
  }

  /** @param {string} name @param {object} detail */
  #told(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
