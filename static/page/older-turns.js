// Loading older turns above those on the screen.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { keepView, markContextStart } from "./conversation.js";
import { resumeEditing } from "./editing.js";
import { announce, state, updateFrame } from "./screen.js";
import { showTurn } from "./turns.js";

let fetching = {}; // for which `screen` turns are being fetched, and the `end`, a promise

/** Shows the fifty turns before the first one, if there are any and none are being fetched. */
export async function showOlder() {
  const isFetching = fetching.screen === state.screen;
  if (state.current?.meta?.has_more && !isFetching) await fetchExclusively(fetchPage);
}

async function fetchPage(signal) {
  const before = $("turns").firstElementChild.dataset.id;
  const page = await fetchSession(state.current.id, { before }, { signal });
  if (!signal.aborted) prependTurns(page);
}

/**
 * Waits until no older turns are being fetched for this screen, then runs the action with the
 * screen's signal. Meanwhile, nothing else fetches any.
 */
export async function fetchExclusively(action) {
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

/** Shows a page of turns above those on the screen. */
export function prependTurns({ turns, meta }) {
  const first = $("turns").firstElementChild;
  state.current.meta = meta;
  keepFocus(meta.has_more);
  keepView(() => {
    turns.forEach((turn) => showTurn(turn, first));
    updateFrame();
  });
  markContextStart();
  resumeEditing();
}

/** If the button has the focus, announces the turns; if it will be hidden, focuses the thread. */
function keepFocus(isShownOn) {
  if (document.activeElement !== $("older")) return;
  announce("Earlier messages are shown.");
  if (!isShownOn) $("thread").focus({ preventScroll: true });
}
