// Markdown as elements. marked's lexer gives tokens, and elements are made of them: no HTML is parsed anywhere.

import { element } from "./dom.js";
import { Lexer, Tokenizer, getDefaults } from "./marked.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];
const DEEPEST = 20; // levels of nesting; what is deeper stays as written, since marked and browsers recurse
// marked looks for the end of whatever begins in all that follows, at each beginning: a text of beginnings takes it seconds.
const NEAR = 2_000; // characters that a link, a code span or a formula has at most; the longest addresses have about as many
const WORD = 300; // characters that are looked through for where a text ends; no address of mail is longer
const STEPS = 5; // that are made for each character to match the marks of emphasis; ordinary text takes less than one
// A text is drawn by pieces, so that none stops the page, and a block that is longer than a piece is continued as another one.
// An ordinary answer is one piece: 20,000 characters of it have about a thousand marks.
const LONGEST = 20_000; // characters of a piece
const MOST = 2_500; // marks of a piece: lines, cells, and what may begin an element
const MARK = /[\n|[<>$\\]|\*+|_+|~+|`+|[-+.)](?=\s)/g;
const MANY = 50_000; // elements of a text, about 50 MB; what is behind them stays as written
const FRAME = 50; // milliseconds in which pieces are begun, before the browser is let show them
const HEAVIEST = 5_000; // elements that are made meanwhile; ten lines or fifty characters weigh as much as one
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", trade: "™", hellip: "…", mdash: "—",
  ndash: "–", bull: "•", middot: "·", deg: "°", times: "×", le: "≤", ge: "≥", ne: "≠", larr: "←", rarr: "→", euro: "€" };

const near = (source) => source.slice(0, NEAR);

// Mathematics stays as written: none of its signs are marks. Like paragraphs it ends at a blank line.
const FORMULAS = [["$$", "$$"], ["\\[", "\\]"], ["\\(", "\\)"]];
const INLINE_FORMULA = /^\$(?![\s$])(?:\\.|[^$\\\n`])+(?<!\s)\$(?!\d)/; // not the sums of "from $5 to $10"

/** The formula that a text begins with, between two of these pairs of signs. */
function formula(source, pairs) {
  const [opening, closing] = pairs.find(([sign]) => source.startsWith(sign)) ?? [];
  const end = opening ? near(source).indexOf(closing, 2) : -1;
  const raw = source.slice(0, end + 2);
  return end > 2 && !/\n[ \t]*\n/.test(raw) ? raw : undefined;
}

function math(source) {
  if (source[0] !== "$" && source[0] !== "\\") return undefined;
  const raw = formula(source, FORMULAS) ?? INLINE_FORMULA.exec(near(source))?.[0];
  return raw && { type: "math", raw, text: raw };
}

function mathBlock(source) {
  const indent = /^ {0,3}/.exec(source)[0];
  const text = formula(source.slice(indent.length), FORMULAS.slice(0, 2));
  const end = text && /^[ \t]*(?:\n|$)/.exec(source.slice(indent.length + text.length));
  return end ? { type: "mathBlock", raw: indent + text + end[0], text } : undefined;
}

/**
 * Where a paragraph is interrupted: by a formula. marked asks this at each paragraph, and goes on with it where nothing else
 * begins, so that a long one is interrupted before a line that is no code. Its own pattern looks for tables at each line, and
 * reads them.
 */
function startOfBlock(source) {
  if (!this.lexer.state.top) return undefined; // in a list whose items are no paragraphs it asks in vain, at each line
  const [view] = near(source).split(/\n[ \t]*\n/, 1);
  let looked = 0;
  for (const { index } of view.matchAll(/\n {0,3}(?:\$\$|\\\[)/g)) {
    if (mathBlock(source.slice(index + 1))) return index;
    if (++looked === 4) break;
  }
  const lines = view.length === NEAR ? [...view.matchAll(/\n(?= {0,3}[\p{L}|:-])/gu)] : [];
  return lines.at(-1)?.index;
}

let steps = 0; // that may still be made in this paragraph

/** A pattern that finds nothing any more once there were too many steps. One is to find a mark, or to pass 100 characters. */
class CountingPattern extends RegExp {
  exec(text) {
    const from = this.lastIndex; // which stays 0 where the pattern is not global
    const found = steps > 0 ? super.exec(text) : null;
    steps -= 1 + (found ? found.index + found[0].length - from : 0) / 100;
    return found;
  }
}

const PATTERNS = Lexer.rules.inline.gfm;
for (const name of ["emStrongLDelim", "emStrongRDelimAst", "emStrongRDelimUnd", "delLDelim", "delRDelim"]) {
  PATTERNS[name] = new CountingPattern(PATTERNS[name]);
}
// By this one it looks for labels of up to 999 characters at each bracket, where emphasis could not end.
PATTERNS.reflinkSearch = new RegExp(PATTERNS.reflinkSearch.source.replaceAll("999", "99"), "g");

class NearTokenizer extends Tokenizer {
  quotes = 0; // that the text stands in

  /** marked reads the rows before it compares the header with the line below, and fills each row up with empty cells. */
  table(source) {
    const header = super.table(source.split("\n", 2).join("\n"))?.header;
    const text = header ? source.split(/\n[ \t]*\n/, 1)[0] : "";
    return header && header.length * text.split("\n").length <= text.length ? super.table(source) : undefined;
  }

  /** marked recurses here without nesting where lines follow that belong to an inner quote. */
  blockquote(source) {
    if (this.quotes === DEEPEST) return undefined;
    this.quotes++;
    const token = super.blockquote(source);
    this.quotes--;
    return token;
  }

  url(source) {
    return /^(?:https?:|ftp:|www\.|mailto:|xmpp:|[\w.+-]{1,64}@)/i.test(source) ? super.url(near(source)) : undefined;
  }

  /** A text may end anywhere, but not within an address, and not between the spaces at a line's end. */
  inlineText(source) {
    const view = source.slice(0, WORD);
    const words = view.slice(0, view.lastIndexOf(" ")).trimEnd();
    return super.inlineText(source.length > WORD && words ? words : view);
  }
}

for (const name of ["lheading", "def", "link", "reflink", "tag", "codespan", "autolink"]) {
  NearTokenizer.prototype[name] = function (source, ...rest) {
    return Tokenizer.prototype[name].call(this, near(source), ...rest);
  };
}

const OPTIONS = {
  ...getDefaults(),
  tokenizer: new NearTokenizer(),
  extensions: {
    block: [mathBlock], startBlock: [startOfBlock], inline: [math],
    startInline: [(source) => source.slice(0, WORD).indexOf("$")], childTokens: {}, renderers: {},
  },
};

class BoundedLexer extends Lexer {
  depth = 0;

  blockTokens(source, tokens = [], clipped = false) {
    return this.bounded(source, tokens, () => super.blockTokens(source, tokens, clipped));
  }

  inlineTokens(source, tokens = []) {
    if (this.depth === 0) {
      steps = STEPS * source.length;
      this.state.inLink = false; // a link that was opened in HTML ends with its paragraph
    }
    return this.bounded(source, tokens, () => super.inlineTokens(source, tokens));
  }

  bounded(source, tokens, lex) {
    if (this.depth++ < DEEPEST) lex();
    else tokens.push({ type: "text", raw: source, text: source });
    this.depth--;
    return tokens;
  }
}

function lexer(links) {
  const lexer = new BoundedLexer(OPTIONS);
  lexer.tokens.links = links;
  return lexer;
}

/** The tokens of a text. `links` are the definitions before it, to which its own are added. */
const lex = (text, links) => lexer(links).lex(text);

/** Adds the definitions of a text to the links. */
const define = (text, links) => void lexer(links).blockTokens(text);

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
    // Browsers lay out all of a text anew when something is added to it.
    const parts = text.match(/[^\n]*(?:\n[^\n]*){0,499}\n?/g).filter(Boolean);
    const lines = parts.length > 1 ? parts.map((part) => element("div", {}, part)) : text;
    return element("figure", {}, caption, element("pre", { tabIndex: 0, dir: "ltr" }, element("code", {}, lines)));
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
function labels({ type, raw }) {
  if (type === "code") return [];
  const names = [...raw.matchAll(/\[([^[\]]+)\]/g)].map(([, label]) => label.toLowerCase().replace(/\s+/g, " "));
  return [...new Set(names)];
}
const targets = (names, links) => names.map((name) => links[name]);
const isSame = (one, other) => one?.href === other?.href && one?.title === other?.title;
const areSame = (some, others) => some.every((target, number) => isSame(target, others[number]));

// Pieces of a text
/** Where the piece ends that begins there. */
function endOfPiece(text, start) {
  const piece = text.slice(start, start + LONGEST);
  let marks = 0;
  for (const { index } of piece.matchAll(MARK)) if (++marks > MOST) return start + index;
  return start + piece.length;
}

/** Where a block is cut that goes on behind this piece: before a line that is no further in than its first, if that may be. */
function endOfBlock(piece) {
  const [indent] = /^ */.exec(piece);
  const lines = [...piece.matchAll(/\n(?=( *)\S)/g)].map(({ index, 1: { length } }) => ({ end: index + 1, length }));
  const line = lines.findLast(({ end, length }) => length <= indent.length && end > piece.length / 2);
  return line?.end ?? (piece.lastIndexOf("\n") + 1 || piece.lastIndexOf(" ") + 1 || piece.length);
}

/** How many blocks no later text can change: a blank line is behind them, or more than what may begin in one and end in the next. */
function countFinished(tokens, text) {
  const wholeLines = text.lastIndexOf("\n");
  let [count, at] = [0, 0];
  tokens.forEach(({ raw }, number) => {
    const isBehindBlank = at <= wholeLines && /\n[ \t]*\n$/.test(text.slice(Math.max(0, at - 99), at));
    const isFar = wholeLines - at > NEAR && number < tokens.length - 1; // what the last one is may not be known yet
    if (raw.trim() && (isBehindBlank || isFar)) count = number;
    at += raw.length;
  });
  return count;
}

/** What has to stand before the rest of a block that was cut: the header of a table, unless it is most of it. */
function headOfRest({ type, raw }) {
  const [head] = type === "table" ? raw.match(/^[^\n]*\n[^\n]*\n/) : [""];
  return head.length < raw.length / 4 ? head : "";
}

let frame = null; // what was drawn that the browser will lay out together

function current() {
  if (!frame) setTimeout(() => (frame = null));
  frame ??= { began: performance.now(), weight: 0 };
  return frame;
}

/** Whether more may be drawn before the browser shows it: that takes it several times as long as making the elements. */
const hasTime = () => performance.now() - current().began < FRAME && current().weight < HEAVIEST;

/** A text that is written into an element while it comes. Blocks that are finished are not touched again. */
export class Markdown {
  constructor(target) {
    this.target = target;
    this.tail = ""; // the text of the blocks that may still change
    this.passed = 0; // characters of the tail that are known to be code, however it goes on
    this.last = null; // the last node of the blocks before it, which are finished
    this.levels = []; // the headings that the tail stands under
    this.links = Object.create(null); // the definitions in the finished blocks
    this.referring = []; // the finished blocks that may name a definition
    this.changed = []; // those of them where it means something else by now
    this.elements = 0; // how many are in the finished blocks
    this.isEnd = false; // whether nothing more will come
    this.cost = 0; // milliseconds that the last drawing took
  }

  append(text) {
    this.tail += text;
    this.drawLater(this.cost * 4); // however long the last block is, drawing takes a fifth of the time at most
  }

  drawLater(wait) {
    const draw = () => {
      this.due = undefined;
      if (!this.target.isConnected) return; // another session is on the screen by now
      if (hasTime()) this.draw();
      else this.drawLater(0);
    };
    this.due ??= setTimeout(() => requestAnimationFrame(draw), wait);
  }

  /** Shows what has come, as far as there is time, and the rest in the next frames; `isEnd` says that nothing more will. */
  draw(isEnd = false) {
    this.isEnd ||= isEnd;
    const began = performance.now();
    let isMore = this.drawPiece();
    while (isMore && (hasTime() || !this.target.isConnected)) isMore = this.drawPiece();
    this.cost = performance.now() - began;
    if (isMore) this.drawLater(0);
  }

  /** Shows all at once. */
  drawWhole() {
    this.isEnd = true;
    while (this.drawPiece());
  }

  /** Returns whether there may be another piece. */
  drawPiece() {
    if (this.changed.length) return this.drawChanged();
    this.tail = this.tail.replace(/\r\n|\r(?!$)/g, "\n"); // a "\n" may follow at the end
    const end = endOfPiece(this.tail, this.passed);
    const isLast = end === this.tail.length;
    const piece = this.tail.slice(0, end);
    const lexed = this.lex(piece);
    const count = this.isEnd && isLast ? lexed.tokens.length : countFinished(lexed.tokens, piece);
    if (isLast || count > 0) this.show(lexed, count);
    else this.showLong(lexed, piece);
    return !isLast || this.changed.length > 0 || (this.isEnd && this.tail !== "");
  }

  /** The blocks of a piece, and the definitions that are known to it. */
  lex(piece) {
    const links = { __proto__: null, ...this.links };
    const tokens = this.elements > MANY ? [{ type: "html", raw: piece }] : lex(piece, links);
    return { tokens, links };
  }

  /** Shows a piece that ends within its first block. What is no code is cut there, and goes on as another block. */
  showLong(lexed, piece) {
    const [token, next] = lexed.tokens;
    if (next) return this.show(lexed, 1);
    if (token.type === "code") {
      this.passed = piece.length;
      return this.show(lexed, 0);
    }
    const end = endOfBlock(piece);
    const cut = this.lex(piece.slice(0, end));
    this.show(cut, cut.tokens.length);
    const isBlank = /^[ \t]*\n/.test(piece.slice(end));
    if (!isBlank && this.elements <= MANY) this.tail = headOfRest(cut.tokens.at(-1)) + this.tail;
  }

  /** Shows these blocks, of which the first are finished. */
  show({ tokens, links }, count) {
    const levels = [...this.levels];
    const drawn = tokens.map((token) => {
      const [{ type, raw }, before] = [token, [...levels]];
      const node = drawBlock(token, levels);
      const names = labels(token);
      const elements = node ? 1 + node.querySelectorAll("*").length : 0;
      current().weight += elements + raw.length / 50 + (raw.match(MARK)?.length ?? 0) / 10;
      return { type, raw, node, elements, names, targets: targets(names, links), before, after: [...levels] };
    });
    morph(this.target, this.last, drawn.map(({ node }) => node).filter(Boolean));
    this.leave(drawn.slice(0, count));
  }

  /** Leaves these blocks, the first of the tail, as they are. */
  leave(finished) {
    const wasPlain = this.elements > MANY;
    const others = this.referring.length;
    let text = "";
    for (const block of finished) {
      text += block.raw;
      this.levels = block.after;
      if (!block.node) continue;
      this.last = this.last ? this.last.nextSibling : this.target.firstChild; // the block's node, or one that was like it
      if (block.names.length) this.referring.push({ ...block, node: this.last });
      this.elements += block.elements;
      if (this.elements > MANY && !wasPlain) break; // the text behind it is not drawn as these blocks
    }
    if (!text) return;
    this.tail = this.tail.slice(text.length);
    this.passed = 0;
    const known = Object.keys(this.links).length;
    define(text, this.links); // the definitions that came behind it do not count yet
    const asked = Object.keys(this.links).length > known ? this.referring : this.referring.slice(others);
    this.changed = asked.filter(({ names, targets: old }) => !areSame(targets(names, this.links), old));
  }

  /** Draws some of the finished blocks again where a label in them means something else by now. */
  drawChanged() {
    for (let weight = 0; this.changed.length > 0 && weight < 1_000; ) {
      const block = this.changed.pop();
      const [token] = lex(block.raw, this.links);
      const node = drawBlock(token, [...block.before]);
      block.node.replaceWith(node);
      if (this.last === block.node) this.last = node;
      Object.assign(block, { node, targets: targets(block.names, this.links) });
      weight += block.elements + block.raw.length / 20;
    }
    return true;
  }
}

/** Writes a text that is whole into an element. */
export function write(target, text) {
  const markdown = new Markdown(target);
  markdown.tail = text;
  if (text.length <= LONGEST) return markdown.drawWhole(); // the page keeps its place by how high it is
  if (hasTime() || !target.isConnected) return markdown.draw(true);
  markdown.isEnd = true;
  markdown.drawLater(0);
}
