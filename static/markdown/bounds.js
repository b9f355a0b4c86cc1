// Bounds of what is read and drawn. They keep a text of anything from stopping the page.

/** Levels of nesting. What is deeper stays as written, since marked and browsers recurse. */
export const DEEPEST = 20;

/**
 * Characters that a link, a code span or a formula has at most. The longest addresses have about as
 * many. marked looks for the end of whatever begins in all that follows, at each beginning: a text
 * of beginnings takes it seconds.
 */
export const NEAR = 2_000;

/** The part of a text in which something that begins there ends. */
export const near = (source) => source.slice(0, NEAR);

/**
 * Characters of a piece. A text is drawn by pieces, so that none stops the page. A block that is
 * longer than a piece is continued as another one. An ordinary answer is one piece.
 */
export const LONGEST = 20_000;

/** What may begin an element, and lines and cells. */
export const MARK = /[\n|[<>$\\]|\*+|_+|~+|`+|[-+.)](?=\s)/g;

/** Marks of a piece. 20,000 characters of an ordinary answer have about a thousand. */
export const MOST = 2_500;

/** Elements of a text, about 50 MB. What is behind them stays as written. */
export const MANY = 50_000;
