// The conversation on the screen: showing a session, loading older turns, keeping its end in view.

import { $, element } from "../dom.js";
import { fetchSession, store, unanswered } from "./api.js";
import { draftName, removeFromDraft } from "./drafts.js";
import { resumeEditing } from "./editing.js";
import { attempt, focusText, publish, sayIfAny, state, subscribe } from "./screen.js";
import { showSettings } from "./settings.js";
import { articleOf, articles, hasFiles, indexOfTurns, isShown, showTurn } from "./turns.js";

// The end of the thread stays in view while its size changes, unless the reader scrolls away.

const NEAR_END = 48; // px from the end that count as the end

// A scroll event comes a frame late, and text may have grown since. So only a smaller position
// means that the reader scrolled up.
let isAtEnd = true;
let position = 0;

const distanceToEnd = () =>
  $("thread").scrollHeight - $("thread").scrollTop - $("thread").clientHeight;

export function scrollToEnd() {
  isAtEnd = true;
  $("thread").scrollTo(0, $("thread").scrollHeight);
  position = $("thread").scrollTop;
}

/** Scrolls by some pixels. The new position stays in view, even if text comes at the end. */
export function scrollThread(distance) {
  isAtEnd = false;
  $("thread").scrollTop += distance;
  position = $("thread").scrollTop;
  updateDownButton();
}

subscribe("opened", () => scrollThread(0));

function updateDownButton() {
  $("down").hidden = isAtEnd || distanceToEnd() < NEAR_END;
}

const resized = new ResizeObserver(() => {
  if (isAtEnd) scrollToEnd();
  else updateDownButton();
  fetchOlderIfNear();
});
for (const id of ["thread", "turns"]) resized.observe($(id));

$("thread").addEventListener("scroll", ({ target }) => {
  if (target.scrollTop < position && distanceToEnd() > 1) isAtEnd = false;
  else if (target.scrollTop > position && distanceToEnd() < NEAR_END) isAtEnd = true;
  position = target.scrollTop;
  updateDownButton();
  fetchOlderIfNear();
});

$("down").onclick = () => {
  scrollToEnd();
  focusText();
};

function firstInView() {
  const edge = $("thread").getBoundingClientRect().top;
  const isSeen = (article) => article.getBoundingClientRect().bottom > edge;
  return [...$("turns").children].find(isSeen)?.querySelector("h2");
}

/** Makes a change to the thread. This element, or else the first turn in view, stays in its place. */
export function keepView(change, fixed = firstInView()) {
  const top = () => fixed?.getBoundingClientRect().top ?? 0;
  const before = top();
  change();
  $("thread").scrollTop += top() - before;
  position = $("thread").scrollTop;
}

// Where the model's context starts: turns above this line are no longer sent.

const CONTEXT_NOTICE = "The model no longer sees what is above.";

/** Draws the line above the first turn that is sent to the model, if it is on the screen. */
export function markContextStart() {
  const line = $("turns").querySelector(".context-start");
  const article = articleOf(state.current?.firstSent);
  if (line?.parentNode === article) return;
  keepView(() => {
    line?.remove();
    article?.prepend(element("p", { className: "context-start" }, CONTEXT_NOTICE));
  });
}

/**
 * After a reply, asks the server where the model's context starts, and for the ids of the turns
 * that were sent from this page.
 */
export async function findContextStart({ turns_left_out } = {}) {
  const { signal } = state.screen;
  const unnamed = articles().findIndex(({ dataset }) => !dataset.id);
  const limit = unnamed < 0 ? 1 : Math.min(articles().length - unnamed, 200);
  const { turns, headers } = await fetchSession(state.current.id, { limit }, { signal });
  if (signal.aborted) return;
  const place = indexOfTurns(turns);
  if (place >= 0) turns.forEach((turn, number) => isShown(turn, articles()[place + number]));
  state.current.firstSent = headers.get("First-Turn-Sent");
  // Set only now, since the request may have been aborted.
  state.current.leftOut = turns_left_out;
  markContextStart();
}

// Older turns are loaded when the reader comes near the first turn, or presses the button above it.
// Their module is fetched as soon as a chat has older turns, in case the connection is lost later.

const loadOlder = () => import("./older-turns.js");

const isNear = () => $("thread").scrollTop < $("thread").clientHeight;

const showOlder = attempt(async () => (await loadOlder()).showOlder(), sayIfAny);

/** Fetches older turns if the reader is near the first turn. */
export function fetchOlderIfNear() {
  if (state.current?.meta?.has_more && isNear()) showOlder();
}

$("older").onclick = showOlder;

subscribe(
  "model",
  attempt(async () => {
    if (state.current) await findContextStart(); // another model is offered all turns again
  }, sayIfAny),
);

// Showing a session

export const idInURL = () =>
  /^#([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/.exec(location.hash)?.[1];

/** Clears the screen for a session that is being fetched. Typed text now belongs to it. */
export function startLoading(id) {
  state.current = { id };
  if (idInURL() !== id) history.pushState(null, "", `#${id}`);
  $("turns").replaceChildren();
  showSettings();
}

/** Shows a new chat: the next message creates a session. */
export function showNew() {
  state.current = null;
  showSettings();
  $("turns").replaceChildren();
}

/** Shows a fetched session. Turns that are on the screen and unchanged stay, except the last. */
export function showChat(session, isOther) {
  const { turns, headers } = session;
  const place = indexOfTurns(turns);
  state.current = {
    ...session,
    firstSent: headers.get("First-Turn-Sent"),
    leftOut: turns.at(-1).turns_left_out,
    meta: place > 0 ? state.current.meta : session.meta,
  };
  forgetArrivedDraft(turns);
  showSettings();
  const same = place < 0 ? 0 : countSame(turns, place);
  articles()
    .slice(Math.max(0, place + same))
    .forEach((article) => article.remove());
  turns.slice(same).forEach((turn) => showTurn(turn));
  markContextStart();
  resumeEditing();
  if (isOther || same === 0) scrollToEnd();
  if (state.current.meta.has_more) loadOlder().catch(() => {}); // showOlder reports it
  fetchOlderIfNear();
  publish("shown");
}

/**
 * How many of the turns are on the screen, unchanged, from this index on. Never counts the last.
 */
function countSame(turns, place) {
  const isOther = (turn, number) => !isShown(turn, articles()[place + number]);
  const other = turns.slice(0, -1).findIndex(isOther);
  return other < 0 ? turns.length - 1 : other;
}

/** Removes a draft whose message was sent before a reload, and has arrived, as these turns show. */
function forgetArrivedDraft(turns) {
  const { path, body, after } = unanswered();
  if (!body || path !== `sessions/${state.current.id}/messages`) return;
  const before = turns.findIndex(({ id }) => id === after);
  const next = turns[before + 1];
  if (before < 0 || next?.content !== body.content || !hasFiles(next, body.files)) return;
  store("unanswered", "");
  removeFromDraft(body, draftName());
}
