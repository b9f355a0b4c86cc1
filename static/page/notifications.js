// Tells the person that a reply ended while they were in another chat or tab.

import { $ } from "../dom.js";
import { fetchSession, store } from "./api.js";
import { attempt, publish, sayIfAny, state, updateFrame } from "./screen.js";

const INTERVAL = 4_000; // ms between two polls of the chats that were left
const MAX_LEFT = 10; // chats that we poll: those left last
const OFFER_AFTER = 10_000; // ms that a reply takes before we offer a notification

// Ids of chats that were left during a reply, and of those whose reply has ended since. Stored for
// this tab, so that they outlive a reload.
const left = new Set(JSON.parse(sessionStorage.getItem("left")));
const unread = new Set(JSON.parse(sessionStorage.getItem("unread")));

function keep() {
  for (const [name, ids] of Object.entries({ left, unread })) {
    store(name, ids.size ? JSON.stringify([...ids]) : "");
  }
}

/** Whether the chat has a finished reply that nobody has seen. */
export const isUnread = (id) => unread.has(id);

/** The reader left a chat during its reply: polls it until the reply has ended. */
export function watchLeftChat(id) {
  left.delete(id); // so that adding moves it to the end
  left.add(id);
  for (const first of [...left].slice(0, -MAX_LEFT)) left.delete(first);
  keep();
  schedulePoll();
}

/** The reader sees a chat: it is not unread, and its reply needs no notification. */
export function markRead(id) {
  const wasUnread = unread.delete(id);
  if (!left.delete(id) && !wasUnread) return;
  keep();
  if (wasUnread) publish("sessions");
}

let timer = null;

function schedulePoll() {
  if (left.size) timer ??= setTimeout(pollAndWait, INTERVAL);
}

async function pollAndWait() {
  try {
    await poll();
  } finally {
    timer = null;
    schedulePoll();
  }
}

const poll = attempt(() => Promise.all([...left].map(checkChat)), sayIfAny);

/** Checks whether the reply of a chat that was left has ended. */
async function checkChat(id) {
  const session = await fetchSession(id, { limit: 1 }, { unless: 404 });
  if (!left.has(id)) return; // it was opened meanwhile
  const isDeleted = session instanceof Error;
  if (!isDeleted && session.turns.at(-1).status === "in_progress") return;
  left.delete(id);
  if (!isDeleted) unread.add(id);
  keep();
  publish("sessions");
  if (!isDeleted) notifyOfEnd(session);
}

/** If the tab is hidden, marks its title and shows a notification that a reply has ended. */
export function notifyOfEnd({ id, title }) {
  if (!document.hidden) return;
  state.isNews = true;
  updateFrame();
  if (!mayNotify()) return;
  try {
    const notification = new Notification(title, { body: "Your reply is ready.", tag: id });
    notification.onclick = () => {
      window.focus();
      location.hash = id;
      notification.close();
    };
  } catch {
    // Chromium on Android throws: there, only service workers may show notifications.
  }
}

const canNotify = () => "Notification" in window && isSecureContext;
const mayNotify = () => canNotify() && Notification.permission === "granted";

addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  state.isNews = false;
  updateFrame();
});

/**
 * If a reply takes long, offers a notification, unless the person has answered that before. Returns
 * a function that withdraws the offer.
 */
export function offerNotification() {
  const isAnswered = !canNotify() || Notification.permission !== "default";
  if (isAnswered || localStorage.getItem("quiet")) return () => {};
  const timeout = setTimeout(() => ($("offer").hidden = false), OFFER_AFTER);
  return () => {
    clearTimeout(timeout);
    $("offer").hidden = true;
  };
}

$("offer-yes").onclick = async () => {
  $("offer").hidden = true;
  await Notification.requestPermission();
};
$("offer-no").onclick = () => {
  $("offer").hidden = true;
  localStorage.setItem("quiet", "yes");
};

schedulePoll();
