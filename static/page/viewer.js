// A picture in a dialog, as large as the window allows. The arrow keys lead to the others.

import { element, iconButton } from "../dom.js";
import { open } from "./dialog.js";
import { nameOfPicture, showBlob } from "./thumbnails.js";

const MAX_ALT = 1000; // characters, as the server limits it

/**
 * Opens the picture at this place of a list. Each has a `picture`, a function `load` that fetches it
 * as a Blob, and perhaps `describe`, which is called with a new alternative text. `describes`: the
 * focus is on the field for that.
 */
export function view(pictures, place, describes) {
  const dialog = element("dialog", { className: "shown viewer", closedBy: "any" });
  const title = element("h2", {});
  const frame = element("div", { className: "frame" });
  const typing = { maxLength: MAX_ALT, autocomplete: "off", dir: "auto", autofocus: describes };
  const field = element("input", typing);
  const label = element("label", {}, "Description (alternative text)", field);
  const count = element("span", { className: "faint" });
  const back = iconButton("earlier", "Previous image", { onclick: () => go(-1) });
  const next = iconButton("later", "Next image", { onclick: () => go(1) });
  const close = iconButton("close", "Close", { onclick: () => dialog.close() });
  dialog.append(element("div", {}, title, count, back, next, close), frame, label);

  function go(step) {
    place = (place + step + pictures.length) % pictures.length;
    show();
  }

  async function show() {
    const { picture, load, describe } = pictures[place];
    title.textContent = dialog.ariaLabel = nameOfPicture(picture);
    count.textContent = pictures.length > 1 ? `${place + 1} of ${pictures.length}` : "";
    back.hidden = next.hidden = pictures.length < 2;
    label.hidden = !describe;
    field.value = picture.alt ?? "";
    field.oninput = () => describe(field.value.trim());
    const { width, height } = picture;
    const image = element("img", { alt: title.textContent, width, height });
    frame.replaceChildren(image);
    try {
      await showBlob(image, await load());
    } catch (error) {
      image.replaceWith(error.status ? error.message : "This image cannot be shown.");
    }
  }

  dialog.onkeydown = ({ key, target }) => {
    if (target === field || pictures.length < 2) return;
    if (key === "ArrowLeft") go(-1);
    if (key === "ArrowRight") go(1);
  };
  show();
  open(dialog);
}
