// The page's requests to the API: they carry the user's token, and are retried if the connection is
// lost.

import { newKey, ParleyError, pause, readEmpty, refusalOf } from "../parley.js";

/**
 * Stores a text for this tab, or removes it if empty. A text too long for the browser is dropped.
 */
export function store(name, text) {
  sessionStorage.removeItem(name);
  if (!text) return;
  try {
    sessionStorage.setItem(name, text);
  } catch {
    // Browsers allow about 5 MB per origin.
  }
}

// Requests

let token = null; // of the signed-in user
// The subject named by a proxy, if there is no token. It is sent along as `For-Subject`: by the
// time of a request, the proxy may name somebody else.
let proxyUser = null;

export function useToken(value) {
  token = value;
  proxyUser = null;
}

export function useProxyUser(subject) {
  token = null;
  proxyUser = subject;
}

/**
 * Hooks, which other modules set. `lost` and `found`: the connection is lost, or back. `renew`: a
 * token was refused; call `useToken` with a new one, if possible. `refused`: the sign-in is not
 * accepted. `changed`: the proxy now names another user.
 */
export const on = {
  lost: () => {},
  found: () => {},
  renew: async () => {},
  refused: () => {},
  changed: () => {},
};

let losses = 0; // how often the connection was lost

export function reportLost(why) {
  losses++;
  on.lost(why);
}

/** An answer shows that the connection is back only if its request was sent after the last loss. */
function reportFound(before) {
  if (losses === before) on.found();
}

/**
 * Sends a request and returns the answer. Throws a refusal by Parley, with its `status`. If no
 * answer from Parley arrives, the request is sent again until one does, or until `signal` aborts.
 *
 * - `body`: a value to send as JSON; `json`: a text that is JSON already; `bytes`: a Blob.
 * - `onProgress`: called with the share of the request that is sent.
 * - `as`: another token for this request only, or "" for none.
 * - `unless`: a status that is not thrown: the error is returned.
 * - `waits`: also send the request again if the server is busy (503).
 * - `keepalive`: finish the request even if the person leaves the page.
 * - `read`: turns the response into the return value; throws if the body is incomplete.
 */
export async function api(method, path, options = {}) {
  const { signal, waits } = options;
  const sent = mayAbort(method, options) ? options : { ...options, signal: undefined };
  for (let tries = 1; ; tries++) {
    const { answer, problem } = await askAs(method, path, sent);
    if (!problem) return answer;
    const { status, message, retryAfter } = problem;
    const isBusy = waits && status === 503;
    if (status && !isBusy) throw problem;
    signal?.throwIfAborted();
    reportLost(status && message);
    await pause(tries, signal, retryAfter);
  }
}

/**
 * Asks who the user is. If there is no token, and no proxy names a user, `subject` is null, and
 * `sign_in` says how to sign in. Without the parameter, the answer would be a 401, which browsers
 * report as an error.
 */
export const askUser = (options) => api("GET", "me?anonymous=1", options);

/**
 * Aborting a POST, PATCH or DELETE would not undo it, so we wait for its answer. But an upload may
 * take long, and a file that no message has is removed by the server.
 */
const mayAbort = (method, { bytes }) => method === "GET" || bytes;

/** The `fetch` for `Following` of parley.js: signed in as the user. Throws a refusal by Parley. */
export async function fetchSignedIn(url, { method, headers, body, signal }) {
  const { answer, problem } = await askAs(method, url, { headers, json: body, signal });
  if (problem) throw problem;
  return answer;
}

/**
 * Returns `{ answer }` or `{ problem }` of a request with the user's token, or with `as`. If the
 * user's token is refused and can be renewed, the request is sent again with the new one.
 */
async function askAs(method, path, options) {
  let sent = options.as ?? token;
  let result = await ask(path, requestOf(method, sent, options), options);
  const isEnded = result.problem?.status === 401 && options.as === undefined;
  if (isEnded && (await isRenewed(sent))) {
    sent = token;
    result = await ask(path, requestOf(method, sent, options), options);
  }
  if (result.problem) handleRefusal(result.problem, sent);
  return result;
}

async function ask(path, request, options) {
  const { unless, read = readJSON, onProgress } = options;
  const before = losses;
  try {
    const response = await (onProgress ? upload : fetch)(path, request, onProgress);
    if (!response.ok || !isFromParley(response)) throw await refusal(response);
    const answer = await read(response);
    reportFound(before);
    return { answer };
  } catch (problem) {
    if (problem.status) reportFound(before);
    return problem.status && problem.status === unless ? { answer: problem } : { problem };
  }
}

/**
 * Sends a request as `fetch` does, and calls `onProgress` with the share that is sent: `fetch`
 * cannot tell that. Only `fetch` can tell a redirect from a lost connection, so it is asked then.
 */
function upload(path, request, onProgress) {
  const { method, headers, body, signal } = request;
  const sent = new XMLHttpRequest();
  const abort = () => sent.abort();
  signal?.addEventListener("abort", abort);
  return new Promise((resolve, reject) => {
    sent.open(method, path);
    for (const [name, value] of Object.entries(headers)) sent.setRequestHeader(name, value);
    sent.responseType = "blob";
    sent.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    sent.onload = () => resolve(responseOf(sent));
    sent.onabort = () => reject(signal.reason);
    sent.onerror = () => fetch(path, request).then(resolve, reject);
    sent.send(body);
  }).finally(() => signal?.removeEventListener("abort", abort));
}

function responseOf(sent) {
  const lines = sent.getAllResponseHeaders().trim().split("\r\n");
  const headers = lines.filter(Boolean).map((line) => line.split(/: ?(.*)/s, 2));
  return new Response(sent.response, { status: sent.status, headers });
}

/** Whether another token has replaced this one, which was refused. */
async function isRenewed(sent) {
  if (sent === token) await on.renew();
  return sent !== token;
}

/** Calls the hooks if a refusal concerns the sign-in. */
function handleRefusal({ status, message }, sent) {
  if (status === 401 && sent === token) on.refused(message);
  if (status === 412) on.changed();
}

function requestOf(method, sent, { body, json, bytes, headers, signal, keepalive }) {
  const access = sent && { Authorization: `Bearer ${sent}` };
  const subject = proxyUser && sent === token && { "For-Subject": proxyUser };
  const content = json ?? (body && JSON.stringify(body));
  const type = content && { "Content-Type": "application/json" };
  return {
    method,
    headers: { Accept: "application/json", ...access, ...subject, ...type, ...headers },
    body: bytes ?? content,
    signal,
    keepalive,
    // Parley never redirects. A proxy in front of it may, to its own sign-in page.
    redirect: "manual",
  };
}

/** Whether Parley answered, rather than a proxy in front of it. */
const isFromParley = (response) => response.headers.has("X-Request-ID");

/** Reads a JSON answer, and adds its response's `headers`. Returns any other response as it is. */
async function readJSON(response) {
  await readEmpty(response);
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return isJson ? Object.assign(await response.json(), { headers: response.headers }) : response;
}

/** An error whose message is shown to the person. */
export const errorOf = (message, status) => new ParleyError(message, status);

/** The error of a response. It has no status if Parley did not answer. */
async function refusal(response) {
  const isElsewhere = response.type === "opaqueredirect";
  if (isProxySignIn(response, isElsewhere)) return errorOf("Sign in again.", 401);
  const problem = await refusalOf(response);
  const isAway = isElsewhere || response.ok || response.status >= 500;
  if (isAway && !problem.faults.length) return new Error("The server cannot be reached.");
  return problem;
}

/**
 * Whether a proxy asks for a sign-in: it redirects, or answers itself. If we have a token, the
 * proxy let us through before.
 */
function isProxySignIn(response, isElsewhere) {
  if (isElsewhere && !token) return true;
  return proxyUser !== null && !isFromParley(response) && [200, 401, 403].includes(response.status);
}

/** Fetches a session with its last `limit` turns, or those `before` a turn. */
export function fetchSession(id, { limit = 50, before } = {}, options) {
  const query = new URLSearchParams({ "turns[limit]": limit });
  if (before) query.set("turns[before]", before);
  return api("GET", `sessions/${encodeURIComponent(id)}?${query}`, options);
}

// A request for a reply is stored with its idempotency key until it has an answer.

/**
 * The idempotency key of a request. If the same request was sent before and had no answer, it keeps
 * its key, even after a reload, so that the server makes one reply of both.
 */
export function keyOf({ path, body, after }) {
  const request = { path, body, after };
  if (isUnanswered(request)) return unanswered().key;
  const key = newKey();
  store("unanswered", JSON.stringify({ ...request, key }));
  return key;
}

/** Whether this request was sent before and had no answer. */
export function isUnanswered({ path, body, after }) {
  const { key, ...request } = unanswered();
  return Boolean(key) && JSON.stringify(request) === JSON.stringify({ path, body, after });
}

/** The request without an answer, with its key; `{}` if there is none. */
export const unanswered = () => JSON.parse(sessionStorage.getItem("unanswered")) ?? {};
