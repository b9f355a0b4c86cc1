// Making and finding elements.

export const $ = (id) => document.getElementById(id);

/**
 * Creates an element with these properties. Children are nodes, strings (which stay text) or arrays
 * of both.
 */
export function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  // One at a time: an engine limits the arguments of a call, and a long text has many children.
  for (const child of children.flat()) node.append(child);
  return Object.assign(node, properties);
}

/** A sentence as nodes: text between backticks becomes a `<code>`. */
export const sentence = (text = "") =>
  text
    .split(/`([^`]+)`/)
    .map((part, index) => (index % 2 ? element("code", {}, part) : part))
    .filter(Boolean);

export const button = (name, properties = {}) =>
  element("button", { type: "button", className: "quiet", ...properties }, name);

const SVG = "http://www.w3.org/2000/svg";

/** One of the icons in index.html. It has no name for screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.ariaHidden = "true";
  svg.append(use);
  return svg;
}

/** A button with an icon. Its name is for screen readers, and shown when a mouse stays on it. */
export const iconButton = (shape, name, properties = {}) =>
  button(icon(shape), { ariaLabel: name, title: name, ...properties });
