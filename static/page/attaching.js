// Adding pictures to a message: by the button, by pasting, and by dropping them on the page.

import { $, element } from "../dom.js";
import { addPictures, pictures, removeFromMessage } from "./drafts.js";
import { drawPictures } from "./picture-list.js";
import { announce, focusText, modelId, say, state, subscribe } from "./screen.js";
import { imagesAmong, MAX_PICTURES, NONE, pastedFiles, picturesFrom } from "./unsent-pictures.js";

const OTHERS = "Only images can be sent.";

const isBlind = () => state.models.find(({ id }) => id === modelId())?.images === false;

/** Adds the pictures among these files to the message. */
function add(files) {
  const images = imagesAmong(files);
  const room = MAX_PICTURES - pictures.length;
  say(problemOf(files, images, room));
  if (!images.length || !state.maxFile || isBlind()) return;
  const added = picturesFrom(images, pictures);
  addPictures(added);
  focusText();
  announce(added.length === 1 ? "1 image added." : `${added.length} images added.`);
}

function problemOf(files, images, room) {
  if (!state.maxFile) return NONE;
  if (isBlind()) return `${modelId()} sees no images. Choose another model to send one.`;
  const left = images.length - room;
  if (left > 0) return `A message takes ${MAX_PICTURES} images: ${left} of these were left out.`;
  return images.length < files.length ? OTHERS : "";
}

$("attach").onclick = () => $("picture-files").click();
$("picture-files").onchange = ({ target }) => {
  add([...target.files]);
  target.value = ""; // otherwise choosing the same file again would fire no event
};

/** Whether the page takes what is pasted into this element, or dropped on it. */
const isTaken = ({ target }) =>
  !$("app").hidden &&
  !document.querySelector(":modal") &&
  (target === $("text") || !target.closest?.("input, textarea, [contenteditable]"));

addEventListener("paste", (event) => {
  const files = pastedFiles(event);
  if (!imagesAmong(files).length || !isTaken(event)) return;
  event.preventDefault();
  add(files);
});

const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");

addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault(); // otherwise the browser would open a file that is dropped
  document.body.classList.toggle("dropping", !$("app").hidden);
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping"); // it has left the window
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!hasFiles(event)) return;
  event.preventDefault();
  if (!$("app").hidden && !document.querySelector(":modal")) add([...event.dataTransfer.files]);
});

// The list of pictures, above the field.

const list = element("ul", { className: "pictures", ariaLabel: "Images", hidden: true });
$("text").before(list);

subscribe("pictures", () => {
  drawPictures(list, pictures, remove);
  tellOfModel();
});

function remove(picture) {
  removeFromMessage(picture);
  focusText();
}

// What the model does with pictures.

function tellOfModel() {
  $("attach").hidden = $("idea-image").hidden = !state.maxFile || isBlind();
  const hasEarlier = $("turns").querySelector(".picture");
  const advice = pictures.length
    ? "Choose another model, or remove them."
    : "It gets [image] in their place.";
  $("blind").hidden = !isBlind() || !(pictures.length || hasEarlier);
  $("blind").textContent = `${modelId()} sees no images. ${advice}`;
}

subscribe("frame", tellOfModel);
subscribe("shown", tellOfModel);

/**
 * Waits until all pictures of the message are uploaded. Returns false if one has a problem, or if
 * another session has the screen by then.
 */
export async function arePicturesReady() {
  const { screen } = state;
  const isReady = ({ file }) => file;
  if (!pictures.every(isReady)) {
    say("Your message is sent when its images are uploaded.", "faint");
    await Promise.all(pictures.map((picture) => picture.problem || picture.upload()));
    if (screen !== state.screen) return false;
    say("");
  }
  if (pictures.every(isReady)) return true;
  say("Remove the images that could not be uploaded, or try again.");
  return false;
}
