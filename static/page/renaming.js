// Renaming a chat, in its place in the list.

import { $, element } from "../dom.js";
import { drawList, forms, sessionById } from "./list.js";
import { copiesOf } from "./loaded-chats.js";
import { attempt } from "./screen.js";
import { change } from "./settings.js";

const MAX_TITLE = 200; // characters that the server accepts

/**
 * Shows a field instead of the chat. Enter saves, and so does leaving the field. Escape keeps the
 * old title, and so does an empty field.
 */
export function rename({ id, title }) {
  if (!sessionById(id)) return; // meanwhile, the list was fetched again without it
  if (!forms.has(id)) forms.set(id, formOf(id, title));
  drawList();
  const field = forms.get(id).querySelector("input");
  field.focus();
  field.select();
  field.scrollLeft = 0;
}

function formOf(id, title) {
  const field = element("input", {
    value: title,
    maxLength: MAX_TITLE,
    dir: "auto",
    enterKeyHint: "done",
    autocomplete: "off",
    ariaLabel: "Title",
  });
  const end = () => closeForm(id, field);
  const save = attempt(async () => {
    const typed = field.value.trim();
    if (field.readOnly || !forms.has(id)) return; // being saved, or saved already
    if (typed && typed !== title) await saveTitle(id, field, typed);
    end();
  });
  field.onblur = async () => {
    await endOfPress();
    if (document.activeElement === field) return; // the window lost the focus, not the field
    await save();
    if (forms.has(id)) drawList(); // the list is not drawn while a form has the focus
  };
  field.onkeydown = (event) => {
    if (event.key !== "Escape" || event.isComposing || field.readOnly) return;
    event.stopPropagation(); // the page's shortcut would stop a reply
    event.preventDefault(); // the browser would close the sidebar's popover
    end();
  };
  return element("form", { onsubmit: save }, field);
}

async function saveTitle(id, field, title) {
  field.readOnly = true; // later changes would not be sent
  await change(id, { title }).finally(() => (field.readOnly = false));
  for (const chat of copiesOf(id)) chat.title = title;
}

/**
 * Waits until the mouse is released: a link that is replaced between press and release gets no
 * click.
 */
async function endOfPress() {
  if (!document.querySelector(":active")) return;
  await new Promise((resolve) => {
    addEventListener("mouseup", () => setTimeout(resolve), { once: true });
  });
}

/** Shows the chat instead of the field, and focuses the button of its menu. */
function closeForm(id, field) {
  const isFocused = document.activeElement === field;
  forms.delete(id);
  field.onblur = null;
  field.blur(); // the list is not drawn while a form has the focus
  drawList();
  if (isFocused) $("list").querySelector(`[value="${id}"]`)?.focus();
}
