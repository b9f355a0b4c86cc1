// The list of chats, and the menu of each chat.

import { $, button, element } from "../dom.js";
import { plain } from "../markdown/plain.js";
import { api } from "./api.js";
import { isUnread } from "./notifications.js";
import { announce, attempt, sayIfAny, subscribe, updateFrame } from "./screen.js";
import { change } from "./settings.js";
import { dayOf, timeOf } from "./times.js";

const PAGE = 20; // sessions
const UNREAD = { className: "unread", role: "img", ariaLabel: "A new reply" };
const MAX_SESSIONS = 100; // per request, as the server limits it

// Opens a chat at the words that were searched, and shows them in the list. If it cannot be fetched,
// chats open at their end.
let searchJump = null;
const loadSearchJump = async () => {
  searchJump = await import("./search-jump.js").catch(() => null);
};

let sessions = []; // those in the list
let hasMore = false; // whether the server has more
let requests = 0;

/** The ids of chats that will be deleted in a few seconds: they are hidden. */
export const pendingDeletion = new Set();

/** The rename forms, by the id of the chat that they replace in the list. */
export const forms = new Map();

/** The ids of the selected chats, while chats are selected to delete several at once. */
export const selected = new Set();

const isSelecting = () => !$("selection").hidden;

/** The session with this id; undefined if it is not in the list. */
export const sessionById = (id) => sessions.find((session) => session.id === id);

/** Whether a chat in the list has this title. */
export const hasTitle = (title) => sessions.some((session) => session.title === title);

/** Fetches the list again, at its current length; with an offset, the next page. */
export async function listChats(offset = 0) {
  const call = ++requests;
  const limit = offset ? PAGE : Math.min(Math.max(PAGE, sessions.length), MAX_SESSIONS);
  const query = new URLSearchParams({
    "page[offset]": offset,
    "page[limit]": limit,
    query: $("search").value,
  });
  const loaded = $("search").value && loadSearchJump();
  const { data, meta } = await api("GET", `sessions?${query}`);
  await loaded;
  if (call !== requests) return; // there is a newer request
  sessions = offset ? [...sessions, ...data] : data;
  hasMore = meta.has_more;
  drawList();
}

/**
 * Draws the list, unless somebody is typing in a rename form: it is drawn when that loses the
 * focus.
 */
export function drawList() {
  if (document.activeElement.form && $("list").contains(document.activeElement)) return;
  keepFocus(() => $("list").replaceChildren(...groups()));
  updateFrame();
}

function groups() {
  const shown = sessions.filter(({ id }) => !pendingDeletion.has(id));
  const nameOf = ({ pinned, updated_at }) => (pinned ? "Pinned" : dayOf(updated_at));
  const groupOf = ([name, chats]) =>
    element("section", {}, element("h2", {}, name), element("ul", {}, chats.map(chatItem)));
  const nodes = Object.entries(Object.groupBy(shown, nameOf)).map(groupOf);
  if (!shown.length) {
    nodes.push(element("p", {}, $("search").value ? "Nothing found." : "No chats yet."));
  }
  if (hasMore) {
    nodes.push(
      button("More", { className: "", onclick: attempt(() => listChats(sessions.length)) }),
    );
  }
  return nodes;
}

/** Replaces the list. The focus stays on the link or button of the same session. */
function keepFocus(replace) {
  const focused = document.activeElement;
  const { hash, value } = $("list").contains(focused) ? focused : {};
  replace();
  const selector = hash ? `[href="${hash}"]` : `[value="${value}"]`;
  if (hash || value) $("list").querySelector(selector)?.focus();
}

function chatItem(chat) {
  const { id, title, updated_at } = chat;
  if (forms.has(id)) return element("li", {}, forms.get(id));
  const preview = element("span", { dir: "auto" }, previewOf(chat));
  const name = element("strong", { dir: "auto" }, title);
  if (isUnread(id)) name.prepend(element("span", UNREAD));
  const parts = [name, timeOf(updated_at), preview];
  if (isSelecting()) {
    const checkbox = { type: "checkbox", value: id, checked: selected.has(id) };
    return element("li", {}, element("label", { title }, element("input", checkbox), parts));
  }
  const link = element("a", { href: `#${id}`, title }, parts);
  const more = button("⋯", {
    value: id,
    ariaLabel: `Options of ${title}`,
    popoverTargetElement: $("menu"),
    onclick: () => prepareMenu(chat),
  });
  return element("li", {}, link, more);
}

/** The text around the words that were searched, or else that of the last message. */
function previewOf({ found, last_message_preview }) {
  const text = plain(found ?? last_message_preview) || "…";
  return searchJump?.fromMatch(text) ?? text;
}

subscribe("sessions", attempt(listChats, sayIfAny));
$("search").oninput = attempt(() => listChats());

let menuChat = null; // the chat whose menu is open; it may no longer be in the list

function prepareMenu(chat) {
  menuChat = chat;
  $("pin").textContent = chat.pinned ? "Unpin" : "Pin";
}

$("menu").ontoggle = ({ newState }) => {
  if (newState === "open") $("rename").focus();
};

async function pin({ id, pinned }) {
  await change(id, { pinned: !pinned });
  await listChats();
  announce(pinned ? "Unpinned" : "Pinned");
}

// The modules of the menu's actions are fetched when they are used.

const MENU = {
  pin,
  rename: async (chat) => (await import("./renaming.js")).rename(chat),
  print: async ({ id }) => (await import("./printing.js")).print(id),
  "as-markdown": async ({ id, title }) => (await import("./transfer.js")).saveAsMarkdown(id, title),
  select: async (chat) => (await import("./selection.js")).select(chat),
  delete: async (chat, isByKey) => (await import("./deletion.js")).remove([chat], isByKey),
};

$("menu").onclick = attempt(async ({ target, detail }) => {
  const action = MENU[target.id];
  if (!action) return;
  $("menu").hidePopover(); // returns the focus to its button
  const isByKey = detail === 0; // the number of clicks: 0 for a key
  await action(menuChat, isByKey);
});

/** The chat whose row in the list has this element; undefined if there is none. */
export const sessionAt = (node) =>
  sessionById(node.closest("#list li")?.querySelector("button")?.value);

export const rename = attempt(MENU.rename);
