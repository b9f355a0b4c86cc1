// Dialogs: what lies over the page, and is left by Escape.

import { button, element } from "../dom.js";

let asking = null; // the dialog with the question that is being asked

/** Shows a dialog, and returns a promise of its end: what the button says that has closed it. */
function open(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue);
    };
  });
}

/**
 * Asks a question. Returns whether the button called `yes` was pressed. The focus is at "No", and
 * Escape means it, too. A question that is still being asked gives way to the next.
 */
export async function ask(question, yes) {
  asking?.close();
  const no = element("button", { value: "", autofocus: true }, "No");
  const answers = element("div", {}, no, element("button", { value: "yes" }, yes));
  const form = element("form", { method: "dialog" }, element("p", { id: "question" }, question));
  form.append(answers);
  asking = element("dialog", { role: "alertdialog" }, form);
  asking.setAttribute("aria-labelledby", "question");
  return (await open(asking)) === "yes";
}

/** Shows something under a title. */
export function show(title, content) {
  const dialog = element("dialog", { className: "shown", ariaLabel: title, closedBy: "any" });
  const close = button("✕", { ariaLabel: "Close", onclick: () => dialog.close() });
  dialog.append(element("div", {}, element("h2", {}, title), close), content);
  open(dialog);
}
