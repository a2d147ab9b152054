/** Tables as CSV (RFC 4180) in a file of the reader's. */

/** @param {unknown} value @returns {string} */
const cell = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** @param {string[]} head @param {unknown[][]} rows @returns {string} */
export const csvText = (head, rows) => [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");

/** @param {string} name of the file @param {string} text */
export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // What a click began has its own hold on it by the next turn.
  setTimeout(() => URL.revokeObjectURL(address), 0);
}
