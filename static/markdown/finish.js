// What finished blocks get besides: formulas become MathML, code gets colours. Both have a module
// and a library, which are loaded when the first formula, or the first code, is there.

/** Milliseconds that are drawn at a time; the rest waits for the next frame. */
const SLICE = 8;
/** Elements that are made at a time, since the browser has to lay them out. */
const HEAVIEST = 1_000;
/** Formulas of a block. A browser lays out all of a paragraph anew for each frame of them. */
const MOST = 500;

const LOAD = { formula: () => import("./formulas.js"), code: () => import("./code.js") };
/** The functions that draw, of each kind that is loaded. */
const draw = {};
/** What waits for its module. */
const waiting = { formula: [], code: [] };
/** What can be drawn. The last is drawn first: the reader mostly sees the end. */
const ready = [];
let isDue = false;

/** Draws what stands in a place, or the first part of it. Returns how many elements were made. */
function drawJob({ kind, place, room }) {
  // Another session may be on the screen by now.
  if (!place.isConnected || room.elements <= 0) return 0;
  const { count, rest } = draw[kind](place);
  room.elements -= count;
  if (rest) ready.push({ kind, place: rest, room });
  return count;
}

/** Draws until the slice is over. */
function drawSlice() {
  const began = performance.now();
  let made = 0;
  while (ready.length && made < HEAVIEST && performance.now() - began < SLICE) {
    made += drawJob(ready.pop());
  }
  isDue = ready.length > 0;
  if (isDue) requestAnimationFrame(drawSlice);
}

/** What can be drawn at once is drawn before the browser shows its source. */
function drawSoon(jobs) {
  for (const job of jobs) ready.push(job);
  if (isDue) return;
  isDue = true;
  queueMicrotask(drawSlice);
}

/** Loads a module. Where that fails, the source stays, and the next block tries again. */
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

/** The text nodes of code in known languages. */
function textsOfCode(block) {
  const codes = [...block.querySelectorAll("figure code[class]")];
  const parts = codes.flatMap((code) => (code.firstElementChild ? [...code.children] : [code]));
  return parts.map((part) => part.firstChild).filter(Boolean);
}

/**
 * Has the formulas and the code of a block drawn that does not change any more. `room.elements` is
 * how many elements may still be made for its text.
 */
export function finish(block, room) {
  const formulas = [...block.querySelectorAll(".math")];
  if (block.matches(".math")) formulas.push(block);
  add("formula", formulas.slice(0, MOST), room);
  add("code", textsOfCode(block), room);
}
