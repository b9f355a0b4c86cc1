// A reply that ends while the person is elsewhere: in another chat, or in another tab.

import { $ } from "../dom.js";
import { fetchSession, store } from "./api.js";
import { attempt, frame, sayIfAny, state, tell } from "./screen.js";

const INTERVAL = 4_000; // ms between two looks at the chats that were left
const MOST = 10; // chats that are looked at; of more, the last ones that were left
const LONG = 10_000; // ms that a reply takes before the page offers to tell its end

// Chats that were left while their reply was written, and those of which one has ended. They are
// kept for this tab, whose page may be loaded again.
const left = new Set(JSON.parse(sessionStorage.getItem("left")));
const unread = new Set(JSON.parse(sessionStorage.getItem("unread")));

function keep() {
  for (const [name, ids] of Object.entries({ left, unread })) {
    store(name, ids.size ? JSON.stringify([...ids]) : "");
  }
}

/** Whether a reply has ended there that nobody has seen. */
export const isUnread = (id) => unread.has(id);

/** A chat is left while its reply is written. */
export function leaveWriting(id) {
  left.delete(id); // as the last one, it is left last
  left.add(id);
  for (const first of [...left].slice(0, -MOST)) left.delete(first);
  keep();
  lookLater();
}

/** A chat is seen: what ends there is no news. */
export function see(id) {
  const wasUnread = unread.delete(id);
  if (!left.delete(id) && !wasUnread) return;
  keep();
  if (wasUnread) tell("sessions");
}

let timer = null;

function lookLater() {
  if (left.size) timer ??= setTimeout(lookAndWait, INTERVAL);
}

async function lookAndWait() {
  try {
    await look();
  } finally {
    timer = null;
    lookLater();
  }
}

const look = attempt(() => Promise.all([...left].map(lookAt)), sayIfAny);

/** Looks whether the reply of a chat that was left has ended. */
async function lookAt(id) {
  const session = await fetchSession(id, { limit: 1 }, { unless: 404 });
  if (!left.has(id)) return; // it was opened meanwhile
  const isDeleted = session instanceof Error;
  if (!isDeleted && session.turns.at(-1).status === "in_progress") return;
  left.delete(id);
  if (!isDeleted) unread.add(id);
  keep();
  tell("sessions");
  if (!isDeleted) tellEnd(session);
}

/**
 * Tells of a reply that has ended while nobody looks at this tab: in its title, and by a
 * notification.
 */
export function tellEnd({ id, title }) {
  if (!document.hidden) return;
  state.isNews = true;
  frame();
  if (!mayNotify()) return;
  try {
    const notification = new Notification(title, { body: "The reply is there.", tag: id });
    notification.onclick = () => {
      window.focus();
      location.hash = id;
      notification.close();
    };
  } catch {
    // Chromium on Android has notifications of service workers only.
  }
}

const canNotify = () => "Notification" in window && isSecureContext;
const mayNotify = () => canNotify() && Notification.permission === "granted";

addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  state.isNews = false;
  frame();
});

/**
 * Offers to tell the end of a reply, where that takes long, and where the person has not answered
 * yet. Returns what takes the offer back.
 */
export function offerToTell() {
  const isAnswered = !canNotify() || Notification.permission !== "default";
  if (isAnswered || localStorage.getItem("quiet")) return () => {};
  const timeout = setTimeout(() => ($("offer").hidden = false), LONG);
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

lookLater();
