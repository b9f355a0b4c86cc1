// Long texts, for example of a log. Browsers lay out the whole paragraph again at each key.

/**
 * Characters that a field can hold without becoming slow. In Chromium, a key takes 10 ms after this
 * many, and a second after half a million in one line.
 */
export const MAX_TYPED = 20_000;

/**
 * Splits a text into a head, and a tail of paragraphs that is short enough for a field. The blank
 * line between them is dropped. The head is "" for a short text.
 */
export function splitLongText(text) {
  if (text.length <= MAX_TYPED) return ["", text];
  const end = text.slice(-MAX_TYPED);
  const start = end.search(/(?<=\n\n)[^\n]/);
  if (start < 0) return [text, ""];
  return [text.slice(0, start - MAX_TYPED - 2), end.slice(start)];
}

/** Joins texts with blank lines between them; skips empty ones. */
export const joinTexts = (...texts) => texts.filter(Boolean).join("\n\n");

export const sizeOf = (text) => `${Math.ceil(new Blob([text]).size / 1000).toLocaleString()} kB`;

const BLOCK = /[^]{1,8000}(?:\n|$)|[^]{1,8000}(?:\s|$)|[^]{1,8000}/gu;

/** The nodes of a text. A long one is split into blocks of lines, which are laid out faster. */
export function textNodes(text) {
  if (text.length <= MAX_TYPED) return [text];
  return text.match(BLOCK).map((piece) => {
    const block = document.createElement("div");
    block.textContent = piece;
    return block;
  });
}
