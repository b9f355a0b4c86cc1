// Modal dialogs, which Escape closes.

import { element, iconButton } from "../dom.js";

let asking = null; // the dialog of the open question

/** Shows a dialog. Resolves with its return value once it is closed. */
export function open(dialog) {
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
 * Asks a question. Resolves to whether the button `yes` was pressed. The focus is on "No", and
 * Escape means no. Closes a question that is still open.
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

/** Shows content in a dialog with a title. */
export function showDialog(title, content) {
  const dialog = element("dialog", { className: "shown", ariaLabel: title, closedBy: "any" });
  const close = iconButton("close", "Close", { onclick: () => dialog.close() });
  dialog.append(element("div", {}, element("h2", {}, title), close), content);
  open(dialog);
}
