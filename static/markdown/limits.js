// Limits of what is parsed and drawn, so that no text can block the page.

/** Levels of nesting. Deeper text stays as written, since marked and browsers recurse. */
export const MAX_DEPTH = 20;

/**
 * Characters that a link, a code span or a formula may have. The longest URLs have about as many.
 * At each opening mark, marked searches all following text for the end: a text of opening marks
 * would take seconds.
 */
export const MAX_SPAN = 2_000;

/** The part of a text in which a span that starts there has to end. */
export const near = (source) => source.slice(0, MAX_SPAN);

/**
 * Characters of a piece. A text is drawn in pieces, so that the page stays responsive. A block
 * longer than a piece is continued as another block. An ordinary reply is one piece.
 */
export const PIECE_LENGTH = 20_000;

/** Characters that may start an element, a line or a cell. */
export const MARK = /[\n|[<>$\\]|\*+|_+|~+|`+|[-+.)](?=\s)/g;

/** Marks in a piece. 20,000 characters of an ordinary reply have about a thousand. */
export const MAX_MARKS = 2_500;

/** Elements in a text: about 50 MB. Text after them stays as written. */
export const MAX_ELEMENTS = 50_000;
