// Export and import of chats, in the account panel.

import { $, element } from "../dom.js";
import { api } from "./api.js";
import { ArchiveError, isHeader, readArchive } from "./archive.js";
import { ImportedPictures, isOfOne } from "./imported-pictures.js";

const FORMAT = 3; // of our export files
const READABLE = [2, 3]; // 2 has no thinking
const MAX_REFUSED = 100; // chats in a row from the start: then it is not a file of chats
const NO_CHATS = `The first ${MAX_REFUSED} chats of this file were all refused, so it was not read on. Choose an export of ChatGPT, Claude, Open WebUI or Parley.`;
const MAX_NAMED = 200; // refused chats that we list; a browser takes seconds for a hundred thousand
const MAX_NAME = 60; // characters of a name that we show; it may have millions
const LEFT_OUT = {
  files: ["image or file was left out", "images and files were left out"],
  tools: ["tool call or result was left out", "tool calls and results were left out"],
  branches: ["message of another branch was left out", "messages of other branches were left out"],
};

const { format } = new Intl.NumberFormat();
const count = (number, one, many) => `${format(number)} ${number === 1 ? one : many}`;
const megabytes = (bytes) => format(Math.ceil(bytes / 1e5) / 10);
const chats = (number) => count(number, "chat", "chats");
let running = null; // aborts the transfer in progress

/**
 * Both show their progress in the account panel. `page` has functions of modules that this one
 * cannot import: `say`, `announce` and `listAgain`.
 */
export const downloadAll = (button, page) => run(new Download(), button, page);
export const importFile = (file, button, page) => run(new Import(file), button, page);

export function stopTransfer() {
  running.abort();
  showStatus("Stopping…"); // we still wait for the answer to the chat that was just sent
}

async function run(work, button, page) {
  running = new AbortController();
  $("transfer-list").replaceChildren();
  showStatus("");
  setBusy(true, button);
  const problem = await work.run(running.signal).then(() => "", sentenceOf);
  const end = [problem, work.sum()].filter(Boolean).join(" ");
  showStatus(end);
  setBusy(false, button);
  if ($("account").matches(":popover-open")) page.announce(end);
  else page.say(end, problem ? "" : "faint");
  await page.listAgain().catch(() => {}); // an error here would hide the result
}

function setBusy(isBusy, button) {
  const isFocused = $(isBusy ? "transfer-buttons" : "stop-transfer").contains(
    document.activeElement,
  );
  [$("transfer-buttons").hidden, $("stop-transfer").hidden] = [isBusy, !isBusy];
  // Hiding a focused button would lose the focus.
  if (isFocused) (isBusy ? $("stop-transfer") : button).focus();
}

/** Shows the status; with a `share` (0 to 1), also a progress bar. */
function showStatus(text, share) {
  $("transfer-status").textContent = text;
  Object.assign($("transfer-progress"), { hidden: share === undefined, value: share ?? 0 });
}

function sentenceOf(error) {
  if (error.name === "AbortError") return "Stopped.";
  if (error instanceof ArchiveError || error.status) return error.message;
  reportError(error);
  return "The page failed. Reload it.";
}

/** The title of a conversation; if it has none, its place in the file. */
function nameOf(value, place) {
  const names = [value?.title, value?.name, place];
  return shortened(names.find((each) => typeof each === "string" && each.trim()));
}

const shortened = (name) =>
  name.length > MAX_NAME ? `${name.trim().slice(0, MAX_NAME).toWellFormed()}…` : name;

/** Why a conversation was refused: its first error, and where that is. */
function reasonOf({ faults: [fault] = [], message }) {
  const place = fault?.source?.pointer?.replace(/^\/conversation\/?/, "");
  return place ? `${place}: ${fault.detail}` : message;
}

/** Downloads a blob as a file. */
function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // the browser may ask for a folder first
}

export async function saveAsMarkdown(id, title) {
  const options = { headers: { Accept: "text/markdown" }, read: (response) => response.blob() };
  save(await api("GET", `sessions/${id}`, options), `${fileName(title)}.md`);
}

/** A title as a file name: without characters that some operating system forbids. */
function fileName(title) {
  const safe = title.replace(/[\s\p{Cc}\p{Cf}/\\:*?"<>|]+/gu, " ").replace(/^[.\s]+/, "");
  return (
    [...safe]
      .slice(0, 60)
      .join("")
      .replace(/[.\s]+$/, "") || "chat"
  ); // 60 characters of four bytes each stay below the usual limit of 255
}

/**
 * Downloads all chats as one file. Its pieces are Blobs, which browsers move to disk if they are
 * large.
 */
class Download {
  sessions = 0;
  exported = new Set(); // the ids of files
  isSaved = false;

  async run(signal) {
    const exported_at = `${new Date().toISOString().slice(0, 19)}Z`;
    const line = (value) => `${JSON.stringify(value)}\n`;
    const pieces = [line({ parley: FORMAT, subject: $("subject").textContent, exported_at })];
    const options = {
      headers: { Accept: "application/x-ndjson" },
      signal,
      waits: true,
      read: readPage,
    };
    for (let path = "export"; path;) {
      const { bytes, ends, next } = await api("GET", path, options);
      pieces.push(...(await this.withFiles(bytes, ends, signal)));
      path = next;
      this.sessions += ends.length;
      showStatus(`${chats(this.sessions)} so far…`);
    }
    pieces.push(line({ end: true, sessions: this.sessions }));
    save(
      new Blob(pieces, { type: "application/x-ndjson" }),
      `parley-${exported_at.slice(0, 10)}.ndjson`,
    );
    this.isSaved = true;
  }

  /** These lines in pieces, with the lines of files before the first line that needs them. */
  async withFiles(bytes, ends, signal) {
    const pieces = [];
    let [from, start] = [0, 0]; // of what is not in `pieces` yet, and of the line
    for (const end of ends) {
      for (const [id, type] of filesOf(bytes.subarray(start, end))) {
        if (this.exported.has(id)) continue;
        this.exported.add(id);
        pieces.push(new Blob([bytes.subarray(from, start)]), await fileLine(id, type, signal));
        from = start;
      }
      start = end;
    }
    return [...pieces, new Blob([bytes.subarray(from)])];
  }

  sum = () => (this.isSaved ? `${chats(this.sessions)} downloaded.` : "Nothing was downloaded.");
}

/** Reads a page of an export: its bytes, where its lines end, and the path of the next page. */
async function readPage(response) {
  const bytes = new Uint8Array(await response.arrayBuffer());
  const ends = [];
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) ends.push(at + 1);
  // Only the query: the URL may have a path prefix, and `api` takes a relative path.
  const query = /<[^>?]*\?([^>]*)>; *rel="?next/.exec(response.headers.get("Link"))?.[1];
  return { bytes, ends, next: query && `export?${query}` };
}

/** The ids of the files of a line of an export, and their media types. */
function filesOf(line) {
  const text = new TextDecoder().decode(line);
  // In a text, these quotation marks would be escaped.
  if (!text.includes('"files":[{')) return [];
  const files = JSON.parse(text).turns.flatMap((turn) => turn.files ?? []);
  return files.map(({ id, media_type }) => [id, media_type]);
}

/** The line of a file in a Parley export; empty if the file has just been deleted. */
async function fileLine(id, media_type, signal) {
  const headers = { Accept: media_type };
  const read = (response) => response.blob();
  const blob = await api("GET", `files/${id}`, { headers, signal, waits: true, read, unless: 404 });
  if (!(blob instanceof Blob)) return "";
  const start = JSON.stringify({ file: id, media_type }).slice(0, -1);
  return new Blob([start, ',"data":"', await base64Of(blob), '"}\n']);
}

async function base64Of(blob) {
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    Object.assign(reader, { onload: resolve, onerror: () => reject(reader.error) });
    reader.readAsDataURL(blob);
  });
  return reader.result.slice(reader.result.indexOf(",") + 1);
}

/**
 * Imports a file, one conversation per request. The server knows each by its origin, so that
 * importing it again makes no copy.
 */
class Import {
  imported = 0;
  known = 0;
  refused = 0;
  left = { files: 0, tools: 0, branches: 0 };
  lines = null; // sessions since the header of a Parley export; null outside one
  pictures = new ImportedPictures();

  constructor(file) {
    this.file = file;
  }

  async run(signal) {
    let [read, all] = [0, 0]; // bytes
    let isOver = false; // onRead may be called once more, since a ZIP is read ahead
    const show = () =>
      isOver ||
      showStatus(`${this.sum()} ${megabytes(read)} of ${megabytes(all)} MB read.`, read / all);
    const onRead = (...bytes) => {
      signal.throwIfAborted();
      [read, all] = bytes;
      show();
    };
    try {
      for await (const found of readArchive(this.file, onRead, this.pictures.inZip)) {
        await this.take(found, signal);
        show();
        signal.throwIfAborted();
      }
    } finally {
      isOver = true;
      this.noteRest();
    }
    if (this.lines !== null) {
      throw new ArchiveError("The file is incomplete: its last line is missing.");
    }
  }

  sum() {
    const parts = [`${chats(this.imported)} imported`];
    if (this.known) parts.push(`${count(this.known, "was", "were")} here already`);
    if (this.refused) parts.push(`${count(this.refused, "was", "were")} refused`);
    return `${parts.join(", ")}.`;
  }

  async take({ place, isFile, text, value, problem }, signal) {
    if (isFile) return this.pictures.uploadLine(value, signal);
    if (isHeader(value)) return this.begin(value);
    if (this.lines !== null && value && "end" in value) return this.end(value);
    if (this.lines !== null) this.lines++;
    const name = nameOf(value, place);
    if (problem) return this.refuse(name, problem);
    return this.send(text, await this.pictures.upload(value, signal), name, signal);
  }

  begin(header) {
    if (this.lines !== null) {
      throw new ArchiveError("The file is incomplete: another export begins in it.");
    }
    if (header.everything) {
      throw new ArchiveError(
        "This is an operator's copy of a whole server: only flask import --all of release 2.0.0 reads it.",
      );
    }
    if (!READABLE.includes(header.parley)) {
      throw new ArchiveError(
        "This file was made by another release of Parley. Import it with that one.",
      );
    }
    this.lines = 0;
  }

  end({ sessions }) {
    const counts = `its last line names ${sessions} chats, and it has ${this.lines}`;
    if (sessions !== this.lines) throw new ArchiveError(`The file is incomplete: ${counts}.`);
    this.lines = null;
  }

  refuse(name, reason) {
    this.refused++;
    if (this.refused <= MAX_NAMED) {
      $("transfer-list").append(element("li", {}, element("bdi", {}, name), `: ${reason}`));
    }
    const isKnown = this.lines !== null || this.imported || this.known;
    if (this.refused === MAX_REFUSED && !isKnown) throw new ArchiveError(NO_CHATS);
  }

  /** Sends a conversation, with the ids of its files. If it is refused, lists it. */
  async send(text, files, name, signal) {
    try {
      const given = Object.keys(files).length ? `,"files":${JSON.stringify(files)}` : "";
      const json = `{"conversation":${text}${given}}`;
      const read = ({ status, headers }) => ({ status, left: headers.get("Left-Out") ?? "" });
      const answer = await api("POST", "sessions/import", { json, signal, waits: true, read });
      this[answer.status === 201 ? "imported" : "known"]++;
      // Such as `files=3, tools=2`.
      for (const [, kind, number] of answer.left.matchAll(/(\w+)=(\d+)/g)) {
        this.left[kind] += Number(number);
      }
    } catch (error) {
      if (!isOfOne(error)) throw error;
      this.refuse(name, reasonOf(error));
    }
  }

  noteRest() {
    if (this.refused > MAX_NAMED) {
      $("transfer-list").append(element("li", {}, `and ${format(this.refused - MAX_NAMED)} more.`));
    }
    const kinds = Object.keys(LEFT_OUT).filter((kind) => this.left[kind]);
    $("transfer-list").prepend(
      ...kinds.map((kind) => element("li", {}, `${count(this.left[kind], ...LEFT_OUT[kind])}.`)),
    );
  }
}
