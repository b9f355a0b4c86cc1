// A message is edited in its place. What is typed is kept for this tab, with the message that it
// changes.

import { $, button, element } from "../dom.js";
import { store } from "./api.js";
import { editName } from "./drafts.js";
import { joined, parted, sizeOf } from "./long.js";
import { attempt, isBusy, isEnter, isTouched, state } from "./screen.js";
import { actions, articleOf, articles, idOf, textOf } from "./turns.js";

export const IN_COPY = "This goes on in a copy of the chat.";

const formOnScreen = () => $("turns").querySelector("form");

actions.edit = (article) => edit(article).focus();

/**
 * Lets a message be edited, and returns the field. `actions.send` sends it. Where it is not the
 * last message, a copy of the chat goes on with what is typed. Of a long message, the beginning
 * stays as it is.
 */
function edit(article, value) {
  const [head, tail] = parted(textOf(article).textContent);
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
    const content = joined(head, field.value);
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
  if (head) form.prepend(element("small", {}, `${sizeOf(head)} before this stay as they are.`));
  if (!isLast(article)) tellOfCopy(article, field, buttons);
  textOf(article).hidden = true;
  textOf(article).after(form);
  return field;
}

export const isLast = (article) => !article.matches(":has(~ .user)");

function onKey(event, field, leave) {
  if (event.key === "Escape" && !event.isComposing) {
    event.stopPropagation(); // else it would stop a reply, too
    leave();
  }
  // A phone's keyboard has no Shift-Enter.
  if (event.target === field && isEnter(event) && !isTouched()) {
    event.preventDefault();
    field.form.requestSubmit();
  }
}

function keep(article, field) {
  const kept = [printOf(article), field.value, article.dataset.id];
  store(editName(), JSON.stringify(kept));
}

/** What the message of an article is known by: itself, but for most of a long one. */
function printOf(article) {
  const { textContent } = textOf(article);
  const [head] = parted(textContent);
  return head ? `${textContent.length} ${textContent.slice(-1000)}` : textContent;
}

/** Whether something else stands in the field than in the message. */
const isChanged = (article, value) => value !== parted(textOf(article).textContent)[1];

/**
 * Says that a copy will go on. What is typed is kept with the id of the message, which may come
 * only now.
 */
function tellOfCopy(article, field, buttons) {
  buttons.append(element("small", { id: "copied" }, IN_COPY));
  field.setAttribute("aria-describedby", "copied");
  if (article.dataset.id) return;
  attempt(async () => {
    await idOf(article, state.screen.signal);
    if (field.isConnected && isChanged(article, field.value)) keep(article, field);
  })();
}

/**
 * Edits on what was typed before, where its message is shown, and is the same. One that has no id
 * yet is the last.
 */
export function resumeEditing() {
  const [original, value, id] = JSON.parse(sessionStorage.getItem(editName())) ?? [];
  const message = id ? articleOf(id) : articles().findLast((article) => article.matches(".user"));
  if (formOnScreen() || !message || original !== printOf(message)) return;
  edit(message, value);
}

/**
 * Something else is sent: what was typed in a message stays there, and is told anew how it will go
 * on.
 */
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
