// Nodes that become like others. What is so already is not touched, so that a selection stays.

/** Whether two nodes are alike, whatever is in them. */
function areAlike(one, other) {
  if (one.nodeType === Node.TEXT_NODE) return other.nodeType === Node.TEXT_NODE;
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}

/** Details stay as the reader has them, open or closed. */
function keepOpen(old, node) {
  if (old.localName === "details" && node.localName === "details") node.open = old.open;
}

/** Makes a node like another one, in its place. */
function change(old, node) {
  keepOpen(old, node);
  if (!areAlike(old, node)) old.replaceWith(node);
  else if (old.nodeType !== Node.TEXT_NODE) morph(old, null, [...node.childNodes]);
  else if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.data.length));
  else old.data = node.data;
}

/** Makes the nodes behind `before` like these. Without `before`, these are all nodes. */
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
