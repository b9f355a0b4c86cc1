// An exchange with the model: what is sent, and the reply as it comes.

import { $ } from "../dom.js";
import { followEvents, store } from "./api.js";
import { draftName, editName, forgetDraft, giveBack, keepDraft, takeOut } from "./drafts.js";
import { keepEditing } from "./editing.js";
import { announce, frame, modelId, setBusy, state, tell } from "./screen.js";
import { pauseThinking, think } from "./thinking.js";
import {
  articles,
  begin,
  endWaiting,
  finish,
  isShown,
  show,
  textOf,
  wait,
  writerOf,
} from "./turns.js";

const SILENCE = 3_000; // ms without an event

/** A message, a retry or a continuation, until the server has it. */
export class Sending {
  /** What `converse` is given. */
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
    // A turn may go on more than once, each time under a key of its own.
    this.after = turn ? `${turn.id} ${turn.continued}` : this.last?.dataset.id;
    this.replaced = isRetry ? this.findReplaced() : [];
    this.shown = [];
  }

  /** The last message, where it is changed, and its reply. It may have none, as in a fork. */
  findReplaced() {
    const lastMessage = articles().findLastIndex((article) => article.matches(".user"));
    return articles().slice(this.body ? lastMessage : lastMessage + 1);
  }

  /** Whether this turn, the last one that the server has, is the last one that was shown. */
  isBehind(turn) {
    if (this.turn) return turn.id === this.turn.id && turn.continued === this.turn.continued;
    const isUnfinished = this.last.ariaBusy === "true"; // its end is not fetched yet
    return isUnfinished ? this.last.dataset.id === turn.id : isShown(turn, this.last);
  }

  /** Shows the message, and the reply that is waited for. */
  show() {
    state.pending = this.isMessage ? this.body.content : "";
    this.replaced.forEach((article) => article.remove());
    if (this.body) {
      const id = this.replaced[0]?.dataset.id;
      this.shown.push(show({ kind: "user", content: this.body.content, id }));
    }
    if (this.turn) begin(articles().at(-1));
    else {
      this.shown.push(show({ kind: "assistant", model: { id: modelId() }, status: "in_progress" }));
    }
    if (!this.isEdit) keepEditing();
  }

  /**
   * Shows what was there before. What was typed is in its field again, unless the message has
   * arrived.
   */
  takeBack(hasArrived) {
    if (!hasArrived) giveBack();
    state.pending = "";
    keepDraft();
    this.shown.forEach((article) => article.remove());
    $("turns").append(...this.replaced);
    if (this.turn) finish(articles().at(-1), this.turn);
    setBusy(false);
  }

  /**
   * The server has it while its session is on the screen: what was typed meanwhile is the draft.
   */
  arrive() {
    state.pending = "";
    forgetDraft(this.draft);
    if (this.isEdit) store(this.edited, "");
  }

  /** The server has it while another session is on the screen. */
  arriveElsewhere() {
    if (this.isMessage) takeOut(this.body.content, this.draft);
    if (this.isEdit) store(this.edited, "");
  }
}

/** A reply as it comes: what its events show. */
export class Incoming {
  turn = ""; // its id, once an event has named it
  stored = null; // the turn as the server has stored it, where that is what is shown
  problem = ""; // why it failed
  hasEnded = false;
  // Whether the session has to be fetched: another reply was started, or there is none.
  isOther = false;
  lastId = ""; // of the last event
  tries = 0; // since the last event

  /** The reply is shown in this article, and goes on behind the text. */
  constructor(article, text = "") {
    this.article = article;
    this.text = text;
    this.heard = textOf(article).innerText; // what a screen reader has said already
    this.writer = writerOf(article, text);
  }

  /**
   * The response that gives what comes behind the last event; without one, all of the reply, from
   * its start.
   */
  async resume(id, signal) {
    if (!this.lastId) {
      this.text = "";
      this.writer = writerOf(this.article);
    }
    return followEvents(id, this.lastId, signal);
  }

  get isOver() {
    return this.hasEnded || this.isOther;
  }

  /** Shows what an event says, unless it is of another reply. */
  take({ id, event, data }) {
    const [turn] = id.split("-"); // 7-12 belongs to turn 7
    if (this.turn && this.turn !== turn) {
      this.isOther = true;
      return;
    }
    this.turn = turn;
    this.lastId = id;
    this.tries = 0;
    this.article.dataset.id = turn;
    this.watch();
    TAKE[event]?.(this, data);
  }

  /** Shows that it is waited for what comes next, where that takes long. */
  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => wait(this.article), SILENCE);
  }

  stopWatch() {
    clearTimeout(this.silence);
  }

  /** Nothing more will come, and nobody knows what became of it. */
  abandon() {
    endWaiting(this.article);
    this.article.ariaBusy = "false";
    setBusy(false);
  }
}

/**
 * What a screen reader has not said of a reply yet; all of it where it is read differently by now.
 */
export function unheard(article, heard) {
  const said = [...article.querySelectorAll(":scope > .text, .note")].map((node) => node.innerText);
  if (said[0].startsWith(heard)) said[0] = said[0].slice(heard.length).trim();
  return said.filter(Boolean).join("\n");
}

const TAKE = {
  session(reply, session) {
    state.current = { ...state.current, ...session };
    frame();
    tell("sessions");
  },
  thinking({ article }, data) {
    if (data.delta === undefined) return wait(article, "Thinking…"); // the server only counts
    endWaiting(article);
    think(article, data);
  },
  waiting({ article }, { seconds }) {
    const sentence = `The provider asks to wait ${seconds} s.`;
    wait(article, sentence);
    announce(sentence);
  },
  content_delta(reply, { delta }) {
    endWaiting(reply.article);
    pauseThinking(reply.article);
    reply.writer.append(delta);
    reply.text += delta;
  },
  assistant_turn(reply, turn) {
    // Where a request is answered again whose reply has ended meanwhile, its text is not among the
    // answer.
    if (turn.content === reply.text) reply.stored = turn;
  },
  done: end,
  error: end,
};

function end(reply, { message }) {
  reply.writer.draw(true);
  reply.problem = message;
  reply.hasEnded = true;
}
