// Chats leave in a file and come from one: what the panel of the account has for it.

import { $, element } from "../dom.js";
import { api } from "./api.js";
import { Fault, isHeader, readArchive } from "./archive.js";
import { convert, isConversation, Refusal } from "./foreign.js";

const FORMAT = 3; // of a file of Parley's
const READABLE = [2, 3]; // 2 has no thinking
const MOST_STRANGERS = 1000;
const STRANGER = "It is of no shape that is known here.";
const NO_CHATS = "These are no chats. Choose an export of ChatGPT, Claude or Parley.";
const REFUSALS = [400, 408, 413, 422, 500]; // of one conversation: the next may be taken
// Of what is refused; a browser takes seconds to show a hundred thousand lines.
const MOST_NAMED = 200;
const LONGEST = 60; // characters of a name that are shown; it may have millions
const LEFT_OUT = {
  files: ["image or file was left out", "images and files were left out"],
  tools: [
    "tool call, result or thought was left out",
    "tool calls, results and thoughts were left out",
  ],
  branches: ["message of another branch was left out", "messages of other branches were left out"],
};

const { format } = new Intl.NumberFormat();
const count = (number, one, many) => `${format(number)} ${number === 1 ? one : many}`;
const megabytes = (bytes) => format(Math.ceil(bytes / 1e5) / 10);
const chats = (number) => count(number, "chat", "chats");
let stop = null; // aborts what is under way

/**
 * What follows works in the panel of the account. `page` can `say` a sentence, `announce` it, and
 * `list` the chats anew.
 */
export const downloadAll = (button, page) => run(new Download(), button, page);
export const importFile = (file, button, page) => run(new Import(file), button, page);

export function stopMoving() {
  stop.abort();
  tell("Stopping…"); // what was sent is not taken back: its answer is waited for
}

async function run(work, button, page) {
  stop = new AbortController();
  $("moved-list").replaceChildren();
  tell("");
  setBusy(true, button);
  const problem = await work.run(stop.signal).then(() => "", sentenceOf);
  const end = [problem, work.sum()].filter(Boolean).join(" ");
  tell(end);
  setBusy(false, button);
  if ($("account").matches(":popover-open")) page.announce(end);
  else page.say(end, problem ? "" : "faint");
  await page.list().catch(() => {}); // why it fails is said where chats are listed again
}

function setBusy(isBusy, button) {
  const isFocused = $(isBusy ? "movers" : "stop-moving").contains(document.activeElement);
  [$("movers").hidden, $("stop-moving").hidden] = [isBusy, !isBusy];
  // Else hiding it would leave the focus nowhere.
  if (isFocused) (isBusy ? $("stop-moving") : button).focus();
}

/** Shows how far it has come, and with a `share`, what that is of all. */
function tell(text, share) {
  $("moved").textContent = text;
  Object.assign($("moved-share"), { hidden: share === undefined, value: share ?? 0 });
}

function sentenceOf(error) {
  if (error.name === "AbortError") return "Stopped.";
  if (error instanceof Fault || error.status) return error.message;
  reportError(error);
  return "The page failed. Load it again.";
}

/** What a conversation is called; where it has no name, its place in the file. */
function nameOf(value, place) {
  const names = [value?.title, value?.name, place];
  return shortened(names.find((each) => typeof each === "string" && each.trim()));
}

/** The beginning of a name, where it is long. */
const shortened = (name) =>
  name.length > LONGEST ? `${name.trim().slice(0, LONGEST).toWellFormed()}…` : name;

/** Why a conversation is refused: the first thing that is wrong, and where. */
function reasonOf({ faults: [fault] = [], message }) {
  const place = fault?.source?.pointer?.slice(1);
  return place ? `${place}: ${fault.detail}` : message;
}

/** Has the browser keep a file in its folder for downloads. */
function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // the browser may ask where to, first
}

export async function saveAsMarkdown(id, title) {
  const options = { headers: { Accept: "text/markdown" }, read: (response) => response.blob() };
  save(await api("GET", `sessions/${id}`, options), `${fileName(title)}.md`);
}

/** A title without what some system has no place for in the name of a file. */
function fileName(title) {
  const safe = title.replace(/[\s\p{Cc}\p{Cf}/\\:*?"<>|]+/gu, " ").replace(/^[.\s]+/, "");
  return (
    [...safe]
      .slice(0, 60)
      .join("")
      .replace(/[.\s]+$/, "") || "chat"
  ); // of 60 characters each may have four bytes
}

/** All chats as one file. The browser holds its pieces, on disk where they are many. */
class Download {
  sessions = 0;
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
      const { blob, lines, next } = await api("GET", path, options);
      pieces.push(blob);
      path = next;
      this.sessions += lines;
      tell(`${chats(this.sessions)} so far…`);
    }
    pieces.push(line({ end: true, sessions: this.sessions }));
    save(
      new Blob(pieces, { type: "application/x-ndjson" }),
      `parley-${exported_at.slice(0, 10)}.ndjson`,
    );
    this.isSaved = true;
  }

  sum = () => (this.isSaved ? `${chats(this.sessions)} downloaded.` : "Nothing was downloaded.");
}

/** A page of an export: its lines, how many they are, and the path of the next page. */
async function readPage(response) {
  const bytes = new Uint8Array(await response.arrayBuffer());
  let lines = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) lines++;
  // There may be a prefix before it.
  const query = /<[^>?]*\?([^>]*)>; *rel="?next/.exec(response.headers.get("Link"))?.[1];
  return { blob: new Blob([bytes]), lines, next: query && `export?${query}` };
}

/**
 * A file, of which one conversation at a time is sent. Each has an origin, by which the server
 * knows those that it has.
 */
class Import {
  imported = 0;
  known = 0;
  refused = 0;
  left = { files: 0, tools: 0, branches: 0 };
  // Names of what is no conversation, as long as there was none: ChatGPT's export may begin with
  // such.
  strangers = [];
  hasChats = false;
  lines = null; // since the first line of a file of Parley's, until its last

  constructor(file) {
    this.file = file;
  }

  async run(signal) {
    let [read, all] = [0, 0]; // bytes
    let isOver = false; // a ZIP may be read a piece further
    const show = () =>
      isOver ||
      tell(`${this.sum()} ${megabytes(read)} of ${megabytes(all)} MB are read.`, read / all);
    const onRead = (...bytes) => {
      signal.throwIfAborted();
      [read, all] = bytes;
      show();
    };
    try {
      for await (const found of readArchive(this.file, onRead)) {
        await this.take(found, signal);
        show();
        signal.throwIfAborted();
      }
    } finally {
      isOver = true;
      this.noteRest();
    }
    if (this.strangers.length) throw new Fault(NO_CHATS);
    if (this.lines !== null) throw new Fault("The file is not whole: its last line is missing.");
  }

  sum() {
    const parts = [`${chats(this.imported)} imported`];
    if (this.known) parts.push(`${count(this.known, "was", "were")} here already`);
    if (this.refused) parts.push(`${count(this.refused, "was", "were")} refused`);
    return `${parts.join(", ")}.`;
  }

  async take({ place, value, problem }, signal) {
    if (isHeader(value)) return this.begin(value);
    if (this.lines !== null && value && "end" in value) return this.end(value);
    if (this.lines !== null) this.lines++;
    const name = nameOf(value, place);
    if (problem) return this.refuse(name, problem);
    if (!isConversation(value)) return this.passOver(name);
    this.hasChats = true;
    this.strangers.splice(0).forEach((each) => this.refuse(each, STRANGER));
    return this.send(value, name, signal);
  }

  begin(header) {
    if (this.lines !== null) throw new Fault("The file is not whole: another export begins in it.");
    if (header.everything) {
      throw new Fault(
        "This is an operator's copy of a whole server: only flask import --all reads it.",
      );
    }
    if (!READABLE.includes(header.parley)) {
      throw new Fault("This file was made by another release of Parley. Import it with that one.");
    }
    this.hasChats = true;
    this.lines = 0;
  }

  end({ sessions }) {
    const counts = `its last line names ${sessions} chats, and it has ${this.lines}`;
    if (sessions !== this.lines) throw new Fault(`The file is not whole: ${counts}.`);
    this.lines = null;
  }

  passOver(name) {
    if (this.hasChats) return this.refuse(name, STRANGER);
    this.strangers.push(name);
    if (this.strangers.length === MOST_STRANGERS) throw new Fault(NO_CHATS);
  }

  refuse(name, reason) {
    this.refused++;
    if (this.refused <= MOST_NAMED) {
      $("moved-list").append(element("li", {}, element("bdi", {}, name), `: ${reason}`));
    }
  }

  /** Has a conversation imported. One that is refused is named, and the next may be taken. */
  async send(value, name, signal) {
    try {
      const { body, left } = convert(value);
      const read = ({ status }) => status === 201;
      const isNew = await api("POST", "sessions/import", { body, signal, waits: true, read });
      this[isNew ? "imported" : "known"]++;
      if (isNew) Object.keys(left).forEach((kind) => (this.left[kind] += left[kind]));
    } catch (error) {
      if (!(error instanceof Refusal) && !REFUSALS.includes(error.status)) throw error;
      this.refuse(name, reasonOf(error));
    }
  }

  noteRest() {
    if (this.refused > MOST_NAMED) {
      $("moved-list").append(element("li", {}, `and ${format(this.refused - MOST_NAMED)} more.`));
    }
    const kinds = Object.keys(LEFT_OUT).filter((kind) => this.left[kind]);
    $("moved-list").prepend(
      ...kinds.map((kind) => element("li", {}, `${count(this.left[kind], ...LEFT_OUT[kind])}.`)),
    );
  }
}
