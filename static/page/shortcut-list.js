// The list of shortcuts.

import { element } from "../dom.js";
import { show } from "./dialog.js";

// On a Mac's keyboard, other keys do the same.
const MAC = { Ctrl: "⌘", Alt: "⌥", Shift: "⇧" };
const isMac = /Mac|iP/.test(navigator.platform);

const named = (keys) => (isMac ? keys.replace(/Ctrl|Alt|Shift/, (key) => MAC[key]) : keys);

/** Shows what keys do: a list of `keys`, each of which does the same, and what that is. */
export function showShortcuts(shortcuts) {
  show("Shortcuts", element("table", {}, shortcuts.map(line)));
}

function line({ keys, does }) {
  const names = keys.map((key) => element("kbd", {}, named(key)));
  const cell = element(
    "td",
    {},
    names.flatMap((name, at) => (at ? [" or ", name] : name)),
  );
  return element("tr", {}, element("th", { scope: "row" }, does), cell);
}
