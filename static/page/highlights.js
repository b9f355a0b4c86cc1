// Highlights words that were searched, by the CSS Custom Highlight API.

import { hasAny, matchesIn } from "./folding.js";

const MAX_RANGES = 5_000; // a browser takes seconds for a hundred thousand
const DELAY = 200; // ms until a text that has changed is highlighted again

const INLINE = "a, b, bdi, code, del, em, i, kbd, s, small, span, strong, sub, sup, u";

/**
 * The text of an element, with each block on a line of its own, and where its text nodes start in
 * it.
 */
function flatten(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const nodes = [];
  let text = "";
  let last = null;
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("button")) continue;
    const block = node.parentElement.closest(`:not(${INLINE})`);
    if (block !== last || node.previousSibling?.nodeName === "BR") text += "\n";
    last = block;
    nodes.push({ node, start: text.length });
    text += node.data;
  }
  return { text, nodes };
}

/** The matches of words in an element, as `matchesIn` returns them, each with a `range`. */
export function findIn(element, words) {
  if (!hasAny(words, element.textContent)) return [];
  const { text, nodes } = flatten(element);
  let at = 0;
  return matchesIn(text, words).map((match) => {
    at = nodeAt(nodes, at, match.start);
    const last = nodeAt(nodes, at, match.end - 1);
    return { ...match, range: rangeOf(match, nodes[at], nodes[last]) };
  });
}

/** The index, at or after `from`, of the node that has the character at the offset. */
function nodeAt(nodes, from, offset) {
  let at = from;
  while (nodes[at + 1]?.start <= offset) at++;
  return at;
}

const rangeOf = ({ start, end }, first, last) =>
  new StaticRange({
    startContainer: first.node,
    startOffset: start - first.start,
    endContainer: last.node,
    endOffset: end - last.start,
  });

/**
 * Highlights words in the elements in `root` that match a selector, and in those added later.
 * Starts with the last one, and stops at MAX_RANGES.
 */
export class Highlights {
  constructor(name, root, selector) {
    this.root = root;
    this.selector = selector;
    this.ranges = new Map(); // element → its ranges
    this.changed = new Set(); // elements whose text has changed
    this.highlight = globalThis.Highlight && new Highlight(); // Firefox before 140 has none
    if (this.highlight) CSS.highlights.set(name, this.highlight);
    this.observer = new MutationObserver((records) => this.look(records));
  }

  /** Highlights words until `isStill` returns false; in the element `first` before all others. */
  mark(words, { isStill = () => true, first } = {}) {
    this.clear();
    if (!this.highlight) return;
    this.words = words;
    this.isStill = isStill;
    if (first) this.markIn(first);
    this.markNew();
    this.observer.observe(this.root, { childList: true, characterData: true, subtree: true });
  }

  clear() {
    this.observer.disconnect();
    this.highlight?.clear();
    this.ranges.clear();
    this.changed.clear();
  }

  look(records) {
    if (!this.isStill()) {
      this.clear();
      return;
    }
    for (const { target } of records) {
      const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
      const text = element?.closest(this.selector);
      if (this.ranges.has(text)) this.changed.add(text);
    }
    this.markNew();
    if (this.changed.size) this.timer ??= setTimeout(() => this.markChanged(), DELAY);
  }

  markNew() {
    for (const element of this.ranges.keys()) {
      if (!element.isConnected) this.unmark(element);
    }
    for (const element of [...this.root.querySelectorAll(this.selector)].toReversed()) {
      if (!this.ranges.has(element)) this.markIn(element);
    }
  }

  markChanged() {
    this.timer = undefined;
    for (const element of this.changed) {
      this.unmark(element);
      this.markIn(element);
    }
  }

  markIn(element) {
    const room = MAX_RANGES - this.highlight.size;
    const matches = room > 0 ? findIn(element, this.words) : [];
    const ranges = matches.slice(0, room).map(({ range }) => range);
    this.ranges.set(element, ranges);
    for (const range of ranges) this.highlight.add(range);
  }

  unmark(element) {
    for (const range of this.ranges.get(element)) this.highlight.delete(range);
    this.ranges.delete(element);
    this.changed.delete(element);
  }
}
