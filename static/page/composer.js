// The composer: typing, sending and stopping.

import { $ } from "../dom.js";
import { arePicturesReady } from "./attaching.js";
import { keepField, message, paste, pictures, takeMessage } from "./drafts.js";
import { MAX_TYPED } from "./long-text.js";
import { options, systemPrompt } from "./options.js";
import { requestReply, stop } from "./replies.js";
import { attempt, isBusy, isLoading, isSendKey, sayIfAny, state, subscribe } from "./screen.js";

let isWaiting = false; // for the pictures of the message

async function send() {
  const isEmpty = !message().trim() && !pictures.length;
  if (isEmpty || isBusy() || isLoading() || isWaiting) return;
  isWaiting = true;
  const isReady = await arePicturesReady().finally(() => (isWaiting = false));
  if (!isReady) return;
  const taken = takeMessage();
  if (state.current) {
    await requestReply(`sessions/${state.current.id}/messages`, taken);
    return;
  }
  $("turns").replaceChildren();
  const settings = { system: systemPrompt(), options: options() };
  await requestReply("sessions", { ...taken, model: $("model").value || null, ...settings });
}

$("composer").onsubmit = attempt(send);
$("text").oninput = keepField;
$("text").onkeydown = (event) => {
  if (!isSendKey(event)) return;
  event.preventDefault();
  $("composer").requestSubmit();
};

// For phones, whose keyboards have no Shift-Enter. Without preventDefault, the field would lose the
// focus, and the keyboard would close.
$("newline").onpointerdown = (event) => event.preventDefault();
$("newline").onclick = () => {
  const field = $("text");
  field.focus();
  field.setRangeText("\n", field.selectionStart, field.selectionEnd, "end");
  keepField();
};

// A text that would make the field slow becomes a pasted text, however it is entered.
$("text").addEventListener("beforeinput", (event) => {
  const length = event.data?.length ?? 0;
  if (length < MAX_TYPED / 10 || $("text").value.length + length < MAX_TYPED) return;
  event.preventDefault();
  paste(event.data.replace(/\r\n?/g, "\n"));
});

subscribe(
  "pasted",
  attempt(async () => {
    const { drawPasted } = await import("./pasted.js");
    drawPasted();
  }, sayIfAny),
);

$("stop-reply").onclick = attempt(stop);

// What a new chat proposes goes into the field, to be changed or sent. It is no draft until then.

const IDEAS = {
  "idea-leave":
    "Explain how TCP recovers from lost packets, step by step, with an example for each.",
  "idea-code":
    "Compare quicksort and mergesort: a table, a formula for the time that each takes, and code.",
};

for (const [id, text] of Object.entries(IDEAS)) {
  $(id).onclick = () => {
    $("text").value = text;
    $("text").focus();
  };
}

$("idea-image").onclick = () => $("picture-files").click();
