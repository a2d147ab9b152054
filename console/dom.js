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
  if (node.textContent !== text) node.textContent = text;
}

/** @param {HTMLElement} node @param {string} key @param {string} value */
export function setData(node, key, value) {
  if (node.dataset[key] !== value) node.dataset[key] = value;
}

/**
 * Joins any number of requests into one call, in a frame, and at most one every `leastMs`: digits that change sixty
 * times a second cannot be read, but cost as much. A hidden tab has no frames, so nothing is drawn there, and what
 * piled up meanwhile is drawn once.
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
    requestAnimationFrame((now) => this.#onFrame(now));
  }

  /** @param {number} now */
  #onFrame(now) {
    if (now - this.#paintedAt < this.#leastMs) {
      requestAnimationFrame((later) => this.#onFrame(later));
      return;
    }
    this.#paintedAt = now;
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
