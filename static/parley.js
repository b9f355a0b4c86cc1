// A client for Parley, for browsers and Node.js 20 or newer, without dependencies. See
// docs/front-ends.md.

/** @import * as Api from "./openapi.js" */

/**
 * A bearer token; or a function that returns one, called for each request, and again with the
 * refused token after a 401. Leave it out if a proxy in front of the server names the user.
 *
 * @typedef {string | null | undefined} Token
 * @typedef {Token | ((refused?: Token) => Token | Promise<Token>)} Access
 * @typedef {(url: string, init: RequestInit) => Promise<Response>} Fetch
 *
 * @typedef {object} Options
 * @property {Access} [token]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal] closes the connection when it aborts
 * @property {Fetch} [fetch] used instead of the global one. A ParleyError that it throws counts as
 *   the server's answer
 *
 * @typedef {object} Asked
 * @property {string} [content] the message; without `content`, `files` and `body`, no request for a
 *   reply is sent, and a reply in progress is followed
 * @property {NonNullable<Api.Message["files"]>} [files] the images of the message, which `upload`
 *   has described
 * @property {object} [body] further fields of the request, such as `{ model: "m-2" }`; `{}` for a
 *   plain retry
 * @property {string} [key] the idempotency key. Store it with the other options to repeat the
 *   request after a reload
 * @property {string} [lastId] the id of the last event that was read before
 * @property {(events: URL) => void} [onPlace] called with the URL of the events, once that is known
 * @property {() => void} [onStart] called if the events start from the beginning of the reply, also
 *   after a `continue` that broke before its first event: clear the text that you show of it
 * @property {(problem?: ParleyError) => void} [onBreak] called before each pause, with the error if
 *   there is one. If it throws, the events end with that error
 * @property {number} [tries] in a row without an event before it gives up; 20 by default
 *
 * @typedef {Options & Asked} ReplyOptions
 * @typedef {Options & Pick<Asked, "onBreak" | "tries">} UploadOptions
 * @typedef {AsyncGenerator<Api.Event, void, void>} Events
 * @typedef {Options & { body?: object }} Sent a Blob is sent as it is, anything else as JSON
 * @typedef {(method: string, url: string | URL, options?: Sent) => Promise<Response>} Send
 *
 * @typedef {Api.Sessions} Sessions
 * @typedef {Api.WholeSession} Whole
 */

const SILENCE = 40_000; // ms; the server sends an event or a comment every 15 s
const UPLOAD = 4; // characters, or bytes, per ms on a slow line, for the timeout of a large request
const CLOSING = 1000; // ms that a server may take to close a stream after its last event
const TRIES = 20; // in a row without an event
const MAX_WAIT = 60; // s; a longer Retry-After is cut to this
const AWAY = "The server cannot be reached.";
const FOLLOWED = "Another reply followed: get the session.";

/** A refusal by the server, or why there is no answer. `message` is a sentence for people. */
export class ParleyError extends Error {
  name = "ParleyError";

  /**
   * @param {string} message
   * @param {number} [status] of the answer; undefined if there was no answer
   * @param {Api.ErrorObject[]} [faults] the answer's `errors`: each has a `detail`, and perhaps a
   *   `source`
   * @param {Headers} [headers] of the answer
   */
  constructor(message, status, faults = [], headers = undefined) {
    super(message);
    this.status = status;
    this.faults = faults;
    this.meta = faults[0]?.meta ?? {};
    this.retryAfter = Number(headers?.get("Retry-After")) || 0; // s
  }
}

/** The error of an answer that is not a 2xx. @param {Response} response */
export async function refusalOf(response) {
  /** @type {{ errors?: Api.ErrorObject[] }} */
  const { errors = [] } = await response.json().catch(() => ({}));
  const sentences = errors.flatMap(({ detail, meta }) => [detail, meta?.reason]);
  const details = sentences.filter(Boolean).join(" ");
  const message = details || `The server answered with the status ${response.status}.`;
  return new ParleyError(message, response.status, errors, response.headers);
}

/**
 * Reads the end of a 204: a browser reports a request as failed if nobody reads its answer.
 *
 * @param {Response} response
 */
export async function readEmpty(response) {
  if (response.status === 204 && !response.bodyUsed) await response.text();
  return response;
}

/** A new idempotency key: however often a request is sent with it, the server makes one reply. */
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/**
 * Waits for these seconds, or else longer with each try (10 s at most). Ends early when the device
 * is online again. Throws if the signal aborts.
 *
 * @type {(tries: number, signal?: AbortSignal, seconds?: number) => Promise<void>}
 */
export async function pause(tries, signal, seconds) {
  signal?.throwIfAborted();
  const over = new AbortController();
  const once = { signal: over.signal };
  const waiting = new Promise((resolve, reject) => {
    const timer = setTimeout(
      resolve,
      seconds ? seconds * 1000 : Math.min(250 * 2 ** tries, 10_000),
    );
    globalThis.addEventListener?.("online", resolve, once);
    signal?.addEventListener("abort", () => reject(signal.reason), once);
    over.signal.addEventListener("abort", () => clearTimeout(timer));
  });
  await waiting.finally(() => over.abort());
}

/**
 * Waits for the next try, after so many in a row that have failed. Throws the error if it is a
 * refusal, or if there are to be no more tries.
 *
 * @param {ParleyError | undefined} problem why the last one failed, if it was an error
 * @param {number} failed
 * @param {UploadOptions} options
 * @param {number} [wait] s; if the error does not say how long
 */
async function waitAfter(problem, failed, { onBreak, signal, tries = TRIES }, wait = 0) {
  const { status, retryAfter } = { ...problem };
  if (Number(status) < 500) throw problem;
  signal?.throwIfAborted();
  if (failed >= tries) throw status ? problem : new ParleyError(AWAY);
  onBreak?.(problem);
  await pause(failed - 1, signal, Math.min(retryAfter || wait, MAX_WAIT));
}

/**
 * Yields the events of a stream until it ends, is silent for 40 s, or the signal aborts.
 *
 * @type {(response: Response, signal?: AbortSignal) => Events}
 */
export async function* eventsOf(response, signal) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const hangUp = () => reader.cancel().catch(() => {});
  signal?.addEventListener("abort", hangUp);
  let rest = "";
  try {
    for (;;) {
      const timer = setTimeout(hangUp, SILENCE);
      const { value, done } = await reader.read().finally(() => clearTimeout(timer));
      if (done || signal?.aborted) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop() ?? "";
      const events = frames.map(eventOf).filter(({ data }) => data); // a comment has none
      if (events.some(isLast)) await readToClose(reader, hangUp);
      yield* events;
    }
  } finally {
    signal?.removeEventListener("abort", hangUp);
    hangUp();
  }
}

/** Whether no event follows this one. @param {{ event: string }} event */
const isLast = ({ event }) => event === "done" || event === "error";

/**
 * Reads until the server closes the stream: a browser would report a request that we cancel before
 * that as failed.
 *
 * @type {(reader: ReadableStreamDefaultReader<string>, hangUp: () => void) => Promise<void>}
 */
async function readToClose(reader, hangUp) {
  const timer = setTimeout(hangUp, CLOSING);
  try {
    while (!(await reader.read()).done);
  } catch {
    // The connection broke, but nothing is missing.
  }
  clearTimeout(timer);
}

/** @param {string} frame */
function eventOf(frame) {
  const fields = frame.split("\n").map((line) => line.split(/: ?(.*)/s));
  const { id, event, data } = Object.fromEntries(fields);
  return { id, event, data: data && JSON.parse(data) };
}

/** Throws the error for a `fetch` without an answer. @param {unknown} error @returns {never} */
function noAnswer(error) {
  if (!(error instanceof TypeError)) throw error; // aborted by the caller
  throw Object.assign(new ParleyError(AWAY), { cause: error });
}

/** @param {Response} response */
const isStream = ({ headers }) => headers.get("Content-Type")?.startsWith("text/event-stream");

/**
 * Sends a request, and returns the answer, whatever its status. If the token is refused and `token`
 * is a function, sends it once more with the token that this returns now.
 *
 * @type {Send}
 */
async function send(method, url, options = {}) {
  const { token, headers, body, signal, fetch = globalThis.fetch } = options;
  const content = body instanceof Blob ? body : body && JSON.stringify(body);
  const type = typeof content === "string" && { "Content-Type": "application/json" };
  /** @param {Token} bearer */
  const ask = (bearer) => {
    const access = bearer && { Authorization: `Bearer ${bearer}` };
    const all = { Accept: "application/json", ...type, ...access, ...headers };
    const sent = { method, headers: all, body: content, signal };
    const { url: whole } = new Request(url, sent); // throws if the options are invalid
    return fetch(whole, sent).then(readEmpty).catch(noAnswer);
  };
  if (typeof token !== "function") return ask(token);
  const bearer = await token();
  const response = await ask(bearer);
  const other = response.status === 401 ? await token(bearer) : bearer;
  return other === bearer ? response : ask(other);
}

/**
 * Sends a request, and returns the answer. Throws a ParleyError if it is refused, or has no answer.
 *
 * @type {Send}
 */
export async function request(method, url, options) {
  const response = await send(method, url, options);
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/**
 * Follows a reply. Most pages only need `reply`. With `start` and `events` of this class, a page
 * knows when the server has its message, and can pass each of the two a signal of its own.
 */
export class Following {
  tries = 0; // since the last event
  wait = 0; // s; Retry-After of the last answer
  isOver = false;
  connection = new AbortController(); // closes the last connection
  /** @type {Response | undefined} */
  response; // a stream that we have not read yet

  /** @param {string | URL} url @param {ReplyOptions} options */
  constructor(url, { content, files, body, key = newKey(), lastId, ...options }) {
    this.options = options;
    this.place = new URL(url, globalThis.location?.href);
    this.body = body; // until the server has it
    if (content !== undefined) this.body = { ...this.body, content };
    if (files) this.body = { ...this.body, files };
    this.key = key;
    this.lastId = lastId;
    this.turn = lastId?.split("-")[0]; // event 7-12 belongs to turn 7
    if (!this.body) this.follow(this.place);
  }

  /** Requests the events from now on. @param {URL} place of the session, or of its events */
  follow(place) {
    this.place = new URL(place.pathname.replace(/(\/events)?\/?$/, "/events"), place);
    this.body = undefined;
    this.options.onPlace?.(this.place);
  }

  /**
   * Sends the request, again if need be, until the server has it. Then `place` is the URL of the
   * events. The signal ends a pause between two tries. It does not abort a request, because only
   * the answer has that URL.
   *
   * @param {AbortSignal} [signal]
   */
  async start(signal) {
    while (this.body) {
      let problem;
      try {
        this.response = await this.ask();
      } catch (error) {
        problem = error;
      }
      if (this.body) await this.comeBack(problem, signal);
    }
  }

  /** Yields each event once, to the last one. @param {AbortSignal} [signal] @returns {Events} */
  async *events(signal = this.options.signal) {
    while (!this.isOver) {
      let problem;
      try {
        yield* this.connect(signal);
      } catch (error) {
        problem = error;
      }
      if (!this.isOver) await this.comeBack(problem, signal);
    }
  }

  /** Closes the connection. The reply continues on the server. */
  hangUp() {
    this.connection.abort();
  }

  /** Yields the events of one connection. @param {AbortSignal} [signal] @returns {Events} */
  async *connect(signal) {
    try {
      const response = this.response ?? (await this.ask(signal));
      this.response = undefined;
      if (response) yield* this.read(response, signal);
    } finally {
      this.hangUp(); // also if the caller leaves the loop
    }
  }

  /** Sends the request. Returns the stream to read, if any. @param {AbortSignal} [signal] */
  async ask(signal) {
    const { body, lastId, options } = this;
    const connection = new AbortController();
    this.connection = connection;
    const upload = JSON.stringify({ ...body }).length / UPLOAD;
    const timer = setTimeout(() => connection.abort(), SILENCE + upload);
    const last = !body && lastId && { "Last-Event-ID": lastId };
    const key = body && { "Idempotency-Key": this.key };
    const headers = { ...options.headers, Accept: "text/event-stream", ...key, ...last };
    const either = AbortSignal.any([connection.signal, signal ?? connection.signal]);
    const how = { ...options, headers, body, signal: either };
    const asking = send(body ? "POST" : "GET", this.place, how);
    const response = await asking.finally(() => clearTimeout(timer));
    const isUnderWay = response.status === 409 && response.headers.has("Retry-After");
    if (!isStream(response) && !isUnderWay && response.status !== 204) {
      throw await refusalOf(response);
    }
    return this.note(response);
  }

  /** Notes an answer's headers. Returns it if it is a stream to read. @param {Response} response */
  note(response) {
    const { body, lastId } = this;
    const place = response.headers.get("Location");
    if (place) this.follow(new URL(place, response.url));
    this.wait = Number(response.headers.get("Retry-After"));
    this.isOver = response.status === 204; // there is nothing after `lastId`
    // The stream of a POST starts from the beginning, but we have read some of it before.
    if (!isStream(response) || (body && lastId)) {
      this.hangUp();
      return undefined;
    }
    if (!body && !lastId) this.options.onStart?.();
    return response;
  }

  /** Yields a stream's events. @type {(response: Response, signal?: AbortSignal) => Events} */
  async *read(response, signal) {
    for await (const event of eventsOf(response, signal)) {
      const [turn] = event.id.split("-");
      this.turn ??= turn;
      if (turn !== this.turn) throw new ParleyError(FOLLOWED, 409);
      this.lastId = event.id;
      this.tries = 0;
      this.isOver = isLast(event);
      yield event;
      if (this.isOver) return;
    }
  }

  /**
   * Waits for the next try, or gives up.
   *
   * @param {unknown} error why the connection ended, if it was an error
   * @param {AbortSignal} [signal]
   */
  async comeBack(error, signal) {
    const problem = /** @type {ParleyError | undefined} */ (error);
    await waitAfter(problem, ++this.tries, { ...this.options, signal }, this.wait);
  }
}

/**
 * Yields each event of a reply once, even if connections break or servers restart. If you leave the
 * loop, the connection is closed, and the reply continues on the server. Throws a ParleyError if
 * the server refuses, if another reply has followed meanwhile (409), and after 20 tries in a row
 * without an event.
 *
 * @param {string | URL} url of `/sessions`, or of a session's `/messages`, `/retry` or `/continue`;
 *   to follow a reply in progress, the URL of the session or its `/events`
 * @param {ReplyOptions} [options]
 * @returns {Events}
 */
export async function* reply(url, options = {}) {
  yield* new Following(url, options).events();
}

/** The query of all that have a value. @param {Record<string, string | number | undefined>} all */
function queryOf(all) {
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return given.length
    ? `?${new URLSearchParams(given.map(([name, value]) => [name, `${value}`]))}`
    : "";
}

/** @param {string} id @param {string} [operation] */
const pathOf = (id, operation = "") => `/sessions/${encodeURIComponent(id)}${operation}`;

/** All operations of a server, as described in docs/api.md. */
export class Parley {
  /**
   * @param {string | URL} url of the server, including a path prefix
   * @param {Options} [options] for all requests
   */
  constructor(url, options = {}) {
    this.url = `${url}`.replace(/\/$/, "");
    this.options = options;
  }

  /**
   * Sends a request, and returns the parsed JSON of its answer; undefined for a 204.
   *
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   */
  async ask(method, path, body) {
    const response = await request(method, this.url + path, { ...this.options, body });
    return response.status === 204 ? undefined : response.json();
  }

  /** @type {(path: string, options?: ReplyOptions) => Events} */
  reply = (path, options) => reply(this.url + path, { ...this.options, ...options });

  /** @type {(content: string, options?: ReplyOptions) => Events} */
  create = (content, options) => this.reply("/sessions", { ...options, content });
  /** @type {(id: string, content: string, options?: ReplyOptions) => Events} */
  send = (id, content, options) => this.reply(pathOf(id, "/messages"), { ...options, content });
  /** @type {(id: string, options?: ReplyOptions) => Events} `content` replaces the message */
  retry = (id, options) => this.reply(pathOf(id, "/retry"), { body: {}, ...options });
  /** @type {(id: string, options?: ReplyOptions) => Events} */
  continue = (id, options) => this.reply(pathOf(id, "/continue"), { ...options, body: {} });
  /** @type {(id: string, options?: ReplyOptions) => Events} */
  follow = (id, options) => this.reply(pathOf(id, "/events"), options);

  /**
   * Uploads a JPEG or PNG, and returns its description. Sends it again if the connection breaks, or
   * if the server is busy, as often as `reply` does: the same bytes are always one file.
   *
   * @param {Blob} blob
   * @param {UploadOptions} [options]
   * @returns {Promise<Api.File>}
   */
  async upload(blob, options) {
    const all = { ...this.options, ...options };
    for (let failed = 1; ; failed++) {
      try {
        const late = AbortSignal.timeout(SILENCE + Math.ceil(blob.size / UPLOAD));
        const signal = AbortSignal.any([late, all.signal ?? late]);
        const response = await request("POST", `${this.url}/files`, { ...all, body: blob, signal });
        return await response.json();
      } catch (error) {
        await waitAfter(/** @type {ParleyError} */ (error), failed, all);
      }
    }
  }

  /** The bytes of an image. @param {string} id */
  async file(id) {
    const headers = { ...this.options.headers, Accept: "image/*" };
    const url = `${this.url}/files/${encodeURIComponent(id)}`;
    const response = await request("GET", url, { ...this.options, headers });
    return response.blob();
  }

  /** @type {(id: string) => Promise<Api.AssistantTurn>} */
  cancel = (id) => this.ask("POST", pathOf(id, "/cancel"));
  /** @type {(page?: { limit?: number, offset?: number, query?: string }) => Promise<Sessions>} */
  sessions = ({ limit, offset, query } = {}) =>
    this.ask("GET", `/sessions${queryOf({ "page[limit]": limit, "page[offset]": offset, query })}`);
  /** @type {(id: string, turns?: { limit?: number, before?: string }) => Promise<Whole>} */
  session = (id, { limit, before } = {}) =>
    this.ask("GET", pathOf(id, queryOf({ "turns[limit]": limit, "turns[before]": before })));
  /** @type {(id: string, turn: string) => Promise<Api.ThinkingText>} `turn` is a reply */
  thinking = (id, turn) =>
    this.ask("GET", pathOf(id, `/turns/${encodeURIComponent(turn)}/thinking`));
  /** @type {(id: string, turn: string) => Promise<{ data: Api.AssistantTurn[] }>} `turn` is a reply */
  versions = (id, turn) =>
    this.ask("GET", pathOf(id, `/turns/${encodeURIComponent(turn)}/versions`));
  /** @type {(id: string, change: Api.Change) => Promise<Api.ChangedSession>} */
  change = (id, change) => this.ask("PATCH", pathOf(id), change);
  /** @type {(id: string) => Promise<void>} */
  delete = (id) => this.ask("DELETE", pathOf(id));
  /** @type {(id: string, turn?: string) => Promise<Api.CreatedSession>} up to this turn, or all */
  fork = (id, turn) => this.ask("POST", pathOf(id, "/fork"), { turn });
  /** @type {(session: Api.Import | Api.ImportedConversation) => Promise<Api.CreatedSession>} */
  import = (session) => this.ask("POST", "/sessions/import", session);

  /** Yields sessions, as `import` takes them. @returns {AsyncGenerator<Api.Import, void, void>} */
  async *export() {
    const headers = { ...this.options.headers, Accept: "application/x-ndjson" };
    /** @type {URL | undefined} */
    let url = new URL(`${this.url}/export`, globalThis.location?.href);
    while (url) {
      const response = await request("GET", url, { ...this.options, headers });
      const next = /<([^>]+)>; rel="next"/.exec(response.headers.get("Link") ?? "");
      const lines = (await response.text()).split("\n");
      yield* lines.filter(Boolean).map((line) => JSON.parse(line));
      url = next ? new URL(next[1], url) : undefined;
    }
  }

  /** @type {() => Promise<Api.Models>} */
  models = () => this.ask("GET", "/models");
  /** @type {(days?: { from?: string, to?: string }) => Promise<Api.UsageByDay>} days in UTC */
  usage = (days = {}) => this.ask("GET", `/usage${queryOf(days)}`);
  /** @type {() => Promise<Api.Me>} */
  me = () => this.ask("GET", "/me");
}
