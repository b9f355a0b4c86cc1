// Makes elements from marked's tokens. HTML is never parsed, so injected HTML stays text.

import { element } from "../dom.js";
import { languageOf } from "./languages.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];
const ENTITIES = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  reg: "®",
  trade: "™",
  hellip: "…",
  mdash: "—",
  ndash: "–",
  bull: "•",
  middot: "·",
  deg: "°",
  times: "×",
  le: "≤",
  ge: "≥",
  ne: "≠",
  larr: "←",
  rarr: "→",
  euro: "€",
};
const ENTITY = /&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w+));/g;
/** Up to 500 lines: browsers lay out a whole text again when something is added to it. */
const PART_OF_CODE = /[^\n]*(?:\n[^\n]*){0,499}\n?/g;

/** The character of a numeric character reference, as in HTML. */
function characterOf(number) {
  const isCharacter = number && number <= 0x10ffff && !(number >= 0xd800 && number < 0xe000);
  return isCharacter ? String.fromCodePoint(number) : "\ufffd";
}

/** Replaces the entities in a text. */
function decode(text) {
  return text.replace(ENTITY, (whole, decimal, hex, name) => {
    if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
    return characterOf(decimal ? Number(decimal) : parseInt(hex, 16));
  });
}

/** A link, if its protocol is allowed; else just its text. */
function link(token, children) {
  const href = token.autolink ? token.href : decode(token.href);
  if (!URL.canParse(href) || !PROTOCOLS.includes(new URL(href).protocol)) return children;
  const title = token.title ? { title: decode(token.title) } : {};
  const properties = { href, target: "_blank", rel: "noopener noreferrer", ...title };
  return [element("a", properties, children)];
}

/** An image, as a link: no image is loaded from elsewhere. */
function image(token) {
  const name = element("p", {}, inline(token.tokens)).textContent;
  return link(token, [name || "image"]);
}

const checkbox = ({ checked }) =>
  element("input", {
    type: "checkbox",
    disabled: true,
    defaultChecked: checked,
    ariaLabel: "Done",
  });

const inline = (tokens) => tokens.flatMap((token) => INLINE[token.type]?.(token) ?? token.raw);
const nested = (tag) => (token) => element(tag, {}, inline(token.tokens));
const INLINE = {
  text: (token) => (token.tokens ? inline(token.tokens) : decode(token.text)),
  escape: (token) => token.text,
  strong: nested("strong"),
  em: nested("em"),
  del: nested("del"),
  codespan: (token) => element("code", {}, token.text),
  br: () => element("br"),
  checkbox,
  link: (token) => link(token, token.autolink ? [token.text] : inline(token.tokens)),
  image,
  math: (token) => element("span", { className: "math", dir: "ltr" }, token.text),
};

function code({ lang, text }) {
  const name = decode(lang?.match(/\S+/)?.[0] ?? "");
  const language = languageOf(name);
  const copy = element("button", { type: "button" }, "Copy");
  const parts = text.match(PART_OF_CODE).filter(Boolean);
  const lines = parts.length > 1 ? parts.map((part) => element("div", {}, part)) : text;
  const className = language ? `language-${language}` : "";
  const written = element("code", className ? { className } : {}, lines);
  return element(
    "figure",
    {},
    element("figcaption", {}, name, copy),
    element("pre", { tabIndex: 0, dir: "ltr" }, written),
  );
}

/**
 * A heading. The page's own headings go down to level 2, so a reply's first heading is level 3 for
 * a screen reader, whatever number of # it has.
 */
function heading(token, levels) {
  while (levels.at(-1) >= token.depth) levels.pop();
  levels.push(token.depth);
  const ariaLevel = String(2 + levels.length);
  return element(`h${token.depth}`, { ariaLevel }, inline(token.tokens));
}

function list(token, levels) {
  const start = token.ordered && token.start !== 1 ? { start: token.start } : {};
  const items = token.items.map((item) => element("li", {}, blocks(item.tokens, levels)));
  return element(token.ordered ? "ol" : "ul", start, items);
}

/** A table, in a box that scrolls if the table is too wide. */
function table(token) {
  const cell = (tag) => (each) =>
    element(tag, each.align ? { className: each.align } : {}, inline(each.tokens));
  const head = element("tr", {}, token.header.map(cell("th")));
  const rows = token.rows.map((row) => element("tr", {}, row.map(cell("td"))));
  const parts = [element("thead", {}, head), element("tbody", {}, rows)];
  return element("div", { className: "table", tabIndex: 0 }, element("table", {}, parts));
}

function details(token, levels) {
  const summary = element("summary", {}, inline(token.summary));
  return element("details", { open: token.isOpen }, summary, blocks(token.tokens, levels));
}

const BLOCK = {
  paragraph: (token) => element("p", {}, inline(token.tokens)),
  text: (token) => inline(token.tokens ?? [token]), // an item of a tight list
  checkbox,
  hr: () => element("hr"),
  html: (token) => element("p", { className: "raw" }, token.raw.trimEnd()),
  mathBlock: (token) => element("p", { className: "math raw", dir: "ltr" }, token.text),
  blockquote: (token, levels) => element("blockquote", {}, blocks(token.tokens, levels)),
  code,
  heading,
  list,
  table,
  details,
};

/** The nodes of blocks. `levels`: the depths of the headings above them. */
const blocks = (tokens, levels) =>
  tokens.flatMap((token) => BLOCK[token.type]?.(token, levels) ?? []);

/**
 * The node of a top-level block, if it shows anything. `dir="auto"` is set last: with it, browsers
 * would determine the direction again for each child that is added.
 */
export function drawBlock(token, levels) {
  const [node] = blocks([token], levels);
  if (node) node.dir ||= "auto";
  return node;
}
