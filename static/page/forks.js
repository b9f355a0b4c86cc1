// Forks: copies of the chat up to a turn. The chat itself stays as it is.

import { $ } from "../dom.js";
import { newKey } from "../parley.js";
import { api, fetchSession, store } from "./api.js";
import { takeSettings } from "./choices.js";
import { showNew } from "./conversation.js";
import { editName, keepAsDraft, takeMessage } from "./drafts.js";
import { IN_COPY } from "./editing.js";
import { converse, open } from "./replies.js";
import { focusText, say, state, takeScreen, tell } from "./screen.js";
import { idOf } from "./turns.js";

let copying = null; // the screen of which a copy is being made

/** Calls this with the signal of the screen; where it is pressed again meanwhile, only once. */
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
  // If the answer is lost, it is sent again, and makes no second copy.
  const headers = { "Idempotency-Key": newKey() };
  const options = { body: { turn }, headers, signal, waits: true };
  return api("POST", `sessions/${state.current.id}/fork`, options);
}

/** Goes on in a copy of the chat up to this turn. */
export const fork = (article) => copyOnce((signal) => goOnInCopy(article, signal));

async function goOnInCopy(article, signal) {
  const { id } = await copyUpTo(await idOf(article, signal), signal);
  tell("sessions");
  if (signal.aborted) return;
  focusText();
  await open(id);
  say(IN_COPY, "faint");
}

/** Sends a message that was edited, which is not the last one, in a copy of the chat. */
export const sendEdited = (article, field, content) =>
  copyOnce((signal) => sendInCopy(article, field, content, signal));

/** Sends it in a copy that ends before it; where there is nothing before it, in a new chat. */
async function sendInCopy(article, field, content, signal) {
  const { model, system, options } = state.current;
  const edited = editName();
  field.readOnly = true; // what is typed from here on would not be sent
  const copy = await copyBefore(article, signal).finally(() => (field.readOnly = false));
  tell("sessions");
  if (signal.aborted) return;
  store(edited, "");
  if (copy) await sendIn(copy.id, content);
  else await startAlike({ content, model: model.id, system, options });
}

/**
 * Makes a copy of the chat that ends before this message; null where there is nothing before it.
 */
async function copyBefore(article, signal) {
  const before = await idOf(article, signal);
  const { turns } = await fetchSession(state.current.id, { before, limit: 1 }, { signal });
  return turns.length ? copyUpTo(turns[0].id, signal) : null;
}

/**
 * Sends a message in another chat. Where that cannot be opened now, the message is what is typed
 * there.
 */
async function sendIn(id, content) {
  keepAsDraft(content, id);
  await open(id);
  say(IN_COPY, "faint");
  if (state.current?.id !== id) return;
  await converse(`sessions/${id}/messages`, { content: takeMessage() });
}

/** Starts a chat with the settings of another. */
async function startAlike(body) {
  takeScreen();
  history.pushState(null, "", location.pathname);
  takeSettings(body);
  showNew();
  $("turns").replaceChildren();
  await converse("sessions", body);
}
