// A client of Parley for browsers and Node.js 20 or newer, without a library: docs/front-ends.md.

/** @import * as Api from "./openapi.js" */

/**
 * A bearer token; or a function that is asked for one at each request, and is given the one that
 * was refused, where one was. Nothing where a proxy in front of the server says who asks.
 *
 * @typedef {string | null | undefined} Token
 * @typedef {Token | ((refused?: Token) => Token | Promise<Token>)} Access
 * @typedef {{ token?: Access, headers?: Record<string, string>, signal?: AbortSignal }} Options
 *
 * @typedef {object} Asked
 * @property {string} [content] the message; without it, and `body`, what is under way is followed
 * @property {object} [body] what is sent besides: `{ model: "m-2" }`; `{}` for a plain retry
 * @property {string} [key] of the request: kept with all else, it goes on after a reload
 * @property {string} [lastId] of the last event that was read before
 * @property {(events: URL) => void} [onPlace] is told where the events are, once that is known
 *
 * @typedef {Options & Asked} ReplyOptions
 * @typedef {AsyncGenerator<Api.Event, void, void>} Events
 * @typedef {Options & { body?: object }} Sent
 * @typedef {(method: string, url: string | URL, options?: Sent) => Promise<Response>} Send
 *
 * @typedef {Api.Sessions} Sessions
 * @typedef {Api.WholeSession} Whole
 */

const SILENCE = 40_000; // ms; the server sends an event or a comment every 15 s
const TRIES = 20; // in a row without an event
const LONGEST = 60; // s; of what an answer may ask to wait
const AWAY = "The server cannot be reached.";
const FOLLOWED = "Another reply followed: get the session.";

/** What the server has refused, or why there is no answer. `message` is a sentence for people. */
export class ParleyError extends Error {
  name = "ParleyError";

  /**
   * @param {string} message
   * @param {number} [status] of the answer; none where there was none
   * @param {Api.ErrorObject[]} [faults] each has its `detail`, and perhaps its `source`
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

/** The error that an answer tells of. @param {Response} response */
export async function refusalOf(response) {
  /** @type {{ errors?: Api.ErrorObject[] }} */
  const { errors = [] } = await response.json().catch(() => ({}));
  const details = errors.map(({ detail }) => detail).join(" ");
  const message = details || `The server answered with the status ${response.status}.`;
  return new ParleyError(message, response.status, errors, response.headers);
}

/** A key that names one reply, however often it is asked for. */
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/**
 * Waits longer with each try, or for these seconds, but no longer than until the device is online
 * again. Throws where the signal aborts.
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
 * Yields the events of a stream until it ends, is silent for too long, or the signal aborts.
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
      yield* frames.map(eventOf).filter(({ data }) => data); // a comment has none
    }
  } finally {
    signal?.removeEventListener("abort", hangUp);
    hangUp();
  }
}

/** @param {string} frame */
function eventOf(frame) {
  const fields = frame.split("\n").map((line) => line.split(/: ?(.*)/s));
  const { id, event, data } = Object.fromEntries(fields);
  return { id, event, data: data && JSON.parse(data) };
}

/** Throws what is told where `fetch` has had no answer. @param {unknown} error @returns {never} */
function noAnswer(error) {
  if (!(error instanceof TypeError)) throw error; // hung up by the caller
  throw Object.assign(new ParleyError(AWAY), { cause: error });
}

/**
 * The answer to one request, whatever it is. Where the token is refused, the function that gives it
 * is asked for another one.
 *
 * @type {Send}
 */
async function send(method, url, { token, headers, body, signal } = {}) {
  const type = body && { "Content-Type": "application/json" };
  /** @param {Token} bearer */
  const ask = (bearer) => {
    const access = bearer && { Authorization: `Bearer ${bearer}` };
    const all = { Accept: "application/json", ...type, ...access, ...headers };
    const sent = { method, headers: all, body: body && JSON.stringify(body), signal };
    return fetch(new Request(url, sent)).catch(noAnswer); // Request throws what is wrong in it
  };
  if (typeof token !== "function") return ask(token);
  const bearer = await token();
  const response = await ask(bearer);
  const other = response.status === 401 ? await token(bearer) : bearer;
  return other === bearer ? response : ask(other);
}

/**
 * The answer to one request. Throws a ParleyError where it is refused, or there is none.
 *
 * @type {Send}
 */
export async function request(method, url, options) {
  const response = await send(method, url, options);
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** A reply that is followed: what to ask for next, and what came of it. */
class Following {
  tries = 0; // since the last event
  wait = 0; // s; what the last answer asked for
  isOver = false;

  /** @param {string | URL} url @param {ReplyOptions} options */
  constructor(url, { content, body, key = newKey(), lastId, ...options }) {
    this.options = options;
    this.place = new URL(url, globalThis.location?.href);
    this.body = content === undefined ? body : { ...body, content };
    this.key = key;
    this.lastId = lastId;
    this.turn = lastId?.split("-")[0]; // 7-12 belongs to turn 7
    if (!this.body) this.follow(this.place);
  }

  /** From here on, the events are asked for. @param {URL} place of the session, or of its events */
  follow(place) {
    this.place = new URL(place.pathname.replace(/(\/events)?\/?$/, "/events"), place);
    this.body = undefined;
    this.options.onPlace?.(this.place);
  }

  /** The answer from which it goes on. @param {AbortSignal} signal */
  async ask(signal) {
    const { body, lastId, options } = this;
    const last = !body && lastId && { "Last-Event-ID": lastId };
    const key = body && { "Idempotency-Key": this.key };
    const headers = { ...options.headers, Accept: "text/event-stream", ...key, ...last };
    const how = { ...options, headers, body, signal };
    const response = await send(body ? "POST" : "GET", this.place, how);
    const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
    const isUnderWay = response.status === 409 && response.headers.has("Retry-After");
    if (isStream || isUnderWay || response.status === 204) return response;
    throw await refusalOf(response);
  }

  /** What one connection gives. @returns {Events} */
  async *connect() {
    const connection = new AbortController();
    const timer = setTimeout(() => connection.abort(), SILENCE);
    const signal = AbortSignal.any([connection.signal, this.options.signal ?? connection.signal]);
    try {
      const response = await this.ask(signal).finally(() => clearTimeout(timer));
      const isBegun = this.body && this.lastId; // this answer would begin at the beginning
      const place = response.headers.get("Location");
      if (place) this.follow(new URL(place, response.url));
      this.wait = Number(response.headers.get("Retry-After"));
      this.isOver = response.status === 204; // all of it has been read
      if (response.ok && !isBegun) yield* this.read(response, signal);
    } finally {
      connection.abort(); // also where the caller leaves the loop
    }
  }

  /** What a stream gives. @type {(response: Response, signal: AbortSignal) => Events} */
  async *read(response, signal) {
    for await (const event of eventsOf(response, signal)) {
      const [turn] = event.id.split("-");
      this.turn ??= turn;
      if (turn !== this.turn) throw new ParleyError(FOLLOWED, 409);
      this.lastId = event.id;
      this.tries = 0;
      this.isOver = event.event === "done" || event.event === "error";
      yield event;
      if (this.isOver) return;
    }
  }

  /** Waits for the next try, or gives up. @param {unknown} error why a connection gave no more */
  async comeBack(error) {
    const problem = /** @type {ParleyError | undefined} */ (error);
    if (Number(problem?.status) < 500) throw problem;
    if (++this.tries === TRIES) throw problem?.status ? problem : new ParleyError(AWAY);
    const seconds = Math.min(problem?.retryAfter || this.wait, LONGEST);
    await pause(this.tries - 1, this.options.signal, seconds);
  }
}

/**
 * The events of a reply, each once, whatever becomes of connections and servers. Where its loop is
 * left, it hangs up, and the reply goes on. Throws a ParleyError where the server refuses, where
 * another reply has followed meanwhile (409), and behind twenty tries in a row without an event.
 *
 * @param {string | URL} url of `/sessions`, or of a session with `/messages`, `/retry` or
 *   `/continue`; to follow, of the session or of its events
 * @param {ReplyOptions} [options]
 * @returns {Events}
 */
export async function* reply(url, options = {}) {
  const following = new Following(url, options);
  while (!following.isOver) {
    let problem;
    try {
      yield* following.connect();
    } catch (error) {
      options.signal?.throwIfAborted();
      problem = error;
    }
    if (!following.isOver) await following.comeBack(problem);
  }
}

/** The parameters that have a value. @param {Record<string, string | number | undefined>} all */
function queryOf(all) {
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return given.length
    ? `?${new URLSearchParams(given.map(([name, value]) => [name, `${value}`]))}`
    : "";
}

/** @param {string} id @param {string} [operation] */
const pathOf = (id, operation = "") => `/sessions/${encodeURIComponent(id)}${operation}`;

/** All operations of one server, as docs/api.md has them. */
export class Parley {
  /** @param {string | URL} url of the server, with its prefix @param {Options} [options] of all */
  constructor(url, options = {}) {
    this.url = `${url}`.replace(/\/$/, "");
    this.options = options;
  }

  /**
   * The answer of an operation, in JSON; nothing where there is none (204).
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
  /** @type {(id: string, options?: ReplyOptions) => Events} `content` takes the message's place */
  retry = (id, options) => this.reply(pathOf(id, "/retry"), { body: {}, ...options });
  /** @type {(id: string, options?: ReplyOptions) => Events} */
  continue = (id, options) => this.reply(pathOf(id, "/continue"), { ...options, body: {} });
  /** @type {(id: string, options?: ReplyOptions) => Events} */
  follow = (id, options) => this.reply(pathOf(id, "/events"), options);

  /** @type {(id: string) => Promise<Api.AssistantTurn>} */
  cancel = (id) => this.ask("POST", pathOf(id, "/cancel"));
  /** @type {(page?: { limit?: number, offset?: number, query?: string }) => Promise<Sessions>} */
  sessions = ({ limit, offset, query } = {}) =>
    this.ask("GET", `/sessions${queryOf({ "page[limit]": limit, "page[offset]": offset, query })}`);
  /** @type {(id: string, turns?: { limit?: number, before?: string }) => Promise<Whole>} */
  session = (id, { limit, before } = {}) =>
    this.ask("GET", pathOf(id, queryOf({ "turns[limit]": limit, "turns[before]": before })));
  /** @type {(id: string, turn: string) => Promise<Api.ThinkingText>} of a reply */
  thinking = (id, turn) =>
    this.ask("GET", pathOf(id, `/turns/${encodeURIComponent(turn)}/thinking`));
  /** @type {(id: string, change: Api.Change) => Promise<Api.ChangedSession>} */
  change = (id, change) => this.ask("PATCH", pathOf(id), change);
  /** @type {(id: string) => Promise<void>} */
  delete = (id) => this.ask("DELETE", pathOf(id));
  /** @type {(id: string, turn?: string) => Promise<Api.CreatedSession>} up to this turn, or all */
  fork = (id, turn) => this.ask("POST", pathOf(id, "/fork"), { turn });
  /** @type {(session: Api.Import) => Promise<Api.CreatedSession>} */
  import = (session) => this.ask("POST", "/sessions/import", session);

  /** Sessions as `import` takes them. @returns {AsyncGenerator<Api.Import, void, void>} */
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
  /** @type {(days?: { from?: string, to?: string }) => Promise<Api.UsageByDay>} in UTC */
  usage = (days = {}) => this.ask("GET", `/usage${queryOf(days)}`);
  /** @type {() => Promise<Api.Me>} */
  me = () => this.ask("GET", "/me");
}
