// A chat is printed whole: its earlier messages are fetched before.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { fetchAlone, showBefore } from "./older.js";
import { open } from "./replies.js";
import { attempt, isLoading, say, state } from "./screen.js";

const MOST = 200; // turns that the server gives at once
const FETCHING = "The earlier messages are being fetched…";

/** Takes a chat to the screen, shows all of its turns, and has the browser print them. */
export async function print(id) {
  if (state.current?.id !== id || isLoading()) await take(id);
  if (state.current?.id !== id) return; // why, was said
  const { signal } = state.screen;
  if (hasMore()) await fetchAlone(showAll);
  if (!signal.aborted) window.print(); // else another chat was opened meanwhile
}

/** Opens a chat. Returns once its turns are there; its reply may still be coming. */
function take(id) {
  const { promise, resolve } = Promise.withResolvers();
  attempt(open)(id).then(resolve);
  const shown = new MutationObserver(resolve);
  shown.observe($("turns"), { childList: true });
  return promise.finally(() => shown.disconnect());
}

const hasMore = () => state.current?.meta?.has_more;

async function showAll(signal) {
  say(FETCHING, "faint");
  while (!signal.aborted && hasMore()) {
    const before = $("turns").firstElementChild.dataset.id;
    const page = await fetchSession(state.current.id, { before, limit: MOST }, { signal });
    if (!signal.aborted) showBefore(page);
  }
  if ($("notice").textContent === FETCHING) say("");
}
