// The settings of a new chat: those set for it in this tab, else the user's last choices in this
// browser.

import { store } from "./api.js";

let name = ""; // the key of the signed-in user's choices in localStorage

export function useChoicesOf(subject) {
  name = `choices ${subject}`;
}

/** The user's choices for new chats: `model`, `system` and `options`, as far as there are any. */
export const savedChoices = () => JSON.parse(localStorage.getItem(name)) ?? {};

/**
 * Stores choices for new chats; undefined removes one. Returns false if the browser has no room:
 * it allows about 5 MB.
 */
export function saveChoices(changes) {
  try {
    localStorage.setItem(name, JSON.stringify({ ...savedChoices(), ...changes }));
    return true;
  } catch {
    return false;
  }
}

export const forgetChoices = () => localStorage.removeItem(name);

const setInTab = () => JSON.parse(sessionStorage.getItem("new chat")) ?? {};

/** Stores settings for this tab's next new chat; undefined returns to the user's choice. */
export const setForNextChat = (changes) =>
  store("new chat", JSON.stringify({ ...setInTab(), ...changes }));

/** The settings of the next new chat. */
export const newChatSettings = () => ({ ...savedChoices(), ...setInTab() });

/** Gives the next new chat the settings of another chat. `dropSettings` restores what was set. */
export function copySettings({ model, system, options }) {
  // If there is one, an earlier try stored it.
  if (!sessionStorage.getItem("typed")) store("typed", JSON.stringify(setInTab()));
  store("new chat", JSON.stringify({ model, system, options }));
}

/**
 * A new chat was created. For the next one, drops its settings, or restores those before
 * `copySettings`.
 */
export function dropSettings() {
  store("new chat", sessionStorage.getItem("typed"));
  store("typed", "");
}
