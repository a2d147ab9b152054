/**
 * Exact decimals, as text in and text out.
 *
 * Prices and quantities are the engine's digits. What is shown or ordered by is never a binary float; floats are for
 * pixels only (`toPixels`). A value is `units / 10 ** scale` with `units` a BigInt, so sums and comparisons are exact.
 */

/** @typedef {{units: bigint, scale: number}} Decimal */

/** JSON's number grammar (RFC 8259 section 6): what the gateway accepts, so a hint here never disagrees with it. */
const GRAMMAR = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;
/** The gateway allows 38 digits. The bound here only keeps a hostile exponent from building a huge BigInt. */
const LARGEST_EXPONENT = 100;
const LONGEST_TEXT = 400;

const POWERS = [1n];
/** @param {number} exponent @returns {bigint} */
function power10(exponent) {
  while (POWERS.length <= exponent) POWERS.push(POWERS[POWERS.length - 1] * 10n);
  return POWERS[exponent];
}

/** @param {bigint} units @returns {bigint} */
const magnitude = (units) => (units < 0n ? -units : units);

/**
 * @param {unknown} text a decimal string, or a number that survived `readExactJson`
 * @returns {Decimal}
 * @throws {SyntaxError} not a decimal
 * @throws {RangeError} an exponent or a length no price has
 */
export function parse(text) {
  const source = String(text);
  if (source.length > LONGEST_TEXT) throw new RangeError("decimal too long");
  const match = GRAMMAR.exec(source);
  if (!match) throw new SyntaxError(`not a decimal: ${source}`);
  const [, sign, whole, fraction = "", exponentText = "0"] = match;
  const exponent = Number(exponentText);
  if (Math.abs(exponent) > LARGEST_EXPONENT) throw new RangeError("decimal exponent out of range");
  let units = BigInt(sign + whole + fraction);
  let scale = fraction.length - exponent;
  if (scale < 0) {
    units *= power10(-scale);
    scale = 0;
  }
  return { units, scale };
}

/** @param {unknown} text @returns {boolean} */
export function isDecimal(text) {
  try {
    parse(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {Decimal} value
 * @returns {string} plain notation, every digit of the scale written out
 */
export function format({ units, scale }) {
  const digits = magnitude(units).toString().padStart(scale + 1, "0");
  const sign = units < 0n ? "-" : "";
  return scale === 0 ? sign + digits : `${sign}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

/** @param {Decimal} value @param {number} scale at least the value's own @returns {bigint} */
const unitsAt = (value, scale) => (value.scale === scale ? value.units : value.units * power10(scale - value.scale));

/** @param {Decimal} a @param {Decimal} b @returns {number} -1, 0 or 1 */
export function compare(a, b) {
  const scale = Math.max(a.scale, b.scale);
  const left = unitsAt(a, scale);
  const right = unitsAt(b, scale);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** @param {Decimal} a @param {Decimal} b @returns {Decimal} */
export function add(a, b) {
  const scale = Math.max(a.scale, b.scale);
  return { units: unitsAt(a, scale) + unitsAt(b, scale), scale };
}

/** @param {Decimal} a @param {Decimal} b @returns {Decimal} */
export function subtract(a, b) {
  const scale = Math.max(a.scale, b.scale);
  return { units: unitsAt(a, scale) - unitsAt(b, scale), scale };
}

/** @param {Decimal} a @param {Decimal} b @returns {Decimal} */
export const multiply = (a, b) => ({ units: a.units * b.units, scale: a.scale + b.scale });

/**
 * @param {Decimal} a
 * @param {Decimal} b not zero
 * @param {number} digits digits after the point
 * @returns {Decimal} a / b, rounded half away from zero: the one place where something is rounded, for averages
 */
export function divide(a, b, digits) {
  const numerator = a.units * power10(b.scale + digits);
  const denominator = b.units * power10(a.scale);
  const negative = numerator < 0n !== denominator < 0n;
  const top = magnitude(numerator);
  const bottom = magnitude(denominator);
  const rounded = (top * 2n + bottom) / (bottom * 2n);
  return { units: negative ? -rounded : rounded, scale: digits };
}

/** @type {Decimal} */
export const ZERO = Object.freeze({ units: 0n, scale: 0 });

/** @param {Decimal} value @returns {boolean} */
export const isZero = (value) => value.units === 0n;

/** @param {Decimal} value @param {Decimal} step greater than zero @returns {boolean} */
export function isMultipleOf(value, step) {
  const scale = Math.max(value.scale, step.scale);
  return unitsAt(value, scale) % unitsAt(step, scale) === 0n;
}

/** @param {Decimal} value @returns {Decimal} without trailing zeros after the point: `1.50` and `1.5` become one */
export function normalise({ units, scale }) {
  while (scale > 0 && units % 10n === 0n) {
    units /= 10n;
    scale -= 1;
  }
  return { units, scale };
}

/** @param {Decimal} value @returns {string} the same text for the same value, however it was written */
export const keyOf = (value) => format(normalise(value));

/**
 * @param {Decimal} value
 * @param {number} scale digits after the point to show at least; digits beyond it are kept, never cut
 * @returns {string}
 */
export const padded = (value, scale) =>
  format(value.scale >= scale ? value : { units: unitsAt(value, scale), scale });

/** @param {Decimal} value @returns {number} a binary float, good for pixel positions and for nothing else */
export const toPixels = (value) => Number(format(value));

const NUMBER_THAT_MAY_LOSE_DIGITS = /[[:,]\s*-?(?:\d*\.\d|\d+[eE]|\d{16})/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/**
 * `JSON.parse` that loses no digit: a number that a double cannot write back as it came (`0.10`, thirty digits, a
 * sequence over 2 ** 53) becomes its text; every other number stays a number. So `String(value)` is always what the
 * engine wrote. Numbers are exact on the wire (channel notifications carry JSON numbers), and a double would not be.
 *
 * @param {string} text
 * @returns {any}
 * @throws {SyntaxError}
 */
export function readExactJson(text) {
  if (!NUMBER_THAT_MAY_LOSE_DIGITS.test(text)) return JSON.parse(text);
  JSON.parse(text); // Refuses first what is not JSON: quoting `1.5.2` piecemeal could make it look well formed.
  return JSON.parse(
    text.replace(STRING_OR_NUMBER, (token) =>
      token[0] === '"' || String(Number(token)) === token ? token : `"${token}"`,
    ),
  );
}
