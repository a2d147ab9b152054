/**
 * All symbols with their last price and what the last 24 hours did to it. Beside the chart where there is room, else over it.
 *
 * Rows are sorted when somebody asks for it, not while they are read: nothing moves under the pointer but the numbers.
 */

import { compare, divide, padded } from "./client/decimal.js";
import { byId, currencies, element, Painter, setData, setText, Size } from "./dom.js";
import { directionOf, displayScales, percentText } from "./market-feed.js";

/** @typedef {import("./market-feed.js").MarketFeed} MarketFeed */
/** @typedef {import("./market-feed.js").Market} Market */

const PAINT_LEAST_MS = 400;
/** Digits at which two changes in percent are told apart, for their order alone. */
const ORDER_DIGITS = 12;
const COLUMNS = ["symbol", "change", "value"];

export class Overview {
  #feed;
  #onChoose;
  #isLive;
  #panel = byId("markets");
  #button = byId("markets-open");
  #search = byId("markets-search");
  #body = byId("markets-body");
  /** @type {Map<string, any>} */
  #rows = new Map();
  #listed = "";
  #shown = "";
  /** @type {{by: string, down: boolean} | null} null for the gateway's own order */
  #order = null;
  #size;
  #painter = new Painter(() => this.#paint(), PAINT_LEAST_MS);

  /** @param {MarketFeed} feed @param {(symbol: string) => void} onChoose @param {() => boolean} isLive */
  constructor(feed, onChoose, isLive) {
    this.#feed = feed;
    this.#onChoose = onChoose;
    this.#isLive = isLive;
    this.#button.addEventListener("click", () => this.#open(this.#button.getAttribute("aria-expanded") !== "true"));
    byId("markets-close").addEventListener("click", () => this.#open(false));
    this.#search.addEventListener("input", () => this.#arrange());
    this.#panel.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    for (const column of COLUMNS) byId(`markets-by-${column}`).addEventListener("click", () => this.#sort(column));
    feed.addEventListener("change", () => this.request());
    feed.addEventListener("instruments", () => this.#arrange());
    this.#size = new Size(this.#panel, () => this.request());
  }

  /** @param {string} symbol the one on show */
  show(symbol) {
    this.#shown = symbol;
    this.request();
  }

  request() {
    this.#painter.request();
  }

  /** @param {boolean} open */
  #open(open) {
    this.#button.setAttribute("aria-expanded", String(open));
    setData(this.#panel, "open", String(open));
    if (open) {
      this.#arrange();
      this.#search.focus();
    } else if (this.#panel.contains(document.activeElement)) {
      this.#button.focus();
    }
  }

  /** @param {string} symbol */
  #choose(symbol) {
    this.#open(false);
    this.#onChoose(symbol);
  }

  /** @param {string} column */
  #sort(column) {
    const turned = this.#order?.by === column ? !this.#order.down : column !== "symbol";
    this.#order = { by: column, down: turned };
    for (const each of COLUMNS) {
      const head = byId(`markets-by-${each}`).closest("th");
      if (each === column) head.setAttribute("aria-sort", turned ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    this.#arrange();
  }

  /** Which rows there are, and in which order. */
  #arrange() {
    const words = this.#search.value.trim().toUpperCase().split(/[\s/]+/).filter(Boolean);
    const matching = this.#feed.symbols.filter((symbol) => words.every((word) => symbol.toUpperCase().includes(word)));
    const order = this.#order;
    if (order) {
      matching.sort((a, b) => compareBy(order.by, this.#feed.market(a), this.#feed.market(b)) * (order.down ? -1 : 1));
    }
    this.#listed = matching.join(" ");
    this.#body.replaceChildren(...matching.map((symbol) => this.#row(symbol).node));
    setText(byId("markets-note"), `${matching.length} of ${this.#feed.symbols.length}`);
    byId("markets-empty").hidden = matching.length > 0;
    this.request();
  }

  /** @param {string} symbol @returns {any} */
  #row(symbol) {
    const known = this.#rows.get(symbol);
    if (known) return known;
    const button = element("button", { className: "market", text: symbol, attributes: { type: "button" } });
    const cells = ["last", "change", "value"].map((name) => element("td", { className: `market-${name} number`, text: "–" }));
    const node = element("tr", { attributes: { "data-symbol": symbol } }, element("th", { attributes: { scope: "row" } }, button), ...cells);
    node.addEventListener("click", () => this.#choose(symbol));
    const row = { node, button, cells };
    this.#rows.set(symbol, row);
    return row;
  }

  #paint() {
    if (!this.#size.width) return;
    const live = this.#isLive();
    for (const symbol of this.#listed.split(" ").filter(Boolean)) {
      const market = this.#feed.market(symbol);
      const { node, button, cells } = this.#row(symbol);
      const [last, change, value] = cells;
      const { lastPrice, day } = market;
      const scale = displayScales(market, this.#feed.instruments.get(symbol)).price;
      setText(last, lastPrice ? padded(lastPrice, scale) : "–");
      setText(change, day ? percentText(day) : "–");
      setData(change, "direction", day ? directionOf(day) : "level");
      setText(value, day ? `${padded(day.value, 0)} ${currencies(symbol)[1]}` : "–");
      setData(node, "stale", String(market.tickerStale || !live));
      const isShown = symbol === this.#shown;
      if (isShown !== button.hasAttribute("aria-current")) button.toggleAttribute("aria-current", isShown);
    }
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const buttons = [...this.#body.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "Escape") this.#open(false);
    else if (event.key === "ArrowDown") buttons[Math.min(at + 1, buttons.length - 1)]?.focus();
    else if (event.key === "ArrowUp" && at >= 0) (at > 0 ? buttons[at - 1] : this.#search).focus();
    else if (event.key === "Enter" && event.target === this.#search && buttons[0]) buttons[0].click();
    else return;
    event.preventDefault();
  }
}

/** @param {string} column @param {Market} a @param {Market} b @returns {number} what nothing is known of is last */
function compareBy(column, a, b) {
  if (column === "symbol") return a.symbol < b.symbol ? -1 : 1;
  if (!a.day || !b.day) return Number(Boolean(a.day)) - Number(Boolean(b.day));
  if (column === "value") return compare(a.day.value, b.day.value);
  const [left, right] = [a.day, b.day].map(({ change, open }) => (open.units > 0n ? divide(change, open, ORDER_DIGITS) : change));
  return compare(left, right);
}
