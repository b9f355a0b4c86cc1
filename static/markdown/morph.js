// Morphs nodes into others. Equal nodes are not touched, so that a selection is kept.

/** Whether two nodes are equal, apart from their children. */
function areAlike(one, other) {
  if (one.nodeType === Node.TEXT_NODE) return other.nodeType === Node.TEXT_NODE;
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}

/** Details stay open or closed, as the reader left them. */
function keepOpen(old, node) {
  if (old.localName === "details" && node.localName === "details") node.open = old.open;
}

/** Morphs a node into another one. */
function change(old, node) {
  keepOpen(old, node);
  if (!areAlike(old, node)) old.replaceWith(node);
  else if (old.nodeType !== Node.TEXT_NODE) morph(old, null, [...node.childNodes]);
  else if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.data.length));
  else old.data = node.data;
}

/** Morphs all nodes after `before`, or all nodes without `before`, into these. */
export function morph(parent, before, nodes) {
  let old = before ? before.nextSibling : parent.firstChild;
  for (const node of nodes) {
    const next = old?.nextSibling;
    if (old) change(old, node);
    else parent.append(node);
    old = next;
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}
