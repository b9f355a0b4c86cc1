// A chat that is opened from what a search has found opens at the place of the words, which are
// marked.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { fetchWhereNear, idInAddress } from "./conversation.js";
import { fold, wordsOf } from "./folding.js";
import { Marks } from "./marks.js";
import { fetchAlone, showBefore } from "./older.js";
import { showWords } from "./place.js";
import { announce, attempt, hear, say, sayIfAny, state } from "./screen.js";
import { articleOf, articles, textOf, turnOf } from "./turns.js";

const PAGE = 200; // turns
const MOST = 2_000; // turns that are looked through

const LOOKING = "Looking for the words further up…";
const FURTHER = "The words are further up in this chat, before its last 2,000 messages.";

const inTurns = new Marks("found", $("turns"), "article > .text");
const inList = new Marks("listed", $("list"), "strong, span");

// Which words are sought

const typedWords = () => wordsOf($("search").value);

let sought = null; // what is sought in the chat that the address names, until that is shown

$("list").addEventListener("click", ({ target }) => {
  // No other chat will be opened.
  if (target.closest("a")?.hash === location.hash) look(typedWords());
});

addEventListener("hashchange", () => {
  sought = { id: idInAddress(), words: typedWords() };
});

hear("shown", () => {
  if (sought?.id === state.current.id) look(sought.words);
  sought = null;
});

function markList() {
  if (typedWords().length) inList.mark(typedWords());
  else {
    inList.clear();
    inTurns.clear();
  }
}

$("search").addEventListener("input", markList);
markList();

// The place is looked for

const look = attempt(async (words) => {
  if (!words.length) return;
  await fetchAlone((signal) => showFound(words, signal));
  fetchWhereNear(); // the reader may have scrolled up meanwhile
}, sayIfAny);

async function showFound(words, signal) {
  const { id } = state.current;
  const pages = [];
  const { turn, isFurther } = await findTurn(words, turnsFromEnd(pages, signal)).finally(
    endLooking,
  );
  await showPages(pages.slice(0, turn?.page ?? 0), signal);
  const article = turn && (turn.article ?? articleOf(turn.id));
  const isStill = () => state.current?.id === id;
  inTurns.mark(words, { isStill, first: article && textOf(article) });
  if (isFurther) say(FURTHER, "faint");
  if (!article) return;
  showWords(
    article,
    words.filter((word) => fold(turn.content).includes(word)),
  );
  announce(sentenceOf(article));
}

/**
 * The newest turn that has all words; without one, the newest that has any of those that the title
 * lacks. Some chats have neither: `isFurther` says that the words are in what was not looked
 * through.
 */
async function findTurn(words, turns) {
  const title = fold(state.current.title);
  const lacking = words.filter((word) => !title.includes(word));
  let [turn, count] = [null, 0];
  for await (const each of turns) {
    if (count++ === MOST) return { turn, isFurther: !turn && lacking.length > 0 };
    const content = fold(each.content);
    const isIn = (word) => content.includes(word);
    if (words.every(isIn)) return { turn: each };
    if (lacking.some(isIn)) turn ??= each;
  }
  return { turn };
}

/**
 * Yields the turns of the chat, from its end on. Those that are not shown are fetched, and added to
 * `pages`; `page` says how many of these a turn needs.
 */
async function* turnsFromEnd(pages, signal) {
  const { id, turns = [], meta } = state.current;
  const fetched = new Map(turns.map((turn) => [turn.id, turn.content]));
  const shown = articles();
  for (const article of shown.toReversed()) {
    yield { article, content: contentOf(article, fetched), page: 0 };
  }
  let [before, hasMore] = [shown[0]?.dataset.id, meta?.has_more];
  while (hasMore) {
    if (pages.length) say(LOOKING, "faint");
    const page = await fetchSession(id, { limit: PAGE, before }, { signal });
    signal.throwIfAborted();
    pages.push(page);
    for (const turn of page.turns.toReversed()) {
      yield { id: turn.id, content: turn.content, page: pages.length };
    }
    [before, hasMore] = [page.turns[0].id, page.meta.has_more];
  }
}

/** What a turn says, its Markdown if it is known. A reply under way may not be drawn yet. */
const contentOf = (article, fetched) =>
  turnOf(article)?.content ?? fetched.get(article.dataset.id) ?? textOf(article).textContent;

function endLooking() {
  if ($("notice").textContent === LOOKING) say("");
}

/**
 * Shows pages of turns before those that are shown. Between two, the browser has time for others.
 */
async function showPages(pages, signal) {
  for (const page of pages) {
    showBefore(page);
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
  }
}

/** What is said to who does not see the place. */
function sentenceOf(article) {
  const [name, time] = ["bdi", "time"].map((tag) => article.querySelector(`h3 ${tag}`).textContent);
  return `Found in what ${name} said, ${time}.`;
}
