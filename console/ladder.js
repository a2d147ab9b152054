/**
 * The book as a ladder: asks above, bids below, best prices next to the spread. The rows are fixed elements that take
 * new contents, so nothing moves but the numbers. Each side is one tab stop; arrows walk the rows of both.
 *
 * No number is ever cut: the columns are as wide as what they hold, and where that is wider than the ladder there is
 * less of it (`FITS`), and in the end it scrolls.
 */

import { add, divide, normalise, padded, toPixels, ZERO } from "./client/decimal.js";
import { currencies, element, pinColumns, setData, setText, Size, unpinColumns } from "./dom.js";

/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./client/order-book.js").Side} Side */
/**
 * @typedef {object} Row
 * @property {any} node
 * @property {any} price
 * @property {any} quantity
 * @property {any} total
 * @property {Side} side
 * @property {string} key price shown, empty for none
 * @property {number} shownQuantity for telling a change's direction by colour alone, never for text
 * @property {string} fill how much of it is filled, of the deepest level's total
 */

const FEWEST_ROWS = 5;
const MOST_ROWS = 50;
/** A book of few levels fills its column with rows that are up to this much higher. */
const MOST_STRETCH = 2;
/** What is tried until the numbers fit: as they are, without trailing zeros, without totals, and in small print. */
const FITS = ["all", "trimmed", "narrow", "small"];
/** Gone with what is drawn next. */
const FLASH_MS = 150;
const HUNDRED = { units: 100n, scale: 0 };
const TWO = { units: 2n, scale: 0 };

/**
 * @typedef {object} Texts a level as it is written; `digits` are what its quantity needs behind the point
 * @property {string} price
 * @property {string} quantity
 * @property {number} digits
 * @property {number} pixels
 */
/** @typedef {Texts & {level: import("./client/order-book.js").Level, total: import("./client/decimal.js").Decimal, sum: string}} Content */

/** @type {WeakMap<import("./client/order-book.js").Level, Texts & {scales: string}>} a level that changes is another one */
const written = new WeakMap();

/** @param {import("./client/order-book.js").Level} level @param {{price: number, quantity: number}} scales @returns {Texts} */
function textsOf(level, scales) {
  const wanted = `${scales.price} ${scales.quantity}`;
  let texts = written.get(level);
  if (texts?.scales !== wanted) {
    texts = {
      scales: wanted,
      price: padded(level.price, scales.price),
      quantity: padded(level.quantity, scales.quantity),
      digits: normalise(level.quantity).scale,
      pixels: toPixels(level.quantity),
    };
    written.set(level, texts);
  }
  return texts;
}

export class Ladder {
  /** @type {{ask: Row[], bid: Row[]}} best first */
  #rows = { ask: [], bid: [] };
  #root;
  #onPick;
  #onChange;
  #sides;
  #heads;
  #spread;
  /** @type {Map<string, number>} side and price of levels that changed, and until when that is marked, by performance.now() */
  #flashes = new Map();
  /** @type {any} */
  #flashTimer = null;
  #size;
  #windowWidth = innerWidth;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");
  /** @type {string} symbol drawn last: another one's numbers are no change to flash */
  #drawn = "";
  /** Most levels a side that were there of this symbol: rows that come and go would move the others. */
  #deepest = 0;
  /** How long the longest numbers were, and in which room: while none is longer, they fit as they did. */
  #measured = { room: "", lengths: /** @type {number[]} */ ([]) };

  /**
   * @param {HTMLElement} root
   * @param {{onPick: (price: string, side: Side) => void, onChange: () => void}} callbacks
   */
  constructor(root, { onPick, onChange }) {
    this.#root = root;
    this.#onPick = onPick;
    this.#onChange = onChange;
    this.#heads = [element("span"), element("span"), element("span")];
    this.#sides = {
      ask: element("div", { className: "side asks", attributes: { role: "listbox", "aria-label": "Asks" } }),
      bid: element("div", { className: "side bids", attributes: { role: "listbox", "aria-label": "Bids" } }),
    };
    this.#spread = {
      last: element("span", { className: "spread-last" }),
      width: element("span", { className: "spread-width" }),
    };
    root.append(
      element("div", { className: "ladder-head", attributes: { "aria-hidden": "true" } }, ...this.#heads),
      this.#sides.ask,
      element("div", { className: "spread" }, this.#spread.last, this.#spread.width),
      this.#sides.bid,
    );
    root.addEventListener("click", (event) => this.#pick(this.#rowOf(event.target)));
    root.addEventListener("keydown", (event) => this.#onKey(event));
    this.#size = new Size(root, () => {
      this.#fit();
      this.#onChange();
    });
    addEventListener("resize", () => (this.#windowWidth = innerWidth));
  }

  /** Rows per side. @returns {number} */
  get depth() {
    return this.#rows.bid.length;
  }

  /**
   * @param {Market} market
   * @param {{price: number, quantity: number}} scales
   * @param {{ask: Set<string>, bid: Set<string>}} own prices with orders of ours
   */
  paint(market, scales, own) {
    const [base, quote] = currencies(market.symbol);
    setText(this.#heads[0], `Price (${quote})`);
    setText(this.#heads[1], `Quantity (${base})`);
    setText(this.#heads[2], `Total (${base})`);
    if (this.#drawn !== market.symbol) this.#deepest = 0;
    const deep = Math.max(market.book.levels("ask", MOST_ROWS).length, market.book.levels("bid", MOST_ROWS).length);
    if (deep > this.#deepest || !this.#drawn) {
      this.#deepest = deep;
      this.#fit();
    }
    const sides = /** @type {const} */ (["ask", "bid"]).map((side) => {
      let total = ZERO;
      return market.book.levels(side, this.depth).map((level) => {
        total = add(total, level.quantity);
        return { level, total, sum: padded(total, scales.quantity), ...textsOf(level, scales) };
      });
    });
    const deepest = Math.max(...sides.map((rows) => (rows.length ? toPixels(rows[rows.length - 1].total) : 0)));
    const flash = this.#drawn === market.symbol && !this.#calm.matches;
    const paint = (/** @type {boolean} */ isTrimmed) => {
      this.#paintSide("ask", sides[0], isTrimmed, deepest, own.ask, flash);
      this.#paintSide("bid", sides[1], isTrimmed, deepest, own.bid, flash);
    };
    this.#paintSpread(market, scales);
    this.#drawn = market.symbol;
    paint(this.#root.dataset.fit !== FITS[0]);
    this.#awaitFlashes();
    // The window's width too: a ladder that shows less is not any wider for it.
    const { size } = this.#root.dataset;
    const room = [market.symbol, scales.price, scales.quantity, size, this.#size.width, this.#windowWidth].join(" ");
    const lengths = this.#lengths(sides.flat(), own.ask.size + own.bid.size > 0);
    if (room === this.#measured.room && lengths.every((length, at) => length <= this.#measured.lengths[at])) return;
    this.#measured = { room, lengths };
    unpinColumns(this.#root);
    for (const fit of FITS) {
      setData(this.#root, "fit", fit);
      paint(fit !== FITS[0]);
      if (this.#root.scrollWidth <= this.#root.clientWidth) break;
    }
    pinColumns(this.#root, this.#heads);
  }

  /** Of the longest of each kind. @param {Content[]} contents @param {boolean} hasOwn */
  #lengths(contents, hasOwn) {
    const longest = (/** @type {(content: Content) => number} */ read) =>
      contents.reduce((most, content) => Math.max(most, read(content)), 0);
    return [
      longest(({ price }) => price.length),
      longest(({ quantity }) => quantity.length),
      longest(({ sum }) => sum.length),
      longest(({ digits }) => digits),
      this.#spread.last.textContent.length + this.#spread.width.textContent.length,
      Number(hasOwn),
    ];
  }

  /**
   * @param {Side} side
   * @param {Content[]} contents
   * @param {boolean} isTrimmed no more zeros behind the point than line the quantities up
   * @param {number} deepest
   * @param {Set<string>} own
   * @param {boolean} flash
   */
  #paintSide(side, contents, isTrimmed, deepest, own, flash) {
    const needed = isTrimmed ? Math.max(0, ...contents.map(({ total, digits }) => Math.max(normalise(total).scale, digits))) : 0;
    const before = new Map(this.#rows[side].map((row) => [row.key, row.shownQuantity]));
    const now = performance.now();
    this.#rows[side].forEach((row, index) => {
      const content = contents[index];
      if (!content) {
        this.#clear(row);
        return;
      }
      const { level, total, price, quantity, sum, pixels } = content;
      setText(row.price, price);
      setText(row.quantity, isTrimmed ? padded(normalise(level.quantity), needed) : quantity);
      setText(row.total, isTrimmed ? padded(normalise(total), needed) : sum);
      this.#fill(row, deepest ? toPixels(total) / deepest : 0);
      if (row.node.dataset.empty !== "false") row.node.removeAttribute("aria-hidden");
      setData(row.node, "empty", "false");
      setData(row.node, "own", String(own.has(level.key)));
      row.key = level.key;
      row.shownQuantity = pixels;
      const name = side + level.key;
      if (flash && before.get(level.key) !== pixels) this.#flashes.set(name, now + FLASH_MS);
      setData(row.quantity, "flash", String((this.#flashes.get(name) ?? 0) > now));
    });
  }

  /** @param {Row} row */
  #clear(row) {
    if (!row.key && row.node.dataset.empty === "true") return;
    for (const cell of [row.price, row.quantity, row.total]) setText(cell, "");
    setData(row.quantity, "flash", "false");
    this.#fill(row, 0);
    setData(row.node, "empty", "true");
    row.node.setAttribute("aria-hidden", "true");
    setData(row.node, "own", "false");
    row.key = "";
    row.shownQuantity = NaN;
  }

  /** @param {Row} row @param {number} share of the deepest total */
  #fill(row, share) {
    const fill = `${(share * 100).toFixed(1)}%`;
    if (fill === row.fill) return;
    row.fill = fill;
    row.node.style.backgroundSize = `${fill} calc(100% - 2px)`;
  }

  /** What is marked as changed is drawn again without: an animation of each would have every frame drawn. */
  #awaitFlashes() {
    const now = performance.now();
    for (const [name, until] of this.#flashes) if (until <= now) this.#flashes.delete(name);
    if (!this.#flashes.size || this.#flashTimer) return;
    this.#flashTimer = setTimeout(() => {
      this.#flashTimer = null;
      this.#onChange();
    }, FLASH_MS);
  }

  /** @param {Market} market @param {{price: number}} scales */
  #paintSpread(market, scales) {
    const spread = market.book.spread();
    const last = market.lastPrice;
    const arrow = { up: " ▲", down: " ▼", level: "" }[market.direction];
    setText(this.#spread.last, last ? padded(last, scales.price) + arrow : "–");
    setData(this.#spread.last, "direction", market.direction);
    if (!spread) {
      setText(this.#spread.width, market.book.known ? "One side is empty" : "");
      return;
    }
    const bid = market.book.best("bid");
    const ask = market.book.best("ask");
    const middle = bid && ask ? divide(add(bid.price, ask.price), TWO, scales.price + 1) : null;
    const percent =
      middle && middle.units > 0n
        ? ` (${padded(divide({ units: spread.units * HUNDRED.units, scale: spread.scale }, middle, 2), 2)} %)`
        : "";
    setText(this.#spread.width, `Spread ${padded(spread, scales.price)}${percent}`);
  }

  /** As many rows as the stylesheet says; or as fit, and as there are levels for. */
  #fit() {
    const style = getComputedStyle(this.#root);
    const wanted = style.getPropertyValue("--rows").trim();
    const rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 21;
    const frame = 24 + 38 + parseFloat(style.paddingBottom);
    const room = (this.#root.clientHeight - frame) / 2;
    const fills = wanted === "fill";
    const fitting = Math.floor(room / rowHeight);
    const useful = Math.max(this.#deepest, Math.ceil(room / (rowHeight * MOST_STRETCH)));
    const count = Math.max(FEWEST_ROWS, Math.min(MOST_ROWS, fills ? Math.min(fitting, useful) : Number(wanted)));
    // What is left over goes to the rows, rather than below the last of them.
    const height = Math.max(rowHeight, room / count);
    if (fills) this.#root.style.setProperty("--row", `${height}px`);
    else this.#root.style.removeProperty("--row");
    setData(this.#root, "size", fills && height >= 1.3 * rowHeight ? "large" : "usual");
    if (count === this.depth) return;
    for (const side of /** @type {const} */ (["ask", "bid"])) {
      const rows = this.#rows[side];
      while (rows.length > count) /** @type {Row} */ (rows.pop()).node.remove();
      while (rows.length < count) {
        const row = this.#newRow(side);
        rows.push(row);
        // Best is last among the asks and first among the bids: both next to the spread.
        if (side === "ask") this.#sides.ask.prepend(row.node);
        else this.#sides.bid.append(row.node);
      }
      if (!rows.some((row) => row.node.tabIndex === 0)) rows[0].node.tabIndex = 0;
    }
  }

  /** @param {Side} side @returns {Row} */
  #newRow(side) {
    const cells = {
      price: element("span", { className: "price" }),
      quantity: element("span", { className: "quantity" }),
      total: element("span", { className: "total" }),
    };
    const node = element(
      "div",
      { className: "level", attributes: { role: "option", "aria-selected": "false", tabindex: "-1", "data-empty": "true", "aria-hidden": "true" } },
      cells.price,
      cells.quantity,
      cells.total,
    );
    return { node, side, key: "", shownQuantity: NaN, fill: "", ...cells };
  }

  /** @param {EventTarget | null} target @returns {Row | undefined} */
  #rowOf(target) {
    const node = target instanceof Element ? target.closest(".level") : null;
    return [...this.#rows.ask, ...this.#rows.bid].find((row) => row.node === node);
  }

  /** @param {Row | undefined} row */
  #pick(row) {
    if (row?.key) this.#onPick(row.price.textContent, row.side);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const row = this.#rowOf(event.target);
    if (!row) return;
    const all = [...this.#rows.ask].reverse().concat(this.#rows.bid);
    const index = all.indexOf(row);
    /** @type {Record<string, number>} */
    const steps = { ArrowUp: index - 1, ArrowDown: index + 1, Home: 0, End: all.length - 1 };
    if (event.key === "Enter" || event.key === " ") {
      this.#pick(row);
    } else if (event.key in steps) {
      this.#focus(all[steps[event.key]]);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {Row | undefined} row */
  #focus(row) {
    if (!row) return;
    for (const other of this.#rows[row.side]) other.node.tabIndex = other === row ? 0 : -1;
    row.node.focus();
  }
}
