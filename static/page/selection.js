// Selecting several chats in the list, to delete them at once.

import { $ } from "../dom.js";
import { remove } from "./deletion.js";
import { drawList, selected, sessionById } from "./list.js";
import { announce, subscribe } from "./screen.js";

let first = null; // the id of the chat whose menu began the selection

const checkboxes = () => [...$("list").querySelectorAll("[type=checkbox]")];

const focusChat = (id) => ($("list").querySelector(`[value="${id}"]`) ?? $("new")).focus();

/** Shows a checkbox in front of each chat, instead of its menu. This chat is selected. */
export function select({ id }) {
  first = id;
  selected.add(id);
  $("selection").hidden = false;
  drawList();
  focusChat(id);
}

function leave() {
  const isInBar = $("selection").contains(document.activeElement);
  $("selection").hidden = true;
  drawList();
  if (isInBar) focusChat(first);
}

/** Updates the selection and its bar: chats that have left the list are not selected any more. */
function update() {
  const boxes = checkboxes();
  const checked = boxes.filter((box) => box.checked);
  selected.clear();
  for (const { value } of checked) selected.add(value);
  const isAll = boxes.length > 0 && checked.length === boxes.length;
  $("select-all").checked = isAll;
  $("select-all").indeterminate = checked.length > 0 && !isAll;
  $("delete-selected").textContent = checked.length ? `Delete ${checked.length}` : "Delete";
  $("delete-selected").disabled = !checked.length;
}

subscribe("frame", update);
$("list").addEventListener("change", update);

$("select-all").onchange = ({ target }) => {
  for (const box of checkboxes()) box.checked = target.checked;
  update();
  announce(`${selected.size} selected`);
};

$("leave-selection").onclick = leave;

$("delete-selected").onclick = ({ detail }) => {
  const chats = [...selected].map(sessionById);
  leave();
  remove(chats, detail === 0); // the number of clicks: 0 for a key
};

/** Whether Escape leaves the selection: in the search field it clears that first. */
const mayLeave = (target) =>
  target === $("search")
    ? !target.value
    : target === document.body || $("sidebar").contains(target);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("selection").hidden || !mayLeave(event.target)) return;
  event.stopPropagation(); // the page's shortcut would stop a reply
  event.preventDefault(); // the browser would close the sidebar's popover
  leave();
});
