// How much is drawn before the browser shows it, so that it answers to the reader meanwhile.

/** Milliseconds in which pieces are begun. */
const LENGTH = 50;
/** Elements that are made meanwhile. Ten lines or fifty characters weigh as much as one. */
const HEAVIEST = 1_500;

/** What was drawn that the browser will lay out together. */
let frame = null;

function current() {
  if (!frame) setTimeout(() => (frame = null));
  frame ??= { began: performance.now(), weight: 0 };
  return frame;
}

/** Counts what was drawn. */
export function weigh(weight) {
  current().weight += weight;
}

/**
 * Whether more may be drawn before the browser shows it. To show it takes the browser several times
 * as long as it takes to make the elements.
 */
export const hasTime = () =>
  performance.now() - current().began < LENGTH && current().weight < HEAVIEST;
