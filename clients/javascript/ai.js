// A ChatTransport of the AI SDK 6 and 7 for Parley, to use with `useChat`: docs/front-ends.md.

import { newKey, Parley, ParleyError, pause, request } from "./parley.js";

/** @import { ChatTransport, FileUIPart, UIMessage, UIMessageChunk } from "ai" */
/** @import { AssistantTurn, File, Message, ThinkingText, Thoughts, Turn } from "./openapi.js" */
/** @import { Events, Options, ReplyOptions } from "./parley.js" */

/** @typedef {Parameters<ChatTransport<UIMessage>["sendMessages"]>[0]} Sent what the SDK passes */

/**
 * A request without an answer yet. If it is sent again with its idempotency key, the server makes
 * no second reply.
 *
 * @typedef {{ path: string, body: Partial<Message>, key: string, message: string }} Pending
 */

/** @typedef {{ alt?: string } | undefined} Described what a file part's metadata may have for us */

/**
 * What we know of a chat: the id of its session, and the SDK's id of the last message that the
 * session has.
 *
 * @typedef {{ session?: string, message?: string, pending?: Pending }} Place
 */

/**
 * Where we store that, since the SDK has an id for a chat before there is a session. A Map will do.
 *
 * @typedef {{ get(chat: string): Place | undefined, set(chat: string, place: Place): void }} Places
 */

const OTHER = "Only the last message can be changed, or answered again.";
const ELSEWHERE = "Parley does not fetch images from other sites. Attach the image itself.";
const LOST = "The image cannot be read any more. Attach it again.";
const HELD = /^(data|blob):/; // the URLs of bytes that this program has
const BREAK = /^\n\n/; // the server puts it before thoughts that follow a text
const CANCELS = 6; // tries to cancel
const REASONS = /** @type {const} */ ({ stop: "stop", length: "length" });

/** @returns {Places} in a browser, localStorage; elsewhere, memory */
function keptPlaces() {
  if (!("document" in globalThis)) return new Map();
  return {
    get: (chat) => JSON.parse(localStorage.getItem(`parley ${chat}`) ?? "null") ?? undefined,
    set: (chat, place) => localStorage.setItem(`parley ${chat}`, JSON.stringify(place)),
  };
}

/** @param {UIMessage[]} messages @param {UIMessage["role"]} role */
const lastOf = (messages, role) => messages.findLast((message) => message.role === role);

/** @param {UIMessage} message */
const textOf = ({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")).join("");

/**
 * A turn as an SDK message.
 *
 * @param {Turn} turn
 * @param {string} files the URL of files
 * @returns {UIMessage}
 */
function messageOf(turn, files) {
  const { id, kind, content } = turn;
  const metadata = turn.kind === "assistant" ? metadataOf(turn) : undefined;
  /** @type {UIMessage["parts"]} */
  const parts = turn.kind === "user" ? turn.files.map((file) => partOf(file, files)) : [];
  if (content) parts.push({ type: "text", text: content });
  return { id, role: kind, metadata, parts };
}

/** @param {File} file @param {string} files the URL of files @returns {FileUIPart} */
const partOf = ({ id, media_type, alt }, files) => ({
  type: "file",
  mediaType: media_type,
  url: files + id,
  ...(alt && { providerMetadata: { parley: { alt } } }),
});

/** A message's metadata: the turn without its text. @param {AssistantTurn} turn */
function metadataOf(turn) {
  const { id, kind, content, created_at, ...others } = turn;
  return others;
}

/** @typedef {"reasoning" | "text"} Kind of a part */
/** @typedef {Generator<UIMessageChunk, void, void>} Chunks */

/** The parts of a message. The SDK shows them in the order in which they start. */
class Parts {
  #begun = 0;
  /** @type {Partial<Record<Kind, string>>} */
  #open = {}; // the ids of the open parts
  #thoughts = ""; // the thinking so far

  /** @type {(...kinds: Kind[]) => Chunks} */
  *end(...kinds) {
    for (const kind of kinds) {
      const id = this.#open[kind];
      if (id) yield { type: `${kind}-end`, id };
      delete this.#open[kind];
    }
  }

  /** @type {(kind: Kind, delta: string) => Chunks} */
  *add(kind, delta) {
    const id = this.#open[kind] ?? `${++this.#begun}`;
    if (!this.#open[kind]) yield { type: `${kind}-start`, id };
    this.#open[kind] = id;
    yield { type: `${kind}-delta`, id, delta };
  }

  /** @type {(thoughts: Thoughts) => Chunks} */
  *think({ start, delta }) {
    if (delta === undefined) return; // the server has THINKING=count
    const [sent, all] = [this.#thoughts, start ? this.#thoughts + delta : delta];
    this.#thoughts = all;
    const goesOn = all.startsWith(sent);
    if (!goesOn) yield* this.end("reasoning"); // the SDK cannot retract text
    if (sent.startsWith(all)) return;
    const news = goesOn ? all.slice(sent.length) : all;
    const isAnew = !this.#open.reasoning && (!goesOn || BREAK.test(news));
    if (isAnew) yield* this.end("text"); // otherwise they are late, and the text stays open
    yield* this.add("reasoning", isAnew ? news.replace(BREAK, "") : news);
  }
}

/** @param {Events} events @returns {AsyncGenerator<UIMessageChunk, void, void>} */
async function* chunksOf(events) {
  const parts = new Parts();
  let hasBegun = false;
  /** @type {AssistantTurn["stop_reason"]} */
  let reason = null;
  for await (const { id, event, data } of events) {
    if (!hasBegun) yield { type: "start", messageId: id.split("-")[0] };
    hasBegun = true;
    if (event === "thinking") {
      yield* parts.think(data);
    } else if (event === "content_delta") {
      yield* parts.end("reasoning");
      yield* parts.add("text", data.delta);
    } else if (event === "assistant_turn") {
      reason = data.stop_reason;
      yield* parts.end("reasoning", "text");
      yield { type: "message-metadata", messageMetadata: metadataOf(data) };
    } else if (event === "done") {
      yield { type: "finish", finishReason: reason ? REASONS[reason] : "other" };
    } else if (event === "error") {
      yield* parts.end("reasoning", "text");
      yield { type: "error", errorText: [data.message, data.reason].filter(Boolean).join(" ") };
    }
  }
}

/** A `ChatTransport`, which also works with your own type of `UIMessage`. */
export class ParleyTransport {
  resumeStreamIsReplay = true;
  #files; // the URL of files, without an id
  /** @type {Map<string, object>} */
  #newest = new Map(); // chat → its last request: an older one must not cancel the reply
  /** @type {Set<string>} */
  #goesOn = new Set(); // chats whose reply was continued: we stream it even if it has already ended

  /**
   * - `body`: fields for new sessions, such as `{ model: "m-2" }`.
   * - `cancels`: whether the SDK's `stop` cancels the reply, or only closes the connection.
   *
   * @param {string | URL} url of the server
   * @param {Options & { body?: object, cancels?: boolean, places?: Places }} [options]
   */
  constructor(url, { body, cancels = true, places = keptPlaces(), ...options } = {}) {
    this.parley = new Parley(url, options);
    this.body = body;
    this.cancels = cancels;
    this.places = places;
    this.#files = `${this.parley.url}/files/`;
  }

  /** Assigns a session to a chat. @param {string} chat @param {string} session its id */
  open(chat, session) {
    this.places.set(chat, { session });
  }

  /** The messages of a chat, without a reply in progress. @param {string} chat */
  async messages(chat, limit = 200) {
    const { session } = await this.#settle(chat);
    if (!session) return [];
    const { turns } = await this.parley.session(session, { limit });
    const isOver = (/** @type {Turn} */ turn) =>
      turn.kind === "user" || turn.status !== "in_progress";
    return turns.filter(isOver).map((turn) => messageOf(turn, this.#files));
  }

  /**
   * The bytes of an image in a message. The URL of one that comes from the server does not show it,
   * since a browser would send no token.
   *
   * @param {Pick<FileUIPart, "url">} part
   */
  async file({ url }) {
    const id = this.#idOf(url);
    if (id) return this.parley.file(id);
    if (!HELD.test(url)) throw new ParleyError(ELSEWHERE, 400);
    const response = await fetch(url).catch(() => {
      throw new ParleyError(LOST, 400);
    });
    return response.blob();
  }

  /** @type {(chat: string, message: string) => Promise<ThinkingText>} `message` is a reply */
  thinking = (chat, message) => this.parley.thinking(this.places.get(chat)?.session ?? "", message);

  /** Cancels the reply in progress, as the SDK's `stop` does. @param {string} chat */
  async cancel(chat) {
    const session = this.places.get(chat)?.session;
    if (session) await this.#cancel(session);
  }

  /** Continues the last reply. Call the SDK's `resumeStream` to show it. @param {string} chat */
  async continue(chat) {
    const { url, options } = this.parley;
    const session = this.places.get(chat)?.session;
    const headers = { ...options.headers, Prefer: "respond-async" };
    await request("POST", `${url}/sessions/${session}/continue`, { ...options, headers, body: {} });
    this.#goesOn.add(chat);
  }

  /** @type {ChatTransport<UIMessage>["sendMessages"]} */
  async sendMessages(sent) {
    const { chatId, abortSignal } = sent;
    const begun = this.#begin(chatId, abortSignal);
    const pending = await this.#requestOf(sent);
    abortSignal?.throwIfAborted();
    this.places.set(chatId, { ...this.places.get(chatId), pending });
    return this.#stream(chatId, pending, begun, sent.headers);
  }

  /** @type {ChatTransport<UIMessage>["reconnectToStream"]} */
  async reconnectToStream({ chatId, abortSignal, headers }) {
    const begun = this.#begin(chatId, abortSignal);
    const { session, message } = await this.#settle(chatId);
    if (!session) return null;
    const { turns } = await this.parley.session(session, { limit: 1 });
    const last = turns.at(-1);
    const isUnderWay = last?.kind === "assistant" && last.status === "in_progress";
    if (!this.#goesOn.delete(chatId) && !isUnderWay) return null;
    return this.#stream(chatId, { path: `/sessions/${session}/events`, message }, begun, headers);
  }

  /** Notes a request of a chat. @param {string} chat @param {AbortSignal} [signal] of the SDK */
  #begin(chat, signal) {
    const mine = {};
    this.#newest.set(chat, mine);
    return { signal, isNewest: () => this.#newest.get(chat) === mine };
  }

  /** The request for what the SDK passes. @param {Sent} sent @returns {Promise<Pending>} */
  async #requestOf(sent) {
    const { chatId, trigger, messages, abortSignal } = sent;
    const asked = lastOf(messages, "user");
    if (!asked) throw new ParleyError("There is no message to answer.", 400);
    const { session, message, pending } = this.places.get(chatId) ?? {};
    if (trigger === "regenerate-message" && pending?.message === asked.id) return pending;
    const operation = session
      ? await this.#operationOf(sent, asked.id === message, session)
      : { path: "/sessions", body: undefined };
    const body = operation.body ?? (await this.#bodyOf(asked, abortSignal));
    const made = { path: operation.path, key: newKey(), message: asked.id };
    return { ...made, body: session ? body : { ...this.body, ...sent.body, ...body } };
  }

  /** The id of an image of the server; undefined if this is no URL of one. @param {string} url */
  #idOf(url) {
    return url.startsWith(this.#files) ? url.slice(this.#files.length) : undefined;
  }

  /**
   * A message as the server accepts it. Uploads the images that do not come from the server.
   *
   * @param {UIMessage} message
   * @param {AbortSignal} [signal]
   * @returns {Promise<Message>}
   */
  async #bodyOf(message, signal) {
    const files = [];
    for (const part of message.parts) {
      if (part.type !== "file") continue;
      const known = this.#idOf(part.url);
      const id = known ?? (await this.parley.upload(await this.file(part), { signal })).id;
      files.push({ id, .../** @type {Described} */ (part.providerMetadata?.parley) });
    }
    return { content: textOf(message), ...(files.length > 0 && { files }) };
  }

  /**
   * The path, and perhaps the body, of a request to a session: a retry, or a message if the session
   * does not have it.
   *
   * @param {Sent} sent
   * @param {boolean} isLast whether the message is the last one that the session has
   * @param {string} session
   */
  async #operationOf({ trigger, messageId, messages }, isLast, session) {
    const isAgain = trigger === "regenerate-message";
    const isNew = !isAgain && messageId === undefined;
    const isTaken = !isNew && (isLast || (await this.#hasTaken(session, messages)));
    if (!isTaken) return { path: `/sessions/${session}/messages` };
    return { path: `/sessions/${session}/retry`, ...(isAgain && { body: {} }) };
  }

  /**
   * Whether the session has the last user message. It does not have one that was refused. Throws if
   * the session has later messages.
   *
   * @param {string} session
   * @param {UIMessage[]} messages
   */
  async #hasTaken(session, messages) {
    const { turns } = await this.parley.session(session, { limit: 50 });
    const asked = turns.findLast(({ kind }) => kind === "user");
    if (asked?.id === lastOf(messages, "user")?.id) return true;
    if (turns.at(-1)?.id === lastOf(messages, "assistant")?.id) return false;
    throw new ParleyError(OTHER, 409);
  }

  /** What we know of a chat. Sends a pending request again first. @param {string} chat */
  async #settle(chat) {
    const pending = this.places.get(chat)?.pending;
    if (pending) {
      const over = new AbortController();
      const events = this.#events(chat, pending, { signal: over.signal }, () => over.abort());
      await events.next().catch((error) => {
        if (!over.signal.aborted && !(error.status < 500)) throw error;
      });
    }
    return this.places.get(chat) ?? {};
  }

  /**
   * The events of a reply. Stores the session, and calls `onSession` with it, once it is known.
   *
   * @param {string} chat
   * @param {Partial<Pending> & { path: string }} asked
   * @param {ReplyOptions} options
   * @param {(session: string) => void} onSession
   * @returns {Events}
   */
  async *#events(chat, { path, message, ...asked }, options, onSession) {
    const onPlace = (/** @type {URL} */ { pathname }) => {
      const session = pathname.split("/").at(-2) ?? "";
      this.places.set(chat, { session, message });
      onSession(session);
    };
    try {
      yield* this.parley.reply(path, { ...asked, ...options, onPlace });
    } catch (error) {
      const isRefused = error instanceof ParleyError && Number(error.status) < 500;
      if (isRefused) this.places.set(chat, { ...this.places.get(chat), pending: undefined });
      throw error;
    }
  }

  /**
   * The stream of a reply, in chunks of the SDK.
   *
   * @param {string} chat
   * @param {Partial<Pending> & { path: string }} asked
   * @param {{ signal?: AbortSignal, isNewest: () => boolean }} begun
   * @param {HeadersInit} [headers]
   * @returns {ReadableStream<UIMessageChunk>}
   */
  #stream(chat, asked, { signal, isNewest }, headers) {
    const over = new AbortController();
    let session = "";
    const stop = async () => {
      await new Promise((resolve) => setTimeout(resolve)); // a request may replace it at once
      const isStopped = this.cancels && isNewest();
      if (isStopped && !session) return; // called again once it is known
      if (isStopped) await this.#cancel(session);
      over.abort();
    };
    signal?.addEventListener("abort", stop);
    const all = { ...this.parley.options.headers, ...Object.fromEntries(new Headers(headers)) };
    const events = this.#events(chat, asked, { headers: all, signal: over.signal }, (id) => {
      session = id;
      if (signal?.aborted) stop();
    });
    const chunks = chunksOf(events);
    return new ReadableStream({
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel() {
        if (!signal?.aborted) over.abort();
      },
    });
  }

  /** Cancels a reply, unless it has already ended. @param {string} session */
  async #cancel(session) {
    for (let tries = 0; tries < CANCELS; tries++) {
      try {
        await this.parley.cancel(session);
        return;
      } catch (error) {
        if (error instanceof ParleyError && Number(error.status) < 500) return;
        await pause(tries);
      }
    }
  }
}
