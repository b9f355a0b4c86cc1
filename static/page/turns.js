// Turns as articles: the text, its author, and the buttons.

import { $, button, element, icon, iconButton, sentence } from "../dom.js";
import { Markdown, write } from "../markdown/markdown.js";
import { fetchSession } from "./api.js";
import { textNodes } from "./long-text.js";
import { setBusy, state, subscribe } from "./screen.js";
import { showThinking } from "./thinking.js";
import { thumbnails } from "./thumbnails.js";
import { timeOf } from "./times.js";

const shownTurns = new WeakMap(); // article → its turn; of a reply, once the server has sent it

/**
 * The actions of a turn's buttons, by the button's value. Modules above add theirs:
 * `actions.retry = (article, button) => …`.
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
/** The turn that an article shows: of a reply perhaps an earlier version, with an id of its own. */
export const turnOf = (article) => shownTurns.get(article);

/** The files of a user's message. */
export const filesOf = (article) => turnOf(article)?.files ?? [];

/** The text of a turn; for a finished reply, the Markdown of the version that is shown. */
const contentOf = (article) => shownTurns.get(article)?.content ?? textOf(article).textContent;

/** Shows a turn at the end, or before the article `next`. Returns its article. */
export function showTurn(turn, next = null) {
  const isUser = turn.kind === "user";
  const name = element("bdi", {}, isUser ? "You" : turn.model.id);
  const time = timeOf(turn.created_at ?? new Date().toISOString());
  const heading = element("h2", {}, name, " ", time);
  const text = element("div", { className: "text", dir: isUser ? "auto" : "" });
  const article = element("article", { className: turn.kind }, heading, text);
  if (turn.id) article.dataset.id = turn.id;
  $("turns").insertBefore(article, next);
  if (isUser) showMessage(article, turn);
  else if (turn.status === "in_progress") beginReply(article);
  else {
    write(text, turn.content);
    finishReply(article, turn);
  }
  return article;
}

/** The icon of a button is named like its action. */
const actionButton = (value, name, properties) => iconButton(value, name, { value, ...properties });

/** The same, with its name beside the icon. */
const wordedButton = (value, name, properties) =>
  button([icon(value), name], { value, ...properties });

const copyButton = () => actionButton("copy", "Copy");

const IN_COPY = { title: "Fork: continue from here in a copy of the chat" };

const fork = () => actionButton("fork", "Fork", IN_COPY);

function showMessage(article, turn) {
  const { content, files = [] } = turn;
  shownTurns.set(article, turn);
  if (files.length) textOf(article).before(thumbnails(files));
  textOf(article).append(...textNodes(content));
  textOf(article).hidden = !content;
  // The stylesheet shows it only on the last article: on a message without a reply.
  const retry = actionButton("retry", "Retry", { className: "quiet again" });
  const edit = actionButton("edit", "Edit", { className: "quiet edit" });
  const tools = [copyButton(), retry, fork(), edit];
  article.append(element("div", { className: "tools" }, tools));
}

/** Shows that a reply is in progress. */
export function beginReply(article) {
  article.querySelector("footer")?.remove();
  article.ariaBusy = "true";
  showWaiting(article);
  setBusy(true);
}

/** Shows that we wait for text, for how long, and why, if that is known. */
export function showWaiting(article, why) {
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

export const hideWaiting = (article) => article.querySelector(".waiting")?.remove();

/** Shows a finished reply's state and its buttons. */
export function finishReply(article, turn) {
  hideWaiting(article);
  Object.assign(article.dataset, { id: turn.id, continued: turn.continued });
  const said = element("div", { className: "notes" }, notes(turn));
  const versions = turn.versions ? [versionButtons(turn.versions + 1)] : [];
  const tools = element("span", { className: "tools" }, toolsOf(turn));
  article.append(element("footer", {}, said, versions, tools));
  describeReply(article, turn);
  article.ariaBusy = "false";
}

/** Shows who wrote a reply, and how long its model thought. */
function describeReply(article, turn) {
  shownTurns.set(article, turn);
  article.querySelector("bdi").textContent = turn.model.id;
  showThinking(article, turn);
}

/**
 * Shows another version of a finished reply in its place. An earlier version can only be read,
 * copied and forked.
 */
export function showVersion(article, turn, isNewest) {
  const text = textOf(article).cloneNode(false); // the old one may still be drawn
  textOf(article).replaceWith(text);
  write(text, turn.content);
  article.querySelector("h2 time").replaceWith(timeOf(turn.created_at));
  describeReply(article, turn);
  const tools = isNewest ? toolsOf(turn) : [copyButton(), wordedButton("fork", "Fork", IN_COPY)];
  const said = isNewest ? [] : [note("An earlier version. To go on from it, use Fork.")];
  article.querySelector(".tools").replaceChildren(...tools);
  article.querySelector(".notes").replaceChildren(...said, ...notes(turn));
}

/** The buttons that show the versions of a reply, with the number of the one on the screen. */
function versionButtons(count) {
  const earlier = actionButton("earlier", "Previous version");
  const later = actionButton("later", "Next version", { disabled: true });
  const properties = { className: "versions", role: "group", ariaLabel: "Versions" };
  return element("span", properties, earlier, element("span", {}, `${count}/${count}`), later);
}

function toolsOf(turn) {
  const isCut = turn.status !== "complete" || turn.stop_reason === "length";
  const again = { className: "quiet again" };
  const copying = turn.content ? [copyButton()] : [];
  const others = [fork(), ask(turn), ...tokensOf(turn)];
  if (!isCut) return [...copying, actionButton("retry", "Retry", again), ...others];
  const retry = wordedButton("retry", "Retry", again);
  const more = turn.content.trim() ? [wordedButton("continue", "Continue", again)] : [];
  return [...more, retry, ...copying, ...others];
}

/** The models that can answer instead of the one that wrote this reply. */
export const otherModels = ({ model }) => state.models.filter(({ id }) => id !== model.id);

const ask = (turn) =>
  actionButton("ask", "Ask another model", {
    popoverTargetElement: $("models"),
    hidden: !otherModels(turn).length,
  });

subscribe("models", () => {
  for (const node of $("turns").querySelectorAll("[value=ask]")) {
    node.hidden = !otherModels(turnOf(node.closest("article"))).length;
  }
});

/** Why a reply failed. The server's owner also gets the provider's `reason`. */
export const failureOf = ({ message, reason }) => [message, reason].filter(Boolean).join(" ");

const note = (text, className = "note") => element("p", { className }, text);

/** The tokens of a reply. The stylesheet shows them only with the buttons. */
function tokensOf({ usage: { input_tokens: read, output_tokens: written } }) {
  if (!read || !written) return [];
  return [element("span", { className: "tokens" }, `${read} tokens read, ${written} written`)];
}

/** The notes below a reply: how it ended. */
function notes({ status, error, stop_reason, continued }) {
  const said = continued ? [note("Resumed after an interruption.")] : [];
  if (status === "failed") {
    const problem = note(
      [icon("alert"), element("span", {}, sentence(failureOf(error)))],
      "note alarm",
    );
    return [...said, problem];
  }
  if (status === "interrupted") return [...said, note("Stopped before it was complete.")];
  if (stop_reason === "length") said.push(note("Cut off at the token limit."));
  return said;
}

/** Makes a writer for the Markdown of a reply. `text`: what it has already. */
export function markdownWriter(article, text = "") {
  const markdown = new Markdown(textOf(article));
  markdown.tail = text;
  return markdown;
}

// Which turn an article shows. A message sent from this page has no id until that is fetched.

/**
 * The index among the articles of the first of these turns; negative if it is not on the screen.
 */
export function indexOfTurns(turns) {
  const ids = articles().map(({ dataset }) => dataset.id);
  const known = turns.findIndex(({ id }) => ids.includes(id));
  return known < 0 ? -1 : ids.indexOf(turns[known].id) - known;
}

/** Whether this article shows the turn. If so, gives it the turn's id. */
export function isShown(turn, article) {
  if (!article?.matches(`.${turn.kind}:not([aria-busy=true])`)) return false;
  if (!isAlike(turn, article)) return false;
  article.dataset.id ??= turn.id;
  return article.dataset.id === turn.id;
}

const idsOf = (files = []) => files.map(({ id }) => id).join();

/** Whether a user's turn has these files. */
export const hasFiles = (turn, files) => idsOf(turn.files) === idsOf(files);

function isAlike(turn, article) {
  if (turn.kind === "user") {
    return textOf(article).textContent === turn.content && hasFiles(turn, filesOf(article));
  }
  // The reply may have been continued elsewhere.
  return article.dataset.continued === String(turn.continued);
}

/**
 * The id of an article's turn. If it has none, fetches the turns before the next article with an
 * id.
 */
export async function idOf(article, signal) {
  if (article.dataset.id) return article.dataset.id;
  const later = articles().slice(articles().indexOf(article) + 1);
  const next = later.findIndex(({ dataset }) => dataset.id);
  const before = later[next]?.dataset.id;
  const limit = (before ? next : later.length) + 1;
  const { turns } = await fetchSession(state.current.id, { limit, before }, { signal });
  if (turns.length === limit && isShown(turns[0], article)) return turns[0].id;
  const problem = "This message cannot be found in the chat. Reload the page.";
  throw Object.assign(new Error(problem), { status: 404 });
}

// The clipboard

/** Copies a text. The button says so for two seconds. */
async function copy(text, pressed) {
  if (!(await writeClipboard(text))) copyByEvent(text);
  relabel(pressed, "Copied", "check");
  setTimeout(() => relabel(pressed, "Copy", "copy"), 2000);
}

/** Gives a button another name, and another icon if it has one. */
function relabel(pressed, name, shape) {
  if (pressed.ariaLabel) {
    Object.assign(pressed, { ariaLabel: name, title: name });
    pressed.replaceChildren(icon(shape));
  } else {
    pressed.textContent = name;
  }
}

/**
 * Returns whether it worked. Over plain HTTP from another machine, `navigator.clipboard` is
 * missing.
 */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Copies through a `copy` event, which works without `navigator.clipboard`. */
function copyByEvent(text) {
  const fill = (event) => {
    event.preventDefault();
    event.clipboardData.setData("text/plain", text);
  };
  document.addEventListener("copy", fill, { once: true });
  document.execCommand("copy");
}
