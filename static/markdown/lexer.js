// marked's lexer, with bounds: no text takes it long, however it nests and whatever it begins.

import { Lexer, Tokenizer, getDefaults } from "../vendor/marked.js";
import { DEEPEST, near } from "./bounds.js";
import { details, math, mathBlock, startOfBlock } from "./syntax.js";

/** Characters that are looked through for where a text ends. No address of mail is longer. */
const WORD = 300;
/** Steps for each character to match the marks of emphasis. Ordinary text takes less than one. */
const STEPS = 5;

/** The steps that may still be made in this paragraph. */
let steps = 0;

/**
 * A pattern that finds nothing any more once there were too many steps. One step is to find a mark,
 * or to pass 100 characters.
 */
class CountingPattern extends RegExp {
  exec(text) {
    const from = this.lastIndex; // It stays 0 where the pattern is not global.
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
// By this pattern marked looks for labels of up to 999 characters at each bracket, so that no
// emphasis ends in one.
PATTERNS.reflinkSearch = new RegExp(PATTERNS.reflinkSearch.source.replaceAll("999", "99"), "g");

const ADDRESS = /^(?:https?:|ftp:|www\.|mailto:|xmpp:|[\w.+-]{1,64}@)/i;

class NearTokenizer extends Tokenizer {
  /** The quotes that the text stands in. */
  quotes = 0;

  /**
   * marked reads the rows before it compares the header with the line below, and fills each row up
   * with empty cells.
   */
  table(source) {
    const header = super.table(source.split("\n", 2).join("\n"))?.header;
    const text = header ? source.split(/\n[ \t]*\n/, 1)[0] : "";
    if (!header || header.length * text.split("\n").length > text.length) return undefined;
    return super.table(source);
  }

  /** marked recurses here without nesting where lines follow that belong to an inner quote. */
  blockquote(source) {
    if (this.quotes === DEEPEST) return undefined;
    this.quotes++;
    const token = super.blockquote(source);
    this.quotes--;
    return token;
  }

  url(source) {
    return ADDRESS.test(source) ? super.url(near(source)) : undefined;
  }

  /** A text may end anywhere but within an address, or between the spaces at a line's end. */
  inlineText(source) {
    const view = source.slice(0, WORD);
    const words = view.slice(0, view.lastIndexOf(" ")).trimEnd();
    return super.inlineText(source.length > WORD && words ? words : view);
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
    startInline: [(source) => source.slice(0, WORD).indexOf("$")],
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
      this.state.inLink = false; // A link that was opened in HTML ends with its paragraph.
    }
    return this.bounded(source, tokens, () => super.inlineTokens(source, tokens));
  }

  bounded(source, tokens, lex) {
    if (this.depth++ < DEEPEST) lex();
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

/** The tokens of a text. `links` are the definitions before it, to which its own are added. */
export const lex = (text, links) => lexerWith(links).lex(text);

/** Adds the definitions of a text to the links. */
export const define = (text, links) => void lexerWith(links).blockTokens(text);
