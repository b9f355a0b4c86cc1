// Formulas as MathML. Temml parses a formula into a tree. From it, we make only elements,
// attributes and styles listed here. A formula that is invalid or too large stays as written.

import temml from "../vendor/temml.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const ELEMENTS = new Set(
  (
    "math mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace " +
    "msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover"
  ).split(" "),
);
const ATTRIBUTES = new Set(
  (
    "accent accentunder columnspan depth display displaystyle fence form height largeop " +
    "linethickness lspace mathvariant maxsize minsize movablelimits rowspan rspace scriptlevel " +
    "separator stretchy symmetric voffset width"
  ).split(" "),
);
const STYLES = new Set(
  (
    "border borderBottom borderLeft borderRight borderTop fontWeight marginLeft mathDepth " +
    "padding paddingBottom paddingLeft paddingRight paddingTop width"
  ).split(" "),
);
const CLASSES = new Set(["tml-jot", "tml-left", "tml-right", "tml-small"]);
/** What `\cancel`, `\overline` and similar commands draw around or through a formula. */
const NOTATIONS = new Set(
  "bottom box circle downdiagonalstrike horizontalstrike top updiagonalstrike".split(" "),
);
const WORD = /^(?:true|false|block|prefix|infix|postfix|normal|italic|monospace|bold|[0-3])$/;
/** A length: limited, so that the formula cannot cover other parts of the page. */
const LENGTH = /^[-+]?(?:\d{0,2}(?:\.\d+)?(?:em|ex|cm|mm|in|%)|\d{1,3}(?:\.\d+)?(?:pt|px)|0)$/;
const LINE = /^(?:solid|dashed|double)$/;
const COLOUR = /^(?:#(?:[\da-f]{3}){1,2}|[a-z]{3,20})$/i;

const MAX_DEPTH = 60; // levels of elements; browsers recurse
const MAX_ELEMENTS = 800; // elements of a formula, which a browser lays out in some 100 ms
const WEIGHT = 10; // elements that take as long as a formula without any
const MAX_CELLS = 4_000; // rows times columns; Temml fills rows up with empty cells
/** Commands that define others, or use Temml's internal ones: these could expand without limit. */
const DEFINING =
  /\\(?:[a-z]*@|(?:[egx]?def|(?:future)?let|(?:new|renew|provide)command|global|long)(?![a-z]))/i;
/**
 * Temml's own definitions build an argument more than once: each level of nesting would double the
 * work.
 */
const MACROS = {
  "\\cancelto": "\\cancel{#2}^{#1}",
  "\\llap": "\\text{#1}",
  "\\mathllap": "{#1}",
};
const FAULT = "fault"; // the colour that Temml gives to unknown and untrusted commands

/** Why a formula stays as written. */
class Unsupported extends Error {}

/** Throws for a formula that would take Temml too long. */
function check(text) {
  if (DEFINING.test(text)) throw new Unsupported("It defines commands.");
  const rows = text.split(/\\\\|\\cr/).length;
  const cells = text.split("&").length;
  if (rows * cells > MAX_CELLS) throw new Unsupported("It has too many cells.");
}

const isKnown = (value) => WORD.test(value) || LENGTH.test(value);
const isLine = (value) => value.split(" ").every((part) => LINE.test(part) || LENGTH.test(part));

/** A formula's colour, with a lightness that is readable on the page's background. */
const readable = (colour) =>
  `light-dark(oklch(from ${colour} min(l, .5) c h), oklch(from ${colour} max(l, .75) c h))`;

function setColour(element, colour) {
  if (colour === FAULT) throw new Unsupported("It has a command that is not known.");
  if (COLOUR.test(colour)) element.style.color = readable(colour);
}

function setStyles(element, styles) {
  for (const [name, value] of Object.entries(styles)) {
    if (name === "color") setColour(element, value);
    else if (STYLES.has(name) && isLine(value.trim())) element.style[name] = value;
  }
}

function setAttributes(element, { mathcolor, mathbackground, ...attributes }) {
  for (const [name, value] of Object.entries(attributes)) {
    if (ATTRIBUTES.has(name) && isKnown(value)) element.setAttribute(name, value);
  }
  if (mathcolor) setColour(element, mathcolor);
  // A `\rule` is a space with a background. Other backgrounds could make the text unreadable.
  if (mathbackground && element.localName === "mspace") {
    element.setAttribute("mathbackground", "currentcolor");
  }
}

function setClasses(element, classes, notation = "") {
  const known = classes.filter((name) => CLASSES.has(name));
  const drawn = notation.split(" ").filter((name) => NOTATIONS.has(name));
  const names = [...known, ...drawn.map((name) => `notation-${name}`)];
  if (names.length) element.setAttribute("class", names.join(" "));
}

/** Makes elements from Temml's nodes. */
class Builder {
  /** The number of elements made. */
  count = 0;

  /** What a Temml node becomes: an element, a text, or its children if its type is unknown. */
  nodes(node, depth) {
    if (typeof node.text === "string") return [node.text];
    if (node.type === "menclose") return [this.element("mrow", node, depth)];
    if (ELEMENTS.has(node.type)) return [this.element(node.type, node, depth)];
    return this.children(node, depth);
  }

  children(node, depth) {
    return (node.children ?? []).flatMap((child) => this.nodes(child, depth + 1));
  }

  element(name, node, depth) {
    if (depth > MAX_DEPTH || ++this.count > MAX_ELEMENTS) {
      throw new Unsupported("It has too many parts.");
    }
    const element = document.createElementNS(MATHML, name);
    setAttributes(element, node.attributes);
    setClasses(element, node.classes, node.attributes.notation);
    setStyles(element, node.style);
    element.append(...this.children(node, depth));
    return element;
  }
}

/** A formula's `<math>` element, and the number of its elements. Throws if it is unsupported. */
function mathOf(text, displayMode) {
  check(text);
  const macros = { ...MACROS };
  const options = { displayMode, macros, throwOnError: true, errorColor: FAULT };
  const tree = temml.__renderToMathMLTree(text, options);
  const builder = new Builder();
  return { math: builder.element("math", tree, 0), count: builder.count };
}

/** Formulas wider than their box scroll; a tabindex makes that possible by keyboard. */
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

/** Replaces the source in this element by the formula. Returns its cost in elements. */
export function draw(place) {
  const source = place.textContent;
  const isDisplay = /^(?:\$\$|\\\[)/.test(source);
  const signs = /^\$(?!\$)/.test(source) ? 1 : 2;
  try {
    const { math, count } = mathOf(source.slice(signs, -signs), isDisplay);
    place.className = isDisplay ? "formula display" : "formula";
    place.replaceChildren(math);
    widths.observe(place);
    return { count: WEIGHT + count };
  } catch {
    return { count: 0 }; // Temml throws several kinds of errors for an invalid formula
  }
}
