// Editing a message in place. The edit is stored for this tab, together with the original.

import { $, button, element } from "../dom.js";
import { store } from "./api.js";
import { editName } from "./drafts.js";
import { joinTexts, sizeOf, splitLongText } from "./long-text.js";
import { attempt, isBusy, isSendKey, isTouchScreen, state } from "./screen.js";
import { actions, articleOf, articles, idOf, textOf } from "./turns.js";

export const COPY_NOTICE = "This continues in a copy of the chat.";

const formOnScreen = () => $("turns").querySelector("form");

actions.edit = (article) => edit(article).focus();

/**
 * Opens a form to edit a message, and returns its field. `actions.send` sends the result: to a copy
 * of the chat if it is not the last message. Of a long message, only the end can be edited.
 */
function edit(article, value) {
  const [head, tail] = splitLongText(textOf(article).textContent);
  const field = element("textarea", {
    value: value ?? tail,
    rows: 3,
    dir: "auto",
    ariaLabel: head ? "End of the message, edited" : "Message, edited",
  });
  const leave = () => {
    leaveEditing();
    article.querySelector(".edit").focus();
  };
  const onsubmit = attempt(async () => {
    const content = joinTexts(head, field.value);
    if (content.trim() && !isBusy()) await actions.send(article, field, content);
  });
  const buttons = element("div", {}, element("button", { className: "main" }, "Send"));
  buttons.append(button("Cancel", { onclick: leave }));
  const form = element(
    "form",
    { onsubmit, onkeydown: (event) => onKey(event, field, leave) },
    field,
    buttons,
  );
  field.oninput = () => keep(article, field);
  if (head) form.prepend(element("small", {}, `The ${sizeOf(head)} before this stay as they are.`));
  if (!isLast(article)) tellOfCopy(article, field, buttons);
  textOf(article).hidden = true;
  textOf(article).after(form);
  return field;
}

export const isLast = (article) => !article.matches(":has(~ .user)");

function onKey(event, field, leave) {
  if (event.key === "Escape" && !event.isComposing) {
    event.stopPropagation(); // the page's shortcut would stop a reply
    leave();
  }
  // A phone's keyboard has no Shift-Enter, so there Enter starts a new line.
  if (event.target === field && isSendKey(event) && !isTouchScreen()) {
    event.preventDefault();
    field.form.requestSubmit();
  }
}

function keep(article, field) {
  const kept = [printOf(article), field.value, article.dataset.id];
  store(editName(), JSON.stringify(kept));
}

/** A key for the message of an article: its text, or for a long one its length and its end. */
function printOf(article) {
  const { textContent } = textOf(article);
  const [head] = splitLongText(textContent);
  return head ? `${textContent.length} ${textContent.slice(-1000)}` : textContent;
}

/** Whether the field differs from the message. */
const isChanged = (article, value) => value !== splitLongText(textOf(article).textContent)[1];

/**
 * Says that the edit will continue in a copy. The edit is stored with the id of its message, which
 * may have to be fetched.
 */
function tellOfCopy(article, field, buttons) {
  buttons.append(element("small", { id: "copied" }, COPY_NOTICE));
  field.setAttribute("aria-describedby", "copied");
  if (article.dataset.id) return;
  attempt(async () => {
    await idOf(article, state.screen.signal);
    if (field.isConnected && isChanged(article, field.value)) keep(article, field);
  })();
}

/**
 * Opens the form again with a stored edit, if its message is on the screen and unchanged. An edit
 * without an id belongs to the last message.
 */
export function resumeEditing() {
  const [original, value, id] = JSON.parse(sessionStorage.getItem(editName())) ?? [];
  const message = id ? articleOf(id) : articles().findLast((article) => article.matches(".user"));
  if (formOnScreen() || !message || original !== printOf(message)) return;
  edit(message, value);
}

/** Another message was sent: opens the form again, since its message may no longer be the last. */
export function keepEditing() {
  const form = formOnScreen();
  if (!form) return;
  const article = form.closest("article");
  const { value } = form.querySelector("textarea");
  leaveEditing();
  if (isChanged(article, value)) keep(article, edit(article, value));
}

function leaveEditing() {
  const form = formOnScreen();
  if (form) textOf(form.closest("article")).hidden = false;
  form?.remove();
  store(editName(), "");
}
