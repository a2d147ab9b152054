/**
 * A word that passes by, for each answer and each fill: shown for a while, never in the way of a press. The same is read
 * aloud from the ticket and the list of orders, so it is not read twice from here.
 */

import { element } from "./dom.js";

const SHOWN_MS = 6_000;
const MOST = 4;

/** @typedef {"good" | "bad" | "plain"} Kind */

export class Toasts {
  #root;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} text @param {Kind} [kind] */
  say(text, kind = "plain") {
    const toast = element("p", { className: "toast", text, attributes: { "data-kind": kind } });
    this.#root.append(toast);
    while (this.#root.childElementCount > MOST) this.#root.firstElementChild?.remove();
    setTimeout(() => toast.remove(), SHOWN_MS);
  }

  /** What was said is not for whoever sits here now. */
  forget() {
    this.#root.replaceChildren();
  }
}
