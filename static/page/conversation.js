// The conversation on the screen: a session takes it, older turns come, and its end stays in view.

import { $, element } from "../dom.js";
import { fetchSession, store, unanswered } from "./api.js";
import { draftName, takeOut } from "./drafts.js";
import { resumeEditing } from "./editing.js";
import { attempt, focusText, hear, sayIfAny, state, tell } from "./screen.js";
import { takeUp } from "./settings.js";
import { articleOf, articles, isShown, placeOf, show } from "./turns.js";

// The end stays in view, whatever grows or shrinks, unless the reader scrolls away from it.

const NEAR = 48; // pixels from the end that count as the end

// A scroll event comes a frame late: text that grew meanwhile is no sign of the reader's. Only a
// position that became smaller is.
let isAtEnd = true;
let position = 0;

const gap = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight;

export function showEnd() {
  isAtEnd = true;
  $("log").scrollTo(0, $("log").scrollHeight);
  position = $("log").scrollTop;
}

/** Scrolls by so many pixels to a place that stays in view, whatever comes at the end. */
export function showPlace(distance) {
  isAtEnd = false;
  $("log").scrollTop += distance;
  position = $("log").scrollTop;
  noteGap();
}

hear("opened", () => showPlace(0));

function noteGap() {
  $("down").hidden = isAtEnd || gap() < NEAR;
}

const resized = new ResizeObserver(() => {
  if (isAtEnd) showEnd();
  else noteGap();
  fetchWhereNear();
});
for (const id of ["log", "turns"]) resized.observe($(id));

$("log").addEventListener("scroll", ({ target }) => {
  if (target.scrollTop < position && gap() > 1) isAtEnd = false;
  else if (target.scrollTop > position && gap() < NEAR) isAtEnd = true;
  position = target.scrollTop;
  noteGap();
  fetchWhereNear();
});

$("down").onclick = () => {
  showEnd();
  focusText();
};

/** Changes what is shown. What the reader sees first stays where it is. */
export function keepView(change) {
  const edge = $("log").getBoundingClientRect().top;
  const isSeen = (article) => article.getBoundingClientRect().bottom > edge;
  const seen = [...$("turns").children].find(isSeen)?.querySelector("h3");
  const top = () => seen?.getBoundingClientRect().top ?? 0;
  const before = top();
  change();
  $("log").scrollTop += top() - before;
  position = $("log").scrollTop;
}

// Where the model's memory begins: what is above the line, it is not sent.

const LINE = "The model no longer sees what is above.";

/**
 * Draws the line above the first turn that the model is sent, unless that is the first of all, or
 * not shown.
 */
export function markMemory() {
  const line = $("turns").querySelector(".memory");
  const article = articleOf(state.current?.firstSent);
  if (line?.parentNode === article) return;
  keepView(() => {
    line?.remove();
    article?.prepend(element("p", { className: "memory" }, LINE));
  });
}

/**
 * Asks where the model's memory begins behind this reply, and for the ids of the turns that were
 * sent from here.
 */
export async function findMemory({ turns_left_out } = {}) {
  const { signal } = state.screen;
  const unnamed = articles().findIndex(({ dataset }) => !dataset.id);
  const limit = unnamed < 0 ? 1 : Math.min(articles().length - unnamed, 200);
  const { turns, headers } = await fetchSession(state.current.id, { limit }, { signal });
  if (signal.aborted) return;
  const place = placeOf(turns);
  if (place >= 0) turns.forEach((turn, number) => isShown(turn, articles()[place + number]));
  state.current.firstSent = headers.get("First-Turn-Sent");
  // Not before it was found: the screen may have been taken meanwhile.
  state.current.leftOut = turns_left_out;
  markMemory();
}

// Older turns come as the reader nears the first that is shown, or by the button above it. What
// fetches them is fetched with a chat that has some, since the connection may be lost later.

const older = () => import("./older.js");

const isNear = () => $("log").scrollTop < $("log").clientHeight;

const showOlder = attempt(async () => (await older()).showOlder(), sayIfAny);

/** Fetches older turns where the reader is near the first that is shown. */
export function fetchWhereNear() {
  if (state.current?.meta?.has_more && isNear()) showOlder();
}

$("older").onclick = showOlder;

hear(
  "model",
  attempt(async () => {
    if (state.current) await findMemory(); // of another model, it begins from the whole again
  }, sayIfAny),
);

// A session takes the screen.

export const idInAddress = () =>
  /^#([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/.exec(location.hash)?.[1];

/** Shows that this session is being fetched. What is typed from now on is meant for it. */
export function beginChat(id) {
  state.current = { id };
  if (idInAddress() !== id) history.pushState(null, "", `#${id}`);
  $("turns").replaceChildren();
  takeUp();
}

/** Shows that the next message begins a session. */
export function showNew() {
  state.current = null;
  takeUp();
  $("turns").replaceChildren(element("p", {}, "What would you like to talk about?"));
}

/**
 * Shows a session as it was fetched. The turns that are there, and are the same, stay as they are,
 * but for the last.
 */
export function showChat(session, isOther) {
  const { turns, headers } = session;
  const place = placeOf(turns);
  state.current = {
    ...session,
    firstSent: headers.get("First-Turn-Sent"),
    leftOut: turns.at(-1).turns_left_out,
    meta: place > 0 ? state.current.meta : session.meta,
  };
  forgetArrived(turns);
  takeUp();
  const same = place < 0 ? 0 : countSame(turns, place);
  articles()
    .slice(Math.max(0, place + same))
    .forEach((article) => article.remove());
  turns.slice(same).forEach((turn) => show(turn));
  markMemory();
  resumeEditing();
  if (isOther || same === 0) showEnd();
  if (state.current.meta.has_more) older().catch(() => {}); // it is said where they are asked for
  fetchWhereNear();
  tell("shown");
}

/** How many of the turns are shown from this place on, the last one left out. */
function countSame(turns, place) {
  const isOther = (turn, number) => !isShown(turn, articles()[place + number]);
  const other = turns.slice(0, -1).findIndex(isOther);
  return other < 0 ? turns.length - 1 : other;
}

/**
 * A message that was sent before the page was loaded has arrived, and only its response was lost:
 * it is no draft.
 */
function forgetArrived(turns) {
  const { path, body, after } = unanswered();
  if (!body || path !== `sessions/${state.current.id}/messages`) return;
  const before = turns.findIndex(({ id }) => id === after);
  if (before < 0 || turns[before + 1]?.content !== body.content) return;
  store("unanswered", "");
  takeOut(body.content, draftName());
}
