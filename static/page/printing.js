// Printing a whole chat: its earlier messages are fetched first.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { fetchExclusively, prependTurns } from "./older-turns.js";
import { openChat } from "./replies.js";
import { attempt, isLoading, say, state } from "./screen.js";
import { show } from "./thumbnails.js";

const MAX_TURNS = 200; // per request, as the server limits it
const FETCHING = "Fetching earlier messages…";

/** Opens a chat, shows all of its turns, and prints the page. */
export async function print(id) {
  if (state.current?.id !== id || isLoading()) await take(id);
  if (state.current?.id !== id) return; // openChat showed the error
  const { signal } = state.screen;
  if (hasMore()) await fetchExclusively(showAll);
  await Promise.all([...$("turns").querySelectorAll(".picture")].map(show));
  if (!signal.aborted) window.print(); // aborted: another chat was opened meanwhile
}

/** Opens a chat. Resolves once its turns are shown; a reply may still be in progress. */
function take(id) {
  const { promise, resolve } = Promise.withResolvers();
  attempt(openChat)(id).then(resolve);
  const shown = new MutationObserver(resolve);
  shown.observe($("turns"), { childList: true });
  return promise.finally(() => shown.disconnect());
}

const hasMore = () => state.current?.meta?.has_more;

async function showAll(signal) {
  say(FETCHING, "faint");
  while (!signal.aborted && hasMore()) {
    const before = $("turns").firstElementChild.dataset.id;
    const page = await fetchSession(state.current.id, { before, limit: MAX_TURNS }, { signal });
    if (!signal.aborted) prependTurns(page);
  }
  if ($("notice").textContent === FETCHING) say("");
}
