import { api, followEvents, on, parseSSE, pause, startReply, store, useToken } from "./api.js";
import { Markdown, element, write } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20;
let current = null; // the session on the screen, or null while it is not yet created
let screen = new AbortController(); // aborts when another session takes the screen
let starting = null; // aborts when Stop is pressed before the reply has begun
let pending = ""; // the message that is sent, until the server has it
let sessions = []; // those in the list
let models = [];

const say = (message) => ($("notice").textContent = message);
/** Returns a handler that shows what went wrong where the user looks. */
const attempt = (action, tell = say) => async (event) => {
  event?.preventDefault();
  tell("");
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return; // another session has taken the screen
    tell(error.status ? error.message : "The page failed. Load it again.");
    if (!error.status) throw error;
  }
};

// Replies
/** Starts a reply to the message in the body or, without a body, to the last message again; shows the reply as it comes. */
async function converse(path, body) {
  const signal = takeScreen();
  const draft = draftName();
  const stop = (starting = new AbortController());
  const before = [...$("turns").children];
  pending = body?.content ?? "";
  if (body) show({ kind: "user", content: pending });
  else before.at(-1).remove();
  show({ kind: "assistant", content: "", model: { id: modelId() }, status: "in_progress" });
  showEnd();
  let id, response;
  try {
    ({ id, response } = await startReply(path, body, AbortSignal.any([signal, stop.signal]), before.length));
  } catch (error) {
    if (signal.aborted) return; // the text is still stored as the draft of that session
    const arrived = error.meta?.session_id; // an earlier try had arrived, and only its response was lost
    if (!arrived) $("text").value = unsent();
    pending = "";
    keepDraft();
    $("turns").replaceChildren(...before);
    setBusy(false);
    if (stop.signal.aborted) return;
    if (error.status !== 409) throw error;
    say(arrived ? "" : error.message); // without a session, the reply under way was started elsewhere
    return open(arrived ?? current.id);
  } finally {
    if (starting === stop) starting = null;
  }
  if (stop.signal.aborted) cancel(id);
  if (signal.aborted) {
    takeOut(body?.content ?? "", draft);
    return response.body.cancel(); // the server goes on by itself
  }
  pending = "";
  store(draft, "");
  if (!current) (history.pushState(null, "", `#${id}`), store("system", ""));
  current ??= { id, title: "New chat", system: systemPrompt() };
  keepDraft();
  await follow(id, response, signal);
}

/** Reads a reply into the last article, to its end, however often the connection is lost. */
async function follow(id, response, signal) {
  const article = $("turns").lastElementChild;
  const markdown = new Markdown(article.querySelector(".text"));
  let turn, whole, lastId = "", tries = 0;
  for (;;) {
    try {
      response ??= await followEvents(id, lastId, signal);
      for await (const { id: eventId, event, data } of parseSSE(response, signal)) {
        [lastId, tries] = [eventId, 0];
        on.found();
        const name = eventId.split("-")[0]; // 7-12 belongs to turn 7
        if (turn && turn !== name) return open(id); // another reply was started meanwhile
        turn = name;
        if (event === "session") created(data);
        if (event === "content_delta") {
          article.querySelector(".waiting")?.remove();
          markdown.append(data.delta);
        }
        if (event === "assistant_turn") whole = data;
        if (event === "done" || event === "error") {
          markdown.draw(true);
          return ended(id, article, whole, data.message);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) return open(id); // which says so
      if (error.status < 500) throw error;
    }
    if (signal.aborted) return;
    response = null;
    on.lost();
    await pause(++tries);
    if (isFetched() && !signal.aborted) return open(id); // the connection was lost before the event `session`
  }
}

async function ended(id, article, turn, problem) {
  if (turn?.status === "complete") {
    finish(article, turn);
  } else {
    // A retry that is not complete gives way to the reply before it. The server knows which turns stand.
    await open(id, $("turns").children.length - 1);
    if (current?.id !== id) return; // another session has taken the screen meanwhile, or this one is gone
    if (problem && current.turns.at(-1).status !== "failed") say(problem);
  }
  announce($("turns").lastElementChild);
  await list();
}

const cancel = (id) => api("POST", `sessions/${id}/cancel`, { unless: 409 }); // which says that it has ended by itself

// The conversation
const isFetched = () => Boolean(current && !current.model); // the session on the screen, which is not there yet
const modelId = () => $("model").value || current?.model?.id;

/** A screen reader hears a reply once, when it is whole. */
function announce(article) {
  const parts = [...article.querySelectorAll(".text, .note")].map((node) => node.innerText);
  if (document.ariaNotify) document.ariaNotify(parts.join("\n"));
  else $("announcer").textContent = parts.join("\n");
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

/** Puts the focus where one types; on a phone, whose keyboard would cover the text, where one reads. */
function focusText() {
  $(matchMedia("(pointer: coarse)").matches ? "log" : "text").focus({ preventScroll: true });
}

// The end of the conversation stays in view, whatever grows or shrinks, unless the reader scrolls away from it. A scroll event
// comes a frame late: text that grew meanwhile is no sign of the reader's, only a position that became smaller is.
let isAtEnd = true;
let position = 0;
const gap = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight;
const showEnd = () => ((isAtEnd = true), $("log").scrollTo(0, $("log").scrollHeight), (position = $("log").scrollTop));
const resized = new ResizeObserver(() => (isAtEnd ? showEnd() : noteGap()));
const noteGap = () => ($("down").hidden = isAtEnd || gap() < 48);
for (const id of ["log", "turns"]) resized.observe($(id));
$("log").onscroll = ({ target }) => {
  if (target.scrollTop < position && gap() > 1) isAtEnd = false;
  else if (target.scrollTop > position && gap() < 48) isAtEnd = true;
  position = target.scrollTop;
  noteGap();
};
$("down").onclick = () => (showEnd(), focusText());

function timeOf(iso) {
  const [day, time] = [{ month: "short", day: "numeric" }, { hour: "numeric", minute: "2-digit" }];
  const format = dayOf(iso) === "Today" ? time : { ...day, ...time };
  return element("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, new Date(iso).toLocaleString([], format));
}

function dayOf(iso) {
  const midnight = (time) => new Date(time).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(Date.now()) - midnight(iso)) / 86_400_000); // a day may have 23 or 25 hours
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : "Earlier";
}

function show(turn) {
  const isUser = turn.kind === "user";
  const name = element("bdi", {}, isUser ? "You" : turn.model.id);
  const heading = element("h3", {}, name, " ", timeOf(turn.created_at ?? new Date().toISOString()));
  const text = element("div", { className: "text", dir: isUser ? "auto" : "" }, isUser ? turn.content : []);
  const article = element("article", { className: turn.kind }, heading, text);
  $("turns").append(article);
  if (turn.status === "in_progress") {
    article.ariaBusy = "true";
    article.append(waiting());
    setBusy(true);
  } else if (!isUser) {
    write(text, turn.content);
    finish(article, turn);
  }
}

/** What moves until the first word is there. Marks of what a model does meanwhile have their place here. */
function waiting() {
  const node = element("p", { className: "waiting" }, element("span", { className: "dots", ariaHidden: "true" }, "•••"), "");
  const began = Date.now();
  const timer = setInterval(() => {
    if (!node.isConnected) return clearInterval(timer);
    node.lastChild.data = `${Math.round((Date.now() - began) / 1000)} s`;
  }, 1000);
  return node;
}

function finish(article, turn) {
  const button = (name, onclick) => element("button", { type: "button", className: "quiet", onclick }, name);
  const copyAll = button("Copy", ({ target }) => copy(turn.content, target));
  const retry = button("Retry", attempt(() => (focusText(), converse(`sessions/${current.id}/retry`))));
  const alarm = turn.status === "failed" ? " alarm" : "";
  article.querySelector(".waiting")?.remove();
  article.querySelector("bdi").textContent = turn.model.id;
  const said = notes(turn).map((note) => element("span", { className: `note${alarm}` }, note));
  article.append(element("footer", {}, turn.content ? copyAll : [], retry, said));
  article.ariaBusy = "false";
  setBusy(false);
}

/** What is to be said of a reply. Marks of limits, of going on and of the model's memory have their place here. */
function notes({ status, error, usage: { input_tokens: read, output_tokens: written } }) {
  if (status === "failed") return [error.message];
  if (status === "interrupted") return ["Stopped before it was complete."];
  return read && written ? [`${read} tokens read, ${written} written`] : [];
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

/** Shows what belongs to the session around its turns. */
function frame() {
  $("title").textContent = current ? current.title ?? "" : "New chat";
  document.title = current?.title ? `${current.title} – Parley` : "Parley";
  $("echo").hidden = models.find(({ id }) => id === modelId())?.provider !== "echo";
  $("system-button").classList.toggle("set", Boolean(systemPrompt()));
  $("system-button").disabled = isFetched();
  for (const link of $("list").querySelectorAll("a")) link.ariaCurrent = link.hash.slice(1) === current?.id ? "page" : null;
}

/** Takes a session to the screen. If it is there, and has no more turns than shown, the first of them stay as they are. */
async function open(id, kept = 0) {
  const signal = takeScreen();
  const isOther = current?.id !== id;
  if (isOther) {
    current = { id }; // at once: what is typed from now on is meant for it
    if (idInAddress() !== id) history.pushState(null, "", `#${id}`);
    $("turns").replaceChildren();
    takeUp();
  }
  const session = await api("GET", `sessions/${id}`, { signal, unless: 404 });
  if (signal.aborted) return;
  if (session instanceof Error) {
    history.replaceState(null, "", location.pathname); // it was deleted elsewhere
    await Promise.all([route(), list()]);
    return say(session.message);
  }
  current = session;
  const { path, body, at } = JSON.parse(sessionStorage.getItem("unanswered")) ?? {};
  if (body && path === `sessions/${id}/messages` && session.turns[at]?.content === body.content) {
    store("unanswered", ""); // it has arrived, and only its response was lost
    takeOut(body.content, draftName());
  }
  takeUp();
  if (current.turns.length !== kept + 1) kept = 0;
  [...$("turns").children].slice(kept).forEach((node) => node.remove());
  current.turns.slice(kept).forEach(show);
  if (isOther) showEnd();
  if (current.turns.at(-1).status === "in_progress") await follow(id, null, signal);
}

/** Shows model, system prompt and draft of the session on the screen, or of one to be created. */
function takeUp() {
  chooseModel();
  const system = current ? current.system : sessionStorage.getItem("system");
  const draft = sessionStorage.getItem(draftName()) ?? "";
  if (!$("settings").matches(":popover-open")) $("system").textContent = system ?? ""; // else it is being typed
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
  const more = element("button", { ...options, onclick: () => ($("menu").dataset.id = id) }, "⋯");
  return element("li", {}, link, more);
}

$("menu").ontoggle = ({ newState }) => newState === "open" && $("rename").focus();
const linkOf = (id) => $("list").querySelector(`[href="#${id}"]`);

$("rename").onclick = attempt(async () => {
  const { id } = $("menu").dataset;
  $("menu").hidePopover(); // the focus goes back to the button that has opened it
  const title = prompt("Title", linkOf(id).title)?.trim();
  if (title) await change(id, { title });
  await list();
});

$("delete").onclick = attempt(async () => {
  const { id } = $("menu").dataset;
  $("menu").hidePopover();
  if (!confirm(`Delete “${linkOf(id).title}”?`)) return;
  if (current?.id === id) screen.abort();
  await api("DELETE", `sessions/${id}`, { unless: 404 }); // an earlier try had arrived, and only its response was lost
  store(`draft ${id}`, "");
  if (current?.id === id) goToNew();
  await list();
  $("new").focus();
});

async function change(id, changes) {
  const changed = await api("PATCH", `sessions/${id}`, { body: changes });
  if (current?.id === id) current = { ...current, ...changed };
  frame();
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

function send() {
  const content = $("text").value;
  if (!content.trim() || $("send").hidden || isFetched()) return;
  $("text").value = "";
  if (current) return converse(`sessions/${current.id}/messages`, { content });
  $("turns").replaceChildren();
  return converse("sessions", { content, model: $("model").value || null, system: systemPrompt() });
}

async function listModels() {
  models = (await api("GET", "models")).data;
  $("model").replaceChildren(...models.map(({ id }) => new Option(id)));
  chooseModel();
  frame();
}

$("composer").onsubmit = attempt(send);
$("text").oninput = keepDraft;
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) attempt(send)(event);
};
// A phone's keyboard has no Shift-Enter. The field keeps the focus, else the keyboard would go.
$("newline").onpointerdown = (event) => event.preventDefault();
$("newline").onclick = () => {
  $("text").focus();
  $("text").setRangeText("\n", $("text").selectionStart, $("text").selectionEnd, "end");
  keepDraft();
};
$("stop").onclick = attempt(() => (starting ? starting.abort() : cancel(current.id)));

$("model").onchange = attempt(async () => {
  frame();
  if (current) await change(current.id, { model: $("model").value }).finally(chooseModel);
});
$("system").oninput = () => current || store("system", $("system").textContent);
$("system").autofocus = true; // its panel gives it the focus; as an attribute in the HTML, the whole page would try to
$("settings").onsubmit = attempt(async () => {
  if (current) await change(current.id, { system: systemPrompt() });
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
const heldToken = () => sessionStorage.getItem("token") ?? localStorage.getItem("token");
const nameOf = (subject) => subject.split("/").at(-1) || subject;

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

/** Who is signed in in this tab or, without "remember", in another. */
const signedIn = () => (heldToken() ? subjectOf(heldToken()) : localStorage.getItem("subject"));
const otherThan = (token) => [shown, signedIn()].find((subject) => subject && subject !== subjectOf(token));

/** Signs in with this token, if the server takes it. */
async function signIn(token, remember) {
  await api("GET", "models", { as: token });
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

async function enter(token) {
  const subject = (shown = subjectOf(token));
  useToken(token);
  $("user").textContent = nameOf(subject);
  $("account-button").ariaLabel = `Signed in as ${nameOf(subject)}`;
  $("subject").textContent = subject;
  $("remembered").checked = localStorage.getItem("token") === token;
  $("door").hidden = true;
  $("app").hidden = false;
  await Promise.all([route(), list(), listModels()]);
}

/** Asks for a token, and says why. What was typed is kept for when the same user comes back. */
async function knock(reason = "") {
  screen.abort();
  document.querySelectorAll(":popover-open").forEach((popover) => popover.hidePopover());
  $("app").hidden = true;
  $("door").hidden = false;
  refuse(reason);
  $("token").focus();
  const { message } = await api("GET", "models", { as: "" }).catch((error) => error);
  $("source").replaceChildren();
  write($("source"), message.split("<token>. ").at(-1)); // whoever has no token is told where tokens come from
}

/** The token in the fragment of the address, which is removed from there and from the tab's history at once. */
function takeToken() {
  const given = /^#token=([\w.-]*)/.exec(location.hash)?.[1];
  if (given !== undefined) history.replaceState(null, "", location.pathname + location.search);
  return given;
}

/** Signs in with the token of a link. Anyone can send one, so it replaces the sign-in of another user only when asked to. */
async function takeOver(token) {
  if (!otherThan(token)) return signIn(token, Boolean(localStorage.getItem("token")));
  const [offered, mine] = [subjectOf(token), otherThan(token)].map((subject) => `\u2068${subject}\u2069`); // isolated
  if (confirm(`This link signs in ${offered}. You are signed in as ${mine}. Change?`)) await signIn(token, false);
}

const refuse = (message) => ($("refusal").textContent = message);
$("sign-in").onsubmit = attempt(() => {
  const token = $("token").value.trim();
  $("token").value = "";
  return signIn(token, $("remember").checked);
}, refuse);
$("remembered").onchange = ({ target }) => heldToken() && keepToken(heldToken(), target.checked);
$("sign-out").onclick = () => {
  sessionStorage.clear();
  ["token", "subject"].forEach((name) => localStorage.removeItem(name));
  leave();
};
addEventListener("storage", () => {
  if (shown && signedIn() !== shown) (sessionStorage.clear(), leave()); // another tab has signed out, or another user in
});
$("theme").value = document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
$("theme").onchange = ({ target }) => localStorage.setItem("theme", (document.documentElement.dataset.theme = target.value));

on.refused = knock;
on.lost = () => ($("connection").textContent = "The connection is lost. Trying again…");
on.found = () => ($("connection").textContent = "");

const given = takeToken();
let problem = "";
if (given) await takeOver(given).catch((error) => (problem = error.message));
if ($("app").hidden && heldToken()) attempt(() => enter(heldToken()))();
else if ($("app").hidden) knock(problem);
say(problem);
