// How much may be drawn before the browser paints, so that the page stays responsive.

/** Milliseconds after which no new piece is started. */
const TIME_BUDGET = 50;
/** The weight of what may be drawn. An element weighs 1, so do ten marks or fifty characters. */
const WEIGHT_BUDGET = 1_500;

/** When drawing began since the last paint, and the weight of what was drawn. */
let frame = null;

function current() {
  if (!frame) setTimeout(() => (frame = null));
  frame ??= { began: performance.now(), weight: 0 };
  return frame;
}

/** Adds the weight of something that was drawn. */
export function weigh(weight) {
  current().weight += weight;
}

/** Whether more may be drawn now. Layout takes several times as long as making the elements. */
export const hasTime = () =>
  performance.now() - current().began < TIME_BUDGET && current().weight < WEIGHT_BUDGET;
