// The pictures of a turn: small, in places that have their sizes before the pictures arrive.

import { button, element } from "../dom.js";
import { api } from "./api.js";
import { blobOfFile } from "./unsent-pictures.js";

const WIDEST = 320; // CSS pixels
const HIGHEST = 200;
const LEAST = 24;

const shown = new WeakMap(); // button → what `thumbnail` was given

/** The buttons of a turn's files, in a list. A click opens the picture. */
export function thumbnails(files) {
  const items = files.map((file) =>
    element(
      "li",
      {},
      thumbnail(file, () => fetchFile(file.id)),
    ),
  );
  return element("ul", { className: "pictures", ariaLabel: "Images" }, items);
}

/** The name of a picture for a screen reader. */
export const nameOfPicture = ({ alt, name, width, height }) =>
  alt || [name || "Image", width && `${width}×${height}`].filter(Boolean).join(", ");

/**
 * A button that shows a picture, and opens it. `load` fetches it as a Blob. With `describe`, which
 * is called with a new alternative text, one may type that.
 */
export function thumbnail(picture, load, describe) {
  const node = button("", { className: "picture", onclick: () => openPicture(node) });
  shown.set(node, { picture, load, describe });
  node.append(element("img", { alt: nameOfPicture(picture), draggable: false }));
  setSize(node, picture);
  if (picture.width) near.observe(node);
  return node;
}

/** Gives a thumbnail the size of its picture, which is fitted into the largest one. */
export function setSize(node, { width, height }) {
  if (!width) return;
  const scale = Math.min(1, WIDEST / width, HIGHEST / height);
  node.style.width = `${Math.max(LEAST, width * scale)}px`;
  node.style.aspectRatio = `${width} / ${height}`;
}

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) show(target);
  },
  { scrollMargin: "600px" }, // rootMargin would not reach into #thread
);

/** Fetches the picture of a button, and shows it, or why that is not possible. */
export async function show(node) {
  near.unobserve(node);
  if (node.dataset.shown) return;
  node.dataset.shown = "yes";
  const image = node.querySelector("img");
  try {
    await showBlob(image, await shown.get(node).load());
  } catch (error) {
    delete node.dataset.shown;
    node.classList.add("broken");
    node.title = error.status ? error.message : "This image cannot be shown.";
  }
}

/** Shows a Blob in an `<img>`. Resolves when it can be painted. */
export async function showBlob(image, blob) {
  const url = URL.createObjectURL(blob);
  image.src = url;
  await image.decode().finally(() => URL.revokeObjectURL(url));
}

/** The bytes of a file, as a Blob. Throws a refusal by Parley. */
export const fetchFile = async (id) =>
  blobOfFile(id) ??
  (await api("GET", `files/${id}`, { waits: true, read: (response) => response.blob() }));

/**
 * Opens a picture. With the arrow keys, one comes to the others of the chat, or of the message.
 * `describes`: the focus is on the field for the alternative text.
 */
export async function openPicture(node, describes = false) {
  const { view } = await import("./viewer.js");
  const group = node.closest("#turns") ?? node.closest(".pictures");
  const all = [...group.querySelectorAll(".picture")];
  const nodes = all.filter((each) => each.checkVisibility());
  const place = nodes.indexOf(node);
  const pictures = nodes.map((each) => shown.get(each));
  view(pictures, place, describes);
}
