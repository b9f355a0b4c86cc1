// A chat that is opened from a search opens at the words that were searched, and highlights them. The
// list shows and highlights them, too.

import { $ } from "../dom.js";
import { fetchSession } from "./api.js";
import { fetchOlderIfNear, idInURL } from "./conversation.js";
import { fold, matchesIn, wordsOf } from "./folding.js";
import { Highlights } from "./highlights.js";
import { fetchExclusively, prependTurns } from "./older-turns.js";
import { showWords } from "./scroll-to-match.js";
import { announce, attempt, say, sayIfAny, state, subscribe } from "./screen.js";
import { articleOf, articles, textOf, turnOf } from "./turns.js";
import { showNewest } from "./versions.js";

const PAGE = 200; // turns
const MAX_TURNS = 2_000; // that we search, from the end
const LEAD = 12; // characters before the words in a line of the list, which shows about 35

const SEARCHING = "Looking for the words further up…";
const TOO_FAR = "The words are further up in this chat, before its last 2,000 messages.";

const inTurns = new Highlights("found", $("turns"), "article > .text");
const inList = new Highlights("listed", $("list"), "strong, span");

// Which words

const typedWords = () => wordsOf($("search").value);

let pending = null; // the chat in the URL and its words, until it is shown

$("list").addEventListener("click", ({ target }) => {
  // The chat is open already, so there will be no `hashchange`.
  if (target.closest("a")?.hash === location.hash) jump(typedWords());
});

addEventListener("hashchange", () => {
  pending = { id: idInURL(), words: typedWords() };
});

subscribe("shown", () => {
  if (pending?.id === state.current.id) jump(pending.words);
  pending = null;
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

/** A text from a word or two before the first of the typed words on, so that these are seen. */
export function fromMatch(text) {
  const [first] = matchesIn(text, typedWords());
  if (!first || first.start <= LEAD) return text;
  const space = text.indexOf(" ", first.start - LEAD - 1);
  const start = space >= 0 && space < first.start ? space + 1 : first.start;
  return `…${text.slice(start)}`;
}

// Finding the turn

const jump = attempt(async (words) => {
  if (!words.length) return;
  await fetchExclusively((signal) => showFound(words, signal));
  fetchOlderIfNear(); // the reader may have scrolled up meanwhile
}, sayIfAny);

async function showFound(words, signal) {
  showNewest(); // earlier versions are not searched
  const { id } = state.current;
  const pages = [];
  const { turn, isFurther } = await findTurn(words, turnsFromEnd(pages, signal)).finally(
    clearNotice,
  );
  await showPages(pages.slice(0, turn?.page ?? 0), signal);
  const article = turn && (turn.article ?? articleOf(turn.id));
  const isStill = () => state.current?.id === id;
  inTurns.mark(words, { isStill, first: article && textOf(article) });
  if (isFurther) say(TOO_FAR, "faint");
  if (!article) return;
  showWords(
    article,
    words.filter((word) => fold(turn.content).includes(word)),
  );
  announce(sentenceOf(article));
}

/**
 * Finds the newest turn that has all words; otherwise the newest that has a word which the title
 * lacks. If there is neither, `isFurther` says whether the words must be in older turns.
 */
async function findTurn(words, turns) {
  const title = fold(state.current.title);
  const missing = words.filter((word) => !title.includes(word));
  let [turn, count] = [null, 0];
  for await (const each of turns) {
    if (count++ === MAX_TURNS) return { turn, isFurther: !turn && missing.length > 0 };
    const content = fold(each.content);
    const isIn = (word) => content.includes(word);
    if (words.every(isIn)) return { turn: each };
    if (missing.some(isIn)) turn ??= each;
  }
  return { turn };
}

/**
 * Yields the chat's turns, from its end. Those not on the screen are fetched, and added to `pages`;
 * `page` says how many of these have to be shown for a turn.
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
    if (pages.length) say(SEARCHING, "faint");
    const page = await fetchSession(id, { limit: PAGE, before }, { signal });
    signal.throwIfAborted();
    pages.push(page);
    for (const turn of page.turns.toReversed()) {
      yield { id: turn.id, content: turn.content, page: pages.length };
    }
    [before, hasMore] = [page.turns[0].id, page.meta.has_more];
  }
}

/** The text of a turn: its Markdown if we have it. A reply in progress may not be drawn yet. */
const contentOf = (article, fetched) =>
  turnOf(article)?.content ?? fetched.get(article.dataset.id) ?? textOf(article).textContent;

function clearNotice() {
  if ($("notice").textContent === SEARCHING) say("");
}

/** Shows pages of older turns. Between two, the browser may handle other events. */
async function showPages(pages, signal) {
  for (const page of pages) {
    prependTurns(page);
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
  }
}

/** The announcement for a screen reader. */
function sentenceOf(article) {
  const [name, time] = ["bdi", "time"].map((tag) => article.querySelector(`h2 ${tag}`).textContent);
  return `Found in what ${name} said, ${time}.`;
}
