/** What orders may carry here besides, as `/api/instruments` declares it: a checkbox, a choice or a field each, in the ticket. */

import { element, setText } from "./dom.js";

/**
 * @typedef {object} Declaration
 * @property {"boolean" | "string" | "integer" | "decimal" | "enum"} type
 * @property {string[]} [values] those of an enum
 * @property {boolean | string | number} [default] what an order has that does not say
 */

/** @param {string} name @returns {string} as people read it */
const words = (name) => name.replaceAll("_", " ");
/** @param {string} name */
const title = (name) => words(name).replace(/^./, (first) => first.toUpperCase());

export class AttributeFields {
  #root;
  #declared = "{}";
  /** @type {Map<string, {declaration: Declaration, input: any, error: any}>} */
  #fields = new Map();

  /** @param {HTMLElement} root what they are put into */
  constructor(root) {
    this.#root = root;
  }

  /** @returns {string[]} */
  get names() {
    return [...this.#fields.keys()];
  }

  /** What was chosen stays, unless something else is declared. @param {Record<string, Declaration>} attributes */
  declare(attributes) {
    const declared = JSON.stringify(attributes);
    if (declared === this.#declared) return;
    this.#declared = declared;
    this.#fields.clear();
    this.#root.replaceChildren(...Object.entries(attributes).map(([name, each]) => this.#field(name, each)));
    this.#root.hidden = this.#fields.size === 0;
  }

  /** @param {string} name @param {Declaration} declaration */
  #field(name, declaration) {
    const id = `attribute-${name}`;
    const attributes = { id, name, "aria-describedby": `${id}-error` };
    const error = element("p", { className: "field-error", attributes: { id: `${id}-error` } });
    const label = element("label", { text: title(name), attributes: { for: id } });
    let input;
    if (declaration.type === "boolean") {
      input = element("input", { attributes: { ...attributes, type: "checkbox" } });
      input.checked = declaration.default === true;
    } else if (declaration.type === "enum") {
      const { values = [], default: preset } = declaration;
      const none = preset === undefined ? [element("option", { text: "–", attributes: { value: "" } })] : [];
      const options = values.map((value) => element("option", { text: words(value), attributes: { value } }));
      input = element("select", { attributes }, ...none, ...options);
      input.value = preset ?? "";
    } else {
      const inputmode = declaration.type === "string" ? "text" : "decimal";
      input = element("input", { attributes: { ...attributes, inputmode, maxlength: "80", spellcheck: "false" } });
      input.value = declaration.default ?? "";
    }
    this.#fields.set(name, { declaration, input, error });
    return element("div", { className: "attribute", attributes: { "data-type": declaration.type } }, label, input, error);
  }

  /** What is to be in the order: what is as by default is left out. @returns {Record<string, boolean | string | number>} */
  terms() {
    /** @type {Record<string, boolean | string | number>} */
    const terms = {};
    for (const [name, { declaration, input }] of this.#fields) {
      if (declaration.type === "boolean") {
        if (input.checked !== (declaration.default ?? false)) terms[name] = input.checked;
        continue;
      }
      const text = input.value.trim();
      if (!text || text === String(declaration.default)) continue;
      const isWhole = declaration.type === "integer" && /^-?[0-9]{1,15}$/.test(text);
      terms[name] = isWhole ? Number(text) : text;
    }
    return terms;
  }

  /** @param {string} name @param {string} message */
  showError(name, message) {
    const field = this.#fields.get(name);
    if (!field) return;
    setText(field.error, message);
    if (message) field.input.setAttribute("aria-invalid", "true");
    else field.input.removeAttribute("aria-invalid");
  }
}
