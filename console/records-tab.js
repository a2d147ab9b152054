/**
 * One tab of records of the user's: fills, closed orders or balances, with filters, and what is shown as CSV. Numbers are
 * the gateway's own digits, in the table and in the file.
 */

import { csvText, download } from "./csv.js";
import { byId, element, setText } from "./dom.js";

/**
 * @typedef {object} Column
 * @property {string} name in the file
 * @property {string} label in the table; empty for what stands in the file only
 * @property {(record: any) => string} read
 * @property {boolean} [isNumber]
 */
/**
 * @typedef {object} Definition
 * @property {string} id
 * @property {Column[]} columns
 * @property {(record: any) => string} key
 * @property {string} empty what is said where there is nothing
 * @property {boolean} isFiltered records have a symbol and a side
 * @property {(record: any) => boolean} [isZero] those that can be left out
 */

const MOST = 2000;
const SIDES = { "": "Both sides", buy: "Buy", sell: "Sell" };

/** @param {string} side as the gateway or a trade says it */
export const isBuy = (side) => side === "bid" || side === "buy";

export class RecordsTab {
  /** There may be older ones. */
  hasMore = false;
  #definition;
  #onMore;
  /** @type {Map<string, any>} newest first */
  #records = new Map();
  #body = element("tbody", { attributes: { role: "rowgroup" } });
  #table;
  #empty;
  #note = element("span", { className: "panel-note", attributes: { role: "status" } });
  #more = element("button", { className: "quiet more", text: "Load older", attributes: { type: "button" } });
  #symbols = element("select", { attributes: { "aria-label": "Symbol" } });
  #sides = element("select", { attributes: { "aria-label": "Side" } });
  #zeros = element("select", { attributes: { "aria-label": "Zero balances" } });
  #options = "";

  /** @param {Definition} definition @param {() => void} [onMore] older ones are wanted */
  constructor(definition, onMore = () => {}) {
    this.#definition = definition;
    this.#onMore = onMore;
    const shown = definition.columns.filter(({ label }) => label);
    const heads = shown.map(({ label, isNumber }) =>
      element("th", { className: isNumber ? "number" : "", text: label, attributes: { scope: "col" } }),
    );
    this.#table = element(
      "table",
      { className: "orders", attributes: { role: "table" } },
      element("thead", {}, element("tr", {}, ...heads)),
      this.#body,
    );
    this.#empty = element("p", { className: "empty", text: definition.empty });
    const csv = element("button", { className: "quiet", text: "CSV", attributes: { type: "button" } });
    csv.setAttribute("aria-label", "Download what is listed as CSV");
    csv.addEventListener("click", () => download(`${definition.id}.csv`, this.csv()));
    for (const [value, text] of Object.entries(SIDES)) this.#sides.append(new Option(text, value));
    this.#zeros.append(new Option("All currencies", ""), new Option("Without zeros", "without"));
    for (const select of [this.#symbols, this.#sides, this.#zeros]) {
      select.hidden = select === this.#zeros ? !definition.isZero : !definition.isFiltered;
      select.addEventListener("change", () => this.#paint());
    }
    this.#more.addEventListener("click", () => this.#onMore());
    const tools = element("div", { className: "tools" }, this.#symbols, this.#sides, this.#zeros, this.#note, csv);
    const scroll = element("div", { className: "orders-scroll" }, this.#table, this.#empty, this.#more);
    byId(`${definition.id}-panel`).append(tools, scroll);
    this.#paint();
  }

  /** @param {any[]} records newer than what is held, newest first */
  addNewer(records) {
    this.#put([...records, ...this.#records.values()]);
  }

  /** @param {any[]} records older than what is held, newest first @param {boolean} hasMore */
  addOlder(records, hasMore) {
    this.hasMore = hasMore;
    this.#put([...this.#records.values(), ...records]);
  }

  /** @param {any[]} records all there are, newest first @param {boolean} hasMore */
  replace(records, hasMore = false) {
    this.hasMore = hasMore;
    this.#records = new Map();
    this.#put(records);
  }

  /** @returns {any} the oldest one that is held */
  get oldest() {
    return [...this.#records.values()].at(-1);
  }

  /** @returns {string} what is listed now, and all of each */
  csv() {
    const { columns } = this.#definition;
    const rows = this.#listed().map((record) => columns.map(({ read }) => read(record)));
    return csvText(columns.map(({ name }) => name), rows);
  }

  /** @param {any[]} records newest first; of two with one name the first counts */
  #put(records) {
    const kept = new Map();
    for (const record of records) {
      const key = this.#definition.key(record);
      if (!kept.has(key)) kept.set(key, record);
    }
    this.#records = new Map([...kept].slice(0, MOST));
    this.#paint();
  }

  #listed() {
    const [symbol, side] = [this.#symbols.value, this.#sides.value];
    return [...this.#records.values()].filter(
      (record) =>
        (!symbol || record.symbol === symbol) &&
        (!side || isBuy(record.side) === (side === "buy")) &&
        !(this.#zeros.value && this.#definition.isZero?.(record)),
    );
  }

  #paint() {
    this.#paintOptions();
    const records = this.#listed();
    this.#body.replaceChildren(...records.map((record) => this.#row(record)));
    this.#table.hidden = records.length === 0;
    this.#empty.hidden = records.length > 0;
    this.#more.hidden = !this.hasMore;
    const all = this.#records.size;
    const count = records.length === all ? `${all}` : `${records.length} of ${all}`;
    setText(this.#note, all ? `${count} listed${this.hasMore ? ", there are older ones" : ""}` : "");
  }

  #paintOptions() {
    const symbols = [...new Set([...this.#records.values()].map(({ symbol }) => symbol))].sort();
    if (!this.#definition.isFiltered || symbols.join(" ") === this.#options) return;
    this.#options = symbols.join(" ");
    const chosen = this.#symbols.value;
    const options = symbols.map((symbol) => new Option(symbol, symbol, false, symbol === chosen));
    this.#symbols.replaceChildren(new Option("All symbols", ""), ...options);
  }

  /** @param {any} record */
  #row(record) {
    const cells = this.#definition.columns
      .filter(({ label }) => label)
      .map(({ name, label, read, isNumber }) => {
        const text = read(record);
        const className = [isNumber ? "number" : "", name === "side" ? (isBuy(record.side) ? "buy" : "sell") : ""].join(" ").trim();
        const shown = name === "side" ? `${isBuy(record.side) ? "▲" : "▼"} ${text}` : text || "–";
        return element("td", { className, text: shown, attributes: { role: "cell", "data-label": label } });
      });
    return element("tr", { attributes: { role: "row" } }, ...cells);
  }
}
