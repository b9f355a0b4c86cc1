// Long texts that were pasted: what the message begins with, above its field.

import { $, button, element } from "../dom.js";
import { show } from "./dialog.js";
import { pasted, removePasted } from "./drafts.js";
import { nodesOf, sizeOf } from "./long.js";
import { announce } from "./screen.js";

const shown = element("ul", { id: "pasted", ariaLabel: "Pasted texts" });
$("text").before(shown);

/** Shows the texts as they are now. */
export function drawPasted() {
  const isMore = pasted.length > shown.children.length;
  shown.hidden = !pasted.length;
  shown.replaceChildren(...pasted.map(item));
  if (isMore) announce(`${nameOf(pasted.at(-1))}, goes before your message.`);
}

const nameOf = (text) => `Pasted text, ${sizeOf(text)}`;

function item(text, place) {
  const name = nameOf(text);
  const read = () => element("div", { className: "raw", tabIndex: 0 }, nodesOf(text));
  const see = button(name, { onclick: () => show(name, read()) });
  const remove = button("✕", { ariaLabel: `Remove: ${name}` });
  remove.onclick = () => {
    removePasted(place);
    $("text").focus();
  };
  return element("li", {}, see, remove);
}
