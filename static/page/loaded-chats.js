// The chats that are loaded: the beginning of the server's list, or of what a search finds.

import { api, store } from "./api.js";

const FIRST = 20; // chats in the first view
const PAGE = 100; // chats per request, as the server limits it

// How a page joins those that are loaded. Fetched after the first one.
const loadPages = () => import("./chat-pages.js");

class LoadedChats {
  chats = [];
  hasMore = false; // whether the server has more
  length = FIRST; // how many shall be loaded
  top = 0; // how far the list is scrolled
  onChange = () => {};
  #byId = new Map();
  #requests = Promise.resolve();
  #refreshing = null;
  #growing = null;

  constructor(query) {
    this.query = query;
  }

  get(id) {
    return this.#byId.get(id);
  }

  set(chats, hasMore) {
    this.chats = chats;
    this.hasMore = hasMore;
    this.#byId = new Map(chats.map((chat) => [chat.id, chat]));
    if (!hasMore || chats.length > this.length) this.length = Math.max(FIRST, chats.length);
    this.onChange();
  }

  drop(id) {
    if (this.get(id)) {
      this.set(
        this.chats.filter((chat) => chat.id !== id),
        this.hasMore,
      );
    }
  }

  /** Fetches the beginning: one page, unless more than a page has changed. */
  refresh() {
    const forget = () => (this.#refreshing = null);
    this.#refreshing ??= (
      this.chats.length ? loadPages().then(({ refresh }) => refresh(this)) : this.#begin()
    ).finally(forget);
    return this.#refreshing;
  }

  async #begin() {
    const { data, meta } = await this.fetch(0, this.length);
    if (this.chats.length) return this.refresh(); // another request was faster
    this.set(data, meta.has_more);
    loadPages().catch(() => {}); // now, in case the connection is lost later
  }

  /** Fetches all that is loaded again. */
  async reload() {
    const { reload } = await loadPages();
    await reload(this);
  }

  /** Fetches more chats, until so many are loaded. */
  grow(length = this.chats.length + PAGE - 1) {
    this.#growing ??= loadPages()
      .then(({ grow }) => grow(this, length))
      .finally(() => (this.#growing = null));
    return this.#growing;
  }

  /** Fetches a page, after the requests before this one: an older answer never replaces a newer. */
  fetch(offset, count) {
    const limit = Math.min(count, PAGE);
    const request = async () => {
      if (!offset) this.#refreshing = null; // who asks for it from now on needs another request
      const place = { "page[offset]": offset, "page[limit]": limit, query: this.query };
      return { offset, ...(await api("GET", `sessions?${new URLSearchParams(place)}`)) };
    };
    const answer = this.#requests.then(request);
    this.#requests = answer.catch(() => {});
    return answer;
  }
}

/** The user's chats. */
export const all = new LoadedChats("");

let found = null; // the last search

/** The chats that have these words; all of them if there are none. */
export function chatsWith(query) {
  if (!query) return all;
  if (found?.query !== query) found = new LoadedChats(query);
  return found;
}

/** What is loaded of a chat, in both lists. */
export const copiesOf = (id) => [all, found].map((list) => list?.get(id)).filter(Boolean);

/** Removes a chat that was deleted. */
export function dropChat(id) {
  all.drop(id);
  found?.drop(id);
}

/** Fetches all that is loaded again: an import may have put chats anywhere. */
export const reloadChats = () => Promise.all([all.reload(), found?.reload()]);

// The length of the list and its position outlive a reload of the tab.

export function restoreLength() {
  const { length = FIRST, top = 0 } = JSON.parse(sessionStorage.getItem("list")) ?? {};
  Object.assign(all, { length, top });
}

addEventListener("visibilitychange", () => {
  const isSignedOut = !sessionStorage.getItem("subject");
  if (document.hidden && !isSignedOut) {
    store("list", JSON.stringify({ length: all.length, top: all.top }));
  }
});
