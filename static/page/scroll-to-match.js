// Scrolling to words in a turn.

import { $ } from "../dom.js";
import { scrollThread } from "./conversation.js";
import { findIn } from "./highlights.js";
import { state } from "./screen.js";
import { textOf } from "./turns.js";

const MARGIN = 16; // px above a turn if we scroll to its beginning

/**
 * Scrolls to where the words are closest together in a turn. Not all may be in its visible text:
 * words of a link's URL never are, words of a long text may not be drawn yet. In that case, scrolls
 * again once all are there, unless the reader has done something meanwhile.
 */
export function showWords(article, words) {
  const matches = findIn(textOf(article), words);
  if (matches.length) showMatch(firstOfClosest(matches));
  else showBeginning(article);
  if (countWords(matches) < words.length) showLater(article, words);
}

function showLater(article, words) {
  const { signal } = state.screen;
  const reading = new AbortController();
  const observer = new MutationObserver(() => {
    const matches = findIn(textOf(article), words);
    if (countWords(matches) < words.length) return;
    reading.abort();
    showMatch(firstOfClosest(matches));
  });
  observer.observe(textOf(article), { childList: true, characterData: true, subtree: true });
  const stop = AbortSignal.any([signal, reading.signal]);
  stop.addEventListener("abort", () => observer.disconnect());
  for (const type of ["wheel", "touchmove", "pointerdown", "keydown"]) {
    addEventListener(type, () => reading.abort(), { signal: stop, passive: true });
  }
}

const countWords = (matches) => new Set(matches.map(({ word }) => word)).size;

/** The first match of the shortest stretch that has all words found. */
function firstOfClosest(matches) {
  const count = countWords(matches);
  const latest = new Map(); // the match of each word, the oldest first
  let best = { length: Infinity };
  for (const match of matches) {
    latest.delete(match.word);
    latest.set(match.word, match);
    const [first] = latest.values();
    const length = match.end - first.start;
    if (latest.size === count && length < best.length) best = { first, length };
  }
  return best.first;
}

const topOf = (node) => node.getBoundingClientRect().top;

const showBeginning = (article) => scrollThread(topOf(article) - topOf($("thread")) - MARGIN);

/** Scrolls a match to a third of the thread's height, and opens the `<details>` around it. */
function showMatch({ range: { startContainer, startOffset, endContainer, endOffset } }) {
  const { parentElement } = startContainer;
  openAround(parentElement);
  const range = document.createRange();
  range.setStart(startContainer, startOffset);
  range.setEnd(endContainer, endOffset);
  scrollThread(topOf(range) - topOf($("thread")) - $("thread").clientHeight / 3);
  const wide = parentElement.closest("pre, .table");
  if (wide) showAcross(range, wide);
}

function openAround(element) {
  const closed = element.closest("details:not([open])");
  if (!closed) return;
  closed.open = true;
  openAround(element);
}

/** Scrolls horizontally to a match, in code or a table wider than the column. */
function showAcross(range, wide) {
  const [match, view] = [range.getBoundingClientRect(), wide.getBoundingClientRect()];
  if (match.left >= view.left && match.right <= view.right) return;
  wide.scrollLeft += match.left - view.left - wide.clientWidth / 3;
}
