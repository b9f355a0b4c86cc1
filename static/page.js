import { api, fetchSession, followEvents, on, parseSSE, pause, startReply, store, useProxy, useToken } from "./api.js";
import { Markdown, element, write } from "./markdown.js";
import { saveAsMarkdown, setUpMoving } from "./moving.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20;
const OPTIONS = ["temperature", "max_tokens", "reasoning_effort"];
let current = null; // the session on the screen, or null while it is not yet created
let screen = new AbortController(); // aborts when another session takes the screen
let starting = null; // aborts when Stop is pressed before the reply has begun
let pending = ""; // the message that is sent, until the server has it
let sessions = []; // those in the list
let models = [];

const sayAt = (id) => (message, className = "") => Object.assign($(id), { textContent: message, className });
const say = sayAt("notice");
/** Returns a handler that shows what went wrong where the user looks. */
const attempt = (action, tell = say) => async (event) => {
  event?.preventDefault();
  tell("");
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return; // another session has taken the screen
    tell(error.status ? showAtFields(error) : "The page failed. Load it again.");
    if (!error.status) throw error;
  }
};

// Replies
/**
 * Starts a reply to the message in the body or, by a retry, to the last message again, as it is or as the body changes it;
 * or has the last reply go on, which is `turn`. Shows the reply as it comes.
 */
async function converse(path, body, turn) {
  const signal = takeScreen();
  const isRetry = path.endsWith("/retry");
  const isMessage = !isRetry && !turn;
  const isEdit = Boolean(isRetry && body);
  const [draft, edited] = [draftName(), editName()];
  const stop = (starting = new AbortController());
  // A turn may go on more than once, each time under a key of its own.
  const after = turn ? `${turn.id} ${turn.continued}` : articles().at(-1)?.dataset.id;
  const lastMessage = articles().findLastIndex((article) => article.matches(".user")); // it may have no reply, as in a fork
  const replaced = isRetry ? articles().slice(body ? lastMessage : lastMessage + 1) : [];
  pending = isMessage ? body.content : "";
  replaced.forEach((article) => article.remove());
  const shown = body ? [show({ kind: "user", content: body.content, id: replaced[0]?.dataset.id })] : [];
  if (turn) begin(articles().at(-1));
  else shown.push(show({ kind: "assistant", content: "", model: { id: modelId() }, status: "in_progress" }));
  if (!isEdit) keepEditing();
  markMemory();
  showEnd();
  let id, response;
  try {
    ({ id, response } = await startAnyhow(path, body, AbortSignal.any([signal, stop.signal]), after));
  } catch (error) {
    if (signal.aborted) return; // the text is still stored as the draft of that session
    const arrived = error.meta?.session_id; // an earlier try had arrived, and only its response was lost
    if (!arrived) $("text").value = unsent();
    pending = "";
    keepDraft();
    shown.forEach((article) => article.remove());
    $("turns").append(...replaced);
    if (turn) finish(articles().at(-1), turn);
    setBusy(false);
    if (stop.signal.aborted) return;
    if (error.status !== 409) throw error;
    say(arrived ? "" : error.message); // without a session, the reply under way was started elsewhere
    return open(arrived ?? current.id);
  } finally {
    if (starting === stop) starting = null;
    if (stop.signal.aborted && $("notice").textContent === STOPPING) say("");
  }
  if (stop.signal.aborted) cancel(id);
  if (signal.aborted) {
    if (isMessage) takeOut(body.content, draft);
    if (isEdit) store(edited, "");
    response.body.cancel(); // the server goes on by itself
    if (current?.id === id && $("stop").hidden) await open(id); // whoever came back may have been shown what was before
    return;
  }
  pending = "";
  for (const name of isEdit ? [draft, edited] : [draft]) store(name, "");
  if (!current) (history.pushState(null, "", `#${id}`), clearSettings());
  current ??= { id, title: "New chat", system: systemPrompt(), options: options() };
  keepDraft();
  await follow(id, response, signal, turn?.content);
}

/** Starts a reply. Where the model of an old chat is not served any more, the default takes its place. */
async function startAnyhow(path, body, signal, after) {
  const id = current?.id;
  try {
    return await startReply(path, body, signal, after);
  } catch (error) {
    const isGone = error.faults?.some(({ source }) => source?.pointer === "/model");
    if (!id || !isGone || !(await takeDefault(id))) throw error;
    return startReply(path, body, signal, after);
  }
}

/** Gives a session the default model, and says so; returns whether there is one. */
async function takeDefault(id) {
  const gone = modelId();
  await listModels();
  const model = models.find((each) => each.default)?.id;
  if (!model || current?.id !== id) return false;
  await change(id, { model });
  chooseModel();
  say(`${gone} is not served any more: ${model} answers from here on.`, "faint");
  return true;
}

/** Whether the last reply failed since its provider knows the session's model no more. */
async function isUnknown({ error, model }) {
  const isNamed = error?.status === 400 && /^The provider \w+ has no such model: /.test(error.message);
  if (!isNamed || model.id !== current.model.id) return false;
  await listModels();
  const ids = models.map(({ id }) => id);
  return ids.length > 0 && !ids.includes(model.id) && !ids.includes(`${model.id}:latest`);
}

/** Reads a reply into the last article, to its end, however often the connection is lost. The response goes on behind `text`. */
async function follow(id, response, signal, text = "") {
  const article = $("turns").lastElementChild;
  const place = article.querySelector(".text");
  const heard = place.innerText;
  let markdown = new Markdown(place);
  markdown.tail = text;
  let turn, whole, lastId = "", tries = 0;
  for (;;) {
    try {
      if (!response && !lastId) [text, markdown] = ["", new Markdown(place)]; // all of it comes, from its start
      response ??= await followEvents(id, lastId, signal);
      for await (const { id: eventId, event, data } of parseSSE(response, signal)) {
        [lastId, tries] = [eventId, 0];
        on.found();
        const name = eventId.split("-")[0]; // 7-12 belongs to turn 7
        if (turn && turn !== name) return open(id); // another reply was started meanwhile
        article.dataset.id = turn = name;
        if (event === "session") created(data);
        if (event === "thinking") showThinking(article, data);
        if (event === "content_delta") {
          article.querySelector(".waiting")?.remove();
          markdown.append(data.delta);
          text += data.delta;
        }
        if (event === "assistant_turn") whole = data;
        if (event === "done" || event === "error") {
          markdown.draw(true);
          // Where a request is answered again whose reply has ended meanwhile, its text is not among the answer.
          return ended(id, article, whole?.content === text ? whole : null, data.message, heard);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) return open(id); // which says so
      if (error.status < 500) {
        article.querySelector(".waiting")?.remove();
        article.ariaBusy = "false";
        setBusy(false);
        throw error;
      }
    }
    if (signal.aborted) return;
    response = null;
    on.lost();
    await pause(++tries);
    if (isFetched() && !signal.aborted) return open(id); // the connection was lost before the event `session`
  }
}

async function ended(id, article, turn, problem, heard) {
  const unfinished = $("turns").querySelector("[aria-busy=true]:not(:last-child)"); // a message was sent before it was fetched
  const isComplete = turn?.status === "complete" && !unfinished;
  if (isComplete) {
    finish(article, turn);
    setBusy(false);
  } else {
    // A retry that is not complete gives way to the reply before it, and what goes on may be as it was before. The server
    // knows which turns stand.
    await open(id);
    if (current?.id !== id) return; // another session has taken the screen meanwhile, or this one is gone
    if ((await isUnknown(current.turns.at(-1))) && (await takeDefault(id))) return converse(`sessions/${id}/retry`);
    if (problem && current.turns.at(-1).error?.message !== problem) say(problem);
  }
  const said = [...$("turns").lastElementChild.querySelectorAll(".text, .note")].map((node) => node.innerText);
  if (said[0].startsWith(heard)) said[0] = said[0].slice(heard.length).trim(); // else it is read differently by now
  announce(said.filter(Boolean).join("\n")); // once, when it is whole
  const hasMoved = isComplete && (turn.stop_reason === "length" || turn.turns_left_out !== (current.leftOut ?? 0));
  await Promise.all([list(), hasMoved && findMemory(turn)]);
}

const cancel = (id) => api("POST", `sessions/${id}/cancel`, { unless: 409 }); // which says that it has ended by itself

// The conversation
const isFetched = () => Boolean(current && !current.model); // the session on the screen, which is not there yet
const modelId = () => $("model").value || current?.model?.id;

/** A screen reader says this. */
function announce(text) {
  if (document.ariaNotify) document.ariaNotify(text);
  else $("announcer").textContent = text;
}

function takeScreen() {
  screen.abort();
  screen = new AbortController();
  setBusy(false);
  pending = "";
  return screen.signal;
}

function setBusy(busy) {
  if (document.activeElement === $(busy ? "send" : "stop")) focusText(); // else hiding it would leave the focus nowhere
  [$("send").hidden, $("stop").hidden] = [busy, !busy];
}

const isTouched = () => matchMedia("(pointer: coarse)").matches;

/** Puts the focus where one types; on a phone, whose keyboard would cover the text, where one reads. */
function focusText() {
  $(isTouched() ? "log" : "text").focus({ preventScroll: true });
}

// The end of the conversation stays in view, whatever grows or shrinks, unless the reader scrolls away from it. A scroll event
// comes a frame late: text that grew meanwhile is no sign of the reader's, only a position that became smaller is.
let isAtEnd = true;
let position = 0;
const gap = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight;
const showEnd = () => ((isAtEnd = true), $("log").scrollTo(0, $("log").scrollHeight), (position = $("log").scrollTop));
const resized = new ResizeObserver(() => {
  if (isAtEnd) showEnd();
  else noteGap();
  if (wantsOlder()) attemptOlder();
});
const noteGap = () => ($("down").hidden = isAtEnd || gap() < 48);
for (const id of ["log", "turns"]) resized.observe($(id));
$("log").onscroll = ({ target }) => {
  if (target.scrollTop < position && gap() > 1) isAtEnd = false;
  else if (target.scrollTop > position && gap() < 48) isAtEnd = true;
  position = target.scrollTop;
  noteGap();
  if (wantsOlder()) attemptOlder();
};
$("down").onclick = () => (showEnd(), focusText());

/** Changes what is shown. What the reader sees first stays where it is. */
function keepView(change) {
  const edge = $("log").getBoundingClientRect().top;
  const seen = articles().find((article) => article.getBoundingClientRect().bottom > edge)?.querySelector("h3");
  const top = () => seen?.getBoundingClientRect().top ?? 0;
  const before = top();
  change();
  $("log").scrollTop += top() - before;
  position = $("log").scrollTop;
}

// Older turns come as the reader nears the first that is shown, or by the button above it.
let older = null; // the screen that they are fetched for
const wantsOlder = () => current?.meta?.has_more && older !== screen && $("log").scrollTop < $("log").clientHeight;
const attemptOlder = attempt(showOlder, (message) => message && say(message));
$("older").onclick = () => older === screen || attemptOlder();

async function showOlder() {
  const { signal } = (older = screen);
  try {
    const first = $("turns").firstElementChild;
    const { turns, meta } = await fetchSession(current.id, { before: first.dataset.id }, { signal });
    if (signal.aborted) return;
    current.meta = meta;
    const isFocused = document.activeElement === $("older");
    if (isFocused) announce("Earlier messages are shown.");
    if (isFocused && !meta.has_more) $("log").focus({ preventScroll: true }); // else hiding it would leave the focus nowhere
    keepView(() => {
      turns.forEach((turn) => show(turn, first));
      frame();
    });
    markMemory();
    resumeEditing();
  } finally {
    if (older?.signal === signal) older = null;
  }
}

/** Draws the line above the first turn that the model is sent, unless that is the first of all, or not shown. */
function markMemory() {
  const [line, article] = [$("turns").querySelector(".memory"), articleOf(current?.firstSent)];
  if (line?.parentNode === article) return;
  keepView(() => {
    line?.remove();
    article?.prepend(element("p", { className: "memory" }, "The model no longer sees what is above."));
  });
}

/** Asks where the model's memory begins behind this reply, and for the ids of the turns that were sent from here. */
async function findMemory({ turns_left_out } = {}) {
  const { signal } = screen;
  const unnamed = articles().findIndex(({ dataset }) => !dataset.id);
  const limit = unnamed < 0 ? 1 : Math.min(articles().length - unnamed, 200);
  const { turns, headers } = await fetchSession(current.id, { limit }, { signal });
  if (signal.aborted) return;
  const place = placeOf(turns);
  if (place >= 0) turns.forEach((turn, number) => isShown(turn, articles()[place + number]));
  current.firstSent = headers.get("First-Turn-Sent");
  current.leftOut = turns_left_out; // not before it was found: the screen may have been taken meanwhile
  markMemory();
}

function timeOf(iso) {
  const [day, time] = [{ month: "short", day: "numeric" }, { hour: "numeric", minute: "2-digit" }];
  const isThisYear = new Date(iso).getFullYear() === new Date().getFullYear(); // what was imported may be older
  const format = dayOf(iso) === "Today" ? time : { ...day, ...(isThisYear ? time : { year: "numeric" }) };
  return element("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, new Date(iso).toLocaleString([], format));
}

function dayOf(iso) {
  const midnight = (time) => new Date(time).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(Date.now()) - midnight(iso)) / 86_400_000); // a day may have 23 or 25 hours
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : "Earlier";
}

const articles = () => [...$("turns").children];
const articleOf = (id) => articles().find(({ dataset }) => id && dataset.id === id);

/** Shows a turn as the last, or before the article that is next; returns its article. */
function show(turn, next = null) {
  const isUser = turn.kind === "user";
  const name = element("bdi", {}, isUser ? "You" : turn.model.id);
  const heading = element("h3", {}, name, " ", timeOf(turn.created_at ?? new Date().toISOString()));
  const text = element("div", { className: "text", dir: isUser ? "auto" : "" }, isUser ? turn.content : []);
  const article = element("article", { className: turn.kind }, heading, text);
  if (turn.id) article.dataset.id = turn.id;
  if (isUser) article.append(element("div", { className: "tools" }, toolsOf(article)));
  $("turns").insertBefore(article, next);
  if (turn.status === "in_progress") begin(article);
  else if (!isUser) {
    write(text, turn.content);
    finish(article, turn);
  }
  return article;
}

/** The buttons of a message. Where it has no reply, it may be asked for. */
function toolsOf(article) {
  const retry = button("Retry", attempt(() => (focusText(), converse(`sessions/${current.id}/retry`))), "quiet again");
  return [retry, forkOf(article), button("Edit", () => edit(article).focus(), "quiet edit")];
}

/** Shows that a reply is under way, or goes on. */
function begin(article) {
  article.querySelector("footer")?.remove();
  article.ariaBusy = "true";
  article.append(waiting());
  setBusy(true);
}

/** What moves until the first word is there. */
function waiting() {
  const dots = element("span", { className: "dots", ariaHidden: "true" }, "•••");
  const node = element("p", { className: "waiting" }, dots, element("span", { className: "thinking" }), "");
  const began = Date.now();
  const timer = setInterval(() => {
    if (!node.isConnected) return clearInterval(timer);
    node.lastChild.data = `${Math.round((Date.now() - began) / 1000)} s`;
  }, 1000);
  return node;
}

function showThinking(article, { characters }) {
  const place = article.querySelector(".thinking"); // which is gone where text has come
  if (place) place.textContent = `Thinking … ${characters.toLocaleString("en")} characters`;
}

const button = (name, onclick, className = "quiet") => element("button", { type: "button", className, onclick }, name);

function finish(article, turn) {
  const copyAll = button("Copy", ({ target }) => copy(turn.content, target));
  const ask = (operation, ...rest) => attempt(() => (focusText(), converse(`sessions/${current.id}/${operation}`, ...rest)));
  const isCut = turn.status !== "complete" || turn.stop_reason === "length";
  const goOn = isCut && turn.content.trim() ? button("Continue", ask("continue", null, turn), "quiet again") : [];
  const retry = button("Retry", ask("retry"), "quiet again");
  article.querySelector(".waiting")?.remove();
  Object.assign(article.dataset, { id: turn.id, continued: turn.continued });
  article.querySelector("bdi").textContent = turn.model.id;
  const mark = (note) => element("span", { className: note === turn.error?.message ? "note alarm" : "note" }, note);
  article.append(element("footer", {}, turn.content ? copyAll : [], goOn, retry, forkOf(article), notes(turn).map(mark)));
  article.ariaBusy = "false";
}

/** What is to be said of a reply. */
function notes({ status, error, stop_reason, continued, usage: { input_tokens: read, output_tokens: written } }) {
  const wentOn = continued ? ["Went on after an interruption."] : [];
  if (status === "failed") return [...wentOn, error.message];
  if (status === "interrupted") return [...wentOn, "Stopped before it was complete."];
  const end = stop_reason === "length" ? ["Cut at the limit."] : [];
  return [...wentOn, ...end, ...(read && written ? [`${read} tokens read, ${written} written`] : [])];
}

async function copy(text, button) {
  // Over plain HTTP from another machine there is no clipboard, but an event that may be filled.
  const fill = (event) => [event.preventDefault(), event.clipboardData.setData("text/plain", text)];
  if (!(await navigator.clipboard?.writeText(text).then(() => true, () => false))) {
    document.addEventListener("copy", fill, { once: true });
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

$("turns").onclick = ({ target }) => {
  if (target.matches("figcaption button")) copy(target.closest("figure").querySelector("code").textContent, target);
};

// Editing a message, in its place. What is typed is kept for this tab, with the message that it changes.
const editName = () => `edit ${current?.id}`;

/** Returns the field. Where it is not the last message, a copy of the chat goes on with what is typed. */
function edit(article, content = article.querySelector(".text").textContent) {
  const isLast = () => !article.matches(":has(~ .user)");
  const field = element("textarea", { value: content, rows: 3, dir: "auto", ariaLabel: "Message, edited" });
  const leave = () => (leaveEditing(), article.querySelector(".edit").focus());
  const onsubmit = attempt(() => {
    if (!field.value.trim() || $("send").hidden) return;
    focusText();
    if (!isLast()) return copyOnce((signal) => sendInCopy(article, field, signal));
    return converse(`sessions/${current.id}/retry`, { content: field.value });
  });
  const onkeydown = (event) => {
    if (event.key === "Escape" && !event.isComposing) (event.stopPropagation(), leave()); // else it would stop a reply, too
    if (event.target === field && isEnter(event) && !isTouched()) onsubmit(event); // a phone's keyboard has no Shift-Enter
  };
  const hint = isLast() ? [] : element("small", { id: "copied" }, IN_COPY);
  const buttons = element("div", {}, element("button", { className: "main" }, "Send"), button("Cancel", leave), hint);
  const text = article.querySelector(".text");
  const keep = () => store(editName(), JSON.stringify([text.textContent, field.value, article.dataset.id]));
  const keepMeanwhile = () => field.isConnected && field.value !== text.textContent && keep(); // before the id came
  field.oninput = keep;
  text.hidden = true;
  if (!isLast()) field.setAttribute("aria-describedby", "copied");
  if (!isLast() && !article.dataset.id) attempt(() => idOf(article, screen.signal).then(keepMeanwhile))();
  text.after(element("form", { onsubmit, onkeydown }, field, buttons));
  return field;
}

/** Edits on what was typed before, where its message is shown, and is the same. One that has no id yet is the last. */
function resumeEditing() {
  const [original, content, id] = JSON.parse(sessionStorage.getItem(editName())) ?? [];
  const message = id ? articleOf(id) : articles().findLast((article) => article.matches(".user"));
  if ($("turns").querySelector("form") || original !== message?.querySelector(".text").textContent) return;
  edit(message, content);
}

function closeEditing() {
  const form = $("turns").querySelector("form");
  if (form) form.previousElementSibling.hidden = false;
  form?.remove();
}

/** Something else is sent: what was typed in a message stays there, and is told anew how it will go on. */
function keepEditing() {
  const form = $("turns").querySelector("form");
  if (!form) return;
  const [article, { value }] = [form.closest("article"), form.querySelector("textarea")];
  leaveEditing();
  if (value === article.querySelector(".text").textContent) return;
  edit(article, value).oninput();
}

const leaveEditing = () => (closeEditing(), store(editName(), ""));

// Forks: copies of the chat up to a turn. The chat itself stays as it is.
const IN_COPY = "This goes on in a copy of the chat.";
let copied = null; // the screen of which a copy is being made

/** Calls this with the signal of the screen, but where it is pressed again only once. */
async function copyOnce(action) {
  if (copied === screen) return;
  const mine = (copied = screen);
  await action(mine.signal).finally(() => copied === mine && (copied = null));
}

function forkOf(article) {
  const title = "Go on from here in a copy of the chat";
  return Object.assign(button("Fork", attempt(() => copyOnce((signal) => fork(article, signal)))), { title });
}

async function fork(article, signal) {
  const { id } = await copyUpTo(await idOf(article, signal), signal);
  if (signal.aborted) return list();
  focusText();
  await Promise.all([open(id), list()]);
  say(IN_COPY, "faint");
}

/** Sends a changed message in a copy of the chat that ends before it, or where there is nothing before it, in a new chat. */
async function sendInCopy(article, field, signal) {
  const [{ id, model, system, options }, edited, content] = [current, editName(), field.value];
  field.readOnly = true; // what is typed from here on would not be sent
  const copy = await copyBefore(article, signal).finally(() => (field.readOnly = false));
  if (signal.aborted) return list();
  store(edited, "");
  if (!copy) return startAlike({ content, model: model.id, system, options });
  store(`draft ${copy.id}`, content);
  await open(copy.id).finally(() => current?.id === copy.id && ($("text").value ||= content)); // a tab keeps so much, no more
  say(IN_COPY, "faint");
  if (current?.id === copy.id) await send();
}

/** Makes a copy of the chat that ends before this message; null where there is nothing before it. */
async function copyBefore(article, signal) {
  const { turns } = await fetchSession(current.id, { before: await idOf(article, signal), limit: 1 }, { signal });
  return turns.length ? copyUpTo(turns[0].id, signal) : null;
}

/** Starts a chat with the settings of another. */
function startAlike(body) {
  takeScreen();
  current = null;
  history.pushState(null, "", location.pathname);
  const typed = ["system", "options"].map((name) => sessionStorage.getItem(name));
  if (!sessionStorage.getItem("typed")) store("typed", JSON.stringify(typed)); // else they are those of an earlier try
  store("system", body.system);
  store("options", JSON.stringify(body.options));
  takeUp();
  $("turns").replaceChildren();
  return converse("sessions", body);
}

/** A new chat has begun. For the next one, what was typed for it before this one took the settings of another is left. */
function clearSettings() {
  const [system = "", options = ""] = JSON.parse(sessionStorage.getItem("typed")) ?? [];
  Object.entries({ system, options, typed: "" }).forEach(([name, text]) => store(name, text));
}

/** The id of a turn, which what was sent from here has not yet: it is asked for by that of the next one that has one. */
async function idOf(article, signal) {
  if (article.dataset.id) return article.dataset.id;
  const behind = articles().slice(articles().indexOf(article) + 1);
  const next = behind.findIndex(({ dataset }) => dataset.id);
  const query = next < 0 ? { limit: behind.length + 1 } : { limit: next + 1, before: behind[next].dataset.id };
  const { turns } = await fetchSession(current.id, query, { signal });
  if (turns.length === query.limit && isShown(turns[0], article)) return turns[0].id;
  throw Object.assign(new Error("This message cannot be found in the chat. Load the page again."), { status: 404 });
}

const copyUpTo = (turn, signal) => api("POST", `sessions/${current.id}/fork`, { body: { turn }, signal, waits: true });

/** Shows what belongs to the session around its turns. */
function frame() {
  $("older").hidden = !current?.meta?.has_more;
  $("title").textContent = current ? current.title ?? "" : "New chat";
  document.title = current?.title ? `${current.title} – Parley` : "Parley";
  $("echo").hidden = models.find(({ id }) => id === modelId())?.provider !== "echo";
  const isSet = [systemPrompt(), ...Object.values(options())].some((value) => value !== null);
  $("settings-button").classList.toggle("set", isSet);
  $("settings-button").disabled = isFetched();
  for (const link of $("list").querySelectorAll("a")) link.ariaCurrent = link.hash.slice(1) === current?.id ? "page" : null;
}

/** Takes a session to the screen. If it is there, the turns that are the same stay as they are, but for the last. */
async function open(id) {
  const signal = takeScreen();
  const isOther = current?.id !== id;
  if (isOther) {
    current = { id }; // at once: what is typed from now on is meant for it
    if (idInAddress() !== id) history.pushState(null, "", `#${id}`);
    $("turns").replaceChildren();
    takeUp();
  }
  const session = await fetchSession(id, {}, { signal, unless: 404 });
  if (signal.aborted) return;
  if (session instanceof Error) {
    history.replaceState(null, "", location.pathname); // it was deleted elsewhere
    await Promise.all([route(), list()]);
    return say(session.message);
  }
  const { turns, headers, meta } = session;
  const place = placeOf(turns);
  const firstSent = headers.get("First-Turn-Sent");
  current = { ...session, firstSent, leftOut: turns.at(-1).turns_left_out, meta: place > 0 ? current.meta : meta };
  const { path, body, after } = JSON.parse(sessionStorage.getItem("unanswered")) ?? {};
  const before = turns.findIndex((turn) => turn.id === after);
  if (body && path === `sessions/${id}/messages` && before >= 0 && turns[before + 1]?.content === body.content) {
    store("unanswered", ""); // it has arrived, and only its response was lost
    takeOut(body.content, draftName());
  }
  takeUp();
  let same = 0;
  while (place >= 0 && same < turns.length - 1 && isShown(turns[same], articles()[place + same])) same++;
  articles().slice(Math.max(0, place + same)).forEach((node) => node.remove());
  turns.slice(same).forEach((turn) => show(turn));
  markMemory();
  resumeEditing();
  if (isOther || same === 0) showEnd();
  if (wantsOlder()) attemptOlder();
  if (turns.at(-1).status === "in_progress") await follow(id, null, signal);
}

/** The place among the articles of the first of these turns; negative where it is not shown. */
function placeOf(turns) {
  const ids = articles().map(({ dataset }) => dataset.id);
  const known = turns.findIndex(({ id }) => ids.includes(id));
  return known < 0 ? -1 : ids.indexOf(turns[known].id) - known;
}

/** Whether this article shows the turn. It learns its id: what was sent from here has none yet. */
function isShown(turn, article) {
  if (!article?.matches(`.${turn.kind}:not([aria-busy=true])`)) return false;
  const isSame = turn.kind === "user"
    ? article.querySelector(".text").textContent === turn.content
    : article.dataset.continued === String(turn.continued); // a reply may have gone on elsewhere
  return isSame && (article.dataset.id ??= turn.id) === turn.id;
}

/** Shows model, system prompt, options and draft of the session on the screen, or of one to be created. */
function takeUp() {
  chooseModel();
  const system = current ? current.system : sessionStorage.getItem("system");
  const draft = sessionStorage.getItem(draftName()) ?? "";
  const held = current ? current.options : JSON.parse(sessionStorage.getItem("options"));
  if (!$("settings").matches(":popover-open")) { // else they are being typed
    $("system").textContent = system ?? "";
    for (const name of OPTIONS) $(name).value = held?.[name] ?? "";
  }
  if ($("text").value !== draft) $("text").value = draft; // else the cursor stays where it is
  frame();
}

function chooseModel() {
  const model = current?.model?.id ?? models.find((model) => model.default)?.id ?? "";
  if (![...$("model").options].some(({ value }) => value === model)) $("model").append(new Option(model));
  $("model").value = model;
}

function created(session) {
  current = { ...current, ...session };
  frame();
  list().catch(() => {}); // the list is shown again at the end of the reply
}

// The list
let listing = 0;
/** Shows the list again, as long as it is now. With an offset, adds what follows. */
async function list(offset = 0) {
  const number = ++listing;
  const limit = offset ? PAGE : Math.min(Math.max(PAGE, sessions.length), 100);
  const query = new URLSearchParams({ "page[offset]": offset, "page[limit]": limit, query: $("search").value });
  const { data, meta } = await api("GET", `sessions?${query}`);
  if (number !== listing) return; // a newer call has begun meanwhile
  sessions = offset ? [...sessions, ...data] : data;
  const { hash, value } = $("list").contains(document.activeElement) ? document.activeElement : {};
  const days = Object.entries(Object.groupBy(sessions, ({ updated_at }) => dayOf(updated_at)));
  const groups = days.map(([day, ofDay]) => element("section", {}, element("h2", {}, day), element("ul", {}, ofDay.map(item))));
  if (!sessions.length) groups.push(element("p", {}, $("search").value ? "Nothing found." : "No chats yet."));
  if (meta.has_more) groups.push(element("button", { onclick: attempt(() => list(sessions.length)) }, "More"));
  $("list").replaceChildren(...groups);
  frame();
  if (hash || value) $("list").querySelector(hash ? `[href="${hash}"]` : `[value="${value}"]`)?.focus();
}

function item({ id, title, last_message_preview, updated_at }) {
  const preview = element("span", { dir: "auto" }, last_message_preview || "…");
  const link = element("a", { href: `#${id}`, title }, element("strong", { dir: "auto" }, title), timeOf(updated_at), preview);
  const options = { value: id, className: "quiet", ariaLabel: `Options of ${title}`, popoverTargetElement: $("menu") };
  const more = element("button", { ...options, onclick: () => Object.assign($("menu").dataset, { id, title }) }, "⋯");
  return element("li", {}, link, more);
}

$("menu").ontoggle = ({ newState }) => newState === "open" && $("rename").focus();

$("rename").onclick = attempt(async () => {
  const { id, title: before } = $("menu").dataset; // the list may have been drawn anew without it
  $("menu").hidePopover(); // the focus goes back to the button that has opened it
  const title = prompt("Title", before)?.trim();
  if (title) await change(id, { title });
  await list();
});

$("delete").onclick = attempt(async () => {
  const { id, title } = $("menu").dataset;
  $("menu").hidePopover();
  if (!confirm(`Delete “${title}”?`)) return;
  if (current?.id === id) screen.abort();
  await api("DELETE", `sessions/${id}`, { unless: 404 }); // an earlier try had arrived, and only its response was lost
  for (const name of ["draft", "edit"]) store(`${name} ${id}`, "");
  if (current?.id === id) goToNew();
  await list();
  $("new").focus();
});

$("as-markdown").onclick = attempt(() => {
  const { id, title } = $("menu").dataset;
  $("menu").hidePopover();
  return saveAsMarkdown(id, title);
});
/** Says this, behind what is said of something that went wrong. */
const sayBehind = (message, className) =>
  $("notice").matches(":empty, .faint") ? say(message, className) : say(`${$("notice").textContent} ${message}`);
setUpMoving({ say: sayBehind, announce, list });

async function change(id, changes) {
  const changed = await api("PATCH", `sessions/${id}`, { body: changes });
  if (current?.id === id) current = { ...current, ...changed };
  frame();
}

// What the user has used
const COUNTS = { replies: "Replies", input_tokens: "Read", output_tokens: "Written", estimated_tokens: "Estimated" };
const { format } = new Intl.NumberFormat();
let usage = new AbortController(); // aborts when it is asked for again

$("usage").autofocus = true; // a property, as that of the system prompt
$("usage").onbeforetoggle = ({ newState }) => {
  if (newState === "open") attemptUsage();
  else if ($("usage").contains(document.activeElement)) $("usage-button").focus(); // from within a drawer, no browser does it
};
const attemptUsage = attempt(showUsage, (problem) => {
  Object.assign($("used"), { textContent: problem || "Loading…", className: problem && "alarm" });
  $("share").hidden = true;
  $("by-model").replaceChildren();
});

async function showUsage() {
  usage.abort();
  const { signal } = (usage = new AbortController());
  const { data, meta: { used, limit, resets_at } } = await api("GET", "usage", { signal });
  const isLimited = limit !== null;
  const reset = new Date(resets_at).toLocaleString([], { dateStyle: "full", timeStyle: "short" });
  const recent = `You have used ${data.length ? `${format(used)} tokens` : "nothing"} in the last 30 days.`;
  const ofLimit = `You have used ${format(used)} of ${format(limit)} tokens.`;
  $("used").textContent = isLimited ? `${ofLimit} ${used < limit ? "The count begins anew" : "Ask again"} on ${reset}.` : recent;
  Object.assign($("share"), { hidden: !isLimited, max: limit ?? 1, value: used, className: used < limit ? "" : "alarm" });
  const parts = Object.entries(Object.groupBy(data, ({ model }) => model)).map(partOf);
  parts.sort((one, other) => other.tokens - one.tokens);
  if (isLimited && parts.length) $("by-model").append(element("h3", { className: "faint" }, "The last 30 days"));
  $("by-model").append(...parts.map(({ node }) => node));
  if (parts.length === 1) parts[0].node.open = true;
}

/** What was used of a model: all its tokens, and a node with the sums, and the days below. */
function partOf([model, rows]) {
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  const [replies, read, written, estimated] = Object.keys(COUNTS).map(sum);
  const names = Object.keys(COUNTS).slice(0, estimated ? 4 : 3);
  const answers = `${format(replies)} ${replies === 1 ? "reply" : "replies"}`;
  const told = [answers, `${format(read)} tokens read`, `${format(written)} written`];
  if (estimated) told.push(`≈ ${format(estimated)} estimated`);
  const dateOf = (day) => new Date(day).toLocaleDateString([], { month: "short", day: "numeric", timeZone: "UTC" });
  const count = (name, number) => element("td", {}, (name === "estimated_tokens" && number ? "≈ " : "") + format(number));
  const heading = (scope, text) => element("th", { scope }, text);
  const head = element("tr", {}, ["Day (UTC)", ...names.map((name) => COUNTS[name])].map((text) => heading("col", text)));
  const line = (row) => element("tr", {}, heading("row", dateOf(row.day)), names.map((name) => count(name, row[name])));
  const table = element("table", { ariaLabel: model }, element("thead", {}, head), element("tbody", {}, rows.map(line)));
  const summary = element("summary", {}, element("bdi", {}, model), element("small", {}, told.join(", ")));
  return { tokens: read + written + estimated, node: element("details", {}, summary, table) };
}

// What the user does
const idInAddress = () => /^#([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/.exec(location.hash)?.[1];

async function route() {
  const given = takeToken();
  if (given) return takeOver(given);
  focusText();
  if (idInAddress()) return open(idInAddress());
  takeScreen();
  current = null;
  takeUp();
  $("turns").replaceChildren(element("p", {}, "What would you like to talk about?"));
}

const goToNew = () => (location.hash ? (location.hash = "") : attempt(route)(), focusText());

const draftName = () => `draft ${current?.id ?? ""}`;
const unsent = () => [pending, $("text").value].filter(Boolean).join("\n\n");
const keepDraft = () => store(draftName(), unsent());
const takeOut = (content, draft) => store(draft, sessionStorage.getItem(draft)?.replace(content, () => "").trim());
const systemPrompt = () => $("system").textContent.trim() || null; // innerText has no newlines where it is not shown

/** What the fields hold of the options; null is what is empty. */
function options() {
  const value = ({ type, value }) => (!value.trim() ? null : type === "number" ? Number(value) : value.trim());
  return Object.fromEntries(OPTIONS.map((name) => [name, value($(name))]));
}

/** Shows the faults of options at their fields; returns what is to be said of all else. */
function showAtFields({ message, faults = [] }) {
  const fields = OPTIONS.filter((name) => {
    const fault = faults.find(({ source }) => source?.pointer === `/options/${name}`);
    $(`${name}-fault`).textContent = fault?.detail ?? "";
    $(name).ariaInvalid = fault ? "true" : null;
    return fault;
  });
  if (!fields.length) return message;
  if (!$("settings").matches(":popover-open")) $("settings").showPopover();
  $(fields[0]).focus();
  const others = faults.filter(({ source }) => !fields.some((name) => source?.pointer === `/options/${name}`));
  return others.map(({ detail }) => detail).join(" ");
}

function send() {
  const content = $("text").value;
  if (!content.trim() || $("send").hidden || isFetched()) return;
  $("text").value = "";
  if (current) return converse(`sessions/${current.id}/messages`, { content });
  $("turns").replaceChildren();
  return converse("sessions", { content, model: $("model").value || null, system: systemPrompt(), options: options() });
}

async function listModels() {
  models = (await api("GET", "models")).data;
  $("model").replaceChildren(...models.map(({ id }) => new Option(id)));
  chooseModel();
  frame();
}

const isEnter = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;
$("composer").onsubmit = attempt(send);
$("text").oninput = keepDraft;
$("text").onkeydown = (event) => {
  if (isEnter(event)) attempt(send)(event);
};
// A phone's keyboard has no Shift-Enter. The field keeps the focus, else the keyboard would go.
$("newline").onpointerdown = (event) => event.preventDefault();
$("newline").onclick = () => {
  $("text").focus();
  $("text").setRangeText("\n", $("text").selectionStart, $("text").selectionEnd, "end");
  keepDraft();
};
const STOPPING = "Stopping…"; // once the server has answered to what was sent
$("stop").onclick = attempt(() => {
  if (!starting) return cancel(current.id);
  starting.abort();
  say(STOPPING, "faint");
});

$("model").onchange = attempt(async () => {
  frame();
  if (!current) return;
  await change(current.id, { model: $("model").value }).finally(chooseModel);
  if (current) await findMemory(); // of another model, it begins from the whole again
});
$("settings").oninput = () => {
  if (current) return;
  store("system", $("system").textContent);
  store("options", JSON.stringify(options()));
};
$("settings").ontoggle = ({ newState }) => newState === "closed" && showAtFields({ faults: [] });
$("system").autofocus = true; // its panel gives it the focus; as an attribute in the HTML, the whole page would try to
$("settings").onsubmit = attempt(async () => {
  if (current) await change(current.id, { system: systemPrompt(), options: options() });
  $("settings").hidePopover();
  frame();
});

$("new").onclick = goToNew;
$("sidebar").onclick = ({ target }) => {
  if (target.closest("a, #new") && $("sidebar").matches(":popover-open")) $("sidebar").hidePopover();
};
$("search").oninput = attempt(() => list());
addEventListener("hashchange", attempt(route));
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select, [contenteditable]");
  if ($("app").hidden) return;
  if (event.key === "k" ? event.ctrlKey || event.metaKey : event.key === "/" && !isTyping) {
    event.preventDefault();
    if (!$("sidebar").checkVisibility()) $("sidebar").showPopover();
    $("search").select();
  } else if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    goToNew();
  } else if (event.key === "Escape" && !event.isComposing && event.target !== $("search")) {
    if (!$("stop").hidden && !document.querySelector(":popover-open")) $("stop").click();
  }
});

// Who is signed in
let shown = ""; // whose chats the page shows
let isProxied = false; // whether a proxy in front of the server signs people in, and no token is needed
const heldToken = () => sessionStorage.getItem("token") ?? localStorage.getItem("token");
/** The `sub` of a token. Only the server can tell whether it is true. */
function subjectOf(token) {
  try {
    const claims = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    return String(JSON.parse(new TextDecoder().decode(Uint8Array.from(claims, (byte) => byte.charCodeAt()))).sub);
  } catch {
    return "";
  }
}

function keepToken(token, remember) {
  sessionStorage.removeItem("token");
  localStorage.removeItem("token");
  (remember ? localStorage : sessionStorage).setItem("token", token);
  localStorage.setItem("subject", subjectOf(token)); // that a link in a new tab can ask, too
}

// A new tab is signed in as the others are. Only pages of this address hear the question, and the answer.
const tabs = new BroadcastChannel(`parley ${new URL(".", location).pathname}`);
tabs.addEventListener("message", ({ data }) => {
  if (data === "token?" && shown) tabs.postMessage({ token: heldToken() });
  if (data === "signed out" && shown && !isProxied) (sessionStorage.clear(), leave());
});

/** The token that another tab has of the user who has signed in last, if one answers within a fifth of a second. */
function askTabs() {
  const isWanted = (token) => token && subjectOf(token) === localStorage.getItem("subject");
  return new Promise((resolve) => {
    tabs.addEventListener("message", ({ data }) => isWanted(data.token) && resolve(data.token));
    tabs.postMessage("token?");
    setTimeout(resolve, 200);
  });
}

/** Who is signed in in this tab or, without "remember", in another. A token comes before the proxy. */
function signedIn() {
  if (heldToken()) return subjectOf(heldToken());
  return isProxied ? shown : localStorage.getItem("subject");
}
const otherThan = (token) => [shown, signedIn()].find((subject) => subject && subject !== subjectOf(token));

/** Signs in with this token, if the server takes it. */
async function signIn(token, remember) {
  await api("GET", "me", { as: token });
  const isOther = otherThan(token);
  if (isOther) sessionStorage.clear();
  keepToken(token, remember);
  if (isOther) return leave();
  await enter(token);
}

/** Loads the page again, so that nothing that one user has seen or typed stays in memory for another. */
function leave() {
  history.replaceState(null, "", location.pathname);
  location.reload();
}

/** Shows the chats of the user of this token, or without one of `user`, whom a proxy names. */
async function enter(token, user) {
  isProxied = !token;
  shown = token ? subjectOf(token) : user.subject;
  if (isProxied) useProxy(shown);
  else useToken(token);
  takeTab(shown);
  $("remembered").checked = localStorage.getItem("token") === token;
  $("of-token").hidden = isProxied;
  [$("door").hidden, $("ended").hidden, $("app").hidden] = [true, true, false];
  tellUser(isProxied ? user : { subject: shown, name: shown.split("/").at(-1) }); // as the token has it, until the server has told
  await Promise.all([!isProxied && api("GET", "me").then(tellUser), route(), list(), listModels()]);
}

/** Says who is signed in. */
function tellUser({ subject, name }) {
  $("user").textContent = name || subject;
  $("account-button").ariaLabel = `Signed in as ${name || subject}`;
  $("subject").textContent = subject;
}

/** Forgets what this tab has kept of another user than this one, and opens the chat from which the proxy's own page was visited. */
function takeTab(subject) {
  if (!subject) return; // what is no token is nobody's, and will be refused
  const before = sessionStorage.getItem("subject");
  if (before ? before !== subject : isProxied) {
    const token = sessionStorage.getItem("token");
    sessionStorage.clear();
    if (token) sessionStorage.setItem("token", token);
  }
  sessionStorage.setItem("subject", subject);
  const chat = sessionStorage.getItem("chat");
  if (chat && !location.hash) history.replaceState(null, "", chat);
  store("chat", "");
}

/** Says that the proxy has to sign in anew, which it does where the page is loaded. What was typed is kept. */
function showEndOfSignIn() {
  closeApp();
  $("ended").hidden = false;
  $("again").focus();
}
const signInAgain = () => (store("chat", location.hash), location.reload());
$("again").onclick = signInAgain;

// In another tab, somebody may have signed in anew at the proxy, or somebody else.
let looking = new AbortController(); // aborts when it is looked again
const attemptLook = attempt(async () => {
  looking.abort();
  looking = new AbortController();
  const { subject } = await api("GET", "me", { signal: looking.signal, unless: 401 });
  if (!subject) showEndOfSignIn();
  else if (!$("ended").hidden) signInAgain();
}, (message) => message && say(message));
addEventListener("visibilitychange", () => isProxied && !document.hidden && attemptLook());

function closeApp() {
  screen.abort();
  document.querySelectorAll(":popover-open").forEach((popover) => popover.hidePopover());
  for (const id of ["app", "door", "ended"]) $(id).hidden = true;
}

/** What is refused is an answer, too; what else goes wrong is not. */
function orRefusal(error) {
  if (!error.status) throw error;
  return error;
}

/** Asks for a token, and says why. What was typed is kept for when the same user comes back. `user` is what `GET /me` has told. */
async function knock(reason = "", className = "", user) {
  closeApp();
  $("door").hidden = false;
  refuse(reason, className);
  $("token").focus();
  $("source").replaceChildren();
  const { subject, name, message } = user ?? (await api("GET", "me", { as: "" }).catch(orRefusal));
  if (subject) $("source").replaceChildren(button(`Go on as ${name}`, forgetToken, "")); // whom a proxy names
  else if (message !== reason) write($("source"), message.split("<token>. ").at(-1)); // tells where tokens come from
}

/** The token in the fragment of the address, which is removed from there and from the tab's history at once. */
function takeToken() {
  const given = /^#token=([\w.-]*)/.exec(location.hash)?.[1];
  if (given !== undefined) history.replaceState(null, "", location.pathname + location.search);
  return given;
}

/**
 * Signs in with the token of a link. Anyone can send one, so it renews at once only the sign-in of
 * its own user. Another one is asked, and for who is not signed in it lies at the door.
 */
async function takeOver(token) {
  const other = otherThan(token);
  if (signedIn() && !other) return signIn(token, Boolean(localStorage.getItem("token")));
  const isolated = (subject) => `\u2068${subject}\u2069`;
  const offer = `This link signs in ${isolated(subjectOf(token) || "nobody")}.`;
  if (!other) {
    $("token").value = token;
    knock(`${offer} If that is you, sign in.`, "faint");
  } else if (confirm(`${offer} You are signed in as ${isolated(other)}. Change?`)) {
    await signIn(token, false);
  }
}

const refuse = sayAt("refusal");
$("sign-in").onsubmit = attempt(() => {
  const token = $("token").value.trim();
  $("token").value = "";
  return signIn(token, $("remember").checked);
}, refuse);
$("remembered").onchange = ({ target }) => heldToken() && keepToken(heldToken(), target.checked);

const removeToken = () => ["token", "subject"].forEach((name) => localStorage.removeItem(name));
/** Forgets the token, but not what was typed. Where a proxy signs people in, the page goes on by its word. */
function forgetToken() {
  sessionStorage.removeItem("token");
  removeToken();
  leave();
}
$("sign-out").onclick = () => {
  sessionStorage.clear();
  removeToken();
  tabs.postMessage("signed out");
  leave();
};
addEventListener("storage", () => {
  if (shown && signedIn() !== shown) (sessionStorage.clear(), leave()); // another tab has signed out, or another user in
});
$("theme").value = document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
$("theme").onchange = ({ target }) => localStorage.setItem("theme", (document.documentElement.dataset.theme = target.value));

on.refused = (message) => (isProxied ? showEndOfSignIn() : knock(message));
let isLeaving = false; // several requests may be refused at once
on.changed = () => {
  if (isLeaving) return;
  // A proxy that names now this user, now that would have the page loaded for ever.
  if (Date.now() - sessionStorage.getItem("changed") < 10_000) return showEndOfSignIn();
  isLeaving = true;
  store("changed", String(Date.now()));
  leave();
};
on.lost = (why = "The connection is lost.") => ($("connection").textContent = `${why} Trying again…`);
on.found = () => ($("connection").textContent = "");

/** Who asks without a token, or the refusal that tells why nobody does. Where the server fails, it is asked again, three times. */
async function askProxy() {
  for (let tries = 1; ; tries++) {
    const user = await api("GET", "me", { as: "" }).catch(orRefusal);
    const hasFailed = user.status >= 500 || user.status === 429;
    if (!hasFailed || tries > 3) return user;
    on.lost();
    await pause(tries);
  }
}

/** Signs in the user of the token that is kept here; else whom a proxy names; else the user of another tab's token. */
async function start() {
  const given = takeToken();
  const user = heldToken() ? {} : await askProxy();
  if (user.subject) [shown, isProxied] = [user.subject, true]; // so that a link asks first
  let problem = "";
  if (given) await takeOver(given).catch((error) => (problem = error.message));
  if (!$("app").hidden || !$("door").hidden) return say(problem);
  if (!heldToken() && !user.subject && localStorage.getItem("subject")) {
    const token = await askTabs();
    if (token && localStorage.getItem("subject")) keepToken(token, false); // else it was signed out meanwhile
  }
  if (heldToken() || user.subject) {
    attempt(() => enter(heldToken(), user))(); // what goes wrong from here on is said in the app
    return say(problem);
  }
  const isPortal = user.status === 401 && !user.meta.sign_in; // it is the proxy who says so
  if (isPortal) return showEndOfSignIn();
  return knock(problem || (user.status === 401 ? "" : user.message), "", user);
}

attempt(start, (message) => message && knock(message))();
