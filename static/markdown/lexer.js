// marked's lexer with limits: no text takes it long, whatever its nesting and its opening marks.

import { getDefaults, Lexer, Tokenizer } from "../vendor/marked.js";
import { MAX_DEPTH, near } from "./limits.js";
import { details, math, mathBlock, startOfBlock } from "./extensions.js";

/** Characters that we search for the end of a text. No e-mail address is longer. */
const MAX_WORD = 300;
/** Steps per character to match marks of emphasis. Ordinary text takes less than one. */
const STEPS = 5;

/** The steps left for this paragraph. */
let steps = 0;

/**
 * A pattern that stops matching after too many steps: a step is a call, or 100 characters passed.
 */
class CountingPattern extends RegExp {
  exec(text) {
    const from = this.lastIndex; // always 0 if the pattern is not global
    const found = steps > 0 ? super.exec(text) : null;
    const passed = found ? found.index + found[0].length - from : 0;
    steps -= 1 + passed / 100;
    return found;
  }
}

const PATTERNS = Lexer.rules.inline.gfm;
const OF_EMPHASIS = [
  "emStrongLDelim",
  "emStrongRDelimAst",
  "emStrongRDelimUnd",
  "delLDelim",
  "delRDelim",
];
for (const name of OF_EMPHASIS) PATTERNS[name] = new CountingPattern(PATTERNS[name]);
// With this pattern, marked looks for a label of up to 999 characters at each bracket, so that no
// emphasis ends inside one. 99 are enough.
PATTERNS.reflinkSearch = new RegExp(PATTERNS.reflinkSearch.source.replaceAll("999", "99"), "g");

const ADDRESS = /^(?:https?:|ftp:|www\.|mailto:|xmpp:|[\w.+-]{1,64}@)/i;

class NearTokenizer extends Tokenizer {
  /** The depth of quotes around the text. */
  quotes = 0;

  /**
   * marked reads all rows before it compares the header with the line below it, and fills each row
   * up with empty cells. So we check the header first, and refuse a table of mostly empty cells.
   */
  table(source) {
    const header = super.table(source.split("\n", 2).join("\n"))?.header;
    const text = header ? source.split(/\n[ \t]*\n/, 1)[0] : "";
    if (!header || header.length * text.split("\n").length > text.length) return undefined;
    return super.table(source);
  }

  /** marked also recurses here without nesting, if lines that follow belong to an inner quote. */
  blockquote(source) {
    if (this.quotes === MAX_DEPTH) return undefined;
    this.quotes++;
    const token = super.blockquote(source);
    this.quotes--;
    return token;
  }

  url(source) {
    return ADDRESS.test(source) ? super.url(near(source)) : undefined;
  }

  /** Plain text may end anywhere but inside a URL or between the spaces at the end of a line. */
  inlineText(source) {
    const view = source.slice(0, MAX_WORD);
    const words = view.slice(0, view.lastIndexOf(" ")).trimEnd();
    return super.inlineText(source.length > MAX_WORD && words ? words : view);
  }
}

for (const name of ["lheading", "def", "link", "reflink", "tag", "codespan", "autolink"]) {
  NearTokenizer.prototype[name] = function (source, ...rest) {
    return Tokenizer.prototype[name].call(this, near(source), ...rest);
  };
}

const OPTIONS = {
  ...getDefaults(),
  tokenizer: new NearTokenizer(),
  extensions: {
    block: [mathBlock, details],
    startBlock: [startOfBlock],
    inline: [math],
    startInline: [(source) => source.slice(0, MAX_WORD).indexOf("$")],
    childTokens: {},
    renderers: {},
  },
};

class BoundedLexer extends Lexer {
  depth = 0;

  blockTokens(source, tokens = [], clipped = false) {
    return this.bounded(source, tokens, () => super.blockTokens(source, tokens, clipped));
  }

  inlineTokens(source, tokens = []) {
    if (this.depth === 0) {
      steps = STEPS * source.length;
      this.state.inLink = false; // an unclosed `<a>` ends with its paragraph
    }
    return this.bounded(source, tokens, () => super.inlineTokens(source, tokens));
  }

  bounded(source, tokens, lex) {
    if (this.depth++ < MAX_DEPTH) lex();
    else tokens.push({ type: "text", raw: source, text: source });
    this.depth--;
    return tokens;
  }
}

function lexerWith(links) {
  const lexer = new BoundedLexer(OPTIONS);
  lexer.tokens.links = links;
  return lexer;
}

/** The tokens of a text. `links`: the link definitions so far; those of the text are added. */
export const lex = (text, links) => lexerWith(links).lex(text);

/** Adds the link definitions of a text to `links`. */
export const define = (text, links) => void lexerWith(links).blockTokens(text);
