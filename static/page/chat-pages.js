// Joins pages of the server's list with the chats that are loaded. Between two requests, chats may be
// added, moved or deleted, also elsewhere.

const PAGE = 100; // chats

/**
 * A text that sorts as the server's list does: the greatest comes first. The times have whole
 * seconds, so chats of the same second have the same rank.
 */
const rankOf = ({ pinned, updated_at }) => `${pinned ? 1 : 0}${updated_at}`;

const byRank = (one, other) => (rankOf(one) < rankOf(other)) - (rankOf(one) > rankOf(other));

/** Whether no chat is missing between this one and a page. */
const follows = (page, end) =>
  page.some(({ id }) => id === end.id) || (page.length > 0 && rankOf(page[0]) > rankOf(end));

/** Fetches the beginning again, up to a chat that shows where the loaded ones join it. */
export const refresh = (list) => walk(list, 0, list.length, true);

export const reload = (list) => walk(list, 0, list.length);

export const grow = (list, length) => walk(list, list.chats.length, length);

/** Fetches the chats between two places, page by page. */
async function walk(list, from, to, isRefresh = false) {
  let end = list.chats[from - 1];
  let offset = Math.max(0, from - 1);
  let [hasMoved, isJoined, isDone] = [false, false, false];
  while (!isDone) {
    const page = await pageAfter(list, end, offset, to - offset);
    hasMoved ||= page.isShifted;
    isJoined = take(list, page);
    end = page.data.at(-1);
    offset = page.offset + page.data.length - 1;
    isDone = !page.meta.has_more || offset + 1 >= to || (isRefresh && isJoined);
  }
  if (!isJoined) cutAfter(list, end);
  if (hasMoved) await list.refresh(); // a chat may have moved from a later page to the first
}

/**
 * A page begins with the last chat of the one before. If it does not, chats were deleted
 * meanwhile, and some may be missing between the two: we go back.
 */
async function pageAfter(list, end, offset, limit) {
  const page = await list.fetch(offset, limit);
  page.isShifted = Boolean(end) && page.data[0]?.id !== end.id;
  if (!page.isShifted || !offset || follows(page.data, end)) return page;
  return pageAfter(list, end, Math.max(0, offset - PAGE + 1), PAGE);
}

/**
 * Puts a page into the list: other chats that were between its first and its last are gone.
 * Returns whether none can be missing between the page and the chats after it.
 */
function take(list, { data, meta, offset }) {
  const ids = new Map(data.map((chat) => [chat.id, rankOf(chat)]));
  const isSame = (chat) => ids.get(chat.id) === rankOf(chat);
  const [firstSame, lastSame] = [list.chats.findIndex(isSame), list.chats.findLastIndex(isSame)];
  const first = data.length ? rankOf(data[0]) : "";
  const last = data.length ? rankOf(data.at(-1)) : "";
  const isBefore = (rank, at) =>
    offset > 0 && (rank > first || (rank === first && (firstSame < 0 || at < firstSame)));
  const isAfter = (rank, at) => meta.has_more && (rank < last || (rank === last && at > lastSame));
  const [before, after] = [[], []];
  list.chats.forEach((chat, at) => {
    if (ids.has(chat.id)) return;
    if (isBefore(rankOf(chat), at)) before.push(chat);
    else if (isAfter(rankOf(chat), at)) after.push(chat);
    else if (chat.pinned) unpin(list, chat, last, after);
  });
  const isJoined = !after.length || list.chats.some((chat) => !chat.pinned && isSame(chat));
  const hasMore = meta.has_more && (!after.length || list.hasMore);
  list.set([...before, ...data, ...after.toSorted(byRank)], hasMore);
  return isJoined;
}

/** A chat that is no longer among the pinned ones may be among the others. */
function unpin(list, pinned, last, after) {
  const chat = { ...pinned, pinned: false };
  const isLoaded = !list.hasMore || rankOf(chat) > rankOf(list.chats.at(-1));
  if (isLoaded && rankOf(chat) < last) after.push(chat);
}

function cutAfter(list, end) {
  const at = list.chats.findIndex(({ id }) => id === end?.id);
  if (at < 0 || at === list.chats.length - 1) return;
  list.set(list.chats.slice(0, at + 1), true);
}
