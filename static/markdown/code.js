// Code in colours. Its tokens become elements where they have a colour. The text stays as it is,
// each character of it.

import { element } from "../dom.js";
import { read } from "./grammars.js";

/** Characters that are read at a time. Some patterns take the square of it. */
const LONGEST = 3_000;
/** A line that is no code that anybody reads. */
const WIDE_LINE = /[^\n]{2001}/;
/**
 * The places where a long text is cut, the best first: a blank line before what stands furthest
 * out, another blank line, the end of a line.
 */
const CUTS = [/^[^]*\n\n(?=\S)/, /^[^]*\n\n/, /^[^]*\n/];

/** Prism's types of tokens, by the colour that they have. Others have none. */
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

/** The colour of a token: that of its type, or of another name that it has. */
function colourOf({ type, alias }) {
  const names = [type, alias ?? []].flat();
  return names.map((name) => COLOURS.get(name)).find(Boolean);
}

/** The nodes of tokens that stand in this colour. Texts beside each other are one. */
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

/** How much of a text is read at once. */
function lengthOfPart(text) {
  if (text.length <= LONGEST) return text.length;
  const view = text.slice(0, LONGEST);
  const lengths = CUTS.map((cut) => cut.exec(view)?.[0].length ?? 0);
  return lengths.find((length) => length > LONGEST / 2) ?? LONGEST;
}

/** The number of characters before a place in an element. */
function offsetOf(within, node, offset) {
  const range = new Range();
  range.setStart(within, 0);
  range.setEnd(node, offset);
  return range.toString().length;
}

/** The place of an offset in an element's text. */
function placeOf(within, offset) {
  const walker = document.createTreeWalker(within, NodeFilter.SHOW_TEXT);
  let left = offset;
  while (walker.nextNode() && left > walker.currentNode.length) left -= walker.currentNode.length;
  return [walker.currentNode, left];
}

/** Replaces a text by nodes that have the same. What is selected in it stays selected. */
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

/** The nodes of code in colours; undefined where it stays as it is. */
function coloured(text, language) {
  if (WIDE_LINE.test(text)) return undefined;
  try {
    return nodesOf(read(text, language));
  } catch {
    return undefined; // It takes Prism too long, or nests too deep.
  }
}

/**
 * Gives colours to the code in a text node, or to the first part of it. Returns how many elements
 * were made, and the node with the rest.
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
