// Where a text is cut into pieces, what of it is finished, and what its links depend on.

import { LONGEST, MARK, MOST, NEAR } from "./bounds.js";

/** The place where the piece ends that begins there. */
export function endOfPiece(text, start) {
  const piece = text.slice(start, start + LONGEST);
  let marks = 0;
  for (const { index } of piece.matchAll(MARK)) {
    if (++marks > MOST) return start + index;
  }
  return start + piece.length;
}

/**
 * The place where a block is cut that goes on behind this piece: before a line that is no further
 * in than its first, if there is one.
 */
export function endOfBlock(piece) {
  const [indent] = /^ */.exec(piece);
  const line = [...piece.matchAll(/\n(?=( *)\S)/g)].findLast(
    ({ index, 1: { length } }) => length <= indent.length && index >= piece.length / 2,
  );
  if (line) return line.index + 1;
  return piece.lastIndexOf("\n") + 1 || piece.lastIndexOf(" ") + 1 || piece.length;
}

/** Whether a blank line stands at the end of a text. */
const endsBlank = (text) => /\n[ \t]*\n$/.test(text);

/**
 * How many blocks no later text can change: a blank line is behind them, or more than what may
 * begin in one and end in the next. What stands behind the blank line has to be known, too: spaces
 * may be the beginning of what belongs to the block, and `2` that of the next item of its list.
 */
export function countFinished(tokens, text) {
  const wholeLines = text.lastIndexOf("\n");
  let count = 0;
  let at = 0;
  let before; // The type of the block before.
  tokens.forEach(({ type, raw }, number) => {
    const isKnown = at <= wholeLines || (/^\S/.test(raw) && before !== "list");
    const isBehindBlank = isKnown && endsBlank(text.slice(Math.max(0, at - 99), at));
    // What the last block is may not be known yet.
    const isFar = wholeLines - at > NEAR && number < tokens.length - 1;
    if (raw.trim() && (isBehindBlank || isFar)) count = number;
    if (raw.trim()) before = type;
    at += raw.length;
  });
  return count;
}

/**
 * What has to stand before the rest of a block that was cut, unless it is most of the block: the
 * header of a table, or the beginning of details.
 */
export function headOfRest({ type, raw, head, isClosed }) {
  if (type === "table") return short(raw.match(/^[^\n]*\n[^\n]*\n/)[0], raw);
  if (type === "details" && !isClosed) return short(`${head}\n\n`, raw);
  return "";
}

const short = (head, raw) => (head.length < raw.length / 4 ? head : "");

/** The name of a link, as marked keeps it: `ẞ` is `SS`, too. */
function nameOf(label) {
  const words = label.trim().replace(/\s+/g, " ");
  return words.toLowerCase().toUpperCase().toLowerCase();
}

/**
 * The names of links in a block that are defined elsewhere: `[text][label]`, with
 * `[label]: https://…` in any place.
 */
export function labels({ type, raw }) {
  if (type === "code") return [];
  const found = [...raw.matchAll(/\[((?:[^[\]\\]|\\.){1,300})\]/g)];
  return [...new Set(found.map(([, label]) => nameOf(label)))];
}

/** What links of these names lead to. */
export const targets = (names, links) => names.map((name) => links[name]);

const isSame = (one, other) => one?.href === other?.href && one?.title === other?.title;

/** Whether these targets are the same as others. */
export const areSame = (some, others) =>
  some.every((target, number) => isSame(target, others[number]));
