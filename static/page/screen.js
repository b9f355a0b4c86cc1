// What is on the screen, and what is under way. All rooms of the page share it.

import { $ } from "../dom.js";
import { options, showFaults, systemPrompt } from "./options.js";

export const state = {
  current: null, // the session on the screen; null while it is not yet created
  screen: new AbortController(), // aborts when another session takes the screen
  starting: null, // aborts when Stop is pressed before the reply has begun
  pending: "", // the message that is sent, until the server has it
  models: [],
  isNews: false, // whether a reply has ended while nobody looked at this tab
};

/** Whether the session on the screen is still being fetched. */
export const isLoading = () => Boolean(state.current && !state.current.model);

/** The model that answers the next message. */
export const modelId = () => $("model").value || state.current?.model?.id;

// Who has the screen, and where the focus is.

/**
 * Gives the screen to another session, or to another reply. What was under way for the one before
 * is aborted.
 */
export function takeScreen() {
  state.screen.abort();
  state.screen = new AbortController();
  setBusy(false);
  state.pending = "";
  return state.screen.signal;
}

/** Shows Stop in the place of Send while a reply is under way. */
export function setBusy(isBusy) {
  const hiding = $(isBusy ? "send" : "stop");
  // Else hiding it would leave the focus nowhere.
  if (document.activeElement === hiding) focusText();
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
}

export const isBusy = () => $("send").hidden;

export const isTouched = () => matchMedia("(pointer: coarse)").matches;

/**
 * Puts the focus where one types; on a phone, whose keyboard would cover the text, where one reads.
 */
export function focusText() {
  $(isTouched() ? "log" : "text").focus({ preventScroll: true });
}

/** Whether a key sends what was typed. */
export const isEnter = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

// What one room tells those above it, which it does not import.
//
// "sessions": the list of sessions is out of date.
// "model": the session has another model.
// "shown": a session is shown as it was fetched.
// "opened": the reader has opened something, and reads it.
// "pasted": other pasted texts belong to the message that is being typed.

const news = new EventTarget();

export const tell = (name) => news.dispatchEvent(new Event(name));
export const hear = (name, listener) => news.addEventListener(name, () => listener());

// What the page says: in the line above the composer, and to a screen reader.

/** A function that says something at this place. The class "faint" says that nothing went wrong. */
export const sayAt =
  (id) =>
  (message, className = "") =>
    Object.assign($(id), { textContent: message, className });

export const say = sayAt("notice");

/** Says this behind what is said of something that went wrong. */
export function sayBehind(message, className) {
  if ($("notice").matches(":empty, .faint")) say(message, className);
  else say(`${$("notice").textContent} ${message}`);
}

/** Says something only where there is something to say: what is said already stays. */
export const sayIfAny = (message) => message && say(message);

/** Has a screen reader say this. */
export function announce(text) {
  if (document.ariaNotify) document.ariaNotify(text);
  else $("announcer").textContent = text;
}

/** A handler that shows where the user looks what went wrong. */
export const attempt = (action, tellUser = say) =>
  async function (...args) {
    if (args[0] instanceof Event) args[0].preventDefault();
    tellUser("");
    try {
      await action(...args);
    } catch (error) {
      if (error.name === "AbortError") return; // another session has taken the screen
      tellUser(error.status ? showFaults(error) : "The page failed. Load it again.");
      if (!error.status) throw error;
    }
  };

// What stands around the conversation: its title, the list's mark, and what the settings hold.

/** Shows what belongs to the session around its turns. */
export function frame() {
  const { current, models } = state;
  $("older").hidden = !current?.meta?.has_more;
  showTitle(current);
  $("echo").hidden = models.find(({ id }) => id === modelId())?.provider !== "echo";
  const isSet = [systemPrompt(), ...Object.values(options())].some((value) => value !== null);
  $("settings-button").classList.toggle("set", isSet);
  $("settings-button").disabled = isLoading();
  for (const link of $("list").querySelectorAll("a")) {
    link.ariaCurrent = link.hash.slice(1) === current?.id ? "page" : null;
  }
}

function showTitle(current) {
  $("title").textContent = current ? (current.title ?? "") : "New chat";
  const title = current?.title ? `${current.title} – Parley` : "Parley";
  document.title = state.isNews ? `● ${title}` : title;
}
