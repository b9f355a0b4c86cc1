// The keys of the list of chats: the list has one tab stop, and arrow keys go from chat to chat.

import { $ } from "../dom.js";
import { subscribe } from "./screen.js";

let stop = null; // the element in the list that Tab goes to

/** Tab enters the list at the open chat, or else at the first, and leaves it from any. */
function updateStop() {
  const list = $("list");
  const focused = document.activeElement.closest("#list :is(li > a, li > button, label > input)");
  const next =
    focused ?? list.querySelector("[aria-current]") ?? list.querySelector("li > a, label > input");
  if (next === stop) return;
  if (stop) stop.tabIndex = -1;
  if (next) next.tabIndex = 0;
  stop = next;
}

subscribe("frame", updateStop);
for (const event of ["focusin", "focusout"]) $("list").addEventListener(event, updateStop);

/** How many rows are in view. */
const rowsInView = (row) =>
  Math.max(1, Math.floor(Math.min($("list").clientHeight, innerHeight) / row.offsetHeight) - 1);

// How many rows a key goes down.
const STEPS = {
  ArrowUp: () => -1,
  ArrowDown: () => 1,
  PageUp: (row) => -rowsInView(row),
  PageDown: rowsInView,
  Home: () => -Infinity,
  End: () => Infinity,
};

function goTo(key, row, target) {
  if (key === "ArrowRight") return row.querySelector("button");
  if (key === "ArrowLeft") return row.querySelector("a, input");
  const rows = [...$("list").querySelectorAll("li")];
  const at = rows.indexOf(row) + STEPS[key](row);
  const next = rows[Math.min(Math.max(at, 0), rows.length - 1)];
  return next.querySelector(target.localName) ?? next.querySelector("a, input");
}

const hasModifier = (event) => event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;

$("list").addEventListener("keydown", (event) => {
  const { key, target } = event;
  const row = target.closest("li");
  const isOurs = key in STEPS || key === "ArrowRight" || key === "ArrowLeft";
  if (!isOurs || !row || target.form || hasModifier(event)) return;
  event.preventDefault();
  goTo(key, row, target)?.focus();
});
