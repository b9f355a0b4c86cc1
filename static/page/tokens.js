// The token of the user who is signed in: kept for this tab, or with "Remember" on this device, and

// shared with other tabs.

export const heldToken = () => sessionStorage.getItem("token") ?? localStorage.getItem("token");
export const isRemembered = (token) => localStorage.getItem("token") === token;

/** The `sub` of a token; "" where it has none. Only the server can tell whether it is true. */
export function subjectOf(token) {
  try {
    const claims = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(claims, (character) => character.charCodeAt());
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub);
  } catch {
    return "";
  }
}

export function keepToken(token, remember) {
  sessionStorage.removeItem("token");
  localStorage.removeItem("token");
  const storage = remember ? localStorage : sessionStorage;
  storage.setItem("token", token);
  localStorage.setItem("subject", subjectOf(token)); // that a link in a new tab can ask, too
}

/** Forgets the token on this device. What was typed in this tab stays. */
export function removeToken() {
  sessionStorage.removeItem("token");
  localStorage.removeItem("token");
  localStorage.removeItem("subject");
}

/** The user who has signed in last on this device; null where nobody has. */
export const lastSubject = () => localStorage.getItem("subject");

/**
 * The token in the fragment of the address, which is removed from there and from the tab's history
 * at once.
 */
export function takeToken() {
  const given = /^#token=([\w.-]*)/.exec(location.hash)?.[1];
  if (given !== undefined) history.replaceState(null, "", location.pathname + location.search);
  return given;
}
