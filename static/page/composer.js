// What one types, sends and stops.

import { $ } from "../dom.js";
import { keepDraft } from "./drafts.js";
import { options, systemPrompt } from "./options.js";
import { converse, stop } from "./replies.js";
import { attempt, isBusy, isEnter, isLoading, state } from "./screen.js";

async function send() {
  const content = $("text").value;
  if (!content.trim() || isBusy() || isLoading()) return;
  $("text").value = "";
  if (state.current) {
    await converse(`sessions/${state.current.id}/messages`, { content });
    return;
  }
  $("turns").replaceChildren();
  const settings = { system: systemPrompt(), options: options() };
  await converse("sessions", { content, model: $("model").value || null, ...settings });
}

$("composer").onsubmit = attempt(send);
$("text").oninput = keepDraft;
$("text").onkeydown = (event) => {
  if (!isEnter(event)) return;
  event.preventDefault();
  $("composer").requestSubmit();
};

// A phone's keyboard has no Shift-Enter. The field keeps the focus, else the keyboard would go.
$("newline").onpointerdown = (event) => event.preventDefault();
$("newline").onclick = () => {
  const field = $("text");
  field.focus();
  field.setRangeText("\n", field.selectionStart, field.selectionEnd, "end");
  keepDraft();
};

$("stop").onclick = attempt(stop);
