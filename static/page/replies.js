// Opening chats; requesting, reading and stopping replies.

import { $ } from "../dom.js";
import { api, fetchSession, isUnanswered, on } from "./api.js";
import { dropSettings } from "./choices.js";
import {
  findContextStart,
  idInURL,
  markContextStart,
  scrollToEnd,
  showChat,
  showNew,
  startLoading,
} from "./conversation.js";
import { keepDraft } from "./drafts.js";
import { isLast } from "./editing.js";
import { markRead, notifyOfEnd, offerNotification, watchLeftChat } from "./notifications.js";
import { Incoming, notYetHeard, Outgoing } from "./exchange.js";
import { dropChat } from "./loaded-chats.js";
import { options, systemPrompt } from "./options.js";
import {
  announce,
  attempt,
  focusText,
  isBusy,
  isLoading,
  modelId,
  publish,
  say,
  sayIfAny,
  setBusy,
  state,
  takeScreen,
} from "./screen.js";
import { listModels, useDefaultModel } from "./settings.js";
import { actions, articles, failureOf, filesOf, finishReply, isShown, turnOf } from "./turns.js";
import { uploadAgain } from "./unsent-pictures.js";

const STOPPING = "Stopping…";
const NEWER_TURNS = "This chat has continued elsewhere. Read what is new, then send again.";

/** Shows a session, and follows its reply if one is in progress. */
export async function openChat(id) {
  const signal = takeScreen();
  const isOther = state.current?.id !== id;
  if (isOther) startLoading(id);
  markRead(id);
  const session = await fetchSession(id, {}, { signal, unless: 404 });
  if (signal.aborted) return;
  if (session instanceof Error) {
    dropChat(id);
    leaveDeleted(session);
    return;
  }
  showChat(session, isOther);
  if (session.turns.at(-1).status !== "in_progress") return;
  const reply = new Incoming(articles().at(-1));
  reply.follow(`sessions/${encodeURIComponent(id)}`);
  await readReply(reply, id, signal);
}

/** Leaves a session that was deleted elsewhere. */
function leaveDeleted({ message }) {
  history.replaceState(null, "", location.pathname);
  openNew();
  publish("sessions");
  say(message);
}

/** Opens a new chat: the next message creates a session. */
export function openNew() {
  takeScreen();
  showNew();
  focusText();
}

/**
 * Requests a reply, and shows it as it arrives. `path` says to what: a message in the body; by a
 * retry, the last message, as it is or replaced by the body; or the last reply, `turn`, which is
 * continued.
 */
export async function requestReply(path, body, turn) {
  const signal = takeScreen();
  publish("request");
  const sending = new Outgoing(path, body, turn);
  sending.show();
  markContextStart();
  scrollToEnd();
  const stopping = new AbortController();
  state.starting = stopping;
  const reply = new Incoming(articles().at(-1), turn?.content);
  let id;
  try {
    const either = AbortSignal.any([signal, stopping.signal]);
    await checkEnd(sending, either);
    id = await startWithFallback(reply, sending, either);
  } catch (error) {
    if (!signal.aborted) await undoRequest(sending, error, stopping.signal);
    // If another session has the screen, the text is still stored as the draft of this one.
    return;
  } finally {
    if (state.starting === stopping) state.starting = null;
    if (stopping.signal.aborted && $("notice").textContent === STOPPING) say("");
  }
  if (stopping.signal.aborted) cancel(id);
  if (signal.aborted) {
    reply.following.hangUp();
    await leaveChat(sending, id);
    return;
  }
  sending.arrive();
  if (!state.current) beginSession(id);
  keepDraft();
  await readReply(reply, id, signal);
}

/** Throws if the chat has turns that are not on the screen, for example from another tab. */
async function checkEnd(sending, signal) {
  const { current } = state;
  if (!current || isUnanswered(sending)) return;
  const { turns } = await fetchSession(current.id, { limit: 1 }, { signal });
  if (!sending.isUpToDate(turns.at(-1))) {
    throw Object.assign(new Error(NEWER_TURNS), { status: 409 });
  }
}

/**
 * Starts a reply. If the chat's model is no longer served, changes it to the default first. If a
 * file of the message is gone, uploads its pictures again.
 */
async function startWithFallback(reply, sending, signal) {
  try {
    return await reply.start(sending, signal);
  } catch (error) {
    const pointer = error.faults?.[0]?.source?.pointer;
    if (pointer?.startsWith("/files/")) await uploadAgain(sending.body.files);
    else if (pointer !== "/model" || !(await replaceModel(state.current?.id))) throw error;
    return reply.start(sending, signal);
  }
}

/**
 * Changes a session's model to the default, and says so. Returns whether there is a session and a
 * default.
 */
async function replaceModel(id) {
  if (!id) return false;
  const gone = modelId();
  const model = await useDefaultModel(id);
  if (model) say(`${gone} is not served any more: ${model} answers from here on.`, "faint");
  return Boolean(model);
}

/**
 * Handles a request that was refused. An earlier try may have arrived, and only its response was
 * lost.
 */
async function undoRequest(sending, error, stopped) {
  const arrived = error.meta?.session_id;
  sending.restore(Boolean(arrived));
  if (stopped.aborted) return;
  if (error.status !== 409) throw error;
  say(arrived ? "" : error.message); // no session: the reply in progress was started elsewhere
  await openChat(arrived ?? state.current.id);
}

/** The server has the message, but another session has the screen. The reply continues there. */
async function leaveChat(sending, id) {
  sending.arriveElsewhere();
  if (state.current?.id !== id) watchLeftChat(id);
  else if (!isBusy()) await openChat(id); // the screen may show the turns before this message
}

function beginSession(id) {
  history.pushState(null, "", `#${id}`);
  dropSettings();
  state.current = { id, title: "New chat", system: systemPrompt(), options: options() };
}

/**
 * Shows a reply as it arrives, to its end. If its session is gone, or another reply has followed,
 * opens the session again, which shows the error or the newer turns.
 */
async function readReply(reply, id, signal) {
  const withdrawOffer = offerNotification();
  try {
    for await (const event of reply.following.events(signal)) {
      on.found();
      reply.take(event);
    }
  } catch (error) {
    const isOther = error.status === 404 || error.status === 409;
    if (!signal.aborted && !isOther) {
      reply.abandon();
      throw error;
    }
  } finally {
    reply.stopWatch();
    withdrawOffer();
  }
  if (signal.aborted) watchIfLeft(id, reply);
  else if (reply.hasEnded) await endReply(id, reply);
  else await openChat(id);
}

/** If the reader left for another session during the reply, watches for the reply's end. */
function watchIfLeft(id, reply) {
  if (!reply.hasEnded && state.current?.id !== id) watchLeftChat(id);
}

/** Shows a finished reply as the server stored it. */
async function endReply(id, reply) {
  const turn = reply.stored;
  const isWhole = turn?.status === "complete" && !followsUnfinished();
  if (isWhole) {
    finishReply(reply.article, turn);
    setBusy(false);
  } else if (!(await showStored(id, reply.problem))) {
    return;
  }
  announce(notYetHeard(articles().at(-1), reply.heard)); // once, when it is whole
  publish("sessions");
  notifyOfEnd(state.current);
  if (isWhole && mayContextMove(turn)) await findContextStart(turn);
}

/**
 * Whether an unfinished reply is above another turn: a message was sent before its end was fetched.
 */
const followsUnfinished = () => $("turns").querySelector("[aria-busy=true]:not(:last-child)");

/** Whether the model's context may start elsewhere after this reply. */
const mayContextMove = ({ stop_reason, turns_left_out }) =>
  stop_reason === "length" || turns_left_out !== (state.current.leftOut ?? 0);

/**
 * Shows the session as it is stored, and the problem if no turn shows it. Only the server knows
 * what is stored: after a failed retry it is the earlier reply, after a failed continue perhaps the
 * old text. Returns false if another session has the screen, or if the reply was requested again
 * from another model.
 */
async function showStored(id, problem) {
  await openChat(id);
  const { current } = state;
  if (current?.id !== id) return false;
  const last = current.turns.at(-1);
  if ((await isModelGone(last)) && (await replaceModel(id))) {
    await requestReply(`sessions/${id}/retry`);
    return false;
  }
  if (wereImagesRefused(last)) await listModels(); // which says if the model sees none
  if (problem && failureOf(last.error ?? {}) !== problem) say(problem);
  return true;
}

/** Whether the last reply failed because its provider no longer has the session's model. */
async function isModelGone({ error, model }) {
  const isNamed =
    error?.status === 400 && /^The provider .+? has no such model: /.test(error.message);
  if (!isNamed || model.id !== state.current.model.id) return false;
  await listModels();
  const ids = state.models.map(({ id }) => id);
  return ids.length > 0 && !ids.includes(model.id) && !ids.includes(`${model.id}:latest`);
}

/** Whether the reply failed, perhaps because of the images of the message before it. */
const wereImagesRefused = ({ error }) =>
  error?.status === 400 && filesOf(articles().at(-2)).length > 0;

/** Cancels the reply in progress. A 409 says that it has already ended. */
const cancel = (id) => api("POST", `sessions/${id}/cancel`, { unless: 409 });

/** Stops the reply. If the server has not accepted the request yet, stops it once it has. */
export async function stop() {
  if (!state.starting) {
    await cancel(state.current.id);
    return;
  }
  state.starting.abort();
  say(STOPPING, "faint");
}

async function askAgain(operation, turn) {
  focusText();
  await requestReply(`sessions/${state.current.id}/${operation}`, null, turn);
}

/** Shows turns that were added elsewhere, for example in another tab. */
const refresh = attempt(async () => {
  const { current, screen } = state;
  const last = articles().at(-1);
  if (!last || isLoading() || isBusy()) return;
  const { turns } = await fetchSession(current.id, { limit: 1 }, { signal: screen.signal });
  const isSame = screen.signal.aborted || isShown(turns.at(-1), last);
  if (!isSame) await openChat(current.id);
}, sayIfAny);

let refreshing = null; // a tab that becomes visible also gets the focus: refresh once
function refreshOnce() {
  refreshing ??= refresh().finally(() => (refreshing = null));
}

addEventListener("focus", refreshOnce);
addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshOnce();
});

actions.retry = attempt(() => askAgain("retry"));
actions.continue = attempt((article) => askAgain("continue", turnOf(article)));

// Fetched when a copy is made, which is rare.
const forks = () => import("./forks.js");

actions.fork = attempt(async (article) => {
  const { fork } = await forks();
  await fork(article);
});

// Fetched when somebody looks at an earlier version of a reply.
const versions = () => import("./versions.js");

actions.earlier = attempt(async (article) => (await versions()).move(article, 1));
actions.later = attempt(async (article) => (await versions()).move(article, -1));

actions.send = async (article, field, message) => {
  focusText();
  if (isLast(article)) {
    await requestReply(`sessions/${state.current.id}/retry`, message);
  } else {
    const { sendEdited } = await forks();
    await sendEdited(article, field, message);
  }
};

// The URL names the chat: `#` and the session's id.

/** Shows the chat that the URL names, or a new one. */
export async function route() {
  focusText();
  if (idInURL()) await openChat(idInURL());
  else openNew();
}

export function goToNewChat() {
  if (location.hash) location.hash = "";
  else attempt(route)();
  focusText();
}
