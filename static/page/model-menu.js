// The menu of a reply: the models that can answer instead of the one that wrote it.

import { $, button } from "../dom.js";
import { attempt } from "./screen.js";
import { actions, otherModels, turnOf } from "./turns.js";

actions.ask = (article) => {
  const choose = ({ id }) => button(id, { onclick: attempt(() => askIn(article, id)) });
  $("models").replaceChildren(...otherModels(turnOf(article)).map(choose));
};

$("models").ontoggle = ({ newState }) => {
  if (newState === "open") $("models").firstChild.focus();
};

async function askIn(article, model) {
  $("models").hidePopover(); // which returns the focus to its button
  const { askAnother } = await import("./forks.js");
  if (article.isConnected) await askAnother(article, model);
}
