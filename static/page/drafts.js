// Drafts: what was typed and not sent, stored for this tab by session. Long pasted texts are kept
// apart, and go before the typed text.

import { $ } from "../dom.js";
import { store } from "./api.js";
import { joinTexts, splitLongText } from "./long-text.js";
import { publish, state } from "./screen.js";

export const draftName = () => `draft ${state.current?.id ?? ""}`;
export const editName = () => `edit ${state.current?.id}`;

/** The pasted texts of the message in the field. */
export let pasted = [];

// The last message taken from the field, and its parts.
let lastTaken = { content: "", pasted: [], typed: "" };

/** The whole message: the pasted texts and the field. */
export const message = () => joinTexts(...pasted, $("text").value);

/** Returns the message, and empties the field. */
export function takeMessage() {
  lastTaken = { content: message(), pasted, typed: $("text").value };
  fill({ pasted: [], typed: "" });
  return lastTaken.content;
}

/** Splits a message into pasted texts and typed text. One not from the field may be long, too. */
function partsOf(content) {
  if (content === lastTaken.content) return lastTaken;
  const [head, typed] = splitLongText(content);
  return { pasted: head ? [head] : [], typed };
}

/** The draft: the message that is being sent, since that may fail, and the field. */
function unsent() {
  const sent = partsOf(state.pending);
  const typed = joinTexts(sent.typed, $("text").value);
  return { pasted: [...sent.pasted, ...pasted], typed };
}

function fill(parts) {
  if ($("text").value !== parts.typed) $("text").value = parts.typed; // setting it moves the cursor
  setPasted(parts.pasted);
}

function setPasted(texts) {
  const isSame = texts.length === pasted.length && texts.every((text, at) => text === pasted[at]);
  if (isSame) return;
  pasted = texts;
  publish("pasted");
}

/** Adds a pasted text to the message. */
export function paste(text) {
  setPasted([...pasted, text]);
  keepDraft();
}

export function removePasted(place) {
  setPasted(pasted.toSpliced(place, 1));
  keepDraft();
}

// Drafts by name. sessionStorage outlives a reload, but holds only about 5 MB; the Map has no
// limit.

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

/** Stores the typed text. Called at each key, so it leaves the pasted texts: they may be large. */
export function keepField() {
  const name = draftName();
  keepTyped(name, { ...draftOf(name), typed: unsent().typed });
}

/** Shows the draft of the session on the screen. */
export const showDraft = () => fill(draftOf(draftName()));

/** Puts the message that is being sent back into the field, before what was typed since. */
export const restoreUnsent = () => fill(unsent());

/** Stores a message as the draft of a session. */
export const keepAsDraft = (content, id) => keep(`draft ${id}`, partsOf(content));

/** Removes a message that was sent from a draft. */
export function removeFromDraft(content, name) {
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

/** Removes the drafts of a deleted session. */
export function forgetDrafts(id) {
  forgetDraft(`draft ${id}`);
  store(`edit ${id}`, "");
}
