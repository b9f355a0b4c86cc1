// Prism's grammars with a limit, so that no code takes long.

import { languages, tokenize } from "../vendor/prism.js";

/** Steps per character. Ordinary code takes about one. */
const STEPS = 5;
/** Steps that every text may take. */
const MIN_STEPS = 500;

/** The steps left for this text. */
let steps = 0;

/**
 * A pattern that counts its steps: a step is one call, or 100 characters scanned. When matches of
 * two patterns overlap, Prism tokenizes the rest again, so a text full of overlaps takes quadratic
 * time.
 */
class CountingPattern extends RegExp {
  exec(text) {
    const from = this.lastIndex;
    const found = super.exec(text);
    const end = found ? found.index + found[0].length : text.length;
    steps -= 1 + (end - from) / 100;
    if (steps < 0) throw new RangeError("The code takes too many steps.");
    return found;
  }
}

/** The grammars, and parts of them, that were changed already. Some contain themselves. */
const counting = new Set();

/**
 * Makes a counting pattern. Prism would replace a greedy pattern without the flag `g` by a plain
 * RegExp with it, so we set the flag.
 */
function counted({ source, flags }, isGreedy) {
  return new CountingPattern(source, isGreedy && !flags.includes("g") ? `${flags}g` : flags);
}

/** Makes all patterns in a grammar, a token or a list of tokens count. */
function count(part) {
  if (!part || typeof part !== "object" || counting.has(part)) return;
  counting.add(part);
  for (const [name, value] of Object.entries(part)) {
    if (value instanceof RegExp) part[name] = counted(value, part.greedy);
    else count(value);
  }
}

count(languages);

/**
 * Tokenizes code: returns strings, and objects with a type. Throws RangeError if it takes too long.
 */
export function read(text, language) {
  steps = MIN_STEPS + STEPS * text.length;
  return tokenize(text, languages[language]);
}
