// Forks: copies of a chat up to a turn. The chat itself does not change.

import { $ } from "../dom.js";
import { newKey } from "../parley.js";
import { api, fetchSession, store } from "./api.js";
import { copySettings } from "./choices.js";
import { showNew } from "./conversation.js";
import { editName, keepAsDraft, takeMessage } from "./drafts.js";
import { COPY_NOTICE } from "./editing.js";
import { openChat, requestReply } from "./replies.js";
import { focusText, publish, say, state, takeScreen } from "./screen.js";
import { idOf } from "./turns.js";

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

function copyUpTo(turn, signal) {
  // If the answer is lost, the request is sent again with the same key, and makes no second copy.
  const headers = { "Idempotency-Key": newKey() };
  const options = { body: { turn }, headers, signal, waits: true };
  return api("POST", `sessions/${state.current.id}/fork`, options);
}

/** Copies the chat up to this turn, and opens the copy. */
export const fork = (article) => copyOnce((signal) => goOnInCopy(article, signal));

async function goOnInCopy(article, signal) {
  const { id } = await copyUpTo(await idOf(article, signal), signal);
  publish("sessions");
  if (signal.aborted) return;
  focusText();
  await openChat(id);
  say(COPY_NOTICE, "faint");
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
  await openChat(id);
  say(COPY_NOTICE, "faint");
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
