// What is typed and not sent yet is kept for this tab, by session. Long texts that were pasted are
// kept apart: they go before what is typed in the field.

import { $ } from "../dom.js";
import { store } from "./api.js";
import { joined, parted } from "./long.js";
import { state, tell } from "./screen.js";

export const draftName = () => `draft ${state.current?.id ?? ""}`;
export const editName = () => `edit ${state.current?.id}`;

/** The pasted texts of the message that is being typed. */
export let pasted = [];

// The message that was sent last, and its parts.
let taken = { content: "", pasted: [], typed: "" };

/** The message, as it would be sent. */
export const message = () => joined(...pasted, $("text").value);

/** Returns the message, and empties its field. */
export function takeMessage() {
  taken = { content: message(), pasted, typed: $("text").value };
  fill({ pasted: [], typed: "" });
  return taken.content;
}

/** The parts of a message. One that does not come from the field may be long, too. */
function partsOf(content) {
  if (content === taken.content) return taken;
  const [head, typed] = parted(content);
  return { pasted: head ? [head] : [], typed };
}

/** What was typed and what is being sent, which may fail. */
function unsent() {
  const sent = partsOf(state.pending);
  const typed = joined(sent.typed, $("text").value);
  return { pasted: [...sent.pasted, ...pasted], typed };
}

function fill(parts) {
  if ($("text").value !== parts.typed) $("text").value = parts.typed; // else the cursor would move
  setPasted(parts.pasted);
}

function setPasted(texts) {
  const isSame = texts.length === pasted.length && texts.every((text, at) => text === pasted[at]);
  if (isSame) return;
  pasted = texts;
  tell("pasted");
}

/** Puts a text before what is typed. */
export function paste(text) {
  setPasted([...pasted, text]);
  keepDraft();
}

export function removePasted(place) {
  setPasted(pasted.toSpliced(place, 1));
  keepDraft();
}

// Drafts, by their names. The browser's storage outlives the page, but has room for 5 MB only.

const drafts = new Map();

function draftOf(name) {
  const stored = () => ({
    typed: sessionStorage.getItem(name) ?? "",
    pasted: JSON.parse(sessionStorage.getItem(`${name} pasted`)) ?? [],
  });
  return drafts.get(name) ?? stored();
}

function keep(name, draft) {
  keepTyped(name, draft);
  store(`${name} pasted`, draft.pasted.length ? JSON.stringify(draft.pasted) : "");
}

function keepTyped(name, draft) {
  drafts.set(name, draft);
  store(name, draft.typed);
}

export const keepDraft = () => keep(draftName(), unsent());

/** Keeps what is typed in the field: pasted texts would take too long to be kept at each key. */
export function keepField() {
  const name = draftName();
  keepTyped(name, { ...draftOf(name), typed: unsent().typed });
}

/** Shows what was typed in the session on the screen. */
export const showDraft = () => fill(draftOf(draftName()));

/** What is being sent is typed again, before what was typed since. */
export const giveBack = () => fill(unsent());

/** Keeps a message as what was typed in a session. */
export const keepAsDraft = (content, id) => keep(`draft ${id}`, partsOf(content));

/** Takes a message out of a draft: it was sent. */
export function takeOut(content, name) {
  const { typed, pasted: texts } = draftOf(name);
  let rest = content;
  const left = [];
  for (const text of texts) {
    if (rest.startsWith(text)) rest = rest.slice(text.length).trimStart();
    else left.push(text);
  }
  keep(name, { typed: typed.replace(rest, () => "").trim(), pasted: left });
}

export const forgetDraft = (name) => keep(name, { typed: "", pasted: [] });

/** Forgets what was typed in a session that is gone. */
export function forgetDrafts(id) {
  forgetDraft(`draft ${id}`);
  store(`edit ${id}`, "");
}
