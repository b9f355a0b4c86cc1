// An exchange with the model: the request that is sent, and the reply as it arrives.

import { $ } from "../dom.js";
import { Following } from "../parley.js";
import { errorOf, fetchSignedIn, keyOf, reportLost, store } from "./api.js";
import {
  draftName,
  editName,
  forgetDraft,
  forgetEdit,
  keepDraft,
  removeFromDraft,
  restoreUnsent,
} from "./drafts.js";
import { keepEditing } from "./editing.js";
import { announce, isLoading, modelId, publish, setBusy, state, updateFrame } from "./screen.js";
import { pauseThinking, showThought } from "./thinking.js";
import {
  articles,
  beginReply,
  failureOf,
  finishReply,
  hideWaiting,
  isShown,
  markdownWriter,
  showTurn,
  showWaiting,
  textOf,
} from "./turns.js";

const SILENCE = 3_000; // ms without an event until the waiting dots appear

/** A message, retry or continue, until the server has it. */
export class Outgoing {
  /** Takes the parameters of `requestReply`. */
  constructor(path, body, turn) {
    const isRetry = path.endsWith("/retry");
    this.path = path;
    this.body = body;
    this.turn = turn;
    this.isMessage = !isRetry && !turn;
    this.isEdit = Boolean(isRetry && body);
    this.draft = draftName();
    this.edited = editName();
    this.last = articles().at(-1);
    // A turn may be continued several times, each with an idempotency key of its own.
    this.after = turn ? `${turn.id} ${turn.continued}` : this.last?.dataset.id;
    this.replaced = isRetry ? this.findReplaced() : [];
    this.shown = [];
  }

  /** The articles that a retry replaces: the reply, if any, and the message if it is edited. */
  findReplaced() {
    const lastMessage = articles().findLastIndex((article) => article.matches(".user"));
    return articles().slice(this.body ? lastMessage : lastMessage + 1);
  }

  /** Whether this turn, the server's last one, was the last on the screen. */
  isUpToDate(turn) {
    if (this.turn) return turn.id === this.turn.id && turn.continued === this.turn.continued;
    const isUnfinished = this.last.ariaBusy === "true"; // we do not have its end yet
    return isUnfinished ? this.last.dataset.id === turn.id : isShown(turn, this.last);
  }

  /** Shows the message, and an empty reply that waits. */
  show() {
    state.pending = this.isMessage ? this.body : null;
    this.replaced.forEach((article) => article.remove());
    if (this.body) {
      const { content, files } = this.body;
      const id = this.replaced[0]?.dataset.id;
      this.shown.push(showTurn({ kind: "user", content, files, id }));
    }
    if (this.turn) beginReply(articles().at(-1));
    else {
      this.shown.push(
        showTurn({ kind: "assistant", model: { id: modelId() }, status: "in_progress" }),
      );
    }
    if (!this.isEdit) keepEditing();
  }

  /** Restores the screen, and puts the text back into its field unless the message has arrived. */
  restore(hasArrived) {
    if (!hasArrived) restoreUnsent();
    state.pending = null;
    keepDraft();
    this.shown.forEach((article) => article.remove());
    $("turns").append(...this.replaced);
    if (this.turn) finishReply(articles().at(-1), this.turn);
    setBusy(false);
  }

  /** The server has it, and its session is on the screen. What was typed meanwhile is the draft. */
  arrive() {
    state.pending = null;
    forgetDraft(this.draft);
    if (this.isEdit) forgetEdit(this.edited, this.body);
  }

  /** The server has it, but another session is on the screen. */
  arriveElsewhere() {
    if (this.isMessage) removeFromDraft(this.body, this.draft);
    if (this.isEdit) forgetEdit(this.edited, this.body);
  }
}

/** A reply, from its request to its end: shows its events in an article. */
export class Incoming {
  stored = null; // the turn as the server stored it, if the text on the screen is the same
  problem = ""; // why it failed
  hasEnded = false;

  /** `text`: what the article already has of the reply, if it is continued. */
  constructor(article, text = "") {
    this.article = article;
    this.text = text;
    this.heard = textOf(article).innerText; // a screen reader has already read this
    this.writer = markdownWriter(article, text);
  }

  /** Sends the request, again if need be, until the server has it. Returns the session's id. */
  async start({ path, body, after }, signal) {
    const key = keyOf({ path, body, after });
    this.follow(path, { body: body ?? {}, key });
    try {
      await this.following.start(signal);
      store("unanswered", "");
    } catch (error) {
      if (error.status) store("unanswered", "");
      throw error;
    }
    return this.following.place.pathname.split("/").at(-2);
  }

  /** Prepares to follow the reply to this request, or the last reply of this session. */
  follow(path, options) {
    this.following = new Following(path, {
      ...options,
      fetch: fetchSignedIn,
      tries: Infinity,
      onStart: () => this.restart(),
      onBreak: (problem) => this.onConnectionBreak(problem),
    });
  }

  /** The events start from the beginning of the reply. */
  restart() {
    this.text = "";
    this.writer = markdownWriter(this.article);
  }

  /** Shows that the connection is lost. Throws a refusal of the request, such as a 503. */
  onConnectionBreak(problem) {
    const { body } = this.following; // undefined once the server has it
    if (body && problem?.status) throw problem;
    reportLost();
    showWaiting(this.article);
    // The event `session` was lost, and `/events` does not send it: the 409 has the chat opened
    // again.
    if (!body && isLoading()) throw errorOf("The chat has to be fetched.", 409);
  }

  /** Shows an event. */
  take({ id, event, data }) {
    [this.article.dataset.id] = id.split("-"); // 7-12 belongs to turn 7
    this.watch();
    HANDLERS[event]?.(this, data);
  }

  /** Shows the waiting dots if no event follows for a while. */
  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => showWaiting(this.article), SILENCE);
  }

  stopWatch() {
    clearTimeout(this.silence);
  }

  /** Gives up: no more events will arrive, and the reply's state is unknown. */
  abandon() {
    hideWaiting(this.article);
    this.article.ariaBusy = "false";
    setBusy(false);
  }
}

/**
 * The part of a reply that a screen reader has not read; all of it if its beginning has changed.
 */
export function notYetHeard(article, heard) {
  const said = [...article.querySelectorAll(":scope > .text, .note")].map((node) => node.innerText);
  if (said[0].startsWith(heard)) said[0] = said[0].slice(heard.length).trim();
  return said.filter(Boolean).join("\n");
}

const HANDLERS = {
  session(reply, session) {
    state.current = { ...state.current, ...session };
    updateFrame();
    publish("sessions");
  },
  thinking({ article }, data) {
    // With THINKING=count, the server sends no text.
    if (data.delta === undefined) return showWaiting(article, "Thinking…");
    hideWaiting(article);
    showThought(article, data);
  },
  waiting({ article }, { seconds }) {
    const sentence = `The provider asks to wait ${seconds} s.`;
    showWaiting(article, sentence);
    announce(sentence);
  },
  content_delta(reply, { delta }) {
    hideWaiting(reply.article);
    pauseThinking(reply.article);
    reply.writer.append(delta);
    reply.text += delta;
  },
  assistant_turn(reply, turn) {
    // If a repeated request meets a reply that has ended, the answer has this turn, but no deltas.
    if (turn.content === reply.text) reply.stored = turn;
  },
  done: end,
  error: end,
};

function end(reply, error) {
  reply.writer.draw(true);
  reply.problem = failureOf(error);
  reply.hasEnded = true;
}
