// What one types, sends and stops.

import { $ } from "../dom.js";
import { keepField, message, paste, takeMessage } from "./drafts.js";
import { MOST } from "./long.js";
import { options, systemPrompt } from "./options.js";
import { converse, stop } from "./replies.js";
import { attempt, hear, isBusy, isEnter, isLoading, sayIfAny, state } from "./screen.js";

async function send() {
  if (!message().trim() || isBusy() || isLoading()) return;
  const content = takeMessage();
  if (state.current) {
    await converse(`sessions/${state.current.id}/messages`, { content });
    return;
  }
  $("turns").replaceChildren();
  const settings = { system: systemPrompt(), options: options() };
  await converse("sessions", { content, model: $("model").value || null, ...settings });
}

$("composer").onsubmit = attempt(send);
$("text").oninput = keepField;
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
  keepField();
};

// What would make the field slow does not get into it, however it comes.
$("text").addEventListener("beforeinput", (event) => {
  const length = event.data?.length ?? 0;
  if (length < MOST / 10 || $("text").value.length + length < MOST) return;
  event.preventDefault();
  paste(event.data.replace(/\r\n?/g, "\n"));
});

hear(
  "pasted",
  attempt(async () => {
    const { drawPasted } = await import("./pasted.js");
    drawPasted();
  }, sayIfAny),
);

$("stop").onclick = attempt(stop);
