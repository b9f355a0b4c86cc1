// A model's thinking: a line above the reply, which unfolds. It is not part of the reply's text.

import { element } from "../dom.js";
import { Markdown } from "../markdown/markdown.js";
import { api } from "./api.js";
import { announce, publish, state } from "./screen.js";

const lines = new WeakMap(); // article → its ThinkingLine

/** The line of one reply. Its text is streamed; for a finished reply, it is fetched when opened. */
class ThinkingLine {
  streamed = ""; // the text that the stream has brought
  writer = null; // of the text on the screen, if it was opened
  before = 0; // ms of thinking before the current stretch
  began = 0; // ms; when the current stretch began; 0 if the model is not thinking

  constructor(article, id) {
    this.article = article;
    this.id = id; // of the reply; its article may show several versions of it
    this.summary = element("summary", {});
    this.text = element("div", { className: "text" });
    this.node = element("details", { className: "thinking" }, this.summary, this.text);
    this.node.ontoggle = () => this.toggle();
    article.querySelector("h2").after(this.node);
    lines.set(article, this);
  }

  remove() {
    clearInterval(this.timer);
    this.node.remove();
    lines.delete(this.article);
  }

  /** Shows an event. */
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

  /** The model stops thinking: text follows, or the end. */
  pause() {
    if (!this.began) return;
    clearInterval(this.timer);
    this.before += Date.now() - this.began;
    this.began = 0;
    this.showDuration(this.before / 1000);
  }

  /** Shows how long the model thought. */
  showDuration(seconds) {
    this.summary.textContent = `Thought for ${Math.max(1, Math.round(seconds))} s`;
  }

  /** The reply has ended. The streamed text is dropped: it is fetched if the line is opened. */
  end({ seconds }) {
    this.pause();
    this.before = seconds * 1000;
    this.showDuration(seconds);
    this.streamed = "";
    this.writer?.draw(true);
  }

  async toggle() {
    if (!this.node.open || this.writer) return;
    const isOver = this.article.ariaBusy !== "true";
    if (isOver) publish("opened"); // so that the thread does not scroll to its end
    this.writer = new Markdown(this.text);
    this.writer.append(isOver ? await this.fetch() : this.streamed);
    if (isOver) this.writer.draw(true);
  }

  /** Fetches the stored text, or the reason why there is none. */
  async fetch() {
    this.text.textContent = "…";
    const path = `sessions/${state.current.id}/turns/${this.id}/thinking`;
    const { text, message } = await api("GET", path, {
      signal: state.screen.signal,
      unless: 404,
    }).catch((error) => error);
    if (text === undefined) this.writer = null; // so that opening it again tries again
    this.text.replaceChildren();
    return text ?? message;
  }
}

/** Shows an event of a reply's thinking. */
export function showThought(article, { start, delta, characters }) {
  let line = lines.get(article);
  if (characters === 0) {
    line?.remove(); // it was text, not thinking
    return;
  }
  if (!line) announce("Thinking…");
  line ??= new ThinkingLine(article, article.dataset.id);
  line.take({ start, delta });
}

/** The reply's text follows. */
export const pauseThinking = (article) => lines.get(article)?.pause();

/** Shows how long the model of a finished reply thought. */
export function showThinking(article, { id, thinking }) {
  if (!thinking || lines.get(article)?.id !== id) lines.get(article)?.remove();
  if (thinking) (lines.get(article) ?? new ThinkingLine(article, id)).end(thinking);
}
