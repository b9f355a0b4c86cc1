// Deleting chats. They leave the list at once, and are deleted a few seconds later: until then, one
// can undo that.

import { $, button, element } from "../dom.js";
import { api } from "./api.js";
import { idInURL } from "./conversation.js";
import { forgetDrafts } from "./drafts.js";
import { markRead } from "./notifications.js";
import { drawList, listChats, pendingDeletion } from "./list.js";
import { dropChat } from "./loaded-chats.js";
import { openNew } from "./replies.js";
import { attempt, sayIfAny, state } from "./screen.js";

const TIME = 8000; // ms; start again when the focus or the pointer leaves the line

let latest = null; // the deletion that can be undone
const unsent = new Set(); // ids of chats that the server has not been asked to delete yet

/** Removes chats from the list and the screen. If done by a key, focuses "Undo". */
export function remove(chats, isByKey) {
  latest?.send();
  latest = new Deletion(chats);
  latest.show();
  $(isByKey ? "undo" : "new").focus();
}

class Deletion {
  constructor(chats) {
    this.chats = chats;
    this.ids = chats.map(({ id }) => id);
    this.idOnScreen = this.ids.find((id) => id === state.current?.id);
  }

  show() {
    for (const id of this.ids) {
      pendingDeletion.add(id);
      markRead(id); // the end of its reply needs no notification
    }
    if (this.idOnScreen) {
      history.replaceState(null, "", location.pathname);
      openNew();
    }
    drawList();
    const undo = button("Undo", { id: "undo", onclick: () => this.undo() });
    $("deleted").replaceChildren(this.sentence(), undo);
    this.wait();
  }

  sentence() {
    const [{ title }, ...others] = this.chats;
    if (others.length) return element("span", {}, `Deleted ${this.chats.length} chats.`);
    return element("span", {}, "Deleted “", element("bdi", {}, title), "”.");
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

  /** Restores the chats in the list; on the screen, too, if that still shows a new chat. */
  undo() {
    const isFocused = $("deleted").contains(document.activeElement);
    this.end();
    for (const id of this.ids) pendingDeletion.delete(id);
    drawList();
    const link = $("list").querySelector(`[href="#${this.ids[0]}"]`);
    if (isFocused) (link ?? $("new")).focus(); // a search may hide the chat
    if (this.idOnScreen && !state.current) location.hash = this.idOnScreen;
  }

  /** Deletes the chats on the server, one after the other. Those that fail return to the list. */
  send() {
    this.end();
    for (const id of this.ids) unsent.add(id);
    attempt(async () => {
      let failure = null;
      for (const id of this.ids) {
        try {
          await deleteOnServer(id);
        } catch (error) {
          pendingDeletion.delete(id);
          failure = error;
        }
      }
      drawList();
      if (failure) throw failure;
      await listChats();
    }, sayIfAny)();
  }
}

async function deleteOnServer(id) {
  unsent.delete(id);
  // A 404: an earlier try arrived, and only its response was lost.
  await api("DELETE", `sessions/${id}`, { unless: 404, keepalive: true });
  dropChat(id);
  forgetDrafts(id);
}

for (const event of ["pointerenter", "pointerleave", "focusin", "focusout"]) {
  $("deleted").addEventListener(event, () => latest?.wait());
}

// When the page is left, there is no time to wait for an answer before the next request.
addEventListener("pagehide", () => {
  latest?.send();
  for (const id of unsent) deleteOnServer(id).catch(() => {});
});

// The browser's Back button leads to the chat: undo its deletion.
addEventListener("hashchange", () => {
  if (latest?.ids.includes(idInURL())) latest.undo();
});
