// A reply's Markdown, shown as elements while it comes. No text stops the page, however long it is.

import { MANY, MARK } from "./bounds.js";
import { drawBlock } from "./elements.js";
import { finish } from "./finish.js";
import { hasTime, weigh } from "./frame.js";
import { define, lex } from "./lexer.js";
import { morph } from "./morph.js";
import {
  areSame,
  countFinished,
  endOfBlock,
  endOfPiece,
  headOfRest,
  labels,
  targets,
} from "./pieces.js";

/** A text that is written into an element while it comes. Finished blocks are not touched again. */
export class Markdown {
  constructor(target) {
    this.target = target;
    /** The text of the blocks that may still change. */
    this.tail = "";
    /** Characters of the tail that are known to be code, however it goes on. */
    this.passed = 0;
    /** The last node of the blocks before the tail, which are finished. */
    this.last = null;
    /** The headings that the tail stands under. */
    this.levels = [];
    /** The definitions of links in the finished blocks. */
    this.links = Object.create(null);
    /** The finished blocks that may name a definition. */
    this.referring = [];
    /** Those of them where it means something else by now. */
    this.changed = [];
    /** How many elements are in the finished blocks. */
    this.elements = 0;
    /** The room for the elements of formulas and of code in colours. */
    this.room = { elements: MANY };
    /** Whether nothing more will come. */
    this.isEnd = false;
    /** Milliseconds that the last drawing took. */
    this.cost = 0;
  }

  append(text) {
    this.tail += text;
    // However long the last block is, drawing takes a fifth of the time at most.
    this.drawLater(this.cost * 4);
  }

  drawLater(wait) {
    const draw = () => {
      this.due = undefined;
      if (!this.target.isConnected) return; // Another session is on the screen by now.
      if (hasTime()) this.draw();
      else this.drawLater(0);
    };
    this.due ??= setTimeout(() => requestAnimationFrame(draw), wait);
  }

  /**
   * Shows what has come, as far as there is time, and the rest in the next frames. `isEnd` says
   * that nothing more will come.
   */
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
    this.tail = this.tail.replace(/\r\n|\r(?!$)/g, "\n"); // A "\n" may follow at the end.
    const end = endOfPiece(this.tail, this.passed);
    const isLast = end === this.tail.length;
    const piece = this.tail.slice(0, end);
    const lexed = this.lex(piece);
    const isWhole = this.isEnd && isLast;
    const count = isWhole ? lexed.tokens.length : countFinished(lexed.tokens, piece);
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

  /**
   * Shows a piece that ends within its first block. Code goes on. Another block is cut there, and
   * goes on as another one.
   */
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

  /** Shows these blocks, of which the first `count` are finished. */
  show({ tokens, links }, count) {
    const levels = [...this.levels];
    const drawn = tokens.map((token) => drawToken(token, levels, links));
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
      if (block.node) this.pass(block);
      // The text behind what was too much is not drawn as these blocks.
      if (this.elements > MANY && !wasPlain) break;
    }
    if (text) this.leaveText(text, others);
  }

  /** Goes on behind the node of a finished block, or behind one that was like it. */
  pass(block) {
    this.last = this.last ? this.last.nextSibling : this.target.firstChild;
    if (block.names.length) this.referring.push({ ...block, node: this.last });
    this.elements += block.elements;
    finish(this.last, this.room);
  }

  /**
   * Takes the text of finished blocks from the tail. All blocks but the first `others` have not
   * been asked whether a definition behind them changes them.
   */
  leaveText(text, others) {
    this.tail = this.tail.slice(text.length);
    this.passed = 0;
    const known = Object.keys(this.links).length;
    define(text, this.links);
    const isMore = Object.keys(this.links).length > known;
    const asked = isMore ? this.referring : this.referring.slice(others);
    this.changed = asked.filter(
      ({ names, targets: old }) => !areSame(targets(names, this.links), old),
    );
  }

  /** Draws some of the finished blocks again where a label in them means something else by now. */
  drawChanged() {
    for (let weight = 0; this.changed.length > 0 && weight < 1_000;) {
      const block = this.changed.pop();
      const [token] = lex(block.raw, this.links);
      const node = drawBlock(token, [...block.before]);
      block.node.replaceWith(node);
      if (this.last === block.node) this.last = node;
      Object.assign(block, { node, targets: targets(block.names, this.links) });
      finish(node, this.room);
      weight += block.elements + block.raw.length / 20;
    }
    return true;
  }
}

/** A block as it is drawn, and what has to be known of it to leave it, or to draw it again. */
function drawToken(token, levels, links) {
  const { type, raw } = token;
  const before = [...levels];
  const node = drawBlock(token, levels);
  const names = labels(token);
  const elements = node ? 1 + node.querySelectorAll("*").length : 0;
  weigh(elements + raw.length / 50 + (raw.match(MARK)?.length ?? 0) / 10);
  const known = targets(names, links);
  return { type, raw, node, elements, names, targets: known, before, after: [...levels] };
}

/** Writes a text that is whole into an element. */
export function write(target, text) {
  const markdown = new Markdown(target);
  markdown.tail = text;
  // What is one piece is there at once: the page keeps its place by its height.
  if (endOfPiece(text, 0) === text.length) return markdown.drawWhole();
  if (hasTime() || !target.isConnected) return markdown.draw(true);
  markdown.isEnd = true;
  markdown.drawLater(0);
}
