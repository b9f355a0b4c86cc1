// Long pasted texts, in a list above the message field. They go before the typed text.

import { $, button, element } from "../dom.js";
import { showDialog } from "./dialog.js";
import { pasted, removePasted } from "./drafts.js";
import { sizeOf, textNodes } from "./long-text.js";
import { announce } from "./screen.js";

const shown = element("ul", { id: "pasted", ariaLabel: "Pasted texts" });
$("text").before(shown);

/** Draws the list of pasted texts. */
export function drawPasted() {
  const isMore = pasted.length > shown.children.length;
  shown.hidden = !pasted.length;
  shown.replaceChildren(...pasted.map(item));
  if (isMore) announce(`${nameOf(pasted.at(-1))}, goes before your message.`);
}

const nameOf = (text) => `Pasted text, ${sizeOf(text)}`;

function item(text, place) {
  const name = nameOf(text);
  const read = () => element("div", { className: "raw", tabIndex: 0 }, textNodes(text));
  const see = button(name, { onclick: () => showDialog(name, read()) });
  const remove = button("✕", { ariaLabel: `Remove: ${name}` });
  remove.onclick = () => {
    removePasted(place);
    $("text").focus();
  };
  return element("li", {}, see, remove);
}
