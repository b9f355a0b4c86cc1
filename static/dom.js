// Elements of the page.

export const $ = (id) => document.getElementById(id);

/**
 * An element with these properties. The children are nodes, strings, which stay text, and arrays of
 * such.
 */
export function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  // One at a time: a call takes some ten thousand arguments at most.
  for (const child of children.flat()) node.append(child);
  return Object.assign(node, properties);
}

export const button = (name, properties = {}) =>
  element("button", { type: "button", className: "quiet", ...properties }, name);
