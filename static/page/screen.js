// The state that all modules of the page share: the session on the screen, and what it shows around
// it.

import { $, sentence } from "../dom.js";
import { options, showFaults, systemPrompt } from "./options.js";

export const state = {
  current: null, // the session on the screen; null if it is not created yet
  screen: new AbortController(), // aborts when another session takes the screen
  starting: null, // aborts when Stop is pressed before the reply has started
  pending: null, // the message that is being sent, until the server has it
  models: [],
  maxFile: Infinity, // bytes of the largest picture that the server takes, once known; 0: none
  isNews: false, // whether a reply ended while the tab was hidden
};

/** Whether the session on the screen is still being fetched. */
export const isLoading = () => Boolean(state.current && !state.current.model);

/** The model that answers the next message. */
export const modelId = () => $("model").value || state.current?.model?.id;

// Which session has the screen, and where the focus is.

/**
 * Gives the screen to another session or reply: aborts the requests of the one before, and returns
 * a new signal.
 */
export function takeScreen() {
  state.screen.abort();
  state.screen = new AbortController();
  setBusy(false);
  state.pending = null;
  return state.screen.signal;
}

/** Shows Stop instead of Send while a reply is in progress. */
export function setBusy(isBusy) {
  const hiding = $(isBusy ? "send" : "stop-reply");
  // Hiding a focused button would lose the focus.
  if (document.activeElement === hiding) focusText();
  $("send").hidden = isBusy;
  $("stop-reply").hidden = !isBusy;
}

export const isBusy = () => $("send").hidden;

export const isTouchScreen = () => matchMedia("(pointer: coarse)").matches;

/**
 * Focuses the message field; on a touch screen the thread, since a keyboard would cover the text.
 */
export function focusText() {
  $(isTouchScreen() ? "thread" : "text").focus({ preventScroll: true });
}

/** Whether a key event sends the message: Enter, without Shift, outside an input method. */
export const isSendKey = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

// Events for modules further up, which this one and others cannot import.
//
// "sessions": the list of sessions is out of date.
// "model": the session has another model.
// "models": the list of models has arrived.
// "request": a reply is being requested.
// "shown": a fetched session is on the screen.
// "opened": the reader has opened a fold, and reads it.
// "pasted": the pasted texts of the message have changed.
// "pictures": the pictures of the message have changed.
// "picture": what is stored of a picture has changed.
// "frame": what the page shows around the conversation may have changed.

const events = new EventTarget();

export const publish = (name) => events.dispatchEvent(new Event(name));
export const subscribe = (name, listener) => events.addEventListener(name, () => listener());

// Notices: in the line above the composer, and to a screen reader.

/** Makes a function that shows a notice in this element. Class "faint": it is not an error. */
export const sayAt =
  (id) =>
  (message, className = "") =>
    Object.assign($(id), { className }).replaceChildren(...sentence(message));

export const say = sayAt("notice");

/** Shows a notice; if an error is shown, adds the notice to it. */
export function sayAfter(message, className) {
  if ($("notice").matches(":empty, .faint")) say(message, className);
  else $("notice").append(" ", ...sentence(message));
}

/** Shows a message if there is one; an empty one does not clear the notice. */
export const sayIfAny = (message) => message && say(message);

/** Has a screen reader say this. */
export function announce(text) {
  if (document.ariaNotify) document.ariaNotify(text);
  else $("announcer").textContent = text;
}

/** Wraps an action into an event handler that shows the user an error of the action. */
export const attempt = (action, showMessage = say) =>
  async function (...args) {
    if (args[0] instanceof Event) args[0].preventDefault();
    showMessage("");
    try {
      await action(...args);
    } catch (error) {
      if (error.name === "AbortError") return; // another session has the screen now
      showMessage(error.status ? showFaults(error) : "The page failed. Reload it.");
      if (!error.status) throw error;
    }
  };

// Around the conversation: its title, its mark in the list, the state of the settings button.

/** Updates what the page shows of the session outside its turns. */
export function updateFrame() {
  const { current, models } = state;
  $("older").hidden = !current?.meta?.has_more;
  showTitle(current);
  const model = models.find(({ id }) => id === modelId());
  const isEcho = model?.provider === "echo";
  $("welcome").hidden = Boolean(current);
  $("set-up").hidden = !isEcho || !$("hint").hidden; // the hint says more
  $("ideas").hidden = !model || isEcho;
  const isSet = [systemPrompt(), ...Object.values(options())].some((value) => value !== null);
  $("settings-button").classList.toggle("set", isSet);
  $("settings-button").disabled = isLoading();
  for (const link of $("list").querySelectorAll("[aria-current]")) link.ariaCurrent = null;
  const link = $("list").querySelector(`[href="#${current?.id}"]`);
  if (link) link.ariaCurrent = "page";
  publish("frame");
}

function showTitle(current) {
  $("title").textContent = current ? (current.title ?? "") : "New chat";
  const title = current?.title ? `${current.title} – Parley` : "Parley";
  document.title = state.isNews ? `● ${title}` : title;
}
