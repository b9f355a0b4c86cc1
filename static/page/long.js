// Long texts, as of a log or a book. Browsers lay a paragraph out again whenever it is typed in.

/**
 * Characters that a field takes without becoming slow: in Chromium a key takes 10 ms behind so
 * many, and a second behind half a million in one line.
 */
export const MOST = 20_000;

/**
 * A text in two: what a field would be slow with, and the paragraphs behind it. An empty line is
 * between them.
 */
export function parted(text) {
  if (text.length <= MOST) return ["", text];
  const end = text.slice(-MOST);
  const start = end.search(/(?<=\n\n)[^\n]/);
  if (start < 0) return [text, ""];
  return [text.slice(0, start - MOST - 2), end.slice(start)];
}

/** The texts that are not empty as one, with empty lines between them. */
export const joined = (...texts) => texts.filter(Boolean).join("\n\n");

export const sizeOf = (text) => `${Math.ceil(new Blob([text]).size / 1000).toLocaleString()} kB`;

const PIECE = /[^]{1,8000}(?:\n|$)|[^]{1,8000}(?:\s|$)|[^]{1,8000}/gu;

/** What shows a text: itself, or blocks of some of its lines each, which are laid out faster. */
export function nodesOf(text) {
  if (text.length <= MOST) return [text];
  return text.match(PIECE).map((piece) => {
    const block = document.createElement("div");
    block.textContent = piece;
    return block;
  });
}
