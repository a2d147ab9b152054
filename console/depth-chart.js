/**
 * The depth of the book on a canvas: what could be bought and sold up to each price, added up from the spread outwards, both
 * sides to one scale. Pixels are placed by floats; each number that is written is exact.
 */

import { add, padded, toPixels, ZERO } from "./client/decimal.js";
import { currencies, setText, Size } from "./dom.js";

/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/** @typedef {{price: Decimal, pixel: number, total: Decimal, height: number}} Step */

const TOP = 10;
const BOTTOM = 20;
const SIDES = /** @type {const} */ (["bid", "ask"]);

/** @param {Market} market @param {"bid" | "ask"} side @returns {Step[]} best first */
export function depthOf(market, side) {
  let total = ZERO;
  return market.book.levels(side).map(({ price, quantity }) => {
    total = add(total, quantity);
    return { price, pixel: toPixels(price), total, height: toPixels(total) };
  });
}

export class DepthChart {
  #canvas;
  #note;
  #context;
  /** @type {number | null} */
  #pointer = null;
  #colours = /** @type {Record<string, string>} */ ({});
  #font = "";
  #size;
  #drawn = { width: 0, height: 0, ratio: 0 };

  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} note takes what is under the pointer @param {() => void} onChange */
  constructor(canvas, note, onChange) {
    this.#canvas = canvas;
    this.#note = note;
    this.#context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.#size = new Size(canvas, onChange);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => {
        this.#readColours();
        onChange();
      });
    }
    canvas.addEventListener("pointermove", (event) => {
      this.#pointer = event.offsetX;
      onChange();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointer = null;
      onChange();
    });
    this.#readColours();
  }

  /** @param {Market} market @param {{price: number, quantity: number}} scales */
  paint(market, scales) {
    const ratio = devicePixelRatio || 1;
    const { width, height } = this.#size;
    if (this.#drawn.width !== width || this.#drawn.height !== height || this.#drawn.ratio !== ratio) {
      this.#drawn = { width, height, ratio };
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(height * ratio);
    }
    const context = this.#context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const sides = { bid: depthOf(market, "bid"), ask: depthOf(market, "ask") };
    const [bid, ask] = [sides.bid[0], sides.ask[0]];
    const label = labelOf(market, sides, scales);
    if (this.#canvas.getAttribute("aria-label") !== label) this.#canvas.setAttribute("aria-label", label);
    if (!bid && !ask) return setText(this.#note, "");
    const middle = bid && ask ? (bid.pixel + ask.pixel) / 2 : (bid ?? ask).pixel;
    const ends = [...sides.bid.slice(-1), ...sides.ask.slice(-1)];
    // As far to one side as to the other: a wall looks as far away as it is.
    const reach = Math.max(...ends.map(({ pixel }) => Math.abs(pixel - middle)), Number.MIN_VALUE);
    const most = Math.max(...ends.map(({ height: total }) => total));
    const x = (/** @type {number} */ price) => ((price - middle) / reach + 1) * (width / 2);
    const y = (/** @type {number} */ total) => height - BOTTOM - (total / most) * (height - BOTTOM - TOP);
    for (const side of SIDES) this.#paintSide(side, sides[side], x, y, width, height - BOTTOM);
    context.font = this.#font;
    context.fillStyle = this.#colours.muted;
    context.textBaseline = "bottom";
    if (sides.bid.length) this.#write(padded(sides.bid[sides.bid.length - 1].price, scales.price), 4, height - 4, "left");
    if (sides.ask.length) this.#write(padded(sides.ask[sides.ask.length - 1].price, scales.price), width - 4, height - 4, "right");
    this.#paintPointer(market, sides, scales, x, y, height - BOTTOM);
  }

  /** @param {string} text @param {number} x @param {number} y @param {CanvasTextAlign} align */
  #write(text, x, y, align) {
    this.#context.textAlign = align;
    this.#context.fillText(text, x, y);
  }

  /**
   * @param {"bid" | "ask"} side @param {Step[]} steps @param {(price: number) => number} x @param {(total: number) => number} y
   * @param {number} width @param {number} ground
   */
  #paintSide(side, steps, x, y, width, ground) {
    if (!steps.length) return;
    const context = this.#context;
    const line = new Path2D();
    line.moveTo(x(steps[0].pixel), ground);
    for (const [index, { pixel, height }] of steps.entries()) {
      line.lineTo(x(pixel), y(height));
      // Up to the next price there is as much.
      line.lineTo(index + 1 < steps.length ? x(steps[index + 1].pixel) : x(pixel), y(height));
    }
    const end = x(steps[steps.length - 1].pixel);
    const wash = new Path2D(line);
    wash.lineTo(end, ground);
    wash.closePath();
    const name = side === "bid" ? "buy" : "sell";
    context.fillStyle = this.#colours[`${name}Wash`];
    context.fill(wash);
    context.strokeStyle = this.#colours[name];
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke(line);
  }

  /**
   * @param {Market} market @param {{bid: Step[], ask: Step[]}} sides @param {{price: number, quantity: number}} scales
   * @param {(price: number) => number} x @param {(total: number) => number} y @param {number} ground
   */
  #paintPointer(market, sides, scales, x, y, ground) {
    const pointer = this.#pointer;
    const side = pointer === null ? null : SIDES.find((each) => reaches(sides[each], pointer, x));
    if (pointer === null || !side) return setText(this.#note, "");
    // The last step that is not farther from the spread than the pointer.
    const inside = sides[side].filter(({ pixel }) => (side === "bid" ? x(pixel) >= pointer : x(pixel) <= pointer));
    const step = inside[inside.length - 1];
    const context = this.#context;
    context.strokeStyle = this.#colours.muted;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(Math.round(pointer) + 0.5, TOP);
    context.lineTo(Math.round(pointer) + 0.5, ground);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = this.#colours[side === "bid" ? "buy" : "sell"];
    context.beginPath();
    context.arc(pointer, y(step.height), 3.5, 0, 2 * Math.PI);
    context.fill();
    const [base] = currencies(market.symbol);
    const words = side === "bid" ? "bid down to" : "offered up to";
    setText(this.#note, `${padded(step.total, scales.quantity)} ${base} ${words} ${padded(step.price, scales.price)}`);
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const names = { muted: "--muted", buy: "--buy", sell: "--sell", buyWash: "--buy-wash", sellWash: "--sell-wash" };
    this.#colours = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, read(name)]));
    this.#font = `11px ${getComputedStyle(document.body).fontFamily}`;
  }
}

/** @param {Step[]} steps @param {number} pointer @param {(price: number) => number} x @returns {boolean} */
function reaches(steps, pointer, x) {
  if (!steps.length) return false;
  const [first, last] = [x(steps[0].pixel), x(steps[steps.length - 1].pixel)];
  return pointer >= Math.min(first, last) && pointer <= Math.max(first, last);
}

/** @param {Market} market @param {{bid: Step[], ask: Step[]}} sides @param {{price: number, quantity: number}} scales */
function labelOf(market, sides, scales) {
  const words = { bid: "bid down to", ask: "offered up to" };
  const parts = SIDES.filter((side) => sides[side].length).map((side) => {
    const { total, price } = sides[side][sides[side].length - 1];
    return `${padded(total, scales.quantity)} ${words[side]} ${padded(price, scales.price)}`;
  });
  return `Depth of ${market.symbol}: ${parts.join(", ") || "nothing known"}`;
}
