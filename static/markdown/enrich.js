// Enriches finished blocks: formulas become MathML, code is highlighted. Each has a module and a
// library that are loaded with the first formula, or the first code.

/** Milliseconds of drawing per frame. */
const SLICE = 8;
/** Elements made per frame, since the browser has to lay them out. */
const MAX_PER_SLICE = 1_000;
/** Formulas in a block. For each frame of them, a browser lays out the whole paragraph again. */
const MAX_FORMULAS = 500;

const LOAD = { formula: () => import("./formulas.js"), code: () => import("./code.js") };
/** The `draw` function of each kind that is loaded. */
const draw = {};
/** Jobs that wait for their module. */
const waiting = { formula: [], code: [] };
/** Jobs that can be drawn. The last comes first, since the reader mostly sees the end. */
const ready = [];
let isDue = false;

/** Draws a job, or its first part. Returns the number of elements made. */
function drawJob({ kind, place, room }) {
  // If it is not connected, another session is on the screen.
  if (!place.isConnected || room.elements <= 0) return 0;
  const { count, rest } = draw[kind](place);
  room.elements -= count;
  if (rest) ready.push({ kind, place: rest, room });
  return count;
}

/** Draws until the slice is used up; the rest follows in the next frame. */
function drawSlice() {
  const began = performance.now();
  let made = 0;
  while (ready.length && made < MAX_PER_SLICE && performance.now() - began < SLICE) {
    made += drawJob(ready.pop());
  }
  isDue = ready.length > 0;
  if (isDue) requestAnimationFrame(drawSlice);
}

/** Draws in a microtask: before the browser paints the source. */
function drawSoon(jobs) {
  for (const job of jobs) ready.push(job);
  if (isDue) return;
  isDue = true;
  queueMicrotask(drawSlice);
}

/** Loads a module. If that fails, the source stays, and the next block tries again. */
async function load(kind) {
  try {
    draw[kind] = (await LOAD[kind]()).draw;
    drawSoon(waiting[kind]);
  } finally {
    waiting[kind] = [];
  }
}

function add(kind, places, room) {
  const jobs = places.map((place) => ({ kind, place, room }));
  if (draw[kind]) return drawSoon(jobs);
  if (jobs.length && !waiting[kind].length) load(kind).catch(() => {});
  for (const job of jobs) waiting[kind].push(job);
}

/** The text nodes of code whose language we know. */
function textsOfCode(block) {
  const codes = [...block.querySelectorAll("figure code[class]")];
  const parts = codes.flatMap((code) => (code.firstElementChild ? [...code.children] : [code]));
  return parts.map((part) => part.firstChild).filter(Boolean);
}

/**
 * Draws the formulas and highlights the code of a finished block. `room.elements` is the number of
 * elements that may still be made for the whole text.
 */
export function enrich(block, room) {
  const formulas = [...block.querySelectorAll(".math")];
  if (block.matches(".math")) formulas.push(block);
  add("formula", formulas.slice(0, MAX_FORMULAS), room);
  add("code", textsOfCode(block), room);
}
