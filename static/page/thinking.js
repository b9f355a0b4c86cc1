// What a model thinks: one line above its answer, which opens. It is no part of the answer.

import { element } from "../dom.js";
import { Markdown } from "../markdown/markdown.js";
import { api } from "./api.js";
import { announce, state, tell } from "./screen.js";

const lines = new WeakMap(); // article → its Line

/** The line of one reply. Its text is there while it is streamed; else it is fetched to be read. */
class Line {
  streamed = ""; // what the stream has told
  writer = null; // of what is shown, if anything is
  before = 0; // ms of thinking before the last stretch of it
  began = 0; // ms; when that began; 0 if it is over

  constructor(article) {
    this.article = article;
    this.summary = element("summary", {});
    this.text = element("div", { className: "text" });
    this.node = element("details", { className: "thinking" }, this.summary, this.text);
    this.node.ontoggle = () => this.toggle();
    article.querySelector("h3").after(this.node);
    lines.set(article, this);
  }

  remove() {
    clearInterval(this.timer);
    this.node.remove();
    lines.delete(this.article);
  }

  /** Shows what an event tells. */
  take({ start, delta }) {
    if (!this.began) this.begin();
    let more = delta;
    if (start === 0) {
      if (delta.startsWith(this.streamed)) more = delta.slice(this.streamed.length);
      else this.clear();
    }
    this.streamed += more;
    this.writer?.append(more);
  }

  clear() {
    this.streamed = "";
    this.text.replaceChildren();
    if (this.writer) this.writer = new Markdown(this.text);
  }

  begin() {
    this.began = Date.now();
    this.timer = setInterval(() => this.tick(), 1000);
    this.tick();
  }

  tick() {
    const seconds = (this.before + Date.now() - this.began) / 1000;
    this.summary.textContent = `Thinking… ${Math.round(seconds)} s`;
    if (!this.node.isConnected) clearInterval(this.timer);
  }

  /** Text follows, or the end. */
  pause() {
    if (!this.began) return;
    clearInterval(this.timer);
    this.before += Date.now() - this.began;
    this.began = 0;
    this.tell(this.before / 1000);
  }

  /** Says for how long the model has thought. */
  tell(seconds) {
    this.summary.textContent = `Thought for ${Math.max(1, Math.round(seconds))} s`;
  }

  /** The reply has ended: what is not shown of the text is fetched when it is. */
  end({ seconds }) {
    this.pause();
    this.before = seconds * 1000;
    this.tell(seconds);
    this.streamed = "";
    this.writer?.draw(true);
  }

  async toggle() {
    if (!this.node.open || this.writer) return;
    const isOver = this.article.ariaBusy !== "true";
    if (isOver) tell("opened"); // else the end stays in view, and what was opened goes out of it
    this.writer = new Markdown(this.text);
    this.writer.append(isOver ? await this.fetch() : this.streamed);
    if (isOver) this.writer.draw(true);
  }

  /** The text as it is kept, or why there is none. */
  async fetch() {
    this.text.textContent = "…";
    const path = `sessions/${state.current.id}/turns/${this.article.dataset.id}/thinking`;
    const { text, message } = await api("GET", path, {
      signal: state.screen.signal,
      unless: 404,
    }).catch((error) => error);
    if (text === undefined) this.writer = null; // it is tried again when it is opened again
    this.text.replaceChildren();
    return text ?? message;
  }
}

/** Shows what an event tells of a reply's thinking. A server that only counts has no `delta`. */
export function think(article, { start, delta, characters }) {
  let line = lines.get(article);
  if (characters === 0) {
    line?.remove(); // it was text
    return;
  }
  if (!line) announce("Thinking…");
  line ??= new Line(article);
  line.take({ start, delta });
}

/** Shows that text follows. */
export const pauseThinking = (article) => lines.get(article)?.pause();

/** Shows of a reply that has ended for how long its model has thought. */
export function showThinking(article, { thinking }) {
  if (thinking) (lines.get(article) ?? new Line(article)).end(thinking);
  else lines.get(article)?.remove();
}
