// The token of the user who is signed in: kept for this tab, or with "Remember" on this device, and
// shared with other tabs.

import { store } from "./api.js";

export const heldToken = () => sessionStorage.getItem("token") ?? localStorage.getItem("token");
export const isRemembered = (token) => localStorage.getItem("token") === token;

/** What a token says; nothing where it is none. Only the server can tell whether it is true. */
export function claimsOf(token) {
  try {
    const claims = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(claims, (character) => character.charCodeAt());
    return Object(JSON.parse(new TextDecoder().decode(bytes)));
  } catch {
    return {};
  }
}

/** The `sub` of a token; "" where it has none. */
export const subjectOf = (token) => String(claimsOf(token).sub ?? "");

/** The name of a user until the server tells it: the last segment of the subject. */
export const nameOf = (subject) => subject.split("/").at(-1) || subject;

/**
 * How the token of this tab was given by an identity provider: `at` (ms), `oidc` as the server
 * describes that, and `refresh`, by which it gives the next, if it does. Null for another token.
 */
export const heldGrant = () => JSON.parse(sessionStorage.getItem("grant"));

/** Keeps a token, on this device or for this tab. One with a grant is kept for the tab only. */
export function keepToken(token, remember, grant = null) {
  const storage = remember ? localStorage : sessionStorage;
  storage.setItem("token", token);
  (remember ? sessionStorage : localStorage).removeItem("token");
  store("grant", grant && JSON.stringify(grant));
  localStorage.setItem("subject", subjectOf(token)); // that a link in a new tab can ask, too
}

/**
 * Another token of the same user takes the place of this tab's. Who is signed in on this device is
 * another matter: another tab may have another user by now.
 */
export function replaceToken(token, grant) {
  sessionStorage.setItem("token", token);
  store("grant", grant && JSON.stringify(grant));
}

/** Forgets the token on this device. What was typed in this tab stays. */
export function removeToken() {
  sessionStorage.removeItem("token");
  sessionStorage.removeItem("grant");
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

/**
 * What an identity provider has sent the browser back with (OpenID Connect Core 1.0, 3.1.2.5),
 * which is removed from the address at once; null where it has not.
 */
export function takeAnswer() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) return null;
  history.replaceState(null, "", location.pathname + location.hash);
  return answer;
}
