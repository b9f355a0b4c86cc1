// Forks: copies of a chat up to a turn. The chat itself does not change.

import { $, element } from "../dom.js";
import { newKey } from "../parley.js";
import { api, fetchSession, store } from "./api.js";
import { copySettings } from "./choices.js";
import { showNew } from "./conversation.js";
import { editName, keepAsDraft, takeMessage } from "./drafts.js";
import { COPY_NOTICE } from "./editing.js";
import { hasTitle } from "./list.js";
import { openChat, requestReply } from "./replies.js";
import { focusText, publish, say, state, takeScreen } from "./screen.js";
import { change } from "./settings.js";
import { idOf, turnOf } from "./turns.js";

const TITLE_LENGTH = 190; // characters that a copy has of a title, of the 200 that the server accepts

let copying = null; // the screen for which a copy is being made

/**
 * Runs the action with the screen's signal, unless one is running: a button may be pressed twice.
 */
async function copyOnce(action) {
  const { screen } = state;
  if (copying === screen) return;
  copying = screen;
  try {
    await action(screen.signal);
  } finally {
    if (copying === screen) copying = null;
  }
}

/** Copies the chat up to a turn. The copy gets a title that tells it apart in the list. */
async function copyUpTo(turn, signal) {
  // If the answer is lost, the request is sent again with the same key, and makes no second copy.
  const headers = { "Idempotency-Key": newKey() };
  const options = { body: { turn }, headers, signal, waits: true };
  const copy = await api("POST", `sessions/${state.current.id}/fork`, options);
  const title = titleOfCopy(copy.title);
  return api("PATCH", `sessions/${copy.id}`, { body: { title }, signal, waits: true });
}

/** "Title (2)" for "Title", "Title (3)" for "Title (2)", or the next that the list does not have. */
function titleOfCopy(title) {
  const [, name, number = 1] = title.match(/^([^]*?)(?: \((\d{1,2})\))?$/);
  const start = [...name].slice(0, TITLE_LENGTH).join("");
  let next = Number(number) + 1;
  while (hasTitle(`${start} (${next})`)) next++;
  return `${start} (${next})`;
}

/** Copies the chat up to this turn, and opens the copy. */
export const fork = (article) => copyOnce((signal) => goOnInCopy(article, signal));

async function goOnInCopy(article, signal) {
  const isReply = article.matches(".assistant"); // which may show an earlier version
  const turn = isReply ? turnOf(article).id : await idOf(article, signal);
  const { id } = await copyUpTo(turn, signal);
  await openCopy(id, signal);
}

/** Opens a copy of the chat, unless another chat has taken the screen. */
async function openCopy(id, signal) {
  publish("sessions");
  if (signal.aborted) return;
  focusText();
  await showCopy(id);
}

/** Shows a copy of the chat on the screen, and says so, with a link back. */
async function showCopy(id) {
  const original = state.current.id;
  await openChat(id);
  say(`${COPY_NOTICE} `, "faint");
  $("notice").append(element("a", { href: `#${original}` }, "Back to the original"));
}

/** Has another model answer the message of this reply, in a copy of the chat. */
export const askAnother = (article, model) =>
  copyOnce((signal) => askInCopy(article, model, signal));

async function askInCopy(article, model, signal) {
  const { id } = await copyUpTo(await idOfMessage(article, signal), signal);
  // If the model is refused, the copy is opened all the same: its message can be retried.
  await change(id, { model }).finally(() => openCopy(id, signal));
  if (state.current?.id === id) await requestReply(`sessions/${id}/retry`);
}

/** The id of the message that a reply answers. Imported chats may have other replies in between. */
async function idOfMessage(article, signal) {
  const before = await idOf(article, signal);
  const { turns } = await fetchSession(state.current.id, { before }, { signal });
  return turns.findLast(({ kind }) => kind === "user").id;
}

/** Sends an edited message that is not the last one, in a copy of the chat. */
export const sendEdited = (article, field, message) =>
  copyOnce((signal) => sendInCopy(article, field, message, signal));

/** Sends it in a copy that ends before it; if nothing is before it, in a new chat. */
async function sendInCopy(article, field, message, signal) {
  const { model, system, options } = state.current;
  const edited = editName();
  field.readOnly = true; // later changes would not be sent
  const copy = await copyBefore(article, signal).finally(() => (field.readOnly = false));
  publish("sessions");
  if (signal.aborted) return;
  store(edited, "");
  if (copy) await sendIn(copy.id, message);
  else await startAlike({ ...message, model: model.id, system, options });
}

/** Copies the chat up to the turn before this message; null if there is none. */
async function copyBefore(article, signal) {
  const before = await idOf(article, signal);
  const { turns } = await fetchSession(state.current.id, { before, limit: 1 }, { signal });
  return turns.length ? copyUpTo(turns[0].id, signal) : null;
}

/**
 * Sends a message in another chat. If that cannot be opened now, the message stays as its draft.
 */
async function sendIn(id, message) {
  keepAsDraft(message, id);
  await showCopy(id);
  if (state.current?.id !== id) return;
  await requestReply(`sessions/${id}/messages`, takeMessage());
}

/** Starts a chat with the settings of another one. */
async function startAlike(body) {
  takeScreen();
  history.pushState(null, "", location.pathname);
  copySettings(body);
  showNew();
  $("turns").replaceChildren();
  await requestReply("sessions", body);
}
