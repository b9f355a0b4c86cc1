// The API as the page uses it: requests that wait for a lost connection to come back, and event streams.

const KEEPALIVE_TIMEOUT = 40_000; // ms; the server sends an event or a comment every 15 s
const STREAM = { Accept: "text/event-stream" };

let token = null; // of the user who is signed in
let named = null; // the subject of a user whom a proxy names, and who has no token: it may name another one by now
export const useToken = (value) => ([token, named] = [value, null]);
export const useProxy = (subject) => ([token, named] = [null, subject]);
/** What the page does when the connection is lost and found again, when a sign-in is refused, and when it is another user's. */
export const on = { lost: () => {}, found: () => {}, refused: () => {}, changed: () => {} };

/**
 * Returns the response. What Parley refuses is thrown, with its `status`. Where no answer of Parley's arrives, the request
 * is sent again until one does, or until `signal` aborts; with `waits`, also where the server says that it is busy. `as` is a
 * token that is only tried, or "" for none; `unless` is a status that is no error. `read` makes what is returned of a response,
 * and fails where that is cut.
 */
export async function api(method, path, { body, headers, signal, as = token, unless, waits, read = readJSON } = {}) {
  headers = { Accept: "application/json", ...(as && { Authorization: `Bearer ${as}` }), ...headers };
  if (named && as === token) headers["For-Subject"] = named;
  if (body) headers["Content-Type"] = "application/json";
  for (let tries = 1; ; tries++) {
    let problem;
    try {
      const ending = method === "GET" ? { signal } : {}; // what may change something is not taken back by hanging up
      // Parley sends nobody elsewhere; what stands before it may, to its own page for signing in.
      const options = { method, headers, body: body && JSON.stringify(body), redirect: "manual", ...ending };
      const response = await fetch(path, options);
      if (!response.ok || !response.headers.has("X-Request-ID")) throw await refusal(response);
      const answer = await read(response);
      on.found();
      return answer;
    } catch (error) {
      if (error.status) on.found();
      if (error.status === 401 && as === token && unless !== 401) on.refused(error.message);
      if (error.status === 412) on.changed();
      if (error.status && error.status === unless) return error;
      const isBusy = waits && error.status === 503;
      if (error.status && !isBusy) throw error;
      problem = error;
    }
    signal?.throwIfAborted();
    on.lost(problem.status && problem.message);
    await pause(tries, signal, problem.retryAfter);
  }
}

/** An answer in JSON, with the `headers` of its response; any other response as it is. */
async function readJSON(response) {
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return isJson ? Object.assign(await response.json(), { headers: response.headers }) : response;
}

/** The error that a response tells of, with its `faults`. It has no status where not Parley answered but what stands before. */
async function refusal(response) {
  const isOurs = response.headers.has("X-Request-ID");
  // A proxy that wants a sign-in sends the page elsewhere, or answers itself. Who has a token was let through before.
  const isElsewhere = response.type === "opaqueredirect";
  const isPortal = (isElsewhere && !token) || (named && !isOurs && [200, 401, 403].includes(response.status));
  if (isPortal) return Object.assign(new Error("Sign in again."), { status: 401, meta: {}, faults: [] });
  const { errors } = await response.json().catch(() => ({}));
  if (!errors && (isElsewhere || response.ok || response.status >= 500)) return new Error("The server cannot be reached.");
  const message = errors?.map((error) => error.detail).join(" ") ?? `The server answered with the status ${response.status}.`;
  const retryAfter = Number(response.headers.get("Retry-After"));
  return Object.assign(new Error(message), {
    status: response.status, meta: errors?.[0].meta ?? {}, faults: errors ?? [], retryAfter });
}

/**
 * Waits longer with each try, or for these seconds, but no longer than until the device is online again. Throws where the
 * signal aborts.
 */
export function pause(tries, signal, seconds) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, seconds ? seconds * 1000 : Math.min(250 * 2 ** tries, 10_000));
    addEventListener("online", resolve, { once: true });
    signal?.addEventListener("abort", () => reject(signal.reason));
    signal?.aborted && reject(signal.reason);
  });
}

/** Has the model reply behind turn `after`. What may have arrived before has the same key: the server makes one reply of both. */
export async function startReply(path, body, signal, after) {
  let { key, ...unanswered } = JSON.parse(sessionStorage.getItem("unanswered")) ?? {}; // the page may be loaded again meanwhile
  if (JSON.stringify(unanswered) !== JSON.stringify({ path, body, after })) {
    key = crypto.getRandomValues(new Uint32Array(4)).join("-");
    store("unanswered", JSON.stringify({ path, body, after, key }));
  }
  try {
    const response = await api("POST", path, { body, headers: { ...STREAM, "Idempotency-Key": key }, signal });
    const id = response.headers.get("Location").split("/sessions/").at(-1).split("/")[0]; // there may be a prefix
    store("unanswered", "");
    return { id, response };
  } catch (error) {
    if (error.status) store("unanswered", "");
    throw error;
  }
}

/** A session with its last fifty turns, or as `query` says, `before` a turn, or so many as `limit`. */
export function fetchSession(id, { limit = 50, before } = {}, options) {
  const query = new URLSearchParams({ "turns[limit]": limit, ...(before && { "turns[before]": before }) });
  return api("GET", `sessions/${encodeURIComponent(id)}?${query}`, options);
}

export const followEvents = (id, lastId, signal) =>
  api("GET", `sessions/${encodeURIComponent(id)}/events`, { headers: { ...STREAM, "Last-Event-ID": lastId }, signal });

/** Yields the events of a stream until the stream ends, is silent for too long, or the signal aborts. */
export async function* parseSSE(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const hangUp = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", hangUp);
  let rest = "";
  try {
    for (;;) {
      const timeout = setTimeout(hangUp, KEEPALIVE_TIMEOUT);
      const { value, done } = await reader.read().finally(() => clearTimeout(timeout));
      if (done || signal.aborted) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const { id, event, data } = Object.fromEntries(frame.split("\n").map((line) => line.split(/: ?(.*)/s)));
        if (data) yield { id, event, data: JSON.parse(data) };
      }
    }
  } finally {
    hangUp();
  }
}

/** Keeps a text for this tab, as long as there is one, and it is not too long for the browser. */
export function store(name, text) {
  sessionStorage.removeItem(name);
  try {
    if (text) sessionStorage.setItem(name, text);
  } catch {}
}
