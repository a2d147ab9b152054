/**
 * The operators' page: what is going on, and a button for each thing that can be done about it, with a question before it.
 * Everything that comes from outside is put into the page as text, never as markup.
 */

import { byId, element, setText } from "/console/dom.js";

const KEY = "admin-token";
const LOOK_MS = 5_000;

/** What a refusal says, and whether the token was no good. */
class Refused extends Error {
  /** @param {string} text @param {boolean} isSignedOut */
  constructor(text, isSignedOut = false) {
    super(text);
    this.isSignedOut = isSignedOut;
  }
}

/** Until the tab is closed. */
let token = sessionStorage.getItem(KEY) ?? "";
let after = "";
let userId = "";
/** Whether the last look failed. */
let isLost = false;

/**
 * @param {string} path @param {object} [body] to be posted
 * @returns {Promise<any>} the answer's body
 */
async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) };
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  let answer;
  try {
    answer = await fetch(`/admin/${path}`, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch {
    throw new Refused("The gateway does not answer.");
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  throw new Refused(told.error ?? `The gateway answered ${answer.status}.`, answer.status === 401);
}

/** @param {unknown} error */
function showProblem(error) {
  const text = error instanceof Error ? error.message : String(error);
  byId("problem").hidden = !text;
  setText(byId("problem"), text);
  if (error instanceof Refused && error.isSignedOut) signOut();
}

function signOut() {
  token = "";
  sessionStorage.removeItem(KEY);
  show(false);
  byId("token").focus();
}

/** @param {boolean} isSignedIn */
function show(isSignedIn) {
  byId("sign-in").hidden = isSignedIn;
  for (const id of ["desk", "refresh", "sign-out"]) byId(id).hidden = !isSignedIn;
}

/** @param {number} time milliseconds since the epoch */
const timeText = (time) => new Date(time).toLocaleString();

/** @param {string} title @param {string} text @param {string} yes what is done */
function isWanted(title, text, yes) {
  const dialog = byId("question");
  setText(byId("question-title"), title);
  setText(byId("question-text"), text);
  setText(byId("question-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

/**
 * Ask, do, tell, and look again.
 *
 * @param {{title: string, text: string, yes: string, path: string, body: object, done: string}} act
 * @returns {Promise<boolean>} whether it was done
 */
async function act({ title, text, yes, path, body, done }) {
  if (!(await isWanted(title, text, yes))) return false;
  try {
    showProblem("");
    const answer = await ask(path, body);
    const more = answer.order_ids ? ` ${answer.order_ids.length} open orders are being cancelled.` : "";
    const unknown = answer.unknown_symbols?.join(", ");
    const doubt = unknown ? ` Nothing is known here of ${unknown}: is it spelt right?` : "";
    setText(byId("told"), done + more + doubt);
    await look();
    return true;
  } catch (error) {
    showProblem(error);
    return false;
  }
}

/** @param {string} text @param {string} name for whoever hears it @param {() => void} onClick */
function button(text, name, onClick) {
  const made = element("button", { className: "link", text, attributes: { type: "button", "aria-label": name } });
  made.addEventListener("click", onClick);
  return made;
}

/** @param {string} user */
const disconnectUser = (user) =>
  act({
    title: "Disconnect this user?",
    text: `User: ${user}\nAll connections are closed, on every instance. They may come back.`,
    yes: "Disconnect",
    path: "disconnect",
    body: { user_id: user },
    done: `${user} is disconnected.`,
  });

/** @param {any} client */
const disconnectClient = (client) =>
  act({
    title: "Disconnect this client?",
    text: `Client: ${client.client}\nUser: ${client.user_id ?? "nobody"}\nIt may come back.`,
    yes: "Disconnect",
    path: "disconnect",
    body: { client: client.client },
    done: `Client ${client.client} is disconnected.`,
  });

/** @param {string} user @param {string} reason @param {boolean} cancels */
const block = (user, reason, cancels) =>
  act({
    title: "Block this user?",
    text: `User: ${user}\nOrders and amends are refused on every instance until the block is taken back. ${
      cancels ? "Open orders are cancelled." : "Open orders stay open."
    }`,
    yes: "Block",
    path: "block",
    body: { user_id: user, cancel_open: cancels, ...(reason && { reason }) },
    done: `${user} is blocked.`,
  });

/** @param {string} user */
const unblock = (user) =>
  act({
    title: "Unblock this user?",
    text: `User: ${user}\nMay order again, on every instance.`,
    yes: "Unblock",
    path: "unblock",
    body: { user_id: user },
    done: `${user} is no longer blocked.`,
  });

/** @param {string | null} symbol */
const subject = (symbol) => symbol ?? "all symbols";

/** @param {string | null} symbol @param {string} reason */
const halt = (symbol, reason) =>
  act({
    title: `Halt ${subject(symbol)}?`,
    text: "Orders and amends are refused on every instance until it is resumed. Cancels go through.",
    yes: "Halt",
    path: "halt",
    body: { symbol, ...(reason && { reason }) },
    done: `Halted: ${subject(symbol)}.`,
  });

/** @param {string | null} symbol */
const resume = (symbol) =>
  act({
    title: `Resume ${subject(symbol)}?`,
    text: "Orders are taken again, on every instance.",
    yes: "Resume",
    path: "resume",
    body: { symbol },
    done: `Resumed: ${subject(symbol)}.`,
  });

/** @param {string} name @param {string} note @param {Node} [does] */
function row(name, note, does) {
  const text = element("span", {}, element("bdi", { className: "name", text: name }), element("span", { className: "muted", text: ` ${note}` }));
  return element("li", {}, text, ...(does ? [does] : []));
}

/** @param {any} state */
function paintState(state) {
  /** @param {any} one */
  const note = (one) => `since ${timeText(one.since_ms)}${one.reason ? `: ${one.reason}` : ""}`;
  byId("blocks").replaceChildren(
    ...state.blocks.map((/** @type {any} */ one) =>
      row(one.user_id, note(one), button("Unblock", `Unblock ${one.user_id}`, () => unblock(one.user_id))),
    ),
  );
  const hidden = state.blocked_users - state.blocks.length;
  setText(byId("blocks-note"), `${state.blocked_users}${hidden ? `, ${hidden} of them not shown` : ""}`);
  byId("halts").replaceChildren(
    ...state.halts.map((/** @type {any} */ one) =>
      row(subject(one.symbol), note(one), button("Resume", `Resume ${subject(one.symbol)}`, () => resume(one.symbol))),
    ),
  );
  const told = state.announcement;
  byId("announcement").replaceChildren(...(told ? [announced(told)] : []));
  byId("unavailable").hidden = !state.problem;
  setText(byId("unavailable"), `Not all may be shown, and nothing can be set: ${state.problem}`);
}

/** @param {any} told */
function announced(told) {
  const from = told.from_ms === null ? "" : ` from ${timeText(told.from_ms)}`;
  const until = told.until_ms === null ? "" : ` until ${timeText(told.until_ms)}`;
  const note = `${subject(told.symbols?.join(", ") ?? null)}${from}${until}${told.message ? `: ${told.message}` : ""}`;
  const withdraw = () =>
    act({
      title: "Withdraw the announcement?",
      text: note,
      yes: "Withdraw",
      path: "withdraw",
      body: {},
      done: "The announcement is withdrawn.",
    });
  return row(told.state.replace("_", " "), note, button("Withdraw", "Withdraw the announcement", withdraw));
}

/** @param {any} page */
function paintClients(page) {
  byId("clients").replaceChildren(...page.clients.map(clientRow));
  const silent = page.silent_workers ? `; of workers ${page.silent_workers.join(", ")} none is shown` : "";
  setText(byId("clients-note"), `${page.open} open${silent}`);
  byId("next").hidden = page.next === null;
  byId("next").dataset.after = page.next ?? "";
  byId("first").hidden = !after;
}

/** @param {any} client */
function clientRow(client) {
  const who = client.user_id;
  /** @param {string} text @param {string} [className] */
  const cell = (text, className = "") => element("td", { className, text });
  const user = who === null ? cell("nobody", "muted") : element("td", {}, element("bdi", { className: "name", text: who }));
  const acts = element("td", { className: "acts" }, button("Disconnect", `Disconnect client ${client.client}`, () => disconnectClient(client)));
  if (who !== null) {
    acts.append(" ", button("Disconnect user", `Disconnect user ${who}`, () => disconnectUser(who)));
    acts.append(" ", button("Block", `Block user ${who}`, () => block(who, "", false)));
  }
  const subscriptions = cell(String(client.subscriptions), "number");
  subscriptions.title = client.channels.join("\n");
  return element(
    "tr",
    {},
    cell(client.client),
    user,
    cell(client.address),
    cell(timeText(client.since_ms)),
    subscriptions,
    cell(String(client.waiting_bytes), "number"),
    acts,
  );
}

async function look() {
  const query = new URLSearchParams({ limit: "100", ...(after && { after }), ...(userId && { user_id: userId }) });
  const [state, page] = await Promise.all([ask("state"), ask(`clients?${query}`)]);
  // Who uses the keyboard stays where it was.
  const focused = document.activeElement?.getAttribute("aria-label");
  paintState(state);
  paintClients(page);
  if (focused && document.activeElement === document.body) {
    const again = [...document.querySelectorAll("button[aria-label]")].find(
      (one) => one.getAttribute("aria-label") === focused,
    );
    if (again instanceof HTMLElement) again.focus();
  }
}

async function lookAndTell() {
  try {
    await look();
    show(true);
    // What was wrong with something that was done stays to be read.
    if (isLost) showProblem("");
    isLost = false;
  } catch (error) {
    isLost = true;
    showProblem(error);
  }
}

/** @param {string} id @param {() => unknown} onSubmit */
function onSubmit(id, onSubmit) {
  byId(id).addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    onSubmit();
  });
}

/** @param {string} id */
const value = (id) => byId(id).value.trim();

/** Local time. @param {string} id */
const moment = (id) => (value(id) ? new Date(value(id)).getTime() : null);

onSubmit("sign-in-form", async () => {
  token = value("token");
  byId("token").value = "";
  // No header takes others, and no token has them.
  isLost = true;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    showProblem(new Refused("That is no token.", true));
    return;
  }
  await lookAndTell();
  if (token) sessionStorage.setItem(KEY, token);
});
onSubmit("block-form", async () => {
  if (!value("block-user")) return byId("block-user").focus();
  if (await block(value("block-user"), value("block-reason"), byId("block-cancel").checked)) byId("block-form").reset();
});
onSubmit("halt-form", async () => {
  if (await halt(value("halt-symbol") || null, value("halt-reason"))) byId("halt-form").reset();
});
onSubmit("announce-form", async () => {
  const symbols = value("announce-symbols").split(/[\s,]+/).filter(Boolean);
  const body = {
    state: value("announce-state"),
    message: value("announce-message") || null,
    symbols: symbols.length ? symbols : null,
    from_ms: moment("announce-from"),
    until_ms: moment("announce-until"),
  };
  const refuses =
    body.state === "online"
      ? "Everybody is told. Orders are taken."
      : "Everybody is told. While it holds, orders and amends are refused on every instance.";
  const text = `State: ${body.state}\nSymbols: ${symbols.join(", ") || "all"}\n${body.message ?? ""}\n${refuses}`;
  const done = "It is announced.";
  if (await act({ title: "Announce this?", text, yes: "Announce", path: "announce", body, done })) byId("announce-form").reset();
});
onSubmit("find-form", () => {
  [after, userId] = ["", value("find-user")];
  lookAndTell();
});
byId("next").addEventListener("click", () => {
  after = byId("next").dataset.after;
  lookAndTell();
});
byId("first").addEventListener("click", () => {
  after = "";
  lookAndTell();
});
byId("refresh").addEventListener("click", lookAndTell);
byId("sign-out").addEventListener("click", () => {
  signOut();
  showProblem("");
});
setInterval(() => {
  if (token && !document.hidden && !byId("question").open && !byId("desk").hidden) lookAndTell();
}, LOOK_MS);
if (token) lookAndTell();
else byId("token").focus();
