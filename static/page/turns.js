// Turns as articles: what is said, who says it, and what can be done with it.

import { $, button, element } from "../dom.js";
import { Markdown, write } from "../markdown/markdown.js";
import { fetchSession } from "./api.js";
import { nodesOf } from "./long.js";
import { setBusy, state } from "./screen.js";
import { showThinking } from "./thinking.js";
import { timeOf } from "./times.js";

const told = new WeakMap(); // the turn that an article shows, once the server has told it

/**
 * What the buttons of a turn do, by their value. The rooms above say what: `actions.retry =
 * (article) => …`. An action is told the article and the button.
 */
export const actions = {
  copy: (article, pressed) => copy(contentOf(article), pressed),
};

$("turns").onclick = ({ target }) => {
  if (target.matches("figcaption button")) {
    copy(target.closest("figure").querySelector("code").textContent, target);
  } else if (target.matches("button[value]")) {
    actions[target.value](target.closest("article"), target);
  }
};

export const articles = () => [...$("turns").querySelectorAll(":scope > article")];
export const articleOf = (id) => articles().find(({ dataset }) => id && dataset.id === id);
export const textOf = (article) => article.querySelector(":scope > .text");
export const turnOf = (article) => told.get(article);

/** What a message says; of a reply, its Markdown, once it has ended. */
const contentOf = (article) => told.get(article)?.content ?? textOf(article).textContent;

/** Shows a turn as the last, or before the article that is next. Returns its article. */
export function show(turn, next = null) {
  const isUser = turn.kind === "user";
  const name = element("bdi", {}, isUser ? "You" : turn.model.id);
  const time = timeOf(turn.created_at ?? new Date().toISOString());
  const heading = element("h3", {}, name, " ", time);
  const text = element("div", { className: "text", dir: isUser ? "auto" : "" });
  const article = element("article", { className: turn.kind }, heading, text);
  if (turn.id) article.dataset.id = turn.id;
  $("turns").insertBefore(article, next);
  if (isUser) showMessage(article, turn);
  else if (turn.status === "in_progress") begin(article);
  else {
    write(text, turn.content);
    finish(article, turn);
  }
  return article;
}

const act = (value, name, properties) => button(name, { value, ...properties });

const fork = () => act("fork", "Fork", { title: "Go on from here in a copy of the chat" });

function showMessage(article, { content }) {
  textOf(article).append(...nodesOf(content));
  // Where it has no reply, it may be asked for.
  const retry = act("retry", "Retry", { className: "quiet again" });
  const edit = act("edit", "Edit", { className: "quiet edit" });
  const tools = [act("copy", "Copy"), retry, fork(), edit];
  article.append(element("div", { className: "tools" }, tools));
}

/** Shows that a reply is under way, or goes on. */
export function begin(article) {
  article.querySelector("footer")?.remove();
  article.ariaBusy = "true";
  wait(article);
  setBusy(true);
}

/** Shows that a word is waited for, for how long, and why, where that is known. */
export function wait(article, why) {
  if (!article.querySelector(".waiting")) article.append(waiting());
  if (why) article.querySelector(".why").textContent = why;
}

function waiting() {
  const dots = element("span", { className: "dots", ariaHidden: "true" }, "•••");
  const node = element("p", { className: "waiting" }, dots);
  node.append(element("span", { className: "why" }), "");
  const began = Date.now();
  const timer = setInterval(() => {
    node.lastChild.data = `${Math.round((Date.now() - began) / 1000)} s`;
    if (!node.isConnected) clearInterval(timer);
  }, 1000);
  return node;
}

export const endWaiting = (article) => article.querySelector(".waiting")?.remove();

/** Shows a reply that has ended: what it is, and what can be done with it. */
export function finish(article, turn) {
  told.set(article, turn);
  endWaiting(article);
  Object.assign(article.dataset, { id: turn.id, continued: turn.continued });
  article.querySelector("bdi").textContent = turn.model.id;
  showThinking(article, turn);
  article.append(element("footer", {}, toolsOf(turn), notes(turn)));
  article.ariaBusy = "false";
}

function toolsOf(turn) {
  const isCut = turn.status !== "complete" || turn.stop_reason === "length";
  const again = { className: "quiet again" };
  const tools = [act("retry", "Retry", again), fork()];
  if (isCut && turn.content.trim()) tools.unshift(act("continue", "Continue", again));
  if (turn.content) tools.unshift(act("copy", "Copy"));
  return tools;
}

const note = (text, className = "note") => element("span", { className }, text);

/** What is to be said of a reply. */
function notes({ status, error, stop_reason, continued, usage }) {
  const said = continued ? [note("Went on after an interruption.")] : [];
  if (status === "failed") return [...said, note(error.message, "note alarm")];
  if (status === "interrupted") return [...said, note("Stopped before it was complete.")];
  if (stop_reason === "length") said.push(note("Cut at the limit."));
  const { input_tokens: read, output_tokens: written } = usage;
  if (read && written) said.push(note(`${read} tokens read, ${written} written`));
  return said;
}

/** A writer of the text of a reply that comes. `text` is what is there already. */
export function writerOf(article, text = "") {
  const markdown = new Markdown(textOf(article));
  markdown.tail = text;
  return markdown;
}

// Which turn an article shows. What was sent from here has no id before it is asked for.

/** The place among the articles of the first of these turns; negative where it is not shown. */
export function placeOf(turns) {
  const ids = articles().map(({ dataset }) => dataset.id);
  const known = turns.findIndex(({ id }) => ids.includes(id));
  return known < 0 ? -1 : ids.indexOf(turns[known].id) - known;
}

/** Whether this article shows the turn. It learns its id. */
export function isShown(turn, article) {
  if (!article?.matches(`.${turn.kind}:not([aria-busy=true])`)) return false;
  if (!isAlike(turn, article)) return false;
  article.dataset.id ??= turn.id;
  return article.dataset.id === turn.id;
}

function isAlike(turn, article) {
  if (turn.kind === "user") return textOf(article).textContent === turn.content;
  return article.dataset.continued === String(turn.continued); // a reply may have gone on elsewhere
}

/**
 * The id of the turn that an article shows. It is asked for by that of the next article that has
 * one.
 */
export async function idOf(article, signal) {
  if (article.dataset.id) return article.dataset.id;
  const behind = articles().slice(articles().indexOf(article) + 1);
  const next = behind.findIndex(({ dataset }) => dataset.id);
  const before = behind[next]?.dataset.id;
  const limit = (before ? next : behind.length) + 1;
  const { turns } = await fetchSession(state.current.id, { limit, before }, { signal });
  if (turns.length === limit && isShown(turns[0], article)) return turns[0].id;
  const problem = "This message cannot be found in the chat. Load the page again.";
  throw Object.assign(new Error(problem), { status: 404 });
}

// Text goes to the clipboard.

/** Copies a text. The button says so for two seconds. */
async function copy(text, pressed) {
  if (!(await writeClipboard(text))) copyByEvent(text);
  pressed.textContent = "Copied";
  setTimeout(() => (pressed.textContent = "Copy"), 2000);
}

/** Returns whether it was written. Over plain HTTP from another machine there is no clipboard. */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Everywhere there is an event that may be filled. */
function copyByEvent(text) {
  const fill = (event) => {
    event.preventDefault();
    event.clipboardData.setData("text/plain", text);
  };
  document.addEventListener("copy", fill, { once: true });
  document.execCommand("copy");
}
