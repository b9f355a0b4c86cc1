// The plain text of a part of a message, for its preview in the list: its beginning, or what is
// around the words that were searched. The server may have cut it anywhere, and joined its lines.

/** Characters of a message that we read. */
const MAX_LENGTH = 500;

/**
 * Text that is not Markdown: code blocks, code spans, formulas and escaped characters. The named
 * group is what the preview shows of it.
 */
const KEPT = new RegExp(
  [
    /(?<fence>`{3,}|~{3,})[\w+#.-]*(?:\s+|$)(?<block>[^]*?)(?:\s*\k<fence>|$)/,
    /(?<ticks>`+)(?!`)(?<code>[^]+?)(?<!`)\k<ticks>(?!`)/,
    /\$\$[^]+?\$\$|\\\[[^]+?\\\]|\\\([^]+?\\\)/,
    /\$(?![\s$])(?:\\.|[^$\\\n`])+(?<!\s)\$(?!\d)/,
    /\\(?<escaped>[!-'*-/:-@^-`{-~])/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "g",
);
/** Stand-ins for such text: one private-use character of Unicode each. */
const FIRST = 0xe000;
const STAND_IN = /[\ue000-\uf8ff]/g;

/** The text of a link, which may contain brackets, and its target. */
const LABEL = /!?\[((?:[^[\]]|\[[^[\]]*\])*)\]/.source;
const TARGET = /(?:\((?:[^()]|\([^()]*\))*(?:\)|$)|\[[^[\]]*(?:\]|$))/.source;
const LINK = new RegExp(LABEL + TARGET, "g");

/** Marks and their replacements, in the order in which they are applied. */
const MARKS = [
  [/<\/?(?:details|summary)\b[^>]*(?:>|$)/gi, " "],
  [/<((?:https?:|mailto:)[^\s<>]*)>/g, "$1"],
  [LINK, "$1"], // an image inside a link
  [LINK, "$1"],
  [/(?<![^\s(])!?\[([^\s[\]][^[\]]*)$/, "$1"], // a link that is cut off in its text
  [/^[ \t]*(?:>[ \t]?)+/gm, ""], // quotes
  [/(?<!\S)(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|={3,})(?!\S)/g, ""], // rules
  [/^[ \t]*#{1,6}(?:[ \t]+|$)/gm, ""], // headings
  [/(?<!\S)#{2,6}\s+/g, ""], // headings in joined lines
  [/^[ \t]*(?:[-+*]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?/gm, ""], // lists
  [/(?<!\S)[-+*] \[[ xX]\] /g, ""], // tasks in joined lines
  [/\*\*\*(?=\S)((?:[^*]|\*(?!\*\*))*?\S)\*\*\*/g, "$1"],
  [/\*\*(?=\S)((?:[^*]|\*(?!\*))*?\S)\*\*/g, "$1"],
  [/(?<!\*)\*(?=[^\s*])([^*]*?[^\s*])\*(?!\*)/g, "$1"],
  [/(?<!\w)(_{1,3})(?=\S)((?:[^_]|(?<=\w)_(?=\w))*\S)\1(?!\w)/g, "$2"],
  [/~~(?=\S)([^~]*\S)~~/g, "$1"],
  [/(?<![^\s("'])(?:\*{2,3}|_{2,3}|~~)(?=\S)/g, ""], // emphasis that is cut off at its end
  [/(?<=\S)(?:\*{2,3}|~~)(?![^\s)"'.,:;!?])/g, ""], // or at its beginning
  [/^[*_](?=\p{L})/u, ""],
];

/** The line below the header of a table, also in joined lines. */
const BELOW_HEADER =
  /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*(?::?-+:?)?[ \t]*$|\|(?:\s*:?-{2,}:?\s*\|)+/gm;

/** A text without the `|` between table cells, if it has a table. */
function withoutCells(text) {
  const shown = text.replace(BELOW_HEADER, " ");
  return shown === text && !/^\s*\|/.test(text) ? text : shown.replaceAll("|", " ");
}

/**
 * The plain text of a part of a message: without the marks of emphasis, headings, lists, quotes,
 * tables, code and links. `**Use** [this](https://example.com)` becomes `Use this`. Formulas stay
 * as written.
 */
export function plain(text) {
  const kept = [];
  const keep = (whole, ...rest) => {
    const { block, code, escaped } = rest.at(-1);
    kept.push(block ?? code ?? escaped ?? whole);
    return String.fromCharCode(FIRST + kept.length - 1);
  };
  let shown = withoutCells(text.slice(0, MAX_LENGTH).replace(KEPT, keep));
  for (const [mark, instead] of MARKS) shown = shown.replace(mark, instead);
  shown = shown.replaceAll("`", "");
  shown = shown.replace(STAND_IN, (sign) => kept[sign.charCodeAt(0) - FIRST] ?? sign);
  return shown.replace(/\s+/g, " ").trim();
}
