// Editing a message in place, with its pictures. The edit is stored for this tab, together with the
// original.

import { $, button, element } from "../dom.js";
import { store } from "./api.js";
import { editName, messageOf } from "./drafts.js";
import { joinTexts, sizeOf, splitLongText } from "./long-text.js";
import { drawPictures } from "./picture-list.js";
import { attempt, isBusy, isSendKey, isTouchScreen, say, state, subscribe } from "./screen.js";
import { actions, articleOf, articles, filesOf, idOf, textOf } from "./turns.js";
import {
  imagesAmong,
  pastedFiles,
  pictureOf,
  picturesFrom,
  picturesOf,
} from "./unsent-pictures.js";

export const COPY_NOTICE = "This continues in a copy of the chat.";

const formOnScreen = () => $("turns").querySelector("form");

let pictures = []; // of the edited message

subscribe("picture", () => {
  const form = formOnScreen();
  const field = form?.querySelector("textarea");
  if (form && isChanged(form.closest("article"), field.value)) keep(form.closest("article"), field);
});

actions.edit = (article) => edit(article).focus();

/**
 * Opens a form to edit a message, and returns its field. `actions.send` sends the result: to a copy
 * of the chat if it is not the last message. Of a long message, only the end can be edited.
 */
function edit(article, value, stored) {
  const [head, tail] = splitLongText(textOf(article).textContent);
  pictures = stored?.map(pictureOf) ?? picturesOf(filesOf(article));
  const field = element("textarea", {
    value: value ?? tail,
    rows: 3,
    dir: "auto",
    ariaLabel: head ? "End of the message, edited" : "Message, edited",
  });
  const leave = () => {
    leaveEditing();
    for (const picture of pictures) picture.remove();
    article.querySelector(".edit").focus();
  };
  const onsubmit = attempt(async () => {
    const content = joinTexts(head, field.value);
    if ((!content.trim() && !pictures.length) || isBusy()) return;
    await Promise.all(pictures.map((picture) => picture.upload()));
    if (!pictures.every(({ file }) => file)) say("Remove the images that could not be uploaded.");
    else if (field.isConnected) await actions.send(article, field, messageOf(content, pictures));
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
  addPicturesTo(form, article, field);
  if (!isLast(article)) tellOfCopy(article, field, buttons);
  if (head) form.prepend(element("small", {}, `The ${sizeOf(head)} before this stay as they are.`));
  textOf(article).hidden = true;
  article.querySelector(":scope > .pictures")?.toggleAttribute("hidden", true);
  textOf(article).after(form);
  return field;
}

/** Shows the pictures of the edited message, and takes those that are pasted, dropped or chosen. */
function addPicturesTo(form, article, field) {
  const list = element("ul", { className: "pictures", ariaLabel: "Images", hidden: true });
  const change = (changed) => {
    pictures = changed;
    drawPictures(list, pictures, (gone) => {
      change(pictures.filter((each) => each !== gone));
      gone.remove();
      field.focus();
    });
    if (isChanged(article, field.value)) keep(article, field);
    for (const picture of pictures) if (!picture.problem) picture.upload();
  };
  const take = (files) => {
    const added = state.maxFile ? picturesFrom(imagesAmong(files), pictures) : [];
    if (added.length) change([...pictures, ...added]);
    return added.length > 0;
  };
  form.onpaste = (event) => {
    if (take(pastedFiles(event))) event.preventDefault();
  };
  form.ondrop = (event) => {
    if (!take(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopPropagation(); // the page would add them to the next message
    document.body.classList.remove("dropping");
  };
  const files = element("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  files.onchange = () => {
    take(files.files);
    field.focus();
  };
  const choose = button("Add images", { onclick: () => files.click() });
  form.prepend(list);
  form.lastChild.append(choose, files);
  if (pictures.length) change(pictures);
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
  const kept = [printOf(article), field.value, article.dataset.id, pictures];
  store(editName(), JSON.stringify(kept));
}

/** A key for the message of an article: its text, or for a long one its length and its end. */
function printOf(article) {
  const { textContent } = textOf(article);
  const [head] = splitLongText(textContent);
  return head ? `${textContent.length} ${textContent.slice(-1000)}` : textContent;
}

/** Whether the field or the pictures differ from the message. */
function isChanged(article, value) {
  if (value !== splitLongText(textOf(article).textContent)[1]) return true;
  const before = filesOf(article).map(({ id, alt = "" }) => [id, alt]);
  const now = pictures.map(({ file, alt }) => [file?.id, alt]);
  return JSON.stringify(before) !== JSON.stringify(now);
}

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
  const [original, value, id, stored] = JSON.parse(sessionStorage.getItem(editName())) ?? [];
  const message = id ? articleOf(id) : articles().findLast((article) => article.matches(".user"));
  if (formOnScreen() || !message || original !== printOf(message)) return;
  edit(message, value, stored);
}

/** Another message was sent: opens the form again, since its message may no longer be the last. */
export function keepEditing() {
  const form = formOnScreen();
  if (!form) return;
  const article = form.closest("article");
  const { value } = form.querySelector("textarea");
  const kept = pictures;
  const hasChanged = isChanged(article, value);
  leaveEditing();
  if (hasChanged) keep(article, edit(article, value, kept));
}

function leaveEditing() {
  const form = formOnScreen();
  const article = form?.closest("article");
  if (article) textOf(article).hidden = !textOf(article).textContent;
  article?.querySelector(":scope > .pictures")?.toggleAttribute("hidden", false);
  form?.remove();
  store(editName(), "");
}
