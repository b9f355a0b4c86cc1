const $ = (id) => document.getElementById(id);
const PAGE = 20;
const KEEPALIVE_TIMEOUT = 40_000; // ms; the server sends an event or a comment every 15 s
const STREAM = { Accept: "text/event-stream" };

let token = sessionStorage.getItem("token");
let current = null; // the session on the screen, or null while it is not yet created
let screen = new AbortController(); // aborts when another session takes the screen
let unanswered = null; // {fingerprint, idempotencyKey} of a POST whose response never arrived

// The API

/** Returns the response. An error has a `status` where Parley refuses, and none where no response of Parley's arrived. */
async function api(method, path, { body, headers, signal } = {}) {
  headers = { Accept: "application/json", Authorization: `Bearer ${token}`, ...headers };
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  if (response.ok) return response;
  const { errors } = await response.json();
  const message = errors.map((error) => error.detail).join(" ");
  if (response.status === 401) knock(message);
  throw Object.assign(new Error(message), { status: response.status, session: errors[0].meta?.session_id });
}

/** A request without a response is sent again: under one idempotency key the server makes one reply only. */
async function startReply(path, body) {
  const fingerprint = path + JSON.stringify(body);
  if (unanswered?.fingerprint !== fingerprint) {
    unanswered = { fingerprint, idempotencyKey: crypto.getRandomValues(new Uint32Array(4)).join("-") };
  }
  const headers = { ...STREAM, "Idempotency-Key": unanswered.idempotencyKey };
  for (let tries = 1; ; tries++) {
    try {
      const response = await api("POST", path, { body, headers });
      unanswered = null;
      return response;
    } catch (error) {
      if (error.status) unanswered = null;
      if (error.status || tries === 5) throw error;
    }
    say("The server cannot be reached. Trying again…");
    await pause(tries);
  }
}

/** Yields the events of a stream until the stream ends, is silent for too long, or the screen is left. */
async function* parseSSE(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const hangUp = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", hangUp);
  let rest = "";
  try {
    for (;;) {
      const timeout = setTimeout(hangUp, KEEPALIVE_TIMEOUT);
      const { value, done } = await reader.read().finally(() => clearTimeout(timeout));
      if (done || signal.aborted) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const { id, event, data } = Object.fromEntries(frame.split("\n").map((line) => line.split(/: ?(.*)/s)));
        if (data) yield { id, event, data: JSON.parse(data) };
      }
    }
  } finally {
    hangUp();
  }
}

const pause = (tries) => new Promise((resolve) => setTimeout(resolve, Math.min(250 * 2 ** tries, 10_000)));

// Replies

/** Starts a reply to the message in the body or, without a body, to the last message again; shows the reply as it comes. */
async function converse(path, body) {
  const signal = takeScreen();
  const before = [...$("turns").children];
  if (body) show({ kind: "user", content: body.content });
  else before.at(-1).remove();
  show({ kind: "assistant", content: "", model: { id: modelId() }, status: "in_progress" });
  let response;
  try {
    response = await startReply(path, body);
  } catch (error) {
    const arrived = error.session; // an earlier try had arrived, and only its response was lost
    if (body && !arrived) $("text").value ||= body.content;
    if (signal.aborted) throw error;
    $("turns").replaceChildren(...before);
    setBusy(false);
    if (error.status !== 409) throw error;
    say(arrived ? "" : error.message); // without a session, the reply under way was started elsewhere
    return open(arrived ?? current.id);
  }
  if (signal.aborted) return response.body.cancel(); // the server goes on by itself
  say("");
  await follow(response.headers.get("Location").split("/")[2], response, signal);
}

/** Reads a reply into the last article, to its end, however often the connection is lost. */
async function follow(id, response, signal) {
  const article = $("turns").lastElementChild;
  const text = article.querySelector(".text").firstChild;
  let turn, whole, lastId = "", tries = 0;
  for (;;) {
    try {
      if (!response) {
        response = await api("GET", `sessions/${id}/events`, { headers: { ...STREAM, "Last-Event-ID": lastId }, signal });
        say("");
      }
      for await (const { id: eventId, event, data } of parseSSE(response, signal)) {
        tries = 0;
        lastId = eventId;
        const number = parseInt(eventId); // parseInt stops at the hyphen: 7-12 belongs to turn 7
        if (turn && turn !== number) return open(id); // another reply was started meanwhile
        if (!turn) text.data = ""; // a stream begins with the first word, whatever the article has
        turn = number;
        if (event === "session") created(data);
        if (event === "content_delta") text.appendData(data.delta);
        if (event === "assistant_turn") whole = data;
        if (event === "done" || event === "error") return ended(id, article, whole, data.message);
      }
    } catch (error) {
      if (error.status < 500) throw error;
    }
    if (signal.aborted) return;
    response = null;
    say("The connection was lost. Resuming…");
    await pause(++tries);
    if (!current && !signal.aborted) return open(id); // the connection was lost before the event `session`
  }
}

async function ended(id, article, turn, problem) {
  if (turn?.status === "complete") {
    finish(article, turn);
  } else {
    // A retry that is not complete gives way to the reply before it. The server knows which turns stand.
    await open(id);
    if (problem && current.turns.at(-1).status !== "failed") say(problem);
  }
  await list();
}

// The screen. Text stays text: `append` and `textContent` parse no markup.

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const say = (message) => ($("notice").textContent = message);
const setBusy = (busy) => ([$("send").hidden, $("stop").hidden] = [busy, !busy]);
const modelId = () => current?.model.id ?? $("model").value;

function takeScreen() {
  screen.abort();
  screen = new AbortController();
  setBusy(false);
  atEnd = true;
  return screen.signal;
}

// The end of the conversation stays in view, whatever grows or shrinks, unless the user has scrolled away from it.
let atEnd = true;
const resized = new ResizeObserver(() => atEnd && $("log").scrollTo(0, $("log").scrollHeight));
resized.observe($("log"));
resized.observe($("turns"));
$("log").onscroll = ({ target }) => (atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 48);

function show(turn) {
  const heading = element("h3", {}, turn.kind === "user" ? "You" : turn.model.id);
  const text = element("div", { className: "text" }, turn.content);
  const article = element("article", { className: turn.kind }, heading, text);
  $("turns").append(article);
  if (turn.status === "in_progress") {
    // A screen reader reads the article aloud as a whole, once it is no longer busy.
    Object.assign(article, { ariaLive: "polite", ariaBusy: "true" });
    setBusy(true);
  } else if (turn.status) {
    finish(article, turn);
  }
}

function finish(article, turn) {
  const { input_tokens: read, output_tokens: written } = turn.usage;
  const notes = { failed: turn.error?.message, interrupted: "Interrupted before it was complete." };
  const note = notes[turn.status] ?? (read && written ? `${read} tokens read, ${written} written` : "");
  const retry = element("button", { onclick: attempt(() => converse(`sessions/${current.id}/retry`)) }, "Retry");
  article.append(element("footer", {}, element("span", { className: turn.status in notes ? "alarm" : "" }, note), retry));
  article.ariaBusy = "false";
  setBusy(false);
}

/** Shows what belongs to the session around its turns. */
function frame() {
  $("title").textContent = current?.title ?? "New chat";
  document.title = current ? `${current.title} – Parley` : "Parley";
  $("model-button").textContent = modelId() || "Settings";
  for (const node of document.querySelectorAll(".old")) node.hidden = !current;
  for (const link of $("list").querySelectorAll("a")) link.ariaCurrent = link.hash.slice(1) === current?.id ? "page" : null;
}

async function open(id) {
  const signal = takeScreen();
  const path = `sessions/${encodeURIComponent(id)}`;
  current = await (await api("GET", path, { signal })).json();
  if (location.hash.slice(1) !== id) history.pushState(null, "", `#${id}`);
  frame();
  $("turns").replaceChildren();
  current.turns.forEach(show);
  if (current.turns.at(-1).status !== "in_progress") return;
  await follow(id, await api("GET", `${path}/events`, { headers: STREAM, signal }), signal);
}

function created(session) {
  if (!current) history.pushState(null, "", `#${session.id}`);
  current = { system: $("system").value.trim() || null, ...current, ...session };
  frame();
  list().catch(() => {}); // the list is shown again at the end of the reply
}

let listing = 0;

/** Shows the list again, as long as it is now. With an offset, adds what follows. */
async function list(offset = 0) {
  const number = ++listing;
  const limit = offset ? PAGE : Math.min(Math.max(PAGE, $("list").children.length), 100);
  const query = new URLSearchParams({ "page[offset]": offset, "page[limit]": limit, query: $("search").value });
  const { data, meta } = await (await api("GET", `sessions?${query}`)).json();
  if (number !== listing) return; // a newer call has begun meanwhile
  const focused = $("list").contains(document.activeElement) && document.activeElement.hash;
  const items = data.map(({ id, title, last_message_preview, updated_at }) => {
    const day = new Date(updated_at).toLocaleDateString([], { month: "short", day: "numeric" });
    const preview = element("span", { dir: "auto" }, last_message_preview || "…");
    const parts = [element("strong", { dir: "auto" }, title), element("time", { dateTime: updated_at }, day), preview];
    return element("li", {}, element("a", { href: `#${id}`, title }, ...parts));
  });
  if (!items.length && !offset) items.push(element("li", {}, element("p", {}, $("search").value ? "Nothing found." : "No chats yet.")));
  if (!offset) $("list").replaceChildren();
  $("list").append(...items);
  $("more").hidden = !meta.has_more;
  frame();
  if (focused) $("list").querySelector(`[href="${focused}"]`)?.focus();
}

async function listModels() {
  const { data } = await (await api("GET", "models")).json();
  $("model").replaceChildren(...data.map(({ id, provider }) => new Option(id === provider ? id : `${id} (${provider})`, id)));
  $("model").value = $("model").dataset.default = data.find((model) => model.default)?.id ?? "";
  frame();
}

// What the user does

/** Returns a handler that shows what went wrong where the user looks. */
const attempt = (action) => async (event) => {
  event?.preventDefault();
  say("");
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.status ? error.message : "The server cannot be reached.");
  }
};

async function route() {
  if (!matchMedia("(pointer: coarse)").matches) $("text").focus(); // a phone's keyboard would cover the text
  if (location.hash.slice(1)) return open(location.hash.slice(1));
  takeScreen();
  current = null;
  $("model").value = $("model").dataset.default;
  $("system").value = "";
  frame();
  $("turns").replaceChildren(element("p", {}, "Say something to begin."));
}

function goToNew() {
  location.hash = "";
  $("text").focus();
}

function send() {
  const content = $("text").value;
  if (!content.trim() || $("send").hidden) return;
  $("text").value = "";
  if (current) return converse(`sessions/${current.id}/messages`, { content });
  $("turns").replaceChildren();
  return converse("sessions", { content, model: $("model").value || null, system: $("system").value.trim() || null });
}

async function enter() {
  $("door").hidden = true;
  $("app").hidden = false;
  await Promise.all([route(), list(), listModels()]);
}

/** Asks for a token, and says why. */
function knock(reason = "") {
  screen.abort();
  sessionStorage.removeItem("token");
  $("app").hidden = true;
  $("door").hidden = false;
  $("refusal").textContent = reason;
  $("token").focus();
}

$("door").onsubmit = attempt(() => {
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  $("token").value = "";
  return enter();
});
$("forget").onclick = () => {
  knock();
  location.replace(location.pathname); // the page is loaded again, so that nothing stays in memory either
};

$("composer").onsubmit = attempt(send);
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) attempt(send)(event);
};
$("stop").onclick = attempt(async () => {
  if (!current) return; // the session is about to be created
  await api("POST", `sessions/${current.id}/cancel`).catch((error) => {
    if (error.status !== 409) throw error; // a 409 says that the reply has ended by itself
  });
});

$("model").onchange = () => current || frame();
$("settings").onbeforetoggle = () => {
  if (!current) return;
  const model = current.model.id;
  if (![...$("model").options].some((option) => option.value === model)) $("model").append(new Option(model));
  $("model").value = model;
  $("new-title").value = current.title;
  $("system").value = current.system;
};
$("settings").onsubmit = attempt(async () => {
  const wanted = { title: $("new-title").value, model: $("model").value, system: $("system").value.trim() || null };
  const known = { ...current, model: current.model.id };
  const changes = Object.entries(wanted).filter(([name, value]) => value !== known[name]);
  const changed = await api("PATCH", `sessions/${current.id}`, { body: Object.fromEntries(changes) });
  current = { ...current, ...(await changed.json()) };
  $("settings").hidePopover();
  await list();
});
$("delete").onclick = attempt(async () => {
  if (!confirm(`Delete “${current.title}”?`)) return;
  await api("DELETE", `sessions/${current.id}`);
  $("settings").hidePopover();
  goToNew();
  await list();
});

$("new").onclick = goToNew;
$("sidebar").onclick = ({ target }) => target.closest("a, #new") && $("sidebar").hidePopover();
$("more").onclick = attempt(() => list($("list").children.length));
$("search").oninput = attempt(() => list());
addEventListener("hashchange", attempt(route));
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select");
  const isSearch = event.key === "k" ? event.ctrlKey || event.metaKey : event.key === "/" && !isTyping;
  if (isSearch) {
    event.preventDefault();
    if (!$("sidebar").checkVisibility()) $("sidebar").showPopover();
    $("search").select();
  } else if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    goToNew();
  } else if (event.key === "Escape" && !document.querySelector(":popover-open")) {
    if (!$("stop").hidden) $("stop").click();
  }
});

if (token) attempt(enter)();
else knock();
