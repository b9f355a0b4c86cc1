// What a new chat begins with: what was set for it in this tab, else what its user has chosen last
// in this browser.

import { store } from "./api.js";

let name = ""; // under which the choices of who is signed in are kept

export function useChoicesOf(subject) {
  name = `choices ${subject}`;
}

/** What was chosen for new chats of `model`, `system` and `options`. */
export const chosen = () => JSON.parse(localStorage.getItem(name)) ?? {};

/**
 * Keeps what is chosen for new chats. What is undefined is forgotten. Returns whether it is kept: a
 * browser keeps some 5 MB.
 */
export function choose(changes) {
  try {
    localStorage.setItem(name, JSON.stringify({ ...chosen(), ...changes }));
    return true;
  } catch {
    return false;
  }
}

export const forgetChoices = () => localStorage.removeItem(name);

const setHere = () => JSON.parse(sessionStorage.getItem("new chat")) ?? {};

/** Keeps for this tab what is set for its next new chat. What is undefined is as it was chosen. */
export const setForNew = (changes) =>
  store("new chat", JSON.stringify({ ...setHere(), ...changes }));

/** What a new chat begins with. */
export const beginning = () => ({ ...chosen(), ...setHere() });

/**
 * What a new chat begins with is that of another one. What was set for it comes back with
 * `clearSettings`.
 */
export function takeSettings({ model, system, options }) {
  // Else they are those of an earlier try.
  if (!sessionStorage.getItem("typed")) store("typed", JSON.stringify(setHere()));
  store("new chat", JSON.stringify({ model, system, options }));
}

/**
 * A new chat has begun. For the next one, what was set for it before this one took the settings of
 * another is left.
 */
export function clearSettings() {
  store("new chat", sessionStorage.getItem("typed"));
  store("typed", "");
}
