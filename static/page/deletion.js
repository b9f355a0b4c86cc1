// A chat is deleted some seconds after it has left the list: until then, that can be undone.

import { $, button, element } from "../dom.js";
import { api } from "./api.js";
import { idInAddress } from "./conversation.js";
import { forgetDrafts } from "./drafts.js";
import { see } from "./endings.js";
import { doomed, draw, list } from "./list.js";
import { openNew } from "./replies.js";
import { attempt, sayIfAny, state } from "./screen.js";

const TIME = 8000; // ms; they begin anew when the focus or the pointer leaves the line

let latest = null; // the deletion that can be undone

/** Takes a chat from the list, and from the screen. By a key, the focus goes to "Undo". */
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
    doomed.add(this.id);
    see(this.id); // the end of its reply is no news any more
    if (this.wasOnScreen) {
      history.replaceState(null, "", location.pathname);
      openNew();
    }
    draw();
    const undo = button("Undo", { id: "undo", onclick: () => this.undo() });
    const told = element("span", {}, "Deleted “", element("bdi", {}, this.title), "”.");
    $("deleted").replaceChildren(told, undo);
    this.wait();
  }

  /** Has it be sent after a while, but not while the focus or the pointer is on the line. */
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

  /** Brings it back to its place in the list, and to the screen where a new chat is there still. */
  undo() {
    const isFocused = $("deleted").contains(document.activeElement);
    this.end();
    doomed.delete(this.id);
    draw();
    const link = $("list").querySelector(`[href="#${this.id}"]`);
    if (isFocused) (link ?? $("new")).focus(); // it may be another search by now
    if (this.wasOnScreen && !state.current) location.hash = this.id;
  }

  /** Has the server delete it. Where that fails, it is in the list again. */
  send() {
    this.end();
    attempt(async () => {
      try {
        // An earlier try had arrived, and only its response was lost.
        await api("DELETE", `sessions/${this.id}`, { unless: 404, keepalive: true });
        forgetDrafts(this.id);
      } catch (error) {
        doomed.delete(this.id);
        draw();
        throw error;
      }
      await list();
    }, sayIfAny)();
  }
}

for (const event of ["pointerenter", "pointerleave", "focusin", "focusout"]) {
  $("deleted").addEventListener(event, () => latest?.wait());
}

addEventListener("pagehide", () => latest?.send());

// The browser's Back leads to the chat: it is wanted again.
addEventListener("hashchange", () => {
  if (latest && idInAddress() === latest.id) latest.undo();
});
