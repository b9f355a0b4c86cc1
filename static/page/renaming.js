// A chat is given another title, in its place in the list.

import { $, element } from "../dom.js";
import { draw, forms, sessionOf } from "./list.js";
import { attempt } from "./screen.js";
import { change } from "./settings.js";

const LONGEST = 200; // characters that the server takes

/**
 * Shows a field in the place of the chat. Enter saves what is typed, and so does a focus that goes
 * elsewhere. Escape leaves the title as it was, and so does an empty field.
 */
export function rename({ id, title }) {
  if (!sessionOf(id)) return; // the list was fetched anew meanwhile, and is without it
  if (!forms.has(id)) forms.set(id, formOf(id, title));
  draw();
  const field = forms.get(id).querySelector("input");
  field.focus();
  field.select();
  field.scrollLeft = 0;
}

function formOf(id, title) {
  const field = element("input", {
    value: title,
    maxLength: LONGEST,
    dir: "auto",
    enterKeyHint: "done",
    autocomplete: "off",
    ariaLabel: "Title",
  });
  const end = () => close(id, field);
  const save = attempt(async () => {
    const typed = field.value.trim();
    if (field.readOnly || !forms.has(id)) return; // it is being saved, or was
    if (typed && typed !== title) await send(id, field, typed);
    end();
  });
  field.onblur = async () => {
    await endOfPress();
    if (document.activeElement === field) return; // it was the window that has lost the focus
    await save();
    if (forms.has(id)) draw(); // what was not drawn meanwhile
  };
  field.onkeydown = (event) => {
    if (event.key !== "Escape" || event.isComposing || field.readOnly) return;
    event.stopPropagation(); // else it would stop a reply, too
    event.preventDefault(); // and close the drawer
    end();
  };
  return element("form", { onsubmit: save }, field);
}

async function send(id, field, title) {
  field.readOnly = true; // what is typed from here on would not be sent
  await change(id, { title }).finally(() => (field.readOnly = false));
  Object.assign(sessionOf(id) ?? {}, { title });
}

/**
 * Waits until the mouse is no longer pressed: a link that is drawn anew between press and release is
 * not clicked.
 */
async function endOfPress() {
  if (!document.querySelector(":active")) return;
  await new Promise((resolve) => {
    addEventListener("mouseup", () => setTimeout(resolve), { once: true });
  });
}

/** Shows the chat in the place of the field, and gives the focus to the button of its menu. */
function close(id, field) {
  const isFocused = document.activeElement === field;
  forms.delete(id);
  field.onblur = null;
  field.blur(); // else the list would not be drawn
  draw();
  if (isFocused) $("list").querySelector(`[value="${id}"]`)?.focus();
}
