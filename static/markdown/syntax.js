// What replies have besides CommonMark and GitHub's flavour: formulas, and details that open.
// These are extensions of marked: each reads a token from the beginning of a text, or nothing.

import { NEAR, near } from "./bounds.js";

/** A formula stays as it is written: none of its signs are marks. It ends at a blank line. */
const FORMULAS = [
  ["$$", "$$"],
  ["\\[", "\\]"],
  ["\\(", "\\)"],
];
/** A formula between single dollars, but not the sums of "from $5 to $10". */
const INLINE_FORMULA = /^\$(?![\s$])(?:\\.|[^$\\\n`])+(?<!\s)\$(?!\d)/;

/** The formula that a text begins with, between two of these pairs of signs. */
function formula(source, pairs) {
  const [opening, closing] = pairs.find(([sign]) => source.startsWith(sign)) ?? [];
  const end = opening ? near(source).indexOf(closing, 2) : -1;
  const raw = source.slice(0, end + 2);
  return end > 2 && !/\n[ \t]*\n/.test(raw) ? raw : undefined;
}

/** A formula within a line, as `$x^2$`. */
export function math(source) {
  if (source[0] !== "$" && source[0] !== "\\") return undefined;
  const raw = formula(source, FORMULAS) ?? INLINE_FORMULA.exec(near(source))?.[0];
  return raw && { type: "math", raw, text: raw };
}

/** A formula that stands alone, as `$$x^2$$`. */
export function mathBlock(source) {
  const indent = /^ {0,3}/.exec(source)[0];
  const text = formula(source.slice(indent.length), FORMULAS.slice(0, 2));
  const end = text && /^[ \t]*(?:\n|$)/.exec(source.slice(indent.length + text.length));
  return end ? { type: "mathBlock", raw: indent + text + end[0], text } : undefined;
}

/**
 * The place where a formula interrupts a paragraph. marked asks for it at each paragraph, and goes
 * on with the paragraph where nothing else begins. So a long paragraph is interrupted before a line
 * that is no code, too: marked's own pattern looks for tables at each line, and reads them.
 */
export function startOfBlock(source) {
  // In a list whose items are no paragraphs marked asks in vain, at each line.
  if (!this.lexer.state.top) return undefined;
  const [view] = near(source).split(/\n[ \t]*\n/, 1);
  let looked = 0;
  for (const { index } of view.matchAll(/\n {0,3}(?:\$\$|\\\[)/g)) {
    if (mathBlock(source.slice(index + 1))) return index;
    if (++looked === 4) break;
  }
  const lines = view.length === NEAR ? [...view.matchAll(/\n(?= {0,3}[\p{L}|:-])/gu)] : [];
  return lines.at(-1)?.index;
}

const OPENING = /^ {0,3}<details(?:\s[^>\n]{0,300})?>/i;
/** The text in `<summary>`, which ends with its tag, at a blank line or where no more has come. */
const SUMMARY = /^\s*<summary(?:\s[^>\n]{0,300})?>([^]*?)(?:<\/summary\s*>|\n[ \t]*\n|$)/i;
/** The fences of code, code within a line, and the tags of details. */
const FENCE_OR_TAG = /^[ \t>]*(`{3,}|~{3,})(.*)|`[^`\n]+`|<(\/?)details(?:\s[^>\n]{0,300})?>/gim;

/** Whether a fence closes the code that another one has opened. */
const closes = (fence, rest, open) => fence.startsWith(open) && !rest.trim();

/** The tag that closes the details whose text this is. Tags in code do not count. */
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
 * The element `<details>`, with its text as Markdown. Where it is not closed, it takes all that
 * follows, and is open, so that nothing is hidden that is still being written.
 */
export function details(source) {
  const [opening] = OPENING.exec(source) ?? [];
  if (!opening) return undefined;
  const text = source.slice(opening.length);
  const closing = closingTag(text);
  const inside = closing ? text.slice(0, closing.index) : text;
  const behind = closing ? text.slice(closing.index + closing[0].length) : "";
  const raw = source.slice(0, source.length - behind.length) + /^(?:[ \t]*\n)?/.exec(behind)[0];
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
