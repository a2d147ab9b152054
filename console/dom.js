/** The few things every view does to the page. Nothing here ever parses markup: text stays text. */

/**
 * @param {string} id
 * @returns {any} the element; a page without it is a fault of ours, so it throws
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element #${id}`);
  return element;
}

/**
 * @param {string} tag
 * @param {{className?: string, text?: string, attributes?: Record<string, string>}} [options]
 * @param {...Node} children
 * @returns {any}
 */
export function element(tag, { className = "", text = "", attributes = {} } = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Writes only what differs: an unchanged write still costs a style pass, hundreds of times a second. */
/** @param {Node} node @param {string} text */
export function setText(node, text) {
  const only = node.firstChild;
  // Another text in the same node costs less than another node.
  if (text && only instanceof Text && only.nextSibling === null) {
    if (only.data !== text) only.data = text;
  } else if (node.textContent !== text) node.textContent = text;
}

/** @param {HTMLElement} node @param {string} key @param {string} value */
export function setData(node, key, value) {
  if (node.dataset[key] !== value) node.dataset[key] = value;
}

/**
 * Keeps how large an element is, in whole pixels, 0 for one that is not on show: to ask the element itself lays out the page
 * there and then.
 */
export class Size {
  width = 0;
  height = 0;

  /** @param {HTMLElement} node @param {() => void} onChange */
  constructor(node, onChange) {
    new ResizeObserver(() => {
      this.width = node.clientWidth;
      this.height = node.clientHeight;
      onChange();
    }).observe(node);
  }
}

/**
 * Fixes the columns of a grid at what they are. Its rows, which have `--columns` and `--column-gap` for theirs and contain what is in
 * them, can then be laid out one by one: where columns are as wide as what they hold, another digit lays out all of them.
 *
 * @param {HTMLElement} grid @param {Element[]} cells of one of its rows
 */
export function pinColumns(grid, cells) {
  const { gridTemplateColumns, columnGap } = getComputedStyle(grid);
  const widths = cells.map((cell) => cell.getBoundingClientRect().width).filter(Boolean);
  if (!widths.length) return;
  grid.style.gridTemplateColumns = gridTemplateColumns;
  grid.style.setProperty("--column-gap", columnGap);
  grid.style.setProperty("--columns", widths.map((width) => `${width}px`).join(" "));
  setData(grid, "pinned", "true");
}

/** As wide as what they hold. @param {HTMLElement} grid */
export function unpinColumns(grid) {
  grid.style.gridTemplateColumns = "";
  setData(grid, "pinned", "false");
}

/** What is drawn at intervals is drawn together: each frame costs as much again as what is new in it. */
const BEAT_MS = 200;

/**
 * Joins any number of requests into one call, in a frame, and at most one every `leastMs`, a multiple of `BEAT_MS`: digits that
 * change sixty times a second cannot be read, but cost as much. Nor is a frame asked for only to wait. A hidden tab has no
 * frames, so nothing is drawn there, and what piled up meanwhile is drawn once.
 */
export class Painter {
  #queued = false;
  #paintedAt = -Infinity;
  #paint;
  #leastMs;

  /** @param {() => void} paint @param {number} leastMs */
  constructor(paint, leastMs) {
    this.#paint = paint;
    this.#leastMs = leastMs;
  }

  request() {
    if (this.#queued) return;
    this.#queued = true;
    const due = Math.floor(this.#paintedAt / BEAT_MS) * BEAT_MS + this.#leastMs;
    const onFrame = () => requestAnimationFrame(() => this.#onFrame());
    if (due > performance.now()) setTimeout(onFrame, due - performance.now());
    else onFrame();
  }

  #onFrame() {
    this.#paintedAt = performance.now();
    this.#queued = false;
    this.#paint();
  }
}

/** @param {number} time milliseconds since the epoch @returns {string} HH:MM:SS, local */
export function clockText(time) {
  const date = new Date(time);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, "0"))
    .join(":");
}

/** @param {string} symbol @returns {[string, string]} base and quote */
export function currencies(symbol) {
  const [base = "", quote = ""] = symbol.split("/");
  return [base, quote];
}
