// The plain text of a message's beginning, for a line that previews it. The text may be cut
// anywhere, and its lines may have been joined.

/** Characters of a message that are looked at. */
const LONGEST = 500;

/**
 * What has signs that are no marks: fenced code, code within a line, formulas and what is escaped.
 * Its group is what is shown of it.
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
/** Stand-ins for what is kept: one character of Unicode's private use each. */
const FIRST = 0xe000;
const STAND_IN = /[\ue000-\uf8ff]/g;

/** What stands in the brackets of a link, which may hold brackets, and where the link leads. */
const LABEL = /!?\[((?:[^[\]]|\[[^[\]]*\])*)\]/.source;
const TARGET = /(?:\((?:[^()]|\([^()]*\))*(?:\)|$)|\[[^[\]]*(?:\]|$))/.source;
const LINK = new RegExp(LABEL + TARGET, "g");

/** Marks, and what is shown in their place, in the order in which they are looked for. */
const MARKS = [
  [/<\/?(?:details|summary)\b[^>]*(?:>|$)/gi, " "],
  [/<((?:https?:|mailto:)[^\s<>]*)>/g, "$1"],
  [LINK, "$1"], // of an image within a link
  [LINK, "$1"],
  [/(?<![^\s(])!?\[([^\s[\]][^[\]]*)$/, "$1"], // a link that is cut off in its text
  [/^[ \t]*(?:>[ \t]?)+/gm, ""], // quotes
  [/(?<!\S)(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|={3,})(?!\S)/g, ""], // rules
  [/^[ \t]*#{1,6}(?:[ \t]+|$)/gm, ""], // headings
  [/(?<!\S)#{2,6}\s+/g, ""], // the same, where the lines were joined
  [/^[ \t]*(?:[-+*]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?/gm, ""], // lists
  [/(?<!\S)[-+*] \[[ xX]\] /g, ""], // tasks, where the lines were joined
  [/\*\*\*(?=\S)((?:[^*]|\*(?!\*\*))*?\S)\*\*\*/g, "$1"],
  [/\*\*(?=\S)((?:[^*]|\*(?!\*))*?\S)\*\*/g, "$1"],
  [/(?<!\*)\*(?=[^\s*])([^*]*?[^\s*])\*(?!\*)/g, "$1"],
  [/(?<!\w)(_{1,3})(?=\S)((?:[^_]|(?<=\w)_(?=\w))*\S)\1(?!\w)/g, "$2"],
  [/~~(?=\S)([^~]*\S)~~/g, "$1"],
  [/(?<![^\s("'])(?:\*{2,3}|_{2,3}|~~)(?=\S)/g, ""], // emphasis that is cut off
  [/^[*_](?=\p{L})/u, ""],
];

/** The line below the header of a table, also where the lines were joined. */
const BELOW_HEADER =
  /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*(?::?-+:?)?[ \t]*$|\|(?:\s*:?-{2,}:?\s*\|)+/gm;

/** A text without the signs between the cells of a table, if there is one. */
function withoutCells(text) {
  const shown = text.replace(BELOW_HEADER, " ");
  return shown === text && !/^\s*\|/.test(text) ? text : shown.replaceAll("|", " ");
}

/**
 * The plain text of a message's beginning: without marks of emphasis, headings, lists, quotes,
 * tables, code and links. `**Use** [this](https://example.com)` is `Use this`. Formulas stay as
 * they are written.
 */
export function plain(text) {
  const kept = [];
  const keep = (whole, ...rest) => {
    const { block, code, escaped } = rest.at(-1);
    kept.push(block ?? code ?? escaped ?? whole);
    return String.fromCharCode(FIRST + kept.length - 1);
  };
  let shown = withoutCells(text.slice(0, LONGEST).replace(KEPT, keep));
  for (const [mark, instead] of MARKS) shown = shown.replace(mark, instead);
  shown = shown.replaceAll("`", "");
  shown = shown.replace(STAND_IN, (sign) => kept[sign.charCodeAt(0) - FIRST] ?? sign);
  return shown.replace(/\s+/g, " ").trim();
}
