// Extensions of marked, for what replies have beyond GitHub Flavored Markdown: formulas and
// `<details>`. Each returns a token that the source starts with, or undefined.

import { MAX_SPAN, near } from "./limits.js";

/** Delimiters of formulas. Nothing inside them is Markdown. A formula has no blank line. */
const FORMULAS = [
  ["$$", "$$"],
  ["\\[", "\\]"],
  ["\\(", "\\)"],
];
/** A formula between single dollars, but not "from $5 to $10". */
const INLINE_FORMULA = /^\$(?![\s$])(?:\\.|[^$\\\n`])+(?<!\s)\$(?!\d)/;

/** The formula that a text starts with, between one of these pairs of delimiters. */
function formula(source, pairs) {
  const [opening, closing] = pairs.find(([sign]) => source.startsWith(sign)) ?? [];
  const end = opening ? near(source).indexOf(closing, 2) : -1;
  const raw = source.slice(0, end + 2);
  return end > 2 && !/\n[ \t]*\n/.test(raw) ? raw : undefined;
}

/** A formula within a line, such as `$x^2$`. */
export function math(source) {
  if (source[0] !== "$" && source[0] !== "\\") return undefined;
  const raw = formula(source, FORMULAS) ?? INLINE_FORMULA.exec(near(source))?.[0];
  return raw && { type: "math", raw, text: raw };
}

/** A formula on lines of its own, such as `$$x^2$$`. */
export function mathBlock(source) {
  const indent = /^ {0,3}/.exec(source)[0];
  const text = formula(source.slice(indent.length), FORMULAS.slice(0, 2));
  const end = text && /^[ \t]*(?:\n|$)/.exec(source.slice(indent.length + text.length));
  return end ? { type: "mathBlock", raw: indent + text + end[0], text } : undefined;
}

/**
 * The index at which a formula interrupts a paragraph. marked calls this for each paragraph, and
 * continues the paragraph if no other block starts there. We use that to cut a long paragraph
 * before an ordinary line: marked's own pattern tries to read a table at each line, which takes
 * long.
 */
export function startOfBlock(source) {
  // In a tight list, marked calls this for each line, and ignores the result.
  if (!this.lexer.state.top) return undefined;
  const [view] = near(source).split(/\n[ \t]*\n/, 1);
  let looked = 0;
  for (const { index } of view.matchAll(/\n {0,3}(?:\$\$|\\\[)/g)) {
    if (mathBlock(source.slice(index + 1))) return index;
    if (++looked === 4) break;
  }
  const lines = view.length === MAX_SPAN ? [...view.matchAll(/\n(?= {0,3}[\p{L}|:-])/gu)] : [];
  return lines.at(-1)?.index;
}

const OPENING = /^ {0,3}<details(?:\s[^>\n]{0,300})?>/i;
/** The text in `<summary>`: ends with its tag, at a blank line, or where the text so far ends. */
const SUMMARY = /^\s*<summary(?:\s[^>\n]{0,300})?>([^]*?)(?:<\/summary\s*>|\n[ \t]*\n|$)/i;
/** Code fences, code spans, and the tags of details. */
const FENCE_OR_TAG = /^[ \t>]*(`{3,}|~{3,})(.*)|`[^`\n]+`|<(\/?)details(?:\s[^>\n]{0,300})?>/gim;

/** Whether a fence closes the code block that `open` started. */
const closes = (fence, rest, open) => fence.startsWith(open) && !rest.trim();

/** The match of the tag that closes the details with this text. Tags in code do not count. */
function closingTag(text) {
  let depth = 1;
  let open = "";
  for (const match of text.matchAll(FENCE_OR_TAG)) {
    const [, fence, rest, slash] = match;
    if (open) {
      if (fence && closes(fence, rest, open)) open = "";
    } else if (fence) {
      open = fence;
    } else if (slash !== undefined) {
      depth += slash ? -1 : 1;
      if (depth === 0) return match;
    }
  }
  return undefined;
}

/**
 * `<details>`, with Markdown inside. If its closing tag has not arrived, it takes all text that
 * follows, and is unfolded, so that text being written is visible.
 */
export function details(source) {
  const [opening] = OPENING.exec(source) ?? [];
  if (!opening) return undefined;
  const text = source.slice(opening.length);
  const closing = closingTag(text);
  const inside = closing ? text.slice(0, closing.index) : text;
  const after = closing ? text.slice(closing.index + closing[0].length) : "";
  const raw = source.slice(0, source.length - after.length) + /^(?:[ \t]*\n)?/.exec(after)[0];
  const [head, title = ""] = SUMMARY.exec(near(inside)) ?? [""];
  const { top } = this.lexer.state;
  this.lexer.state.top = true;
  const token = {
    type: "details",
    raw,
    head: opening + head,
    isClosed: Boolean(closing),
    isOpen: !closing || /\sopen\b/i.test(opening),
    summary: this.lexer.inline(title.trim() || "Details"),
    tokens: this.lexer.blockTokens(inside.slice(head.length), []),
  };
  this.lexer.state.top = top;
  return token;
}
