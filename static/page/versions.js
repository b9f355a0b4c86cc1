// The versions of a reply: those that a retry has replaced. They are shown in its place.

import { api } from "./api.js";
import { keepView } from "./conversation.js";
import { announce, state, subscribe } from "./screen.js";
import { articles, showVersion, turnOf } from "./turns.js";

const fetched = new WeakMap(); // article → a promise of the earlier versions, the newest first
const places = new WeakMap(); // article → { versions, at } while it shows an earlier one

/** Shows the version before the one that an article shows, if `step` is 1; the next, if it is -1. */
export async function move(article, step) {
  const earlier = await earlierVersions(article);
  const { versions, at } = places.get(article) ?? {
    versions: [turnOf(article), ...earlier],
    at: 0,
  };
  const next = Math.max(0, Math.min(at + step, versions.length - 1));
  show(article, versions, next);
  announce(`Version ${versions.length - next} of ${versions.length}`);
}

function earlierVersions(article) {
  if (!fetched.has(article)) {
    const path = `sessions/${state.current.id}/turns/${article.dataset.id}/versions`;
    const answer = api("GET", path, { signal: state.screen.signal });
    answer.catch(() => fetched.delete(article)); // so that the next press tries again
    fetched.set(article, answer);
  }
  return fetched.get(article).then(({ data }) => data);
}

function show(article, versions, at) {
  if (at) places.set(article, { versions, at });
  else places.delete(article);
  const buttons = article.querySelector(".versions");
  keepView(() => showVersion(article, versions[at], at === 0), buttons);
  const [earlier, count, later] = buttons.children;
  count.textContent = `${versions.length - at}/${versions.length}`;
  setEnabled(earlier, at < versions.length - 1, later);
  setEnabled(later, at > 0, earlier);
}

/** Enables or disables a button. If it has the focus, which a disabled one loses, `other` gets it. */
function setEnabled(pressed, isEnabled, other) {
  if (!isEnabled && document.activeElement === pressed) {
    other.disabled = false;
    other.focus();
  }
  pressed.disabled = !isEnabled;
}

/** Shows the newest version of each reply again. */
export function showNewest() {
  for (const article of articles()) {
    if (places.has(article)) show(article, places.get(article).versions, 0);
  }
}

// The model is sent the newest versions.
subscribe("request", showNewest);
