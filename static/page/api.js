// The API as the page uses it: requests that wait for a lost connection, and the start of a reply.

import { newKey, ParleyError, pause, refusalOf } from "../parley.js";

/** Keeps a text for this tab, as long as there is one, and it is not too long for the browser. */
export function store(name, text) {
  sessionStorage.removeItem(name);
  if (!text) return;
  try {
    sessionStorage.setItem(name, text);
  } catch {
    // A browser keeps some 5 MB.
  }
}

// Requests

let token = null; // of the user who is signed in
// The subject of a user whom a proxy names, and who has no token: it may name another one by now.
let named = null;

export function useToken(value) {
  token = value;
  named = null;
}

export function useProxy(subject) {
  token = null;
  named = subject;
}

/**
 * What the page does when the connection is lost and found again, when a sign-in is refused, and
 * when it is another user's. `renew` has another token come in the place of one that was refused,
 * if it can be had.
 */
export const on = {
  lost: () => {},
  found: () => {},
  renew: async () => {},
  refused: () => {},
  changed: () => {},
};

let losses = 0; // of the connection, so far

export function lose(why) {
  losses++;
  on.lost(why);
}

/** An answer says that the connection is found where it was asked for behind the last loss. */
function find(before) {
  if (losses === before) on.found();
}

/**
 * Returns the answer. What Parley refuses is thrown, with its `status`. Where no answer of Parley's
 * arrives, the request is sent again until one does, or until `signal` aborts.
 *
 * - `as`: a token that is only tried, or "" for none.
 * - `unless`: a status that is no error: what is refused with it is returned.
 * - `waits`: whether it is sent again also where the server says that it is busy.
 * - `keepalive`: whether it is sent to its end where the page is left meanwhile.
 * - `read`: makes of a response what is returned, and fails where that is cut.
 */
export async function api(method, path, options = {}) {
  const { signal, waits } = options;
  for (let tries = 1; ; tries++) {
    const { answer, problem } = await askAs(method, path, options);
    if (!problem) return answer;
    const { status, message, retryAfter } = problem;
    const isBusy = waits && status === 503;
    if (status && !isBusy) throw problem;
    signal?.throwIfAborted();
    lose(status && message);
    await pause(tries, signal, retryAfter);
  }
}

/**
 * The answer to who is signed in, or to `as`; or the problem. Where the token is refused, the one
 * that takes its place is tried.
 */
async function askAs(method, path, options) {
  let sent = options.as ?? token;
  let told = await ask(path, requestOf(method, sent, options), options);
  const isEnded = told.problem?.status === 401 && options.as === undefined;
  if (isEnded && (await isRenewed(sent))) {
    sent = token;
    told = await ask(path, requestOf(method, sent, options), options);
  }
  if (told.problem) tellRefusal(told.problem, sent);
  return told;
}

/** The answer, or the problem for which there is none. */
async function ask(path, request, options) {
  const { unless, read = readJSON } = options;
  const before = losses;
  try {
    const response = await fetch(path, request);
    if (!response.ok || !isOurs(response)) throw await refusal(response);
    const answer = await read(response);
    find(before);
    return { answer };
  } catch (problem) {
    if (problem.status) find(before);
    return problem.status && problem.status === unless ? { answer: problem } : { problem };
  }
}

/** Whether there is another token by now than this one, which was refused. */
async function isRenewed(sent) {
  if (sent === token) await on.renew();
  return sent !== token;
}

/** Tells the page what a refusal says of who is signed in. */
function tellRefusal({ status, message }, sent) {
  if (status === 401 && sent === token) on.refused(message);
  if (status === 412) on.changed();
}

function requestOf(method, sent, { body, headers, signal, keepalive }) {
  const access = sent && { Authorization: `Bearer ${sent}` };
  const subject = named && sent === token && { "For-Subject": named };
  const type = body && { "Content-Type": "application/json" };
  return {
    method,
    headers: { Accept: "application/json", ...access, ...subject, ...type, ...headers },
    body: body && JSON.stringify(body),
    // What may change something is not taken back by hanging up.
    signal: method === "GET" ? signal : undefined,
    keepalive,
    // Parley sends nobody elsewhere; what stands before it may, to its own page for signing in.
    redirect: "manual",
  };
}

/** Whether Parley has answered, and not what stands before it. */
const isOurs = (response) => response.headers.has("X-Request-ID");

/** An answer in JSON, with the `headers` of its response; any other response as it is. */
async function readJSON(response) {
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return isJson ? Object.assign(await response.json(), { headers: response.headers }) : response;
}

/** An error that tells its message to the person. */
export const errorOf = (message, status) => new ParleyError(message, status);

/** The error that a response tells of. It has no status where Parley has not answered. */
async function refusal(response) {
  const isElsewhere = response.type === "opaqueredirect";
  if (isPortal(response, isElsewhere)) return errorOf("Sign in again.", 401);
  const problem = await refusalOf(response);
  const isAway = isElsewhere || response.ok || response.status >= 500;
  if (isAway && !problem.faults.length) return new Error("The server cannot be reached.");
  return problem;
}

/**
 * Whether a proxy wants a sign-in: it sends the page elsewhere, or answers itself. Who has a token
 * was let through before.
 */
function isPortal(response, isElsewhere) {
  if (isElsewhere && !token) return true;
  return named !== null && !isOurs(response) && [200, 401, 403].includes(response.status);
}

/** A session with its last fifty turns, or as `query` says: so many as `limit`, `before` a turn. */
export function fetchSession(id, { limit = 50, before } = {}, options) {
  const query = new URLSearchParams({ "turns[limit]": limit });
  if (before) query.set("turns[before]", before);
  return api("GET", `sessions/${encodeURIComponent(id)}?${query}`, options);
}

// Event streams

const STREAM = { Accept: "text/event-stream" };

/** Has the model reply behind turn `after`. Returns the session's id and the stream. */
export async function startReply(path, body, signal, after) {
  const headers = { ...STREAM, "Idempotency-Key": keyOf({ path, body, after }) };
  try {
    const response = await api("POST", path, { body, headers, signal });
    // There may be a prefix.
    const [id] = response.headers.get("Location").split("/sessions/").at(-1).split("/");
    store("unanswered", "");
    return { id, response };
  } catch (error) {
    if (error.status) store("unanswered", "");
    throw error;
  }
}

/**
 * The key of a request. What may have arrived before has the same one, so that the server makes one
 * reply of both: the page may have been loaded again.
 */
function keyOf(request) {
  if (isUnanswered(request)) return unanswered().key;
  const key = newKey();
  store("unanswered", JSON.stringify({ ...request, key }));
  return key;
}

/** Whether this was sent before, and no answer has come. */
export function isUnanswered({ path, body, after }) {
  const { key, ...request } = unanswered();
  return Boolean(key) && JSON.stringify(request) === JSON.stringify({ path, body, after });
}

/** The request without an answer, with its key; empty where there is none. */
export const unanswered = () => JSON.parse(sessionStorage.getItem("unanswered")) ?? {};

/** The stream of the latest reply of a session, behind the event with this id. */
export const followEvents = (id, lastId, signal) =>
  api("GET", `sessions/${encodeURIComponent(id)}/events`, {
    headers: { ...STREAM, "Last-Event-ID": lastId },
    signal,
  });
