// Syntax highlighting. Tokens that have a colour become elements; not one character of the text
// changes.

import { element } from "../dom.js";
import { read } from "./grammars.js";

/** Characters that are tokenized at once. Some patterns take quadratic time. */
const MAX_PART = 3_000;
/** A line that nobody reads, for example of minified code. */
const WIDE_LINE = /[^\n]{2001}/;
/**
 * Where a long text is cut, in order of preference: at a blank line before an unindented line, at
 * any blank line, at the end of a line.
 */
const CUT_PATTERNS = [/^[^]*\n\n(?=\S)/, /^[^]*\n\n/, /^[^]*\n/];

/** Prism's token types by their colour. Others have none. */
const TYPES = {
  comment: "comment prolog doctype cdata blockquote shebang",
  string: "string char attr-value regex url inserted code-snippet template-string heredoc",
  number: "number boolean constant symbol entity unit color hexcode null nil date",
  keyword: "keyword atrule important rule tag control-flow",
  name: "function class-name builtin title selector section macro annotation decorator type",
  property: "property attr-name variable key parameter namespace lifetime-annotation field",
  deleted: "deleted",
};

const COLOURS = new Map();
for (const [colour, types] of Object.entries(TYPES)) {
  for (const type of types.split(" ")) COLOURS.set(type, colour);
}

/** The colour of a token's type, or of one of its aliases. */
function colourOf({ type, alias }) {
  const names = [type, alias ?? []].flat();
  return names.map((name) => COLOURS.get(name)).find(Boolean);
}

/** The nodes of tokens inside a token of colour `outer`. Adjacent strings are joined. */
function nodesOf(tokens, outer) {
  const nodes = [];
  for (const node of [tokens].flat().flatMap((token) => drawToken(token, outer))) {
    const last = nodes.length - 1;
    if (typeof node === "string" && typeof nodes[last] === "string") nodes[last] += node;
    else nodes.push(node);
  }
  return nodes;
}

function drawToken(token, outer) {
  if (typeof token === "string") return [token];
  const colour = colourOf(token) ?? outer;
  const inside = nodesOf(token.content, colour);
  return colour === outer ? inside : [element("span", { className: `token-${colour}` }, inside)];
}

/** The length of the part that is tokenized at once. */
function lengthOfPart(text) {
  if (text.length <= MAX_PART) return text.length;
  const view = text.slice(0, MAX_PART);
  const lengths = CUT_PATTERNS.map((cut) => cut.exec(view)?.[0].length ?? 0);
  return lengths.find((length) => length > MAX_PART / 2) ?? MAX_PART;
}

/** The number of characters in an element before a node and offset. */
function offsetOf(within, node, offset) {
  const range = new Range();
  range.setStart(within, 0);
  range.setEnd(node, offset);
  return range.toString().length;
}

/** The text node and offset of the character at `offset` in an element. */
function placeOf(within, offset) {
  const walker = document.createTreeWalker(within, NodeFilter.SHOW_TEXT);
  let left = offset;
  while (walker.nextNode() && left > walker.currentNode.length) left -= walker.currentNode.length;
  return [walker.currentNode, left];
}

/** Replaces a text node by nodes with the same text. A selection in it is kept. */
function replaceText(text, nodes) {
  const within = text.parentNode;
  const { anchorNode, anchorOffset, focusNode, focusOffset } = getSelection();
  const ends = [
    [anchorNode, anchorOffset],
    [focusNode, focusOffset],
  ].map(([node, offset]) =>
    node === text ? { offset: offsetOf(within, node, offset) } : { place: [node, offset] },
  );
  text.replaceWith(...nodes);
  if (ends.every(({ place }) => place)) return;
  const places = ends.map(({ place, offset }) => place ?? placeOf(within, offset));
  getSelection().setBaseAndExtent(...places.flat());
}

/** The nodes of highlighted code; undefined if it stays as it is. */
function coloured(text, language) {
  if (WIDE_LINE.test(text)) return undefined;
  try {
    return nodesOf(read(text, language));
  } catch {
    return undefined; // too many steps for Prism, or too much nesting
  }
}

/**
 * Highlights the code in a text node, or its first part. Returns the number of new nodes as
 * `count`, and the text node with the rest, if any.
 */
export function draw(text) {
  const code = text.parentNode.closest("code");
  const [, language] = /language-(\w+)/.exec(code.className);
  const length = lengthOfPart(text.data);
  const rest = length < text.length ? text.splitText(length) : undefined;
  const nodes = coloured(text.data, language);
  if (nodes) replaceText(text, nodes);
  return { count: nodes?.length ?? 0, rest };
}
