// Drafts: what was typed and not sent, stored for this tab by session. Long pasted texts are kept
// apart, and go before the typed text. So are pictures, whose bytes are in `picture-store.js`.

import { $ } from "../dom.js";
import { store } from "./api.js";
import { joinTexts, splitLongText } from "./long-text.js";
import { publish, state, subscribe } from "./screen.js";
import { forgetSent, pictureOf, picturesOf } from "./unsent-pictures.js";

const EMPTY = { typed: "", pasted: [], pictures: [] };

export const draftName = () => `draft ${state.current?.id ?? ""}`;
export const editName = () => `edit ${state.current?.id}`;

/** The pasted texts of the message in the field. */
export let pasted = [];

/** Its pictures. */
export let pictures = [];

// The last message taken from the field, and its parts.
let lastTaken = { message: { content: "" }, ...EMPTY };

/** The text of the message: the pasted texts and the field. */
export const message = () => joinTexts(...pasted, $("text").value);

/** A message: a text, and the files of these pictures if there are any. */
export const messageOf = (content, ofIt) =>
  ofIt.length ? { content, files: ofIt.map(({ ref }) => ref) } : { content };

/** Returns the message, and empties the field. All pictures are uploaded. */
export function takeMessage() {
  const taken = messageOf(message(), pictures);
  lastTaken = { message: taken, pasted, pictures, typed: $("text").value };
  fill(EMPTY);
  return taken;
}

const isSame = (one, other) =>
  one.content === other.content && JSON.stringify(one.files) === JSON.stringify(other.files);

/** The parts of a message. One that is not from the field may have a long text, too. */
function partsOf(sent) {
  if (isSame(sent, lastTaken.message)) return lastTaken;
  const [head, typed] = splitLongText(sent.content);
  return { pasted: head ? [head] : [], typed, pictures: picturesOf(sent.files) };
}

/** The draft: the message that is being sent, since that may fail, and the field. */
function unsent() {
  const sent = state.pending ? partsOf(state.pending) : EMPTY;
  const typed = joinTexts(sent.typed, $("text").value);
  return {
    pasted: [...sent.pasted, ...pasted],
    typed,
    pictures: [...sent.pictures, ...pictures],
  };
}

function fill(parts) {
  if ($("text").value !== parts.typed) $("text").value = parts.typed; // setting it moves the cursor
  setPasted(parts.pasted);
  setPictures(parts.pictures);
}

function setPasted(texts) {
  const isSameList =
    texts.length === pasted.length && texts.every((text, at) => text === pasted[at]);
  if (isSameList) return;
  pasted = texts;
  publish("pasted");
}

/** Sets the pictures, and uploads those that are not uploaded. */
function setPictures(list) {
  pictures = list;
  publish("pictures");
  for (const picture of list) if (!picture.problem) picture.upload();
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

/** Adds pictures to the message. */
export function addPictures(added) {
  setPictures([...pictures, ...added]);
  keepDraft();
}

export function removeFromMessage(picture) {
  setPictures(pictures.filter((each) => each !== picture));
  keepDraft();
  picture.remove();
}

// Drafts by name. sessionStorage outlives a reload, but holds only about 5 MB; the Map has no
// limit.

const drafts = new Map();

function draftOf(name) {
  // From now on in the Map, so that what changes in its pictures is stored.
  if (!drafts.has(name)) drafts.set(name, storedDraft(name));
  return drafts.get(name);
}

const storedDraft = (name) => ({
  typed: sessionStorage.getItem(name) ?? "",
  pasted: JSON.parse(sessionStorage.getItem(`${name} pasted`)) ?? [],
  pictures: (JSON.parse(sessionStorage.getItem(`${name} pictures`)) ?? []).map(pictureOf),
});

function keep(name, draft) {
  keepTyped(name, draft);
  store(`${name} pasted`, draft.pasted.length ? JSON.stringify(draft.pasted) : "");
  storePictures(name, draft);
}

const storePictures = (name, draft) =>
  store(`${name} pictures`, draft.pictures.length ? JSON.stringify(draft.pictures) : "");

subscribe("picture", () => {
  for (const [name, draft] of drafts) storePictures(name, draft);
});

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
export const keepAsDraft = (sent, id) => keep(`draft ${id}`, partsOf(sent));

/** Removes a message that was sent from a draft. */
export function removeFromDraft({ content, files = [] }, name) {
  const { typed, pasted: texts, pictures: all } = draftOf(name);
  let rest = content;
  const left = [];
  for (const text of texts) {
    if (rest.startsWith(text)) rest = rest.slice(text.length).trimStart();
    else left.push(text);
  }
  const ids = files.map(({ id }) => id);
  const unsentOnes = all.filter(({ file }) => !ids.includes(file?.id));
  keep(name, {
    typed: typed.replace(rest, () => "").trim(),
    pasted: left,
    pictures: unsentOnes,
  });
  forgetSent(files, unsentOnes);
}

export function forgetDraft(name) {
  const { pictures: all } = draftOf(name);
  keep(name, EMPTY);
  for (const picture of all) if (!pictures.includes(picture)) picture.remove();
}

/** An edit of a message was sent. */
export function forgetEdit(name, { files = [] }) {
  store(name, "");
  forgetSent(files, pictures);
}

/** Removes the drafts of a deleted session. */
export function forgetDrafts(id) {
  forgetDraft(`draft ${id}`);
  store(`edit ${id}`, "");
}
