/** Who is signed in, in the page's head; what went wrong with it, below; and the form to paste a token into. */

import { byId, clockText, setText } from "./dom.js";

/** @typedef {import("./identity.js").Identity} Identity */

export class SignIn {
  #identity;
  #dialog = byId("sign-in-dialog");
  #token = byId("token");
  #submit = byId("sign-in-submit");

  /** @param {Identity} identity */
  constructor(identity) {
    this.#identity = identity;
    for (const id of ["sign-in", "sign-in-again"]) byId(id).addEventListener("click", () => this.open());
    byId("sign-out").addEventListener("click", () => {
      identity.signOut();
      byId("sign-in").focus();
    });
    byId("account-dismiss").addEventListener("click", () => identity.dismiss());
    byId("sign-in-close").addEventListener("click", () => this.#dialog.close());
    byId("sign-in-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#onSubmit();
    });
    // However it is closed, nothing stays behind in it.
    this.#dialog.addEventListener("close", () => this.#empty());
    identity.addEventListener("change", () => this.paint());
    this.paint();
  }

  open() {
    if (this.#dialog.open) return;
    this.#empty();
    this.#dialog.showModal();
    this.#token.focus();
  }

  paint() {
    const { userId, until, isWaiting, problem } = this.#identity;
    const nobody = isWaiting ? "Signing in" : "";
    setText(byId("account-text"), userId === null ? nobody : `Signed in as ${userId}`);
    setText(byId("account-until"), userId === null || until === null ? "" : `until ${dateText(until)}`);
    byId("sign-in").hidden = userId !== null;
    byId("sign-out").hidden = userId === null;
    // In the dialog it is said there.
    byId("account-banner").hidden = !problem || this.#dialog.open;
    setText(byId("account-problem"), problem);
    byId("sign-in-again").hidden = userId !== null;
  }

  async #onSubmit() {
    if (this.#submit.getAttribute("aria-disabled") === "true") return;
    this.#setBusy(true);
    this.#showError("");
    const problem = await this.#identity.signIn(this.#token.value);
    this.#setBusy(false);
    if (!problem) this.#dialog.close();
    else if (this.#dialog.open) {
      this.#showError(problem);
      this.#token.focus();
    }
  }

  /** @param {boolean} busy */
  #setBusy(busy) {
    // Not `disabled`: the button would lose the focus of whoever pressed it.
    this.#submit.setAttribute("aria-disabled", String(busy));
    setText(this.#submit, busy ? "Signing in…" : "Sign in");
  }

  #empty() {
    this.#token.value = "";
    this.#showError("");
    this.#identity.dismiss();
  }

  /** @param {string} message */
  #showError(message) {
    setText(byId("token-error"), message);
    if (message) this.#token.setAttribute("aria-invalid", "true");
    else this.#token.removeAttribute("aria-invalid");
  }
}

/** @param {number} time milliseconds since the epoch @returns {string} HH:MM today, else with the date, local */
function dateText(time) {
  const date = new Date(time);
  const clock = clockText(time).slice(0, 5);
  return date.toDateString() === new Date().toDateString() ? clock : `${date.toLocaleDateString()} ${clock}`;
}
