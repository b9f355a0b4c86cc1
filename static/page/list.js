// The list of chats: found, opened, renamed, deleted.

import { $, button, element } from "../dom.js";
import { api } from "./api.js";
import { forgetDrafts } from "./drafts.js";
import { isUnread } from "./endings.js";
import { goToNew } from "./replies.js";
import { attempt, frame, hear, sayIfAny, state } from "./screen.js";
import { change } from "./settings.js";
import { dayOf, timeOf } from "./times.js";

const PAGE = 20; // sessions
const UNREAD = { className: "unread", role: "img", ariaLabel: "A new reply" };
const MOST = 100; // that the server gives at once

// What opens a chat at the place that was found. Without it, that opens at its end.
const loadFound = () => import("./found.js").catch(() => {});

let sessions = []; // those in the list
let calls = 0;

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
  keepFocus(() => $("list").replaceChildren(...groups(meta.has_more)));
  frame();
}

function groups(hasMore) {
  const days = Object.entries(Object.groupBy(sessions, ({ updated_at }) => dayOf(updated_at)));
  const groupOf = ([day, ofDay]) =>
    element("section", {}, element("h2", {}, day), element("ul", {}, ofDay.map(item)));
  const nodes = days.map(groupOf);
  if (!sessions.length) {
    nodes.push(element("p", {}, $("search").value ? "Nothing found." : "No chats yet."));
  }
  if (hasMore) {
    nodes.push(button("More", { className: "", onclick: attempt(() => list(sessions.length)) }));
  }
  return nodes;
}

/** Draws the list anew. The focus stays at the link or button of the same session. */
function keepFocus(draw) {
  const focused = document.activeElement;
  const { hash, value } = $("list").contains(focused) ? focused : {};
  draw();
  const selector = hash ? `[href="${hash}"]` : `[value="${value}"]`;
  if (hash || value) $("list").querySelector(selector)?.focus();
}

function item({ id, title, last_message_preview, updated_at }) {
  const preview = element("span", { dir: "auto" }, last_message_preview || "…");
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

$("rename").onclick = attempt(async () => {
  const { id, title: before } = choose();
  const title = prompt("Title", before)?.trim();
  if (title) await change(id, { title });
  await list();
});

$("delete").onclick = attempt(async () => {
  const { id, title } = choose();
  if (!confirm(`Delete “${title}”?`)) return;
  if (state.current?.id === id) state.screen.abort();
  // An earlier try had arrived, and only its response was lost.
  await api("DELETE", `sessions/${id}`, { unless: 404 });
  forgetDrafts(id);
  if (state.current?.id === id) goToNew();
  await list();
  $("new").focus();
});

$("as-markdown").onclick = attempt(async () => {
  const { id, title } = choose();
  const { saveAsMarkdown } = await import("./moving.js");
  await saveAsMarkdown(id, title);
});
