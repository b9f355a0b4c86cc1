// The keys that work wherever the focus is. One table has them act, and is what the page shows.

import { $ } from "../dom.js";
import { rename, sessionAt } from "./list.js";
import { goToNew } from "./replies.js";
import { attempt, sayIfAny } from "./screen.js";

const isTyping = ({ target }) => target.matches("input, textarea, select, [contenteditable]");

const hasControl = (event) => event.ctrlKey || event.metaKey;

/**
 * Whether Escape is for the reply: in the search field it clears it, and what lies over the page it
 * closes.
 */
function mayStop({ target }) {
  return !$("stop").hidden && target !== $("search") && !document.querySelector(":popover-open");
}

function search() {
  if (!$("sidebar").checkVisibility()) $("sidebar").showPopover();
  $("search").select();
}

const showList = attempt(async () => {
  const { showShortcuts } = await import("./shortcut-list.js");
  showShortcuts(SHORTCUTS);
}, sayIfAny);

$("shortcuts").onclick = showList;

/** What keys do. Those without `isPressed` do it where the focus is. */
const SHORTCUTS = [
  { keys: ["Enter"], does: "Send the message" },
  { keys: ["Shift Enter"], does: "Begin a new line" },
  {
    keys: ["Esc"],
    does: "Stop the reply, or close what is open",
    isPressed: (event) => event.key === "Escape" && !event.isComposing && mayStop(event),
    run: () => $("stop").click(),
  },
  {
    keys: ["Alt N"],
    does: "Begin a new chat",
    isPressed: (event) => event.altKey && event.code === "KeyN",
    run: goToNew,
  },
  {
    keys: ["/", "Ctrl K"],
    does: "Search the chats",
    isPressed: (event) =>
      hasControl(event) ? event.key === "k" : event.key === "/" && !isTyping(event),
    run: search,
  },
  {
    keys: ["F2"],
    does: "Rename the chat in the list",
    isPressed: ({ key, target }) => key === "F2" && sessionAt(target),
    run: ({ target }) => rename(sessionAt(target)),
  },
  {
    keys: ["Ctrl Z"],
    does: "Bring back the chat that was deleted last",
    isPressed: (event) => hasControl(event) && event.key === "z" && $("undo") && !isTyping(event),
    run: () => $("undo").click(),
  },
  {
    keys: ["?", "Ctrl /"],
    does: "Show this list",
    isPressed: (event) =>
      hasControl(event) ? event.key === "/" : event.key === "?" && !isTyping(event),
    run: showList,
  },
];

addEventListener("keydown", (event) => {
  if ($("app").hidden || document.querySelector(":modal")) return;
  const shortcut = SHORTCUTS.find(({ isPressed }) => isPressed?.(event));
  if (!shortcut) return;
  event.preventDefault();
  shortcut.run(event);
});
