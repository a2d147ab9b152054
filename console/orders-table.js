/** Our orders as a table; on narrow screens the stylesheet turns each row into a card. */

import { format, padded, parse, toPixels } from "./client/decimal.js";
import { byId, clockText, element, setData, setText } from "./dom.js";
import { averagePrice, isCancelling, isOpen, nameOfOrder, rests } from "./order.js";

import { priceProblem, quantityProblem, readOrNull } from "./ticket.js";

/** @typedef {import("./market-feed.js").Instrument} Instrument */
/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./order.js").Order} Order */
/** @typedef {import("./own-orders.js").OwnOrders} OwnOrders */

const CELLS = ["time", "symbol", "side", "type", "price", "quantity", "filled", "average", "status", "action"];
const LABELS = { price: "Price", quantity: "Quantity", filled: "Filled", average: "Average" };
const NUMBERS = ["price", "quantity", "filled", "average"];
const STATUS_WORDS = {
  accepted: "Accepted",
  pending: "Pending",
  open: "Open",
  partially_filled: "Partly filled",
  filled: "Filled",
  cancelled: "Cancelled",
  rejected: "Rejected",
  unknown: "Outcome unknown",
  gone: "Ended",
};
/** More rows than anybody reads cost more than they tell; a program may have thousands of orders open. */
const ROWS = 200;
const EMPTY_WORDS = {
  anonymous: "Orders placed here, and what becomes of them, are listed until the page is closed.",
  user: "Your open orders are listed here, wherever they were placed, and for a while how they ended.",
};
const ANSWER_SHOWN_MS = 15_000;
/** Fills of an order that does not rest come within this time, or not at all. */
const SETTLED_AFTER_MS = 3_000;

export class OrdersTable {
  #orders;
  #caller;
  #feed;
  #body = byId("orders-body");
  /** @type {Map<Order, any>} */
  #rows = new Map();
  /** @type {any} */
  #answerTimer = null;

  /**
   * @param {OwnOrders} orders
   * @param {{userId: string | null}} caller who is signed in
   * @param {{amends: boolean, instruments: Map<string, Instrument>, markets: Map<string, Market>}} feed whether orders can be
   *   amended here, and what is known of each symbol
   */
  constructor(orders, caller, feed) {
    this.#feed = feed;
    this.#orders = orders;
    this.#caller = caller;
    byId("cancel-all").addEventListener("click", () => this.#cancelAll());
  }

  paint() {
    const orders = this.#orders.orders.slice(0, ROWS);
    const { userId } = this.#caller;
    setText(byId("orders-title"), userId === null ? "Orders of this page" : "Your orders");
    setText(byId("orders-empty"), EMPTY_WORDS[userId === null ? "anonymous" : "user"]);
    byId("orders").hidden = orders.length === 0;
    byId("orders-empty").hidden = orders.length > 0;
    const open = this.#orders.orders.filter(isOpen);
    byId("cancel-all").hidden = !open.some((order) => order.owner !== null);
    setText(byId("orders-note"), this.#countText(open));
    const shown = new Set(orders);
    for (const [order, row] of this.#rows) {
      if (shown.has(order)) continue;
      row.node.remove();
      this.#rows.delete(order);
    }
    for (const [at, order] of orders.entries()) {
      const row = this.#rows.get(order) ?? this.#newRow(order);
      this.#rows.set(order, row);
      // A row that is in its place is not touched, lest it lose the focus.
      if (this.#body.children[at] !== row.node) this.#body.insertBefore(row.node, this.#body.children[at] ?? null);
      this.#paintRow(order, row);
    }
  }

  /** @param {Order[]} open */
  #countText(open) {
    const all = this.#orders.orders.length;
    if (!all) return "";
    const told = open.every((order) => order.told) ? "" : " as far as seen";
    const parts = [`${all} listed`, open.length ? `${open.length} open${told}` : "", all > ROWS ? `the last ${ROWS} shown` : ""];
    return parts.filter(Boolean).join(", ");
  }

  async #cancelAll() {
    const output = byId("orders-answer");
    setText(output, "");
    const answer = await this.#orders.cancelAll();
    const count = answer.body?.order_ids?.length ?? 0;
    const asked = `Cancel requested for ${count} ${count === 1 ? "order" : "orders"}`;
    setText(output, answer.outcome === "accepted" ? asked : `Cancel all: ${answer.headline}`);
    setData(output, "kind", answer.outcome === "accepted" ? "plain" : "warn");
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => setText(output, ""), ANSWER_SHOWN_MS);
  }

  /** @param {Order} order */
  #newRow(order) {
    /** @type {Record<string, any>} */
    const cells = {};
    for (const name of CELLS) {
      const label = LABELS[/** @type {keyof typeof LABELS} */ (name)];
      cells[name] = element("td", {
        className: NUMBERS.includes(name) ? `${name} number` : name,
        // Named, as cells laid out as cards are none any more to those who are read the page.
        attributes: { role: "cell", ...(label ? { "data-label": label } : {}) },
      });
    }
    const { body } = order;
    const buys = body.side === "bid";
    setText(cells.time, clockText(order.placedAt));
    setText(cells.symbol, body.symbol);
    setText(cells.side, buys ? "▲ Buy" : "▼ Sell");
    cells.side.classList.add(buys ? "buy" : "sell");
    setText(cells.type, `${body.order_type === "limit" ? "Limit" : "Market"} ${body.time_in_force}`);
    const terms = { price: element("span"), quantity: element("span") };
    const inputs = { price: this.#newInput("Price", order), quantity: this.#newInput("Quantity, what is filled included", order) };
    cells.price.append(terms.price, inputs.price);
    cells.quantity.append(terms.quantity, inputs.quantity);
    const filledText = element("span");
    const done = element("span");
    cells.filled.append(filledText, element("span", { className: "progress", attributes: { "aria-hidden": "true" } }, done));
    const status = element("span", { className: "status-text" });
    const note = element("span", { className: "note" });
    const hint = element("span", { className: "edit-hint", attributes: { role: "status" } });
    cells.status.append(status, note, hint);
    for (const input of [inputs.price, inputs.quantity]) input.addEventListener("input", () => this.#paintHint(order, row));
    const again = element("button", { className: "again", text: "Ask again", attributes: { type: "button" } });
    again.setAttribute("aria-label", `Ask again, without placing it twice: ${nameOfOrder(order)}`);
    again.title = "Sends the order once more under the same name, so it is never placed twice";
    again.addEventListener("click", async () => {
      again.disabled = true;
      await this.#orders.askAgain(order);
      again.disabled = false;
    });
    const cancel = element("button", { className: "cancel", text: "Cancel", attributes: { type: "button" } });
    cancel.setAttribute("aria-label", `Cancel: ${nameOfOrder(order)}`);
    cancel.addEventListener("click", () => this.#orders.cancel(order));
    const edit = element("button", { className: "edit", text: "Edit", attributes: { type: "button" } });
    edit.setAttribute("aria-label", `Edit price and quantity: ${nameOfOrder(order)}`);
    const save = element("button", { className: "save", text: "Save", attributes: { type: "button" } });
    save.setAttribute("aria-label", `Save the edit: ${nameOfOrder(order)}`);
    cells.action.append(again, edit, save, cancel);
    const node = element("tr", { attributes: { role: "row" } }, ...CELLS.map((name) => cells[name]));
    const row = { node, cells, filledText, done, status, note, hint, again, cancel, edit, save, terms, inputs, isEdited: false, fills: 0 };
    edit.addEventListener("click", () => this.#edit(order, row, !row.isEdited));
    save.addEventListener("click", () => this.#save(order, row));
    node.addEventListener("keydown", (event) => {
      if (!row.isEdited || (event.key !== "Escape" && (event.key !== "Enter" || event.target instanceof HTMLButtonElement))) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Enter") this.#save(order, row);
      else this.#edit(order, row, false);
    });
    return row;
  }

  /** @param {string} label @param {Order} order */
  #newInput(label, order) {
    return element("input", {
      className: "term number",
      attributes: { type: "text", inputmode: "decimal", autocomplete: "off", "aria-label": `${label}: ${nameOfOrder(order)}` },
    });
  }

  /** @param {Order} order @param {any} row @param {boolean} isEdited */
  #edit(order, row, isEdited) {
    row.isEdited = isEdited;
    row.inputs.price.value = order.body.price ?? "";
    row.inputs.quantity.value = order.body.quantity;
    this.#paintRow(order, row);
    (isEdited ? row.inputs.price : row.edit).focus();
  }

  /** @param {Order} order @param {any} row */
  async #save(order, row) {
    const { price, quantity } = order.body;
    const asked = { price: row.inputs.price.value.trim(), quantity: row.inputs.quantity.value.trim() };
    const terms = {
      ...(asked.price === price ? {} : { price: asked.price }),
      ...(asked.quantity === quantity ? {} : { quantity: asked.quantity }),
    };
    if (!Object.keys(terms).length) return this.#edit(order, row, false);
    row.save.disabled = true;
    const answer = await this.#orders.amend(order, terms);
    row.save.disabled = false;
    // What broke a rule is there to be mended.
    if (answer?.outcome !== "refused" || !isOpen(order)) this.#edit(order, row, false);
  }

  /** A hint, as in the ticket: what was typed is sent as it was typed. @param {Order} order @param {any} row */
  #paintHint(order, row) {
    const { symbol } = order.body;
    const [price, quantity] = [row.inputs.price.value.trim(), row.inputs.quantity.value.trim()];
    const [instrument, market] = [this.#feed.instruments.get(symbol), this.#feed.markets.get(symbol)];
    const problem = row.isEdited
      ? priceProblem(price, instrument, market) || quantityProblem(quantity, readOrNull(price), instrument, market)
      : "";
    setText(row.hint, problem);
  }

  /** @param {Order} order @param {any} row */
  #paintRow(order, row) {
    const quantity = parse(order.body.quantity);
    const mayEdit = this.#feed.amends && isOpen(order) && rests(order) && order.orderId !== null && !isCancelling(order);
    if (!mayEdit) row.isEdited = false;
    setText(row.terms.price, order.body.price ?? "market");
    setText(row.terms.quantity, order.body.quantity);
    for (const name of ["price", "quantity"]) {
      row.terms[name].hidden = row.isEdited;
      row.inputs[name].hidden = !row.isEdited;
    }
    row.edit.hidden = !mayEdit;
    setText(row.edit, row.isEdited ? "Discard" : "Edit");
    row.save.hidden = !row.isEdited;
    this.#paintHint(order, row);
    setData(row.node, "status", order.status);
    setData(row.node, "orderId", order.orderId ?? "");
    if (order.orderId) row.cells.time.title = `Order ${order.orderId}`;
    const filled = format(order.filled);
    // Two names for one flash, as an animation that goes on does not start again.
    if (row.filledText.textContent && row.filledText.textContent !== filled) {
      row.fills += 1;
      setData(row.node, "flash", row.fills % 2 ? "odd" : "even");
    }
    setText(row.filledText, filled);
    row.done.style.transform = `scaleX(${Math.min(1, toPixels(order.filled) / toPixels(quantity))})`;
    const scale = Math.max(0, ...order.prices.map((price) => price.scale));
    const average = averagePrice(order, order.prices.length > 1 ? scale + 2 : scale);
    setText(row.cells.average, average ? padded(average, scale) : "–");
    row.cells.average.title = order.prices.length > 1 ? `Fills at ${order.prices.map(format).join(", ")}` : "";
    setText(row.status, STATUS_WORDS[order.status]);
    const beforeSignIn = order.owner === null && this.#caller.userId !== null ? "Placed without signing in" : "";
    setText(row.note, noteOf(order) || beforeSignIn);
    row.cancel.hidden = !isOpen(order) || !order.orderId;
    row.cancel.disabled = isCancelling(order);
    row.again.hidden = order.status !== "unknown" || !order.placedHere;
  }
}

/** @param {Order} order @returns {string} */
function noteOf(order) {
  if (order.note) return order.note;
  if (!isOpen(order)) return "";
  if (order.cancelRequestedAt !== null) return "Cancel requested";
  if (order.gap && !order.told) return "Fills may be missing here: what came meanwhile could not be had";
  if (!rests(order) && !order.told && order.status !== "unknown" && Date.now() - order.placedAt > SETTLED_AFTER_MS) {
    return order.status === "accepted" ? "No fill seen; it does not wait in the book" : "The rest does not wait in the book";
  }
  return "";
}
