// Shows a reply's Markdown while it arrives. No text blocks the page, however long it is.

import { MARK, MAX_ELEMENTS } from "./limits.js";
import { drawBlock } from "./elements.js";
import { enrich } from "./enrich.js";
import { hasTime, weigh } from "./frame-budget.js";
import { define, lex } from "./lexer.js";
import { morph } from "./morph.js";
import {
  areSameTargets,
  countFinished,
  endOfBlock,
  endOfPiece,
  headOfRest,
  labels,
  targets,
} from "./pieces.js";

/** Writes a text into an element while it arrives. Finished blocks are not touched again. */
export class Markdown {
  constructor(target) {
    this.target = target;
    /** The text of the blocks that may still change. */
    this.tail = "";
    /** Characters of the tail that are code for certain, whatever follows. */
    this.passed = 0;
    /** The last node of the blocks before the tail, which are finished. */
    this.last = null;
    /** The depths of the headings above the tail. */
    this.levels = [];
    /** The link definitions in the finished blocks. */
    this.links = Object.create(null);
    /** The finished blocks that may refer to a definition. */
    this.referring = [];
    /** Those of them whose links have changed, and that have to be drawn again. */
    this.changed = [];
    /** The number of elements in the finished blocks. */
    this.elements = 0;
    /** The elements that may still be made for formulas and highlighted code. */
    this.room = { elements: MAX_ELEMENTS };
    /** Whether the text is complete. */
    this.isEnd = false;
    /** Milliseconds that the last drawing took. */
    this.cost = 0;
  }

  append(text) {
    this.tail += text;
    // Waits four times as long as the last drawing took: it uses at most a fifth of the time.
    this.drawLater(this.cost * 4);
  }

  drawLater(wait) {
    const draw = () => {
      this.due = undefined;
      if (!this.target.isConnected) return; // another session is on the screen
      if (hasTime()) this.draw();
      else this.drawLater(0);
    };
    this.due ??= setTimeout(() => requestAnimationFrame(draw), wait);
  }

  /** Shows the text so far: as much as there is time for, the rest in the next frames. */
  draw(isEnd = false) {
    this.isEnd ||= isEnd;
    const began = performance.now();
    let isMore = this.drawPiece();
    while (isMore && (hasTime() || !this.target.isConnected)) isMore = this.drawPiece();
    this.cost = performance.now() - began;
    if (isMore) this.drawLater(0);
  }

  /** Shows the whole text at once. */
  drawWhole() {
    this.isEnd = true;
    while (this.drawPiece());
  }

  /** Returns whether there may be another piece. */
  drawPiece() {
    if (this.changed.length) return this.drawChanged();
    this.tail = this.tail.replace(/\r\n|\r(?!$)/g, "\n"); // "\n" may follow an "\r" at the end
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

  /** The tokens of a piece, and all link definitions up to its end. */
  lex(piece) {
    const links = { __proto__: null, ...this.links };
    const tokens =
      this.elements > MAX_ELEMENTS ? [{ type: "html", raw: piece }] : lex(piece, links);
    return { tokens, links };
  }

  /**
   * Shows a piece that ends inside its first block. Code is continued by the next piece. Another
   * block is cut, and the rest becomes a block of its own.
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
    if (!isBlank && this.elements <= MAX_ELEMENTS) {
      this.tail = headOfRest(cut.tokens.at(-1)) + this.tail;
    }
  }

  /** Shows these blocks, of which the first `count` are finished. */
  show({ tokens, links }, count) {
    const levels = [...this.levels];
    const drawn = tokens.map((token) => drawToken(token, levels, links));
    morph(this.target, this.last, drawn.map(({ node }) => node).filter(Boolean));
    this.leave(drawn.slice(0, count));
  }

  /** Marks these blocks, the first ones of the tail, as finished. */
  leave(finished) {
    const wasPlain = this.elements > MAX_ELEMENTS;
    const others = this.referring.length;
    let text = "";
    for (const block of finished) {
      text += block.raw;
      this.levels = block.after;
      if (block.node) this.pass(block);
      // Text after MAX_ELEMENTS is drawn as plain text, not as these blocks.
      if (this.elements > MAX_ELEMENTS && !wasPlain) break;
    }
    if (text) this.leaveText(text, others);
  }

  /** Moves past the node of a finished block: after `morph`, that may be an older, equal node. */
  pass(block) {
    this.last = this.last ? this.last.nextSibling : this.target.firstChild;
    if (block.names.length) this.referring.push({ ...block, node: this.last });
    this.elements += block.elements;
    enrich(this.last, this.room);
  }

  /**
   * Removes the text of finished blocks from the tail, and finds the blocks whose links have
   * changed. Without a new definition, only blocks after the first `others` need a check.
   */
  leaveText(text, others) {
    this.tail = this.tail.slice(text.length);
    this.passed = 0;
    const known = Object.keys(this.links).length;
    define(text, this.links);
    const isMore = Object.keys(this.links).length > known;
    const unchecked = isMore ? this.referring : this.referring.slice(others);
    this.changed = unchecked.filter(
      ({ names, targets: old }) => !areSameTargets(targets(names, this.links), old),
    );
  }

  /** Draws some of the changed blocks again. */
  drawChanged() {
    for (let weight = 0; this.changed.length > 0 && weight < 1_000;) {
      const block = this.changed.pop();
      const [token] = lex(block.raw, this.links);
      const node = drawBlock(token, [...block.before]);
      block.node.replaceWith(node);
      if (this.last === block.node) this.last = node;
      Object.assign(block, { node, targets: targets(block.names, this.links) });
      enrich(node, this.room);
      weight += block.elements + block.raw.length / 20;
    }
    return true;
  }
}

/** Draws a block. Returns its node, and what we need to finish it or to draw it again. */
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

/** Writes a complete text into an element. */
export function write(target, text) {
  const markdown = new Markdown(target);
  markdown.tail = text;
  // A single piece is drawn at once: the page needs its height to keep the scroll position.
  if (endOfPiece(text, 0) === text.length) return markdown.drawWhole();
  if (hasTime() || !target.isConnected) return markdown.draw(true);
  markdown.isEnd = true;
  markdown.drawLater(0);
}
