// A reply, from when it is asked for to its end, however often the connection is lost.

import { $ } from "../dom.js";
import { eventsOf, pause } from "../parley.js";
import { api, fetchSession, isUnanswered, lose, on, startReply } from "./api.js";
import { clearSettings } from "./choices.js";
import {
  beginChat,
  findMemory,
  idInAddress,
  markMemory,
  showChat,
  showEnd,
  showNew,
} from "./conversation.js";
import { keepDraft } from "./drafts.js";
import { isLast } from "./editing.js";
import { leaveWriting, offerToTell, see, tellEnd } from "./endings.js";
import { Incoming, Sending, unheard } from "./exchange.js";
import { options, systemPrompt } from "./options.js";
import {
  announce,
  attempt,
  focusText,
  isBusy,
  isLoading,
  modelId,
  say,
  sayIfAny,
  setBusy,
  state,
  takeScreen,
  tell,
} from "./screen.js";
import { listModels, takeDefault } from "./settings.js";
import { actions, articles, finish, isShown, turnOf, wait } from "./turns.js";

const STOPPING = "Stopping…";
const GONE_ON = "This chat has gone on elsewhere. Read what is new, then send again.";

/** Takes a session to the screen, and follows its reply where one is under way. */
export async function open(id) {
  const signal = takeScreen();
  const isOther = state.current?.id !== id;
  if (isOther) beginChat(id);
  see(id);
  const session = await fetchSession(id, {}, { signal, unless: 404 });
  if (signal.aborted) return;
  if (session instanceof Error) {
    leaveDeleted(session);
    return;
  }
  showChat(session, isOther);
  if (session.turns.at(-1).status === "in_progress") await follow(id, null, signal);
}

/** The session was deleted elsewhere. */
function leaveDeleted({ message }) {
  history.replaceState(null, "", location.pathname);
  openNew();
  tell("sessions");
  say(message);
}

/** Has the next message begin a session. */
export function openNew() {
  takeScreen();
  showNew();
  focusText();
}

/**
 * Starts a reply to the message in the body; or, by a retry, to the last message again, as it is or
 * as the body changes it; or has the last reply go on, which is `turn`. Shows the reply as it
 * comes.
 */
export async function converse(path, body, turn) {
  const signal = takeScreen();
  const sending = new Sending(path, body, turn);
  sending.show();
  markMemory();
  showEnd();
  const stopping = new AbortController();
  state.starting = stopping;
  let started;
  try {
    const either = AbortSignal.any([signal, stopping.signal]);
    await checkEnd(sending, either);
    started = await startAnyhow(sending, either);
  } catch (error) {
    if (!signal.aborted) await takeBack(sending, error, stopping.signal);
    // Where another session has the screen, the text is still stored as the draft of this one.
    return;
  } finally {
    if (state.starting === stopping) state.starting = null;
    if (stopping.signal.aborted && $("notice").textContent === STOPPING) say("");
  }
  const { id, response } = started;
  if (stopping.signal.aborted) cancel(id);
  if (signal.aborted) {
    await leave(sending, id, response);
    return;
  }
  sending.arrive();
  if (!state.current) beginSession(id);
  keepDraft();
  await follow(id, response, signal, turn?.content);
}

/**
 * Throws where the chat has gone on elsewhere, as in another tab: one would answer to what one has
 * not read.
 */
async function checkEnd(sending, signal) {
  const { current } = state;
  if (!current || isUnanswered(sending)) return;
  const { turns } = await fetchSession(current.id, { limit: 1 }, { signal });
  if (!sending.isBehind(turns.at(-1))) throw Object.assign(new Error(GONE_ON), { status: 409 });
}

/**
 * Starts a reply. Where the model of an old chat is not served any more, the default takes its
 * place.
 */
async function startAnyhow({ path, body, after }, signal) {
  const id = state.current?.id;
  try {
    return await startReply(path, body, signal, after);
  } catch (error) {
    const isGone = error.faults?.some(({ source }) => source?.pointer === "/model");
    if (!id || !isGone || !(await replaceModel(id))) throw error;
    return startReply(path, body, signal, after);
  }
}

/** Gives a session the default model, and says so. Returns whether there is one. */
async function replaceModel(id) {
  const gone = modelId();
  const model = await takeDefault(id);
  if (model) say(`${gone} is not served any more: ${model} answers from here on.`, "faint");
  return Boolean(model);
}

/**
 * What was sent is not answered. An earlier try may have arrived, of which only the response was
 * lost.
 */
async function takeBack(sending, error, stopped) {
  const arrived = error.meta?.session_id;
  sending.takeBack(Boolean(arrived));
  if (stopped.aborted) return;
  if (error.status !== 409) throw error;
  say(arrived ? "" : error.message); // without a session, the reply under way was started elsewhere
  await open(arrived ?? state.current.id);
}

/** Another session has the screen. The server goes on by itself. */
async function leave(sending, id, response) {
  sending.arriveElsewhere();
  response.body.cancel();
  if (state.current?.id !== id) leaveWriting(id);
  else if (!isBusy()) await open(id); // what was shown may be what was before
}

function beginSession(id) {
  history.pushState(null, "", `#${id}`);
  clearSettings();
  state.current = { id, title: "New chat", system: systemPrompt(), options: options() };
}

/** Reads a reply into the last article, to its end. The response goes on behind `text`. */
async function follow(id, response, signal, text = "") {
  const reply = new Incoming(articles().at(-1), text);
  const takeBackOffer = offerToTell();
  await read(reply, id, response, signal);
  while (!reply.isOver && !signal.aborted) {
    lose();
    wait(reply.article);
    await pause(++reply.tries);
    if (isLoading()) reply.isOther = true; // the connection was lost before the event `session`
    else if (!signal.aborted) await read(reply, id, null, signal);
  }
  reply.stopWatch();
  takeBackOffer();
  if (signal.aborted) noteLeft(id, reply);
  else if (reply.isOther) await open(id);
  else await end(id, reply);
}

/** Where another session has taken the screen while the reply was written, its end will be told. */
function noteLeft(id, reply) {
  if (!reply.hasEnded && state.current?.id !== id) leaveWriting(id);
}

/** Reads what comes of a reply until its end, or until the connection is lost. */
async function read(reply, id, response, signal) {
  try {
    const stream = response ?? (await reply.resume(id, signal));
    for await (const event of eventsOf(stream, signal)) {
      on.found();
      reply.take(event);
      if (reply.isOver) return;
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 404) reply.isOther = true; // to open the session says why
    else if (error.status < 500) {
      reply.abandon();
      throw error;
    }
  }
}

/** Shows a reply that has ended as the server has stored it. */
async function end(id, reply) {
  const turn = reply.stored;
  const isWhole = turn?.status === "complete" && !isBehindUnfinished();
  if (isWhole) {
    finish(reply.article, turn);
    setBusy(false);
  } else if (!(await showStored(id, reply.problem))) {
    return;
  }
  announce(unheard(articles().at(-1), reply.heard)); // once, when it is whole
  tell("sessions");
  tellEnd(state.current);
  if (isWhole && hasMoved(turn)) await findMemory(turn);
}

/** Whether a message was sent before the reply above it was fetched. */
const isBehindUnfinished = () => $("turns").querySelector("[aria-busy=true]:not(:last-child)");

/** Whether the model's memory may begin elsewhere behind this reply. */
const hasMoved = ({ stop_reason, turns_left_out }) =>
  stop_reason === "length" || turns_left_out !== (state.current.leftOut ?? 0);

/**
 * Shows what stands in the session, and the problem where no turn tells it. A retry that is not
 * complete gives way to the reply before it, and what goes on may be as it was before: only the
 * server knows. Returns whether that is all: another session may have the screen by now, or another
 * model may answer.
 */
async function showStored(id, problem) {
  await open(id);
  const { current } = state;
  if (current?.id !== id) return false;
  const last = current.turns.at(-1);
  if ((await isUnknown(last)) && (await replaceModel(id))) {
    await converse(`sessions/${id}/retry`);
    return false;
  }
  if (problem && last.error?.message !== problem) say(problem);
  return true;
}

/** Whether the last reply failed since its provider knows the session's model no more. */
async function isUnknown({ error, model }) {
  const isNamed =
    error?.status === 400 && /^The provider .+? has no such model: /.test(error.message);
  if (!isNamed || model.id !== state.current.model.id) return false;
  await listModels();
  const ids = state.models.map(({ id }) => id);
  return ids.length > 0 && !ids.includes(model.id) && !ids.includes(`${model.id}:latest`);
}

/** Ends the reply under way. Where it has ended by itself, that is no error. */
const cancel = (id) => api("POST", `sessions/${id}/cancel`, { unless: 409 });

/** Stops the reply under way. What the server has not answered yet is stopped once it has. */
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
  await converse(`sessions/${state.current.id}/${operation}`, null, turn);
}

/** Shows what was said elsewhere, as in another tab, since the chat was looked at. */
const look = attempt(async () => {
  const { current, screen } = state;
  const last = articles().at(-1);
  if (!last || isLoading() || isBusy()) return;
  const { turns } = await fetchSession(current.id, { limit: 1 }, { signal: screen.signal });
  const isSame = screen.signal.aborted || isShown(turns.at(-1), last);
  if (!isSame) await open(current.id);
}, sayIfAny);

let looking = null; // a tab that is shown gets the focus, too: one look is enough
function lookOnce() {
  looking ??= look().finally(() => (looking = null));
}

addEventListener("focus", lookOnce);
addEventListener("visibilitychange", () => {
  if (!document.hidden) lookOnce();
});

actions.retry = attempt(() => askAgain("retry"));
actions.continue = attempt((article) => askAgain("continue", turnOf(article)));

// Copies are rare: what makes them is fetched when it is used.
const forks = () => import("./forks.js");

actions.fork = attempt(async (article) => {
  const { fork } = await forks();
  await fork(article);
});

actions.send = async (article, field, content) => {
  focusText();
  if (isLast(article)) {
    await converse(`sessions/${state.current.id}/retry`, { content });
  } else {
    const { sendEdited } = await forks();
    await sendEdited(article, field, content);
  }
};

// Which chat the address names: `#` and the session's id.

/** Shows the chat that the address names; without one, a new chat. */
export async function route() {
  focusText();
  if (idInAddress()) await open(idInAddress());
  else openNew();
}

export function goToNew() {
  if (location.hash) location.hash = "";
  else attempt(route)();
  focusText();
}
