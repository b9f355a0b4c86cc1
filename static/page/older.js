// Older turns, which come above those that are shown.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { keepView, markMemory } from "./conversation.js";
import { resumeEditing } from "./editing.js";
import { announce, frame, state } from "./screen.js";
import { show } from "./turns.js";

let fetching = {}; // the `screen` that they are fetched for, and the `end` of it

/**
 * Shows the fifty turns before the first that is shown, if there are any, unless older ones are
 * being fetched.
 */
export async function showOlder() {
  const isFetching = fetching.screen === state.screen;
  if (state.current?.meta?.has_more && !isFetching) await fetchAlone(fetchFifty);
}

async function fetchFifty(signal) {
  const before = $("turns").firstElementChild.dataset.id;
  const page = await fetchSession(state.current.id, { before }, { signal });
  if (!signal.aborted) showBefore(page);
}

/**
 * Calls this with the signal of the screen, once no older turns are being fetched for it. Nothing
 * else fetches any until it has ended.
 */
export async function fetchAlone(action) {
  const { screen } = state;
  while (fetching.screen === screen) await fetching.end;
  const work = action(screen.signal);
  fetching = { screen, end: work.catch(() => {}) };
  try {
    await work;
  } finally {
    if (fetching.screen === screen) fetching = {};
  }
}

/** Shows a page of turns before those that are shown. */
export function showBefore({ turns, meta }) {
  const first = $("turns").firstElementChild;
  state.current.meta = meta;
  keepFocus(meta.has_more);
  keepView(() => {
    turns.forEach((turn) => show(turn, first));
    frame();
  });
  markMemory();
  resumeEditing();
}

/**
 * Says to who has pressed the button that they are there. Where it will be hidden, the focus goes
 * to what is read.
 */
function keepFocus(isShownOn) {
  if (document.activeElement !== $("older")) return;
  announce("Earlier messages are shown.");
  if (!isShownOn) $("log").focus({ preventScroll: true });
}
