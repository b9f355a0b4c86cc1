// Finding words in a text as the server's search does: spellings that differ only in case or width
// are equal.

const isAscii = (text) => !/[\u0080-\uffff]/.test(text);

/**
 * Folds a text for comparison: as the server does with NFKC and case folding, as far as JavaScript
 * can. The result may be longer or shorter than the text.
 */
export function fold(text) {
  if (isAscii(text)) return text.toLowerCase();
  // JavaScript has no case folding. Upper case expands the same letters: "ß" becomes "SS". "ẞ" is
  // upper case already, so it has to be lowered to "ß" first.
  const upper = text.normalize("NFKC").toLowerCase().toUpperCase();
  return upper.toLowerCase().replaceAll("ς", "σ").normalize("NFKC");
}

/** The distinct words of a query, folded. */
export const wordsOf = (query) => [...new Set(fold(query).match(/\P{White_Space}+/gu))];

/** Whether a text has any of the words. */
export function hasAny(words, text) {
  const folded = fold(text);
  return words.some((word) => folded.includes(word));
}

/**
 * The matches of words in a text: `[{ word, start, end }]`, sorted by start. Matches of one word do
 * not overlap.
 */
export function matchesIn(text, words) {
  const parts = isAscii(text) ? [[text]] : text.matchAll(/\P{White_Space}+/gu);
  const matches = [...parts].flatMap(({ 0: part, index = 0 }) => matchesOf(part, index, words));
  return matches.toSorted((one, other) => one.start - other.start);
}

/** The matches in a part of the text, which starts at `offset`. */
function matchesOf(part, offset, words) {
  const folded = fold(part);
  const matches = words.flatMap((word) => occurrences(folded, word));
  if (!matches.length) return [];
  const { starts, ends } = placesOf(part, folded);
  const placed = ({ word, at }) => ({
    word,
    start: offset + starts(at),
    end: offset + ends(at + word.length - 1),
  });
  return matches.map(placed);
}

function occurrences(folded, word) {
  const found = [];
  for (let at = folded.indexOf(word); at >= 0; at = folded.indexOf(word, at + word.length)) {
    found.push({ word, at });
  }
  return found;
}

// A letter with its combining marks, or the parts (jamo) of a Korean syllable.
const CLUSTER = /[\u1100-\u11ff]+|\P{M}\p{M}*|\p{M}+/gsu;

/** Maps an index of the folded text to the start and end of its source in the original text. */
function placesOf(part, folded) {
  if (isAscii(part)) return { starts: (at) => at, ends: (at) => at + 1 };
  const clusters = [...part.matchAll(CLUSTER)].flatMap(({ 0: cluster, index }) =>
    Array.from({ length: fold(cluster).length }, () => [index, index + cluster.length]),
  );
  // If letters fold differently together than alone, indexes cannot be mapped: use the whole part.
  const isKnown = clusters.length === folded.length;
  const indexOfTurns = (at) => (isKnown ? clusters[at] : [0, part.length]);
  return { starts: (at) => indexOfTurns(at)[0], ends: (at) => indexOfTurns(at)[1] };
}
