// The chats that are loaded: the beginning of the server's list, or of what a search finds. Between
// two requests, chats may be added, moved or deleted, also elsewhere.

import { api, store } from "./api.js";

const FIRST = 20; // chats in the first view
const PAGE = 100; // chats per request, as the server limits it

/**
 * A text that sorts as the server's list does: the greatest comes first. The times have whole
 * seconds, so chats of the same second have the same rank.
 */
const rankOf = ({ pinned, updated_at }) => `${pinned ? 1 : 0}${updated_at}`;

const byRank = (one, other) => (rankOf(one) < rankOf(other)) - (rankOf(one) > rankOf(other));

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

  /** Fetches the beginning: one page, unless more than a page has changed. */
  refresh() {
    this.#refreshing ??= this.#walk(0, this.length, true);
    return this.#refreshing;
  }

  /** Fetches all that is loaded again. */
  reload() {
    return this.#walk(0, this.length);
  }

  /** Fetches more chats until so many are loaded. */
  grow(length = this.chats.length + PAGE - 1) {
    this.#growing ??= this.#walk(this.chats.length, length).finally(() => (this.#growing = null));
    return this.#growing;
  }

  drop(id) {
    if (this.get(id)) this.#set(this.chats.filter((chat) => chat.id !== id));
  }

  /** Fetches the chats between two places, page by page. */
  async #walk(from, to, isRefresh = false) {
    let end = this.chats[from - 1];
    let offset = Math.max(0, from - 1);
    let [hasMoved, isJoined, isDone] = [false, false, false];
    while (!isDone) {
      const page = await this.#pageAfter(end, offset, Math.min(to - offset, PAGE));
      hasMoved ||= page.isShifted;
      isJoined = this.#take(page);
      this.onChange();
      end = page.data.at(-1);
      offset = page.offset + page.data.length - 1;
      isDone = !page.meta.has_more || offset + 1 >= to || (isRefresh && isJoined);
    }
    if (!isJoined) this.#cutAfter(end);
    if (hasMoved) await this.refresh(); // a chat may have moved from a later page to the first
  }

  /**
   * A page begins with the last chat of the one before. If it does not, chats were deleted
   * meanwhile, and some may be missing between the two: we go back.
   */
  async #pageAfter(end, offset, limit) {
    const page = await this.#fetch(offset, limit);
    page.isShifted = Boolean(end) && page.data[0]?.id !== end.id;
    if (!page.isShifted || !offset || follows(page.data, end)) return page;
    return this.#pageAfter(end, Math.max(0, offset - PAGE + 1), PAGE);
  }

  /** Fetches a page, after the requests before this one: an older answer never replaces a newer. */
  #fetch(offset, limit) {
    const request = async () => {
      if (!offset) this.#refreshing = null; // who asks for it from now on needs another request
      const place = { "page[offset]": offset, "page[limit]": limit, query: this.query };
      return { offset, ...(await api("GET", `sessions?${new URLSearchParams(place)}`)) };
    };
    const answer = this.#requests.then(request);
    this.#requests = answer.catch(() => {});
    return answer;
  }

  /**
   * Puts a page into the list: other chats that were between its first and its last are gone.
   * Returns whether none can be missing between the page and the chats after it.
   */
  #take({ data, meta, offset }) {
    const ids = new Map(data.map((chat) => [chat.id, rankOf(chat)]));
    const isSame = (chat) => ids.get(chat.id) === rankOf(chat);
    const [firstSame, lastSame] = [this.chats.findIndex(isSame), this.chats.findLastIndex(isSame)];
    const first = data.length ? rankOf(data[0]) : "";
    const last = data.length ? rankOf(data.at(-1)) : "";
    const isBefore = (rank, at) =>
      offset > 0 && (rank > first || (rank === first && (firstSame < 0 || at < firstSame)));
    const isAfter = (rank, at) =>
      meta.has_more && (rank < last || (rank === last && at > lastSame));
    const [before, after] = [[], []];
    this.chats.forEach((chat, at) => {
      if (ids.has(chat.id)) return;
      if (isBefore(rankOf(chat), at)) before.push(chat);
      else if (isAfter(rankOf(chat), at)) after.push(chat);
      else if (chat.pinned) this.#unpin(chat, last, after);
    });
    const isJoined = !after.length || this.chats.some((chat) => !chat.pinned && isSame(chat));
    this.hasMore = meta.has_more && (!after.length || this.hasMore);
    this.#set([...before, ...data, ...after.toSorted(byRank)]);
    return isJoined;
  }

  /** A chat that is no longer among the pinned ones may be among the others. */
  #unpin(pinned, last, after) {
    const chat = { ...pinned, pinned: false };
    const isLoaded = !this.hasMore || rankOf(chat) > rankOf(this.chats.at(-1));
    if (isLoaded && rankOf(chat) < last) after.push(chat);
  }

  #cutAfter(end) {
    const at = this.chats.findIndex(({ id }) => id === end?.id);
    if (at < 0 || at === this.chats.length - 1) return;
    this.hasMore = true;
    this.#set(this.chats.slice(0, at + 1));
    this.onChange();
  }

  #set(chats) {
    this.chats = chats;
    this.#byId = new Map(chats.map((chat) => [chat.id, chat]));
    if (!this.hasMore || chats.length > this.length) this.length = Math.max(FIRST, chats.length);
  }
}

/** Whether no chat is missing between this one and a page. */
const follows = (page, end) =>
  page.some(({ id }) => id === end.id) || (page.length > 0 && rankOf(page[0]) > rankOf(end));

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
  const { length, top } = all;
  if (document.hidden) store("list", JSON.stringify({ length, top }));
});
