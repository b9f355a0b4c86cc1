// Pictures of a message that is not sent yet: made smaller, stored in this browser, and uploaded.

import { api, errorOf } from "./api.js";
import { newPictureKey, removePicture, storedPicture, storePicture } from "./picture-store.js";
import { shrink, UnreadablePicture } from "./pictures.js";
import { publish, state } from "./screen.js";

export const MAX_PICTURES = 8; // in one message, as the server limits it

const GONE = "This image is gone. Remove it, and add it again.";
const UNREADABLE = "This browser cannot read this image.";
const TOO_LARGE = "This image is still too large for the server.";
export const NONE = "This server takes no images.";

/** Makes a function that runs asynchronous tasks one after the other. */
function queue() {
  let last = Promise.resolve();
  return (task) => {
    const result = last.then(task);
    last = result.catch(() => {});
    return result;
  };
}

const convertInTurn = queue(); // a picture of 12 megapixels takes 48 MB while it is converted
const uploadInTurn = queue(); // a user may have two uploads in progress, and another tab may have one

const pictures = new Map(); // by their keys, until they are sent or removed

/**
 * A picture of a message. "change" events tell that one of these has changed: `blob`, `width` and
 * `height` (once it has been made smaller), `file` (as the server describes it, once it is
 * uploaded), `share` (of it that is uploaded), `problem` (why it could not be uploaded), `alt`.
 */
class UnsentPicture extends EventTarget {
  file = null;
  share = 0;
  problem = "";
  #isMade = false; // whether the blob is the one to upload
  #working = null;
  #stopping = new AbortController();

  /** Takes a `file` of a turn, what `toJSON` has returned, or a new `blob` with its `name`. */
  constructor({ key = newPictureKey(), name = "", alt = "", blob, width, height, file = null }) {
    super();
    Object.assign(this, { key, name, alt, blob, width, height, file });
    this.#isMade = Boolean(width);
    if (blob) storePicture(key, blob);
  }

  /** What is stored of it with the draft. */
  toJSON() {
    const { key, name, alt, width, height, file } = this;
    return { key, name, alt, width, height, file };
  }

  /** How a message refers to it. */
  get ref() {
    return this.alt ? { ...this.file, alt: this.alt } : this.file;
  }

  set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }

  /** Changes what is stored with the draft, too. */
  setStored(changes) {
    this.set(changes);
    publish("picture");
  }

  /** Its bytes, as a Blob; undefined if they are not in this browser. */
  async read() {
    this.blob ??= await storedPicture(this.key);
    return this.blob;
  }

  /** Uploads it, unless it is uploaded. Resolves when it is, or has a problem, or was removed. */
  upload() {
    if (!this.file) this.#working ??= this.#work().finally(() => (this.#working = null));
    return this.#working;
  }

  /** Uploads it, even if it was uploaded: the server keeps an unused file for a day. */
  async uploadAgain() {
    this.setStored({ file: null });
    await this.upload();
    return Boolean(this.file);
  }

  async #work() {
    const { signal } = this.#stopping;
    this.set({ problem: "", share: 0 });
    try {
      await this.#make(signal).catch((error) => {
        if (error instanceof UnreadablePicture) this.set({ problem: UNREADABLE });
        else throw error;
      });
      if (!this.problem) await this.#send(signal);
    } catch (error) {
      // If the sign-in has ended, it is uploaded after the next one.
      if (error.name === "AbortError" || error.status === 401) return;
      this.set({ problem: error.status ? error.message : "The page failed. Reload it." });
      if (!error.status) throw error;
    }
  }

  async #make(signal) {
    if (!(await this.read())) this.set({ problem: GONE });
    if (!this.blob || this.#isMade) return;
    const made = await convertInTurn(() => {
      signal.throwIfAborted();
      return shrink(this.blob);
    });
    signal.throwIfAborted();
    this.#isMade = true;
    this.setStored(made);
    storePicture(this.key, this.blob);
  }

  async #send(signal) {
    const onProgress = (share) => this.set({ share });
    const file = await uploadInTurn(() => {
      signal.throwIfAborted();
      if (this.blob.size > state.maxFile) throw errorOf(state.maxFile ? TOO_LARGE : NONE, 413);
      return api("POST", "files", { bytes: this.blob, signal, onProgress, waits: true });
    });
    const { id, media_type, width, height, size } = file;
    this.setStored({ file: { id, media_type, width, height, size } });
  }

  /** Stops the upload, and forgets the picture. */
  remove() {
    this.#stopping.abort();
    pictures.delete(this.key);
    removePicture(this.key);
  }
}

const HAS_NO_TYPE = /\.(heic|heif|avif)$/i; // in some browsers, a file with such a name

/** The images among the files of a paste, a drop or a file field. */
export const imagesAmong = (files) =>
  [...files].filter(({ type, name }) => type.startsWith("image/") || HAS_NO_TYPE.test(name));

/** The files of a paste; none if it has a text: Office programs put a picture of that next to it. */
export const pastedFiles = ({ clipboardData }) =>
  clipboardData.getData("text/plain") ? [] : [...clipboardData.files];

/** New pictures of these images, as many as a message with these pictures has room for. */
export const picturesFrom = (images, there) =>
  images.slice(0, MAX_PICTURES - there.length).map((blob) => pictureOf({ blob, name: blob.name }));

/** The picture of this description: the one with the same key, or else a new one. */
export function pictureOf(description) {
  const known = pictures.get(description.key);
  if (known) return known;
  const picture = new UnsentPicture(description);
  pictures.set(picture.key, picture);
  return picture;
}

/** Pictures of a message that was sent, and is changed. */
export const picturesOf = (files = []) =>
  files.map(({ alt, ...file }) => {
    const { width, height } = file;
    return pictureOf({ alt, width, height, file });
  });

/** Forgets the pictures that have become these files of a message, except some. */
export function forgetSent(files, except) {
  const ids = files.map(({ id }) => id);
  for (const picture of pictures.values()) {
    if (ids.includes(picture.file?.id) && !except.includes(picture)) picture.remove();
  }
}

const byFile = (id) => [...pictures.values()].find(({ file }) => file?.id === id);

/** The bytes of a file that was uploaded from here, and is not sent yet; undefined if it is not. */
export const blobOfFile = (id) => byFile(id)?.blob;

/** Uploads these files of a message again. Throws if one is not in this browser. */
export async function uploadAgain(files) {
  const found = files.map(({ id }) => byFile(id));
  const done = await Promise.all(found.map((picture) => picture?.uploadAgain()));
  if (!done.every(Boolean)) throw errorOf("An image is gone. Remove it, and add it again.", 400);
}
