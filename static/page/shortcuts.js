// Keyboard shortcuts. One table says what the keys do, for the handler and for the list on the
// page.

import { $ } from "../dom.js";
import { rename, sessionAt } from "./list.js";
import { goToNewChat } from "./replies.js";
import { attempt, sayIfAny } from "./screen.js";

const isTyping = ({ target }) => target.matches("input, textarea, select, [contenteditable]");

const hasControl = (event) => event.ctrlKey || event.metaKey;

/**
 * Whether Escape may stop the reply: in the search field it clears that, and it closes popovers.
 */
function mayStop({ target }) {
  return (
    !$("stop-reply").hidden && target !== $("search") && !document.querySelector(":popover-open")
  );
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

/** What keys do. Those without `isPressed` are handled where the focus is. */
const SHORTCUTS = [
  { keys: ["Enter"], does: "Send the message" },
  { keys: ["Shift Enter"], does: "Start a new line" },
  {
    keys: ["Esc"],
    does: "Stop the reply, or close what is open",
    isPressed: (event) => event.key === "Escape" && !event.isComposing && mayStop(event),
    run: () => $("stop-reply").click(),
  },
  {
    keys: ["Alt N"],
    does: "Start a new chat",
    isPressed: (event) => event.altKey && event.code === "KeyN",
    run: goToNewChat,
  },
  {
    keys: ["/", "Ctrl K"],
    does: "Search the chats",
    isPressed: (event) =>
      hasControl(event) ? event.key === "k" : event.key === "/" && !isTyping(event),
    run: search,
  },
  { keys: ["↑", "↓"], does: "Go from chat to chat in the list" },
  { keys: ["→"], does: "Go to the chat’s options in the list" },
  {
    keys: ["F2"],
    does: "Rename the chat in the list",
    isPressed: ({ key, target }) => key === "F2" && sessionAt(target),
    run: ({ target }) => rename(sessionAt(target)),
  },
  {
    keys: ["Ctrl Z"],
    does: "Restore what was just deleted",
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
