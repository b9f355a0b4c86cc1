// Words in a text, as the server finds them: spellings that differ in case or width alone are
// equal.

const isAscii = (text) => !/[\u0080-\uffff]/.test(text);

/**
 * A text as it is compared: what the server's NFKC and case folding make of it, as far as
 * JavaScript can. It may be longer or shorter than the text.
 */
export function fold(text) {
  if (isAscii(text)) return text.toLowerCase();
  // A letter's upper case has what folding spells out: "ß" becomes "SS". Only "ẞ" has to be "ß"
  // before.
  const upper = text.normalize("NFKC").toLowerCase().toUpperCase();
  return upper.toLowerCase().replaceAll("ς", "σ").normalize("NFKC");
}

/** The words of a query, each once. */
export const wordsOf = (query) => [...new Set(fold(query).match(/\P{White_Space}+/gu))];

/** Whether any of the words is in a text. */
export function hasAny(words, text) {
  const folded = fold(text);
  return words.some((word) => folded.includes(word));
}

/**
 * Where the words are in a text: `[{ word, start, end }]`, by their beginnings. Those of one word
 * do not overlap.
 */
export function matchesIn(text, words) {
  const parts = isAscii(text) ? [[text]] : text.matchAll(/\P{White_Space}+/gu);
  const matches = [...parts].flatMap(({ 0: part, index = 0 }) => matchesOf(part, index, words));
  return matches.toSorted((one, other) => one.start - other.start);
}

/** The same of a part of the text, which begins at `offset`. */
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

// A letter with its marks; the parts of a Korean syllable.
const CLUSTER = /[\u1100-\u11ff]+|\P{M}\p{M}*|\p{M}+/gsu;

/**
 * Of a character of the folded text, where that begins and ends in the text which it is made of.
 */
function placesOf(part, folded) {
  if (isAscii(part)) return { starts: (at) => at, ends: (at) => at + 1 };
  const clusters = [...part.matchAll(CLUSTER)].flatMap(({ 0: cluster, index }) =>
    Array.from({ length: fold(cluster).length }, () => [index, index + cluster.length]),
  );
  // Where letters are one only together, the whole part is meant.
  const isKnown = clusters.length === folded.length;
  const placeOf = (at) => (isKnown ? clusters[at] : [0, part.length]);
  return { starts: (at) => placeOf(at)[0], ends: (at) => placeOf(at)[1] };
}
