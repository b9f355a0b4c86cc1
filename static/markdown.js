// Markdown as elements. marked's lexer gives tokens, and elements are made of them: no HTML is parsed anywhere.

import { Lexer, Tokenizer, getDefaults } from "./marked.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];
const DEEPEST = 20; // levels of nesting; what is deeper stays as written, since marked and browsers recurse
const LONGEST = 20_000; // characters of a paragraph; in a longer one marks stay as written, since marked can take seconds
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", trade: "™", hellip: "…", mdash: "—",
  ndash: "–", bull: "•", middot: "·", deg: "°", times: "×", le: "≤", ge: "≥", ne: "≠", larr: "←", rarr: "→", euro: "€" };

/** An element with these properties; the children are nodes, strings, which stay text, and arrays of such. */
export function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const child of children.flat()) node.append(child); // one at a time: a call takes some ten thousand arguments at most
  return Object.assign(node, properties);
}

// Mathematics stays as written: none of its signs are marks. Like paragraphs it ends at a blank line.
const MATH = [
  /^\$\$(?:(?!\n[ \t]*\n|\$\$)[^])+\$\$/,
  /^\\\[(?:(?!\n[ \t]*\n|\\\])[^])+\\\]/,
  /^\\\((?:(?!\n[ \t]*\n|\\\))[^])+\\\)/,
  /^\$(?![\s$])(?:\\.|[^$\\\n`])+(?<!\s)\$(?!\d)/, // not the sums of "from $5 to $10"
];

function math(source, patterns = MATH) {
  for (const pattern of patterns) {
    const [raw] = pattern.exec(source) ?? [];
    if (raw) return { type: "math", raw, text: raw };
  }
}

function mathBlock(source) {
  const indent = /^ {0,3}/.exec(source)[0];
  const found = math(source.slice(indent.length, LONGEST), MATH.slice(0, 2));
  const end = found && /^[ \t]*(?:\n|$)/.exec(source.slice(indent.length + found.raw.length));
  return end ? { ...found, type: "mathBlock", raw: indent + found.raw + end[0] } : undefined;
}

// marked looks here for where a paragraph may be interrupted, at each paragraph: not through all that follows.
const startsOfMath = (source) => source.slice(0, LONGEST / 10).split(/\n[ \t]*\n/, 1)[0].matchAll(/\n {0,3}(?:\$\$|\\\[)/g);
const startOfBlock = (source) => [...startsOfMath(source)].find(({ index }) => mathBlock(source.slice(index + 1)))?.index;
// So it does for a heading that is underlined, at each line of a list's item.
const lheading = (source) => Tokenizer.prototype.lheading.call(OPTIONS.tokenizer, source.slice(0, LONGEST / 10));
const OPTIONS = {
  ...getDefaults(),
  tokenizer: Object.assign(new Tokenizer(), { lheading }),
  extensions: {
    block: [mathBlock], startBlock: [startOfBlock], inline: [(source) => math(source)],
    startInline: [(source) => source.indexOf("$")], childTokens: {}, renderers: {},
  },
};

class BoundedLexer extends Lexer {
  depth = 0;

  blockTokens(source, tokens = [], clipped = false) {
    return this.bounded(Infinity, source, tokens, () => super.blockTokens(source, tokens, clipped));
  }

  inlineTokens(source, tokens = []) {
    return this.bounded(LONGEST, source, tokens, () => super.inlineTokens(source, tokens));
  }

  bounded(longest, source, tokens, lex) {
    const isWithin = this.depth++ < DEEPEST && source.length <= longest;
    if (isWithin) lex();
    else tokens.push({ type: "text", raw: source, text: source });
    this.depth--;
    return tokens;
  }
}

/** The tokens of a text. `links` are the definitions before it, to which its own are added. */
function lex(text, links) {
  const lexer = new BoundedLexer(OPTIONS);
  lexer.tokens.links = links;
  return lexer.lex(text);
}

// Elements of tokens
function decode(text) {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w+));/g, (whole, decimal, hex, name) => {
    if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return code && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000) ? String.fromCodePoint(code) : "\ufffd";
  });
}

/** A link where its target is of an allowed protocol, else what stands in it. */
function link(token, children) {
  const href = token.autolink ? token.href : decode(token.href);
  if (!URL.canParse(href) || !PROTOCOLS.includes(new URL(href).protocol)) return children;
  const title = token.title ? { title: decode(token.title) } : {};
  return [element("a", { href, target: "_blank", rel: "noopener noreferrer", ...title }, children)];
}

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
  checkbox: ({ checked }) => element("input", { type: "checkbox", disabled: true, defaultChecked: checked, ariaLabel: "Done" }),
  link: (token) => link(token, token.autolink ? [token.text] : inline(token.tokens)),
  image: (token) => link(token, [element("p", {}, inline(token.tokens)).textContent || "image"]),
  math: (token) => element("span", { className: "math", dir: "ltr" }, token.text),
};

/** The nodes of blocks; `levels` are the headings that they stand under. */
const blocks = (tokens, levels) => tokens.flatMap((token) => BLOCK[token.type]?.(token, levels) ?? []);
const BLOCK = {
  paragraph: (token) => element("p", {}, inline(token.tokens)),
  text: (token) => inline(token.tokens ?? [token]), // in a list whose items are no paragraphs
  checkbox: (token) => INLINE.checkbox(token),
  hr: () => element("hr"),
  html: (token) => element("p", { className: "raw" }, token.raw.trimEnd()),
  mathBlock: (token) => element("p", { dir: "ltr", className: "math raw" }, token.text),
  blockquote: (token, levels) => element("blockquote", {}, blocks(token.tokens, levels)),
  code: ({ lang, text }) => {
    const language = decode(lang?.match(/\S+/)?.[0] ?? "");
    const caption = element("figcaption", {}, language, element("button", { type: "button" }, "Copy"));
    return element("figure", {}, caption, element("pre", { tabIndex: 0, dir: "ltr" }, element("code", {}, text)));
  },
  heading: (token, levels) => {
    // The page's own headings end at the third level. A reply that begins with ### leaves no level out all the same.
    while (levels.at(-1) >= token.depth) levels.pop();
    levels.push(token.depth);
    return element(`h${token.depth}`, { ariaLevel: String(3 + levels.length) }, inline(token.tokens));
  },
  list: (token, levels) => {
    const start = token.ordered && token.start !== 1 ? { start: token.start } : {};
    const items = token.items.map((item) => element("li", {}, blocks(item.tokens, levels)));
    return element(token.ordered ? "ol" : "ul", start, items);
  },
  table: (token) => {
    const cell = (tag) => ({ tokens, align }) => element(tag, align ? { className: align } : {}, inline(tokens));
    const head = element("tr", {}, token.header.map(cell("th")));
    const rows = token.rows.map((row) => element("tr", {}, row.map(cell("td"))));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, rows));
    return element("div", { className: "table", tabIndex: 0 }, table); // which scrolls where the table is too wide
  },
};

/** The node of a block that stands in no other, if it shows anything. Its own text tells its direction. */
function drawBlock(token, levels) {
  const [node] = blocks([token], levels);
  if (node) node.dir ||= "auto"; // now that it is full: browsers look for its direction at each child that is added
  return node;
}

/** Whether two nodes are alike, whatever is in them. */
function areAlike(one, other) {
  if (one.nodeType === Node.TEXT_NODE) return other.nodeType === Node.TEXT_NODE;
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}

/** Makes the nodes behind `before` like these. What is so already is not touched, so that a selection in it stays. */
function morph(parent, before, nodes) {
  let old = before ? before.nextSibling : parent.firstChild;
  let next;
  for (const node of nodes) {
    next = old?.nextSibling;
    if (!old) parent.append(node);
    else if (!areAlike(old, node)) old.replaceWith(node);
    else if (old.nodeType !== Node.TEXT_NODE) morph(old, null, [...node.childNodes]);
    else if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.data.length));
    else old.data = node.data;
    old = next;
  }
  for (; old; old = next) {
    next = old.nextSibling;
    old.remove();
  }
}

// Links that are defined elsewhere: [text][label], and [label]: https://… in any place
const labels = (raw) => [...raw.matchAll(/\[([^[\]]+)\]/g)].map(([, label]) => label.toLowerCase().replace(/\s+/g, " "));
const targets = (names, links) => JSON.stringify(names.map((name) => links[name] ?? null));

/** A text that is written into an element while it comes. Blocks that are finished are not touched again. */
export class Markdown {
  constructor(target) {
    this.target = target;
    this.tail = ""; // the text of the blocks that may still change
    this.last = null; // the last node of the blocks before it, which are finished
    this.levels = []; // the headings that the tail stands under
    this.links = Object.create(null); // the definitions in the finished blocks
    this.referring = []; // the finished blocks that may name a definition
    this.cost = 0; // milliseconds that the last drawing took
  }

  append(text) {
    this.tail += text;
    // However long the last block is, drawing takes a fifth of the time at most.
    this.due ??= setTimeout(() => requestAnimationFrame(() => this.draw()), this.cost * 4);
  }

  /** Shows all that has come; `isEnd` says that nothing more will. */
  draw(isEnd = false) {
    this.due = undefined;
    const began = performance.now();
    this.tail = this.tail.replace(/\r\n|\r(?!$)/g, "\n"); // a "\n" may follow at the end
    const links = { __proto__: null, ...this.links };
    const levels = [...this.levels];
    const drawn = lex(this.tail, links).map((token) => {
      const [{ type, raw }, before] = [token, [...levels]];
      const node = drawBlock(token, levels);
      return { type, raw, node, names: labels(raw), before, after: [...levels] };
    });
    for (const block of drawn) block.targets = targets(block.names, links);
    morph(this.target, this.last, drawn.map(({ node }) => node).filter(Boolean));
    this.leave(drawn.slice(0, isEnd ? drawn.length : this.countFinished(drawn)));
    this.cost = performance.now() - began;
  }

  /** How many blocks no later text can change: they end with a blank line, and a whole line stands behind it. */
  countFinished(drawn) {
    const wholeLines = this.tail.lastIndexOf("\n");
    let [count, at] = [0, 0];
    drawn.forEach(({ type, raw }, number) => {
      if (type !== "space" && at <= wholeLines && /\n[ \t]*\n$/.test(this.tail.slice(Math.max(0, at - 99), at))) count = number;
      at += raw.length;
    });
    return count;
  }

  /** Leaves these blocks, the first of the tail, as they are. */
  leave(finished) {
    const text = finished.map(({ raw }) => raw).join("");
    this.tail = this.tail.slice(text.length);
    lex(text, this.links); // the definitions that came behind it do not count yet
    for (const block of finished) {
      this.levels = block.after;
      if (!block.node) continue;
      this.last = this.last ? this.last.nextSibling : this.target.firstChild; // the block's node, or one that was like it
      if (block.names.length) this.referring.push({ ...block, node: this.last });
    }
    for (const block of this.referring) this.refer(block);
  }

  /** Draws a finished block again where a label in it means something else by now. */
  refer(block) {
    const now = targets(block.names, this.links);
    if (now === block.targets) return;
    const [token] = lex(block.raw, { __proto__: null, ...this.links });
    const node = drawBlock(token, [...block.before]);
    block.node.replaceWith(node);
    if (this.last === block.node) this.last = node;
    Object.assign(block, { node, targets: now });
  }
}

/** Writes a text that is whole into an element. */
export function write(target, text) {
  const markdown = new Markdown(target);
  markdown.tail = text;
  markdown.draw(true);
}
