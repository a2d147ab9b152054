/**
 * Who one is here: nobody, or the user whom the gateway sees in the token that was given.
 *
 * The token lives in this object and in the client, and nowhere else: not in a storage, a cookie, the address or a log,
 * so it ends with the page. What is in it is never believed, the gateway says whose it is; only until when it is good
 * is read here, to be told.
 */

import { expiryOf } from "./client/gateway-protocol.js";

/** @typedef {import("./client/gateway-client.js").GatewayClient} GatewayClient */
/** @typedef {import("./client/gateway-client.js").AuthChange} AuthChange */

/** What the gateway reads is 4 KiB; far more would break the connection before it could say so. */
const LONGEST_TOKEN = 8192;
const EXPIRED = "Your sign-in has expired. Sign in again to see your orders and to trade.";

/**
 * @param {string} text a token as people have it: bare, behind `Bearer`, or in an address with `#token=`; perhaps in lines
 * @returns {string}
 */
export function tokenOf(text) {
  const joined = text.replace(/^\s*bearer\s+/i, "").replace(/\s+/g, "");
  return /[#&?]token=([^&]*)/.exec(joined)?.[1] ?? joined;
}

/** Event "change" whenever anything below does. */
export class Identity extends EventTarget {
  /** Why one is not who one was, or wanted to be; a sentence. */
  problem = "";
  /** @type {number | null} by the token's own word, milliseconds since the epoch */
  until = null;
  /** A token was given, and the gateway has not answered yet. */
  isWaiting = false;
  #client;
  /** @type {string | null} */
  #token = null;

  /** @param {GatewayClient} client */
  constructor(client) {
    super();
    this.#client = client;
    client.on("auth", (change) => this.#onAuth(change));
  }

  /** By the gateway's word; null for nobody. @returns {string | null} */
  get userId() {
    return this.#client.userId;
  }

  /** For `Authorization`, and for nothing else. @returns {string | null} */
  get token() {
    return this.userId === null ? null : this.#token;
  }

  /**
   * @param {string} text see {@link tokenOf}
   * @returns {Promise<string>} why not, in a sentence; empty when one is signed in
   */
  async signIn(text) {
    const token = tokenOf(text);
    const fault = faultOf(token);
    if (fault) return this.#tell(fault);
    this.isWaiting = true;
    this.#tell("");
    try {
      await this.#client.signIn(token);
      this.#token = token;
      this.until = expiryOf(token);
      return this.#settle("");
    } catch (error) {
      const { code, message } = /** @type {import("./client/gateway-client.js").GatewayError} */ (error);
      // The call that took its place tells.
      if (code === "replaced") return "";
      const still = this.userId === null ? "" : ` You are still signed in as ${this.userId}.`;
      return this.#settle(`The gateway does not accept this token: ${message}.${still}`);
    }
  }

  signOut() {
    this.isWaiting = false;
    this.problem = "";
    this.#forget();
    this.#client.signOut();
  }

  /** What was wrong has been read. */
  dismiss() {
    if (this.problem) this.#tell("");
  }

  /** @param {AuthChange} change */
  #onAuth({ status, error }) {
    if (status === "expired" || status === "refused") {
      const isOver = status === "expired" || (this.until !== null && this.until <= Date.now());
      this.problem = isOver ? EXPIRED : `You are signed out, the gateway does not accept your token any more: ${error?.message}.`;
      this.#forget();
    }
    this.#changed();
  }

  #forget() {
    this.#token = null;
    this.until = null;
  }

  /** @param {string} problem */
  #settle(problem) {
    this.isWaiting = false;
    return this.#tell(problem);
  }

  /** @param {string} problem */
  #tell(problem) {
    this.problem = problem;
    this.#changed();
    return problem;
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** @param {string} token @returns {string} what is wrong with it without asking anybody */
function faultOf(token) {
  if (!token) return "There is no token in what was given.";
  if (token.length > LONGEST_TOKEN) return "What was given is too long for a token.";
  // Anything else could not be sent in a header either.
  if (!/^[\w.~+/=-]+$/.test(token)) return "What was given is not a token: it has characters that no token has.";
  return "";
}
