// The list of chats, and the menu that each of them has.

import { $, button, element } from "../dom.js";
import { plain } from "../markdown/plain.js";
import { api } from "./api.js";
import { isUnread } from "./endings.js";
import { attempt, frame, hear, sayIfAny } from "./screen.js";
import { dayOf, timeOf } from "./times.js";

const PAGE = 20; // sessions
const UNREAD = { className: "unread", role: "img", ariaLabel: "A new reply" };
const MOST = 100; // that the server gives at once

// What opens a chat at the place that was found. Without it, that opens at its end.
const loadFound = () => import("./found.js").catch(() => {});

let sessions = []; // those in the list
let hasMore = false; // whether the server has more of them
let calls = 0;

/** The ids of the chats that are deleted in some seconds: they are not shown. */
export const doomed = new Set();

/** The forms that are shown in the place of chats, by their ids: their titles are being changed. */
export const forms = new Map();

/** A session that is in the list. */
export const sessionOf = (id) => sessions.find((session) => session.id === id);

/** Shows the list again, as long as it is now. With an offset, adds what follows. */
export async function list(offset = 0) {
  const call = ++calls;
  const limit = offset ? PAGE : Math.min(Math.max(PAGE, sessions.length), MOST);
  const query = new URLSearchParams({
    "page[offset]": offset,
    "page[limit]": limit,
    query: $("search").value,
  });
  const loaded = $("search").value && loadFound();
  const { data, meta } = await api("GET", `sessions?${query}`);
  await loaded;
  if (call !== calls) return; // a newer one has begun meanwhile
  sessions = offset ? [...sessions, ...data] : data;
  hasMore = meta.has_more;
  draw();
}

/** Draws the list anew; where somebody types in it, not before the focus has left the field. */
export function draw() {
  if (document.activeElement.form && $("list").contains(document.activeElement)) return;
  keepFocus(() => $("list").replaceChildren(...groups()));
  frame();
}

function groups() {
  const shown = sessions.filter(({ id }) => !doomed.has(id));
  const days = Object.entries(Object.groupBy(shown, ({ updated_at }) => dayOf(updated_at)));
  const groupOf = ([day, ofDay]) =>
    element("section", {}, element("h2", {}, day), element("ul", {}, ofDay.map(item)));
  const nodes = days.map(groupOf);
  if (!shown.length) {
    nodes.push(element("p", {}, $("search").value ? "Nothing found." : "No chats yet."));
  }
  if (hasMore) {
    nodes.push(button("More", { className: "", onclick: attempt(() => list(sessions.length)) }));
  }
  return nodes;
}

/** The focus stays at the link or button of the same session. */
function keepFocus(replace) {
  const focused = document.activeElement;
  const { hash, value } = $("list").contains(focused) ? focused : {};
  replace();
  const selector = hash ? `[href="${hash}"]` : `[value="${value}"]`;
  if (hash || value) $("list").querySelector(selector)?.focus();
}

function item({ id, title, last_message_preview, updated_at }) {
  if (forms.has(id)) return element("li", {}, forms.get(id));
  const preview = element("span", { dir: "auto" }, plain(last_message_preview) || "…");
  const name = element("strong", { dir: "auto" }, title);
  if (isUnread(id)) name.prepend(element("span", UNREAD));
  const link = element("a", { href: `#${id}`, title }, name, timeOf(updated_at), preview);
  const more = button("⋯", {
    value: id,
    ariaLabel: `Options of ${title}`,
    popoverTargetElement: $("menu"),
    onclick: () => Object.assign($("menu").dataset, { id, title }),
  });
  return element("li", {}, link, more);
}

hear("sessions", attempt(list, sayIfAny));
$("search").oninput = attempt(() => list());

$("menu").ontoggle = ({ newState }) => {
  if (newState === "open") $("rename").focus();
};

/**
 * The session whose menu is open, which is closed: the focus goes back to the button that has
 * opened it.
 */
function choose() {
  const { id, title } = $("menu").dataset; // the list may have been drawn anew without it
  $("menu").hidePopover();
  return { id, title };
}

// What the menu does is rare: it is fetched when it is used.

const MENU = {
  rename: async (chat) => (await import("./renaming.js")).rename(chat),
  print: async ({ id }) => (await import("./printing.js")).print(id),
  "as-markdown": async ({ id, title }) => (await import("./moving.js")).saveAsMarkdown(id, title),
  delete: async (chat, isByKey) => (await import("./deletion.js")).remove(chat, isByKey),
};

$("menu").onclick = attempt(async ({ target, detail }) => {
  const isByKey = detail === 0; // a pointer clicks once or more
  await MENU[target.id]?.(choose(), isByKey);
});

/** The chat in whose line this element is; undefined where that is none, or a form. */
export const sessionAt = (node) =>
  sessionOf(node.closest("#list li")?.querySelector("button")?.value);

export const rename = attempt(MENU.rename);
