/**
 * What is known of the user's own trading beside the open orders: fills, closed orders and balances, each only where the
 * gateway offers it. What it refuses to tell has no tab.
 */

import { Balances } from "./balances.js";
import { format, multiply, parse, readExactJson } from "./client/decimal.js";
import { byId, setData } from "./dom.js";
import { isBuy, RecordsTab } from "./records-tab.js";

/** @typedef {import("./client/gateway-client.js").GatewayClient} GatewayClient */
/** @typedef {import("./identity.js").Identity} Identity */

const TABS = ["orders", "fills", "history", "balances"];
const PAGE = 100;
const two = (/** @type {number} */ value) => String(value).padStart(2, "0");

/** @param {unknown} seconds @returns {string} day and time, local */
function timeText(seconds) {
  const at = new Date(Number(seconds) * 1000);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const text = (/** @type {unknown} */ value) => (value === null || value === undefined ? "" : String(value));
const column = (/** @type {string} */ name, /** @type {string} */ label, /** @type {(record: any) => string} */ read) => ({ name, label, read });
const number = (/** @type {string} */ name, /** @type {string} */ label, /** @type {(record: any) => string} */ read) => ({
  ...column(name, label, read),
  isNumber: true,
});
const COMMON = [
  column("time", "Time", ({ time }) => timeText(time)),
  column("symbol", "Symbol", ({ symbol }) => symbol),
  column("side", "Side", ({ side }) => (isBuy(side) ? "Buy" : "Sell")),
];
const FILLS = [
  ...COMMON,
  number("price", "Price", ({ price }) => String(price)),
  number("quantity", "Quantity", ({ quantity }) => String(quantity)),
  number("value", "Value", ({ price, quantity }) => format(multiply(parse(price), parse(quantity)))),
  column("liquidity", "Liquidity", ({ liquidity }) => text(liquidity)),
  number("fee", "Fee", ({ fee, fee_currency: currency }) => `${text(fee)} ${text(currency)}`.trim()),
  column("fill_id", "", ({ fill_id: id }) => text(id)),
  column("order_id", "", ({ order_id: id }) => text(id)),
  column("client_order_id", "", ({ client_order_id: id }) => text(id)),
];
const HISTORY = [
  ...COMMON,
  column("type", "Type", ({ order_type: type, time_in_force: tif }) => `${type === "limit" ? "Limit" : "Market"} ${text(tif)}`.trim()),
  number("price", "Price", ({ price }) => text(price)),
  number("quantity", "Quantity", ({ quantity }) => String(quantity)),
  number("filled", "Filled", ({ filled_quantity: filled }) => text(filled)),
  column("status", "Status", ({ status }) => text(status)),
  column("reason", "Reason", ({ reason }) => text(reason)),
  column("order_id", "", ({ order_id: id }) => text(id)),
  column("client_order_id", "", ({ client_order_id: id }) => text(id)),
];
const BALANCES = [
  column("currency", "Currency", ({ currency }) => currency),
  number("available", "Available", ({ available }) => format(available)),
  number("reserved", "Reserved", ({ reserved }) => format(reserved)),
  number("total", "Total", ({ total }) => format(total)),
];

/** Event "balances" whenever those change. */
export class AccountTabs extends EventTarget {
  balances = new Balances();
  #client;
  #identity;
  /** @type {string | null} */
  #user = null;
  /** Answers to what an earlier user asked are for nobody. */
  #turn = 0;
  #fills = new RecordsTab(
    { id: "fills", columns: FILLS, key: (fill) => `${fill.fill_id} ${fill.side}`, empty: "No fills so far.", isFiltered: true },
    () => this.#loadFills(this.#fills.oldest),
  );
  #history = new RecordsTab(
    { id: "history", columns: HISTORY, key: (order) => order.order_id, empty: "No closed orders so far.", isFiltered: true },
    () => this.#loadHistory(this.#history.oldest),
  );
  #holdings = new RecordsTab({
    id: "balances",
    columns: BALANCES,
    key: ({ currency }) => currency,
    empty: "No balances so far.",
    isFiltered: false,
    isZero: ({ total }) => total.units === 0n,
  });
  #onFills = (/** @type {any} */ notification, /** @type {any} */ meta) => this.#takeFills(notification, meta);
  #onBalances = (/** @type {any} */ notification) => this.#takeBalances(notification);

  /** @param {GatewayClient} client @param {Identity} identity */
  constructor(client, identity) {
    super();
    this.#client = client;
    this.#identity = identity;
    for (const id of TABS) byId(`${id}-tab`).addEventListener("click", () => this.#open(id));
    byId("account-tabs").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    identity.addEventListener("change", () => this.#onIdentity());
    client.on("state", ({ state }) => {
      if (state !== "live") setData(byId("balances-panel"), "stale", "true");
    });
    this.#open("orders");
  }

  /** An order of the user's has ended. */
  onEnded() {
    if (!byId("history-tab").hidden) this.#loadHistory(null);
  }

  #onIdentity() {
    const { userId } = this.#identity;
    if (userId === this.#user) return;
    this.#user = userId;
    this.#turn += 1;
    this.balances.forget();
    for (const tab of [this.#fills, this.#history, this.#holdings]) tab.replace([]);
    for (const id of TABS.slice(1)) this.#offer(id, false);
    this.dispatchEvent(new CustomEvent("balances"));
    if (userId !== null) {
      this.#follow("account.trades", this.#onFills, "fills");
      this.#follow("account.balances", this.#onBalances, "balances");
    }
  }

  /** @param {string} channel @param {import("./client/gateway-client.js").Listener} listener @param {string} id of the tab */
  async #follow(channel, listener, id) {
    const turn = this.#turn;
    try {
      await this.#client.subscribe([channel], listener);
    } catch {
      return; // not offered: no tab
    }
    if (turn !== this.#turn) return;
    this.#offer(id, true);
    if (id === "fills") this.#loadHistory(null);
  }

  /** @param {any} notification of `account.trades` @param {{recovered?: boolean}} meta */
  #takeFills({ trades, snapshot }, { recovered }) {
    const newest = trades.toReversed();
    if (snapshot) this.#fills.replace(newest, trades.length >= PAGE || recovered === false);
    else this.#fills.addNewer(newest);
  }

  /** @param {any} notification of `account.balances` */
  #takeBalances(notification) {
    // What was told last stays, and is shown as old.
    if (notification.stale) {
      setData(byId("balances-panel"), "stale", "true");
      return;
    }
    this.balances.apply(notification);
    this.#holdings.replace(this.balances.list);
    setData(byId("balances-panel"), "stale", "false");
    this.dispatchEvent(new CustomEvent("balances"));
  }

  /** @param {any} oldest the fill from which on older ones are asked for */
  async #loadFills(oldest) {
    const answer = await this.#ask(`api/fills?limit=${PAGE}&before=${encodeURIComponent(oldest.fill_id)}`);
    if (answer) this.#fills.addOlder(answer.fills, answer.fills.length >= PAGE);
  }

  /** @param {any} oldest the order from which on older ones are asked for; null for the newest */
  async #loadHistory(oldest) {
    const before = oldest ? `&before=${encodeURIComponent(oldest.order_id)}` : "";
    const answer = await this.#ask(`api/order/history?limit=${PAGE}${before}`);
    if (!answer) return;
    const isFirst = byId("history-tab").hidden;
    this.#offer("history", true);
    if (oldest || isFirst) this.#history.addOlder(answer.orders, answer.orders.length >= PAGE);
    else this.#history.addNewer(answer.orders);
  }

  /** @param {string} path @returns {Promise<any>} null where it could not be had, or is for nobody any more */
  async #ask(path) {
    const turn = this.#turn;
    const { token } = this.#identity;
    try {
      const answer = await fetch(path, { headers: { accept: "application/json", authorization: `Bearer ${token}` } });
      const body = answer.ok ? readExactJson(await answer.text()) : null;
      return turn === this.#turn ? body : null;
    } catch {
      return null;
    }
  }

  /** @param {string} id @param {boolean} offered */
  #offer(id, offered) {
    const tab = byId(`${id}-tab`);
    tab.hidden = !offered;
    if (!offered && tab.getAttribute("aria-selected") === "true") this.#open("orders");
  }

  /** @param {string} id */
  #open(id) {
    for (const each of TABS) {
      const isOpen = each === id;
      const tab = byId(`${each}-tab`);
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      byId(`${each}-panel`).hidden = !isOpen;
    }
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const shown = TABS.filter((id) => !byId(`${id}-tab`).hidden);
    const at = shown.findIndex((id) => byId(`${id}-tab`).getAttribute("aria-selected") === "true");
    const next = shown[(at + step + shown.length) % shown.length];
    this.#open(next);
    byId(`${next}-tab`).focus();
    event.preventDefault();
  }
}
