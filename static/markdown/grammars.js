// Prism's grammars, with bounds: no code takes them long.

import { languages, tokenize } from "../vendor/prism.js";

/** Steps for each character. Ordinary code takes about one. */
const STEPS = 5;
/** Steps that even a short text may take. */
const LEAST = 500;

/** The steps that may still be made in this text. */
let steps = 0;

/**
 * A pattern that counts its steps. One step is to be asked, or to pass 100 characters. Where two
 * patterns claim what overlaps, Prism reads the rest anew. A text of such places takes it the
 * square of its length.
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

/** Grammars, and parts of grammars, whose patterns count. Some are part of themselves. */
const counting = new Set();

/** A pattern that counts. Prism makes greedy patterns global, but not as ours. */
function counted({ source, flags }, isGreedy) {
  return new CountingPattern(source, isGreedy && !flags.includes("g") ? `${flags}g` : flags);
}

/** Makes the patterns count of a grammar, of a token or of a list of tokens. */
function count(part) {
  if (!part || typeof part !== "object" || counting.has(part)) return;
  counting.add(part);
  for (const [name, value] of Object.entries(part)) {
    if (value instanceof RegExp) part[name] = counted(value, part.greedy);
    else count(value);
  }
}

count(languages);

/** The tokens of code: texts, and objects with a type. Throws RangeError if it takes too long. */
export function read(text, language) {
  steps = LEAST + STEPS * text.length;
  return tokenize(text, languages[language]);
}
