// Where a text is cut into pieces, which blocks are finished, and which definitions links need.

import { MARK, MAX_MARKS, MAX_SPAN, PIECE_LENGTH } from "./limits.js";

/** The index at which the piece that begins at `start` ends. */
export function endOfPiece(text, start) {
  const piece = text.slice(start, start + PIECE_LENGTH);
  let marks = 0;
  for (const { index } of piece.matchAll(MARK)) {
    if (++marks > MAX_MARKS) return start + index;
  }
  return start + piece.length;
}

/**
 * The index at which to cut a block that is longer than this piece: before a line indented no more
 * than the first, if there is one.
 */
export function endOfBlock(piece) {
  const [indent] = /^ */.exec(piece);
  const line = [...piece.matchAll(/\n(?=( *)\S)/g)].findLast(
    ({ index, 1: { length } }) => length <= indent.length && index >= piece.length / 2,
  );
  if (line) return line.index + 1;
  return piece.lastIndexOf("\n") + 1 || piece.lastIndexOf(" ") + 1 || piece.length;
}

/** Whether a text ends with a blank line. */
const endsBlank = (text) => /\n[ \t]*\n$/.test(text);

/**
 * The number of blocks that no later text can change: those followed by a blank line, or by more
 * text than a span may have. We must also know what follows the blank line: spaces may start a line
 * that still belongs to the block, and `2` may be the next item of its list.
 */
export function countFinished(tokens, text) {
  const wholeLines = text.lastIndexOf("\n");
  let count = 0;
  let at = 0;
  let before; // the type of the previous block
  tokens.forEach(({ type, raw }, number) => {
    const isKnown = at <= wholeLines || (/^\S/.test(raw) && before !== "list");
    const isAfterBlank = isKnown && endsBlank(text.slice(Math.max(0, at - 99), at));
    // The type of the last block may still change.
    const isFar = wholeLines - at > MAX_SPAN && number < tokens.length - 1;
    if (raw.trim() && (isAfterBlank || isFar)) count = number;
    if (raw.trim()) before = type;
    at += raw.length;
  });
  return count;
}

/**
 * What to repeat before the rest of a block that was cut: the header of a table, or the start of
 * details; but nothing if that is a large part of the block.
 */
export function headOfRest({ type, raw, head, isClosed }) {
  if (type === "table") return short(raw.match(/^[^\n]*\n[^\n]*\n/)[0], raw);
  if (type === "details" && !isClosed) return short(`${head}\n\n`, raw);
  return "";
}

const short = (head, raw) => (head.length < raw.length / 4 ? head : "");

/** A link label, normalized as by marked: `ẞ` equals `SS`. */
function nameOf(label) {
  const words = label.trim().replace(/\s+/g, " ");
  return words.toLowerCase().toUpperCase().toLowerCase();
}

/**
 * The labels of reference links in a block: `[text][label]`, with `[label]: https://…` elsewhere.
 */
export function labels({ type, raw }) {
  if (type === "code") return [];
  const found = [...raw.matchAll(/\[((?:[^[\]\\]|\\.){1,300})\]/g)];
  return [...new Set(found.map(([, label]) => nameOf(label)))];
}

/** The targets of these labels. */
export const targets = (names, links) => names.map((name) => links[name]);

const isSame = (one, other) => one?.href === other?.href && one?.title === other?.title;

/** Whether two lists of targets are equal. */
export const areSameTargets = (some, others) =>
  some.every((target, number) => isSame(target, others[number]));
