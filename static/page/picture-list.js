// The pictures of a message that is being written, in a list: how far each is uploaded, and the
// buttons to describe and to remove it.

import { button, element, icon } from "../dom.js";
import { fetchFile, nameOfPicture, openPicture, setSize, show, thumbnail } from "./thumbnails.js";

const nodes = new WeakMap(); // picture → its item

/** Draws pictures in a list. `remove` is called with one that is to be removed. */
export function drawPictures(list, pictures, remove) {
  list.hidden = !pictures.length;
  const items = pictures.map((picture) => itemOf(picture, remove));
  // Moving an item would lose the focus in it.
  const gone = [...list.children].filter((item) => !items.includes(item));
  gone.forEach((item) => item.remove());
  items.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
}

const bytesOf = async (picture) => (await picture.read()) ?? fetchFile(picture.file.id);

function itemOf(picture, remove) {
  if (!nodes.has(picture)) nodes.set(picture, makeItem(picture, remove));
  return nodes.get(picture);
}

function makeItem(picture, remove) {
  const describe = (alt) => picture.setStored({ alt });
  const node = thumbnail(picture, () => bytesOf(picture), describe);
  const alt = button("ALT", { className: "alt", onclick: () => openPicture(node, true) });
  const away = button(icon("close"), { className: "remove", onclick: () => remove(picture) });
  const progress = element("progress", {});
  const problem = element("span", { className: "alarm" });
  const again = button("Try again", { onclick: () => picture.upload() });
  const item = element("li", {}, node, alt, away, progress, problem, again);

  function update() {
    const name = nameOfPicture(picture);
    const isBusy = !picture.file && !picture.problem;
    node.querySelector("img").alt = name;
    alt.ariaLabel = `ALT text: ${name}`;
    alt.hidden = Boolean(picture.problem);
    alt.classList.toggle("described", Boolean(picture.alt));
    away.ariaLabel = `${isBusy ? "Cancel" : "Remove"}: ${name}`;
    progress.hidden = !isBusy;
    progress.ariaLabel = `Upload of ${name}`;
    if (picture.share) progress.value = picture.share;
    else progress.removeAttribute("value"); // until it is being sent
    problem.textContent = picture.problem;
    again.hidden = !picture.problem;
    if (picture.width) {
      setSize(node, picture);
      show(node);
    }
  }

  picture.addEventListener("change", update);
  update();
  return item;
}
