// The system prompt that new chats begin with: in the panel of the settings it is chosen, and taken
// back.

import { $, button, element } from "../dom.js";
import { choose, chosen, setForNew } from "./choices.js";
import { systemPrompt } from "./options.js";
import { state } from "./screen.js";

const use = button("Use for new chats", { id: "use-for-new", className: "" });
const takeBack = button("Take back", { id: "take-back", className: "" });
const said = element("small", { id: "own-prompt", role: "status" });
const row = element("p", { className: "of-new" }, use, said, takeBack);
takeBack.setAttribute("aria-describedby", said.id);
$("system").after(row);

/** Shows whether new chats begin with the system prompt in the field. */
export function show() {
  const [inField, ofNew] = [systemPrompt(), chosen().system];
  said.textContent = ofNew ? sentenceOf(inField === ofNew) : "";
  use.hidden = !inField || inField === ofNew;
  takeBack.hidden = !ofNew;
  row.hidden = use.hidden && takeBack.hidden;
}

const sentenceOf = (isSame) => `New chats begin with ${isSame ? "this" : "another one"}.`;

use.onclick = () => {
  if (!choose({ system: systemPrompt() })) {
    said.textContent = "It is too long for this browser to keep.";
    return;
  }
  if (!state.current) setForNew({ system: undefined });
  show();
  takeBack.focus(); // the button that was pressed is not shown any more
};

takeBack.onclick = () => {
  // The chat that is about to begin has it still.
  if (!state.current) setForNew({ system: systemPrompt() ?? "" });
  choose({ system: undefined });
  show();
  if (use.hidden) $("system").focus();
  else use.focus();
};

$("settings").addEventListener("input", show);
