// The system prompt of new chats: the row in the settings panel that sets and removes it.

import { $, button, element } from "../dom.js";
import { saveChoices, savedChoices, setForNextChat } from "./choices.js";
import { systemPrompt } from "./options.js";
import { state } from "./screen.js";

const use = button("Use for new chats", { id: "use-for-new", className: "" });
const stopUsing = button("Stop using it", { id: "stop-using", className: "" });
const said = element("small", { id: "default-prompt", role: "status" });
const row = element("p", { className: "of-new" }, use, said, stopUsing);
stopUsing.setAttribute("aria-describedby", said.id);
$("system").after(row);

/** Updates the row: whether new chats use the system prompt in the field. */
export function show() {
  const [inField, ofNew] = [systemPrompt(), savedChoices().system];
  said.textContent = ofNew ? sentenceOf(inField === ofNew) : "";
  use.hidden = !inField || inField === ofNew;
  stopUsing.hidden = !ofNew;
  row.hidden = use.hidden && stopUsing.hidden;
}

const sentenceOf = (isSame) => `New chats begin with ${isSame ? "this" : "another one"}.`;

use.onclick = () => {
  if (!saveChoices({ system: systemPrompt() })) {
    said.textContent = "It is too long for this browser to keep.";
    return;
  }
  if (!state.current) setForNextChat({ system: undefined });
  show();
  stopUsing.focus(); // the button that was pressed is now hidden
};

stopUsing.onclick = () => {
  // The new chat on the screen keeps it.
  if (!state.current) setForNextChat({ system: systemPrompt() ?? "" });
  saveChoices({ system: undefined });
  show();
  if (use.hidden) $("system").focus();
  else use.focus();
};

$("settings").addEventListener("input", show);
