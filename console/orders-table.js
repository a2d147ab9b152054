/** The orders of this page as a table; on narrow screens the stylesheet turns each row into a card. */

import { format, padded, parse, toPixels } from "./decimal.js";
import { byId, clockText, element, setData, setText } from "./dom.js";
import { averagePrice, isOpen, rests } from "./session-orders.js";

/** @typedef {import("./session-orders.js").Order} Order */
/** @typedef {import("./session-orders.js").SessionOrders} SessionOrders */

const CELLS = ["time", "symbol", "side", "type", "price", "quantity", "filled", "average", "status", "action"];
const LABELS = { price: "Price", quantity: "Quantity", filled: "Filled", average: "Average" };
const NUMBERS = ["price", "quantity", "filled", "average"];
const STATUS_WORDS = {
  accepted: "Accepted",
  partially_filled: "Partly filled",
  filled: "Filled",
  cancelled: "Cancelled",
  rejected: "Rejected",
  unknown: "Outcome unknown",
};
/** Fills of an order that does not rest come within this time, or not at all. */
const SETTLED_AFTER_MS = 3_000;

export class OrdersTable {
  #orders;
  #body = byId("orders-body");
  /** @type {Map<Order, any>} */
  #rows = new Map();

  /** @param {SessionOrders} orders */
  constructor(orders) {
    this.#orders = orders;
  }

  paint() {
    const { orders } = this.#orders;
    byId("orders").hidden = orders.length === 0;
    byId("orders-empty").hidden = orders.length > 0;
    const open = orders.filter(isOpen).length;
    const stillOpen = open ? `, ${open} open as far as seen` : "";
    setText(byId("orders-note"), orders.length ? `${orders.length} placed${stillOpen}` : "");
    for (const [order, row] of this.#rows) {
      if (orders.includes(order)) continue;
      row.node.remove();
      this.#rows.delete(order);
    }
    // Newest first: what is missing goes on top, in order.
    for (const order of [...orders].reverse()) {
      if (!this.#rows.has(order)) {
        const row = this.#newRow(order);
        this.#rows.set(order, row);
        this.#body.prepend(row.node);
      }
      this.#paintRow(order, this.#rows.get(order));
    }
  }

  /** @param {Order} order */
  #newRow(order) {
    /** @type {Record<string, any>} */
    const cells = {};
    for (const name of CELLS) {
      const label = LABELS[/** @type {keyof typeof LABELS} */ (name)];
      cells[name] = element("td", {
        className: NUMBERS.includes(name) ? `${name} number` : name,
        attributes: label ? { "data-label": label } : {},
      });
    }
    const { body } = order;
    const buys = body.side === "bid";
    setText(cells.time, clockText(order.placedAt));
    setText(cells.symbol, body.symbol);
    setText(cells.side, buys ? "▲ Buy" : "▼ Sell");
    cells.side.classList.add(buys ? "buy" : "sell");
    setText(cells.type, `${body.order_type === "limit" ? "Limit" : "Market"} ${body.time_in_force}`);
    setText(cells.price, body.price ?? "market");
    setText(cells.quantity, body.quantity);
    const filledText = element("span");
    const done = element("span");
    cells.filled.append(filledText, element("span", { className: "progress", attributes: { "aria-hidden": "true" } }, done));
    const status = element("span", { className: "status-text" });
    const note = element("span", { className: "note" });
    cells.status.append(status, note);
    const cancel = element("button", { className: "cancel", text: "Cancel", attributes: { type: "button" } });
    cancel.setAttribute("aria-label", `Cancel: ${buys ? "buy" : "sell"} ${body.quantity} ${body.symbol}`);
    cancel.addEventListener("click", () => this.#orders.cancel(order));
    cells.action.append(cancel);
    const node = element("tr", { attributes: { "data-order-id": order.orderId ?? "" } }, ...CELLS.map((name) => cells[name]));
    if (order.orderId) cells.time.title = `Order ${order.orderId}`;
    return { node, cells, filledText, done, status, note, cancel };
  }

  /** @param {Order} order @param {any} row */
  #paintRow(order, row) {
    const quantity = parse(order.body.quantity);
    setData(row.node, "status", order.status);
    setText(row.filledText, format(order.filled));
    row.done.style.transform = `scaleX(${Math.min(1, toPixels(order.filled) / toPixels(quantity))})`;
    const scale = Math.max(0, ...order.prices.map((price) => price.scale));
    const average = averagePrice(order, order.prices.length > 1 ? scale + 2 : scale);
    setText(row.cells.average, average ? padded(average, scale) : "–");
    row.cells.average.title = order.prices.length > 1 ? `Fills at ${order.prices.map(format).join(", ")}` : "";
    setText(row.status, STATUS_WORDS[order.status]);
    setText(row.note, noteOf(order));
    row.cancel.hidden = !isOpen(order) || !order.orderId;
    row.cancel.disabled = order.cancelRequested;
  }
}

/** @param {Order} order @returns {string} */
function noteOf(order) {
  if (order.note) return order.note;
  if (!isOpen(order)) return "";
  if (order.cancelRequested) return "Cancel requested";
  if (order.gap) return "Fills may be missing here: what came meanwhile could not be had";
  if (!rests(order) && order.status !== "unknown" && Date.now() - order.placedAt > SETTLED_AFTER_MS) {
    return order.status === "accepted" ? "No fill seen; it does not wait in the book" : "The rest does not wait in the book";
  }
  return "";
}
