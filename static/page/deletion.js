// Deleting a chat. It leaves the list at once, and is deleted a few seconds later: until then, one
// can undo that.

import { $, button, element } from "../dom.js";
import { api } from "./api.js";
import { idInURL } from "./conversation.js";
import { forgetDrafts } from "./drafts.js";
import { markRead } from "./notifications.js";
import { drawList, listChats, pendingDeletion } from "./list.js";
import { openNew } from "./replies.js";
import { attempt, sayIfAny, state } from "./screen.js";

const TIME = 8000; // ms; start again when the focus or the pointer leaves the line

let latest = null; // the deletion that can be undone

/** Removes a chat from the list and the screen. If done by a key, focuses "Undo". */
export function remove(chat, isByKey) {
  latest?.send();
  latest = new Deletion(chat);
  latest.show();
  $(isByKey ? "undo" : "new").focus();
}

class Deletion {
  constructor({ id, title }) {
    this.id = id;
    this.title = title;
    this.wasOnScreen = state.current?.id === id;
  }

  show() {
    pendingDeletion.add(this.id);
    markRead(this.id); // the end of its reply needs no notification
    if (this.wasOnScreen) {
      history.replaceState(null, "", location.pathname);
      openNew();
    }
    drawList();
    const undo = button("Undo", { id: "undo", onclick: () => this.undo() });
    const said = element("span", {}, "Deleted “", element("bdi", {}, this.title), "”.");
    $("deleted").replaceChildren(said, undo);
    this.wait();
  }

  /** Schedules the deletion, unless the focus or the pointer is on the line. */
  wait() {
    clearTimeout(this.timer);
    if (!$("deleted").matches(":hover, :focus-within")) {
      this.timer = setTimeout(() => this.send(), TIME);
    }
  }

  end() {
    latest = null;
    clearTimeout(this.timer);
    $("deleted").replaceChildren();
  }

  /** Restores the chat in the list; on the screen, too, if that still shows a new chat. */
  undo() {
    const isFocused = $("deleted").contains(document.activeElement);
    this.end();
    pendingDeletion.delete(this.id);
    drawList();
    const link = $("list").querySelector(`[href="#${this.id}"]`);
    if (isFocused) (link ?? $("new")).focus(); // a search may hide the chat
    if (this.wasOnScreen && !state.current) location.hash = this.id;
  }

  /** Deletes the chat on the server. If that fails, it returns to the list. */
  send() {
    this.end();
    attempt(async () => {
      try {
        // A 404: an earlier try arrived, and only its response was lost.
        await api("DELETE", `sessions/${this.id}`, { unless: 404, keepalive: true });
        forgetDrafts(this.id);
      } catch (error) {
        pendingDeletion.delete(this.id);
        drawList();
        throw error;
      }
      await listChats();
    }, sayIfAny)();
  }
}

for (const event of ["pointerenter", "pointerleave", "focusin", "focusout"]) {
  $("deleted").addEventListener(event, () => latest?.wait());
}

addEventListener("pagehide", () => latest?.send());

// The browser's Back button leads to the chat: undo its deletion.
addEventListener("hashchange", () => {
  if (latest && idInURL() === latest.id) latest.undo();
});
