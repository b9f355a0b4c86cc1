// The signed-in user's token: kept for this tab, or with "Remember" for this device.

import { store } from "./api.js";

export const currentToken = () => sessionStorage.getItem("token") ?? localStorage.getItem("token");
export const isRemembered = (token) => localStorage.getItem("token") === token;

/** The claims of a token; `{}` if it is not a JWT. They are not verified: only the server can. */
export function claimsOf(token) {
  try {
    const claims = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(claims, (character) => character.charCodeAt());
    return Object(JSON.parse(new TextDecoder().decode(bytes)));
  } catch {
    return {};
  }
}

/** The `sub` of a token; "" if it has none. */
export const subjectOf = (token) => String(claimsOf(token).sub ?? "");

/** A user's name until the server sends it: the last segment of the subject. */
export const nameOf = (subject) => subject.split("/").at(-1) || subject;

/**
 * What we know of a token from an identity provider: when it was issued (`at`, in ms), the provider
 * as the server describes it (`oidc`), and the refresh token, if any (`refresh`). Null for other
 * tokens.
 */
export const currentGrant = () => JSON.parse(sessionStorage.getItem("grant"));

/** Stores a token, for this device or this tab. A grant is stored for the tab only. */
export function keepToken(token, remember, grant = null) {
  const storage = remember ? localStorage : sessionStorage;
  storage.setItem("token", token);
  (remember ? sessionStorage : localStorage).removeItem("token");
  store("grant", grant && JSON.stringify(grant));
  localStorage.setItem("subject", subjectOf(token)); // a link opened in a new tab compares with it
}

/**
 * Replaces this tab's token by another one of the same user. The device's `subject` stays: another
 * tab may have signed in another user by now.
 */
export function replaceToken(token, grant) {
  sessionStorage.setItem("token", token);
  store("grant", grant && JSON.stringify(grant));
}

/** Removes the token from this device. Drafts in this tab stay. */
export function removeToken() {
  sessionStorage.removeItem("token");
  sessionStorage.removeItem("grant");
  localStorage.removeItem("token");
  localStorage.removeItem("subject");
}

/** The subject that last signed in on this device; null if there is none. */
export const lastSubject = () => localStorage.getItem("subject");

/** Returns the token in the URL's fragment, and removes it from the URL and the tab's history. */
export function takeTokenFromURL() {
  const given = /^#token=([\w.-]*)/.exec(location.hash)?.[1];
  if (given !== undefined) history.replaceState(null, "", location.pathname + location.search);
  return given;
}

/**
 * Returns the parameters of an authorization response (OpenID Connect Core 1.0, 3.1.2.5), and
 * removes them from the URL; null if there are none.
 */
export function takeAuthResponse() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) return null;
  history.replaceState(null, "", location.pathname + location.hash);
  return answer;
}
