// The list of shortcuts.

import { element } from "../dom.js";
import { showDialog } from "./dialog.js";

// The names of modifier keys on a Mac.
const MAC = { Ctrl: "⌘", Alt: "⌥", Shift: "⇧" };
const isMac = /Mac|iP/.test(navigator.platform);

const named = (keys) => (isMac ? keys.replace(/Ctrl|Alt|Shift/, (key) => MAC[key]) : keys);

/** Shows the shortcuts: `keys` are alternatives, `does` says what they do. */
export function showShortcuts(shortcuts) {
  showDialog("Shortcuts", element("table", {}, shortcuts.map(line)));
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
