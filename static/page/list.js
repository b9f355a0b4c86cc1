// The list of chats, and the menu of each chat.

import { $, button, element, iconButton } from "../dom.js";
import { plain } from "../markdown/plain.js";
import { all, chatsWith, reloadChats, restoreLength } from "./loaded-chats.js";
import "./list-keys.js";
import { isUnread } from "./notifications.js";
import { announce, attempt, sayIfAny, subscribe, updateFrame } from "./screen.js";
import { change } from "./settings.js";
import { periodOf, shortTimeOf } from "./times.js";

const UNREAD = { className: "unread", role: "img", ariaLabel: "A new reply" };
const NEAR_END = "300px"; // from the end of the list: more chats are loaded

// Opens a chat at the words that were searched, and shows them in the list. If it cannot be fetched,
// chats open at their end.
let searchJump = null;
const loadSearchJump = async () => {
  searchJump ??= await import("./search-jump.js").catch(() => null);
};

let shown = all; // the chats in the list
let wanted = all; // those that will be when they arrive
let isStarted = false;

/** The ids of chats that will be deleted in a few seconds: they are hidden. */
export const pendingDeletion = new Set();

/** The rename forms, by the id of the chat that they replace in the list. */
export const forms = new Map();

/** The ids of the selected chats, while chats are selected to delete several at once. */
export const selected = new Set();

const isSelecting = () => !$("selection").hidden;

/** The session with this id; undefined if it is not in the list. */
export const sessionById = (id) => shown.get(id);

/** Whether a chat in the list has this title. */
export const hasTitle = (title) => all.chats.some((session) => session.title === title);

/** Fetches the beginning of the list again, or what the search finds. */
export async function listChats() {
  const query = $("search").value.trim();
  const list = chatsWith(query);
  wanted = list;
  list.onChange = () => list === wanted && show(list);
  if (query) await loadSearchJump();
  if (list !== wanted) return; // meanwhile, something else is searched
  if (list !== shown && list.chats.length) show(list);
  if (!isStarted) restoreLength();
  isStarted = true;
  await list.refresh();
  if (list.hasMore && list.chats.length < list.length) {
    attempt(() => list.grow(list.length), sayIfAny)(); // after a reload of the page
  }
}

/** Fetches all that is loaded again. */
export async function listAgain() {
  await reloadChats();
  drawList();
}

function show(list) {
  isRestoring ||= list !== shown;
  shown = list;
  drawList();
}

/**
 * Draws the list, unless somebody is typing in a rename form: it is drawn when that loses the
 * focus.
 */
export function drawList() {
  if (document.activeElement.form && $("list").contains(document.activeElement)) return;
  keepFocus(() => arrange($("list"), groups()));
  restorePosition();
  updateFrame();
}

/** Makes these nodes the children. Those that are children already stay in the document. */
function arrange(parent, nodes) {
  const kept = new Set(nodes);
  const gone = [...parent.childNodes].filter((node) => !kept.has(node));
  for (const node of gone) node.remove();
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

// The nodes of each list: the rows by the ids of their chats, and the groups by their names.
const drawn = new WeakMap();

function groups() {
  const { rows = new Map(), sections = new Map() } = drawn.get(shown) ?? {};
  const chats = shown.chats.filter(({ id }) => !pendingDeletion.has(id));
  const rowOf = rowMaker(rows);
  const inGroups = Map.groupBy(chats, (chat) =>
    chat.pinned ? "Pinned" : periodOf(chat.updated_at),
  );
  const nodes = [];
  const kept = { rows: new Map(), sections: new Map() };
  for (const [name, members] of inGroups) {
    const section =
      sections.get(name) ?? element("section", {}, element("h2", {}, name), element("ul"));
    const made = members.map(rowOf);
    arrange(
      section.lastChild,
      made.map(({ row }) => row),
    );
    made.forEach((each, at) => kept.rows.set(members[at].id, each));
    kept.sections.set(name, section);
    nodes.push(section);
  }
  drawn.set(shown, kept);
  if (!chats.length) nodes.push(element("p", {}, shown.query ? "Nothing found." : "No chats yet."));
  if (shown.hasMore) nodes.push(more);
  return nodes;
}

/** Makes a function that returns the row of a chat: the one of before if it would be the same. */
function rowMaker(rows) {
  const common = [new Date(Date.now()).toDateString(), isSelecting(), shown.query, !searchJump];
  return (chat) => {
    const { id, title, updated_at, pinned, found, last_message_preview } = chat;
    const form = forms.get(id);
    const parts = [...common, title, updated_at, pinned, found ?? last_message_preview];
    const content = [...parts, isUnread(id)].join("\n");
    const before = rows.get(id);
    if (before?.content !== content || before.form !== form) {
      return { content, form, row: chatItem(chat) };
    }
    const box = isSelecting() && before.row.querySelector("[type=checkbox]");
    if (box) box.checked = selected.has(id);
    return before;
  };
}

/** Replaces the list. The focus stays on the link or button of the same session. */
function keepFocus(replace) {
  const focused = document.activeElement;
  const { hash, value } = $("list").contains(focused) ? focused : {};
  replace();
  if (document.activeElement === focused) return;
  const selector = hash ? `[href="${hash}"]` : `[value="${value}"]`;
  if (hash || value) $("list").querySelector(selector)?.focus({ preventScroll: true });
}

function chatItem(chat) {
  const { id, title, updated_at } = chat;
  if (forms.has(id)) return element("li", {}, forms.get(id));
  const preview = element("span", { dir: "auto" }, previewOf(chat));
  const name = element("strong", { dir: "auto" }, title);
  if (isUnread(id)) name.prepend(element("span", UNREAD));
  const parts = [name, shortTimeOf(updated_at), preview];
  const tabIndex = -1; // list-keys.js makes one element of the list a tab stop
  if (isSelecting()) {
    const checkbox = { type: "checkbox", value: id, checked: selected.has(id), tabIndex };
    return element("li", {}, element("label", { title }, element("input", checkbox), parts));
  }
  const link = element("a", { href: `#${id}`, title, tabIndex }, parts);
  const options = iconButton("more", `Options of ${title}`, {
    value: id,
    tabIndex,
    popoverTargetElement: $("menu"),
    onclick: () => prepareMenu(chat),
  });
  return element("li", {}, link, options);
}

/** The text around the words that were searched, or else that of the last message. */
function previewOf({ found, last_message_preview }) {
  const text = plain(found ?? last_message_preview) || "…";
  return searchJump?.fromMatch(text) ?? text;
}

subscribe("sessions", attempt(listChats, sayIfAny));
$("search").oninput = attempt(() => listChats());

// More chats are loaded when the end of the list is near, or by the button there.

const more = button("More", { className: "", onclick: attempt(loadMore) });

async function loadMore() {
  const list = shown;
  const count = list.chats.length;
  const isFocused = document.activeElement === more;
  await list.grow();
  if (isFocused) $("list").querySelectorAll("li")[count]?.querySelector("a, input").focus();
  end.unobserve(more);
  end.observe(more); // reports again whether it is near
}

const end = new IntersectionObserver(
  (entries) => entries.at(-1).isIntersecting && attempt(loadMore, sayIfAny)(),
  { scrollMargin: NEAR_END },
);
end.observe(more);

// The position of the list, after a reload, a search, and the drawer of a narrow screen.

let isRestoring = true;

function restorePosition() {
  const list = $("list");
  if (!isRestoring || !list.clientHeight) return;
  const isLoaded = !shown.hasMore || shown.chats.length >= shown.length;
  if (!isLoaded && list.scrollHeight - list.clientHeight < shown.top) return;
  isRestoring = false;
  list.scrollTop = shown.top;
}

$("list").addEventListener("scroll", ({ target }) => {
  shown.top = target.scrollTop;
});

$("sidebar").addEventListener("toggle", () => {
  isRestoring = true;
  restorePosition();
});

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
