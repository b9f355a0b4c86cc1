// Uploads the pictures of an import: those in a ZIP, in the lines of files of a Parley export, or in
// the conversations themselves. Which of them a conversation shows, the server decides.

import { api } from "./api.js";
import { uploadPicture } from "./pictures.js";

const REFUSALS = [400, 408, 413, 422, 500];
const DATA = /^data:image\/[\w.+-]+;base64,/; // begins a URL that has the bytes in it (RFC 2397)

/** Whether a refusal concerns only one conversation, or one picture: then we go on with the next. */
export const isOfOne = ({ status }) => REFUSALS.includes(status);

export class ImportedPictures {
  inZip = new Map(); // see `readArchive`
  uploaded = new Map(); // the ids of files by those of pictures; null: it was not taken
  maxFile = null; // bytes of the largest file that the server takes; 0: it takes none

  /** Uploads the file of a line, which is undefined if it could not be read. */
  async uploadLine(line, signal) {
    if (line) this.uploaded.set(line.file, await this.send(() => blobOf(line.data), signal));
  }

  /**
   * Uploads the pictures of a conversation that can be found. Returns the ids of their files, by
   * those of the pictures in the conversation.
   */
  async upload(value, signal) {
    const ids = [...idsOfParley(value), ...this.idsOfChatGPT(value)];
    for (const id of ids) {
      if (this.inZip.has(id) && !this.uploaded.has(id)) {
        this.uploaded.set(id, await this.send(this.inZip.get(id), signal));
      }
    }
    const found = ids.map((id) => [id, this.uploaded.get(id)]);
    for (const [id, url] of urlsOfOpenWebUI(value)) {
      found.push([id, await this.send(() => blobOf(url.replace(DATA, "")), signal)]);
    }
    return Object.fromEntries(found.filter(([, file]) => file));
  }

  /** The ids of the pictures in the ZIP that the user's messages name. */
  idsOfChatGPT({ mapping }) {
    if (!mapping || !this.inZip.size) return [];
    const isUsers = ({ message }) => message?.author?.role === "user";
    const said = JSON.stringify(objectsOf(mapping).filter(isUsers));
    return (said.match(/file[-_][0-9A-Za-z]+/g) ?? []).filter((id) => this.inZip.has(id));
  }

  /** The id of the file with these bytes; null if it is not taken. */
  async send(read, signal) {
    signal.throwIfAborted();
    const options = { signal, waits: true };
    this.maxFile ??= (await api("GET", "models", options)).meta.max_file;
    const blob = this.maxFile ? await read() : null;
    try {
      return (blob && (await uploadPicture(blob, this.maxFile, options)))?.id ?? null;
    } catch (error) {
      if (isOfOne(error)) return null;
      throw error;
    }
  }
}

const objectsOf = (value) =>
  Object.values(value ?? {}).filter((each) => each && typeof each === "object");

/** The ids of the files in a line of a Parley export. */
const idsOfParley = ({ turns }) =>
  objectsOf(turns).flatMap(({ files }) => objectsOf(files).map(({ id }) => id));

/** The URLs that have their bytes in them, in the user's messages, by `asset_of` of formats/openwebui.py. */
function urlsOfOpenWebUI({ chat, history = chat?.history }) {
  return Object.entries(history?.messages ?? {}).flatMap(([key, message]) => {
    const files = message?.role === "user" ? objectsOf(message.files) : [];
    const named = files.map(({ id, url }, place) => [id || `${key}/${place}`, url]);
    return named.filter(([, url]) => DATA.test(url));
  });
}

/** The bytes of a text in base64 as a Blob; null if it is something else. */
function blobOf(text) {
  try {
    return new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))]);
  } catch {
    return null;
  }
}
