// Sign-in at an identity provider: the authorization code flow of OpenID Connect Core 1.0, section
// 3.1, with PKCE (RFC 7636), as a public client. The ID token is our bearer token; the server
// verifies it.

import { $ } from "../dom.js";
import { pause } from "../parley.js";
import { askUser, errorOf, reportLost, store, useToken } from "./api.js";
import { attempt } from "./screen.js";
import { askForToken, showRefusal, signIn } from "./sign-in.js";
import { claimsOf, currentGrant, currentToken, replaceToken, subjectOf } from "./tokens.js";

const TIMEOUT = 15_000; // ms, for an answer of the provider
const TOO_SOON = 10_000; // ms; a token refused this soon after its issue would be refused again
const REDIRECT_TIME = 15_000; // ms that leaving the page for the provider may take
const MAX_TRIES = 5; // to renew an expired token if CORS hides the provider's answers
const PROMPT_LOGIN = "ask who"; // a key in localStorage: the provider shall ask for the account
const MAX_REASON = 200; // characters that we show of a provider's error
const RENEW_EARLY = 60; // s before a token expires, or a third of its lifetime if that is less
// If the server says this of a token that was just issued, the clocks differ.
const CLOCK_ERRORS = /not valid yet|has expired/;
const RETRY_STATUSES = [408, 429]; // below 500, but worth another try
const MIN_RENEWAL = 5; // s between two scheduled renewals
const MAX_TIMEOUT = 2 ** 31 - 1; // ms; setTimeout takes a 32-bit integer

/**
 * The identity provider as the server describes it; null if there is none. If a proxy names the
 * user, the server's answer does not describe it, and we return what the grant has.
 */
async function askProvider() {
  const user = await askUser({ as: "", unless: 401 });
  return user.sign_in?.oidc ?? currentGrant()?.oidc ?? null;
}

const hostOf = ({ issuer }) => new URL(issuer).host;

/** The page's own URL, including a path prefix. */
const redirectURI = () => new URL(".", location).href;

function encode(bytes) {
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));

// To the provider

/** Shows a button for the provider on the sign-in page. The token form stays, folded. */
export function offerSignIn(oidc, reason) {
  $("provider").textContent = `Sign in at ${hostOf(oidc)}`;
  $("provider").hidden = false;
  $("by-token").open = Boolean($("token").value);
  if (!$("by-token").open) $("provider").focus();
  if (!oidc.authorization_endpoint && !reason) showRefusal(unreachable(oidc));
}

$("provider").onclick = attempt(async () => goToProvider(await askProvider()), showRefusal);

let redirectedAt = 0; // when we left for the provider: several requests may be refused at once
addEventListener("pageshow", () => (redirectedAt = 0)); // Back may restore the page as it was left

/**
 * The token has expired: goes to the provider for another one. Drafts are kept. Shows the sign-in
 * page instead if the token was issued only just now, which would redirect for ever, or if an
 * earlier redirect did not happen.
 */
export async function reauthenticate(reason) {
  if (!currentGrant() || isWithin(redirectedAt, REDIRECT_TIME)) return;
  if (redirectedAt || isWithin(currentGrant().at, TOO_SOON)) {
    redirectedAt = 0;
    await askForToken(reason);
    return;
  }
  redirectedAt = Date.now();
  try {
    await goToProvider(await askProvider());
  } catch (error) {
    redirectedAt = 0;
    await askForToken(error.message);
  }
}

/** Whether a time is at most so long ago. `abs`, since the clock may have been set back. */
const isWithin = (time, milliseconds) => Math.abs(Date.now() - time) < milliseconds;

/** Redirects to the provider, which sends the browser back to `completeSignIn`. */
async function goToProvider(oidc) {
  if (!oidc?.authorization_endpoint) throw errorOf(unreachable(oidc), 503);
  if (!crypto.subtle) throw errorOf("Open this page over https:// to sign in.", 400);
  const [state, nonce, verifier] = [random(), random(), random()];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  store("signing in", JSON.stringify({ state, nonce, verifier, oidc }));
  store("chat", location.hash);
  redirect(oidc.authorization_endpoint, {
    response_type: "code",
    client_id: oidc.client_id,
    redirect_uri: redirectURI(),
    scope: oidc.scope,
    state,
    nonce,
    code_challenge: encode(digest),
    code_challenge_method: "S256",
    // Without it, the provider would sign in the previous person again.
    ...(localStorage.getItem(PROMPT_LOGIN) && { prompt: "login" }),
  });
}

/** The message if the server could not reach the provider. */
const unreachable = (oidc) =>
  `${oidc ? hostOf(oidc) : "The identity provider"} cannot be reached. Try again later.`;

/** Leaves the page for this URL, with these parameters added. */
function redirect(endpoint, query) {
  const url = new URL(endpoint);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  location.assign(url);
}

// Back from the provider

/**
 * Signs in with an authorization response. Throws if this tab did not ask for it, or if the
 * provider refused.
 */
export async function completeSignIn(answer) {
  const request = JSON.parse(sessionStorage.getItem("signing in"));
  if (!request || answer.get("state") !== request.state) {
    throw errorOf("This sign-in was not started in this tab, or has expired. Sign in again.", 401);
  }
  store("signing in", "");
  // The old token has expired: using it would lead to the provider again.
  store("token", "");
  store("grant", "");
  const { oidc } = request;
  checkAuthResponse(answer, oidc);
  const given = await requestTokens(oidc, {
    grant_type: "authorization_code",
    code: answer.get("code"),
    redirect_uri: redirectURI(),
    code_verifier: request.verifier,
  });
  if (claimsOf(given.id_token).nonce !== request.nonce) {
    throw errorOf("The token belongs to another sign-in. Sign in again.", 401);
  }
  localStorage.setItem(PROMPT_LOGIN, "yes"); // until the server accepts this user
  await signIn(given.id_token, false, grantOf(given, oidc)).catch((error) => {
    if (!CLOCK_ERRORS.test(error.message)) throw error;
    throw errorOf(`${error.message} The clocks of ${hostOf(oidc)} and of this server differ.`, 401);
  });
  localStorage.removeItem(PROMPT_LOGIN);
}

/** Throws if the response is an error, or comes from another issuer (`iss` of RFC 9207). */
function checkAuthResponse(answer, oidc) {
  if (answer.has("error")) {
    const why = answer.get("error_description") ?? answer.get("error");
    throw errorOf(`${hostOf(oidc)} refused: ${why.slice(0, MAX_REASON)}`, 401);
  }
  if ((answer.get("iss") ?? oidc.issuer) !== oidc.issuer) {
    throw errorOf(`The answer is not from ${hostOf(oidc)}. Sign in again.`, 401);
  }
}

const grantOf = ({ refresh_token }, oidc, before = undefined) => ({
  at: Date.now(),
  refresh: refresh_token ?? before,
  oidc,
});

let isBlocked = false; // by our CSP: the server did not know the provider when it sent the page
addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
  isBlocked ||= effectiveDirective === "connect-src";
});

/**
 * Sends a token request, and returns the answer, which has an ID token. Throws an error with a
 * status if the provider refuses, and one without if no answer can be read; `isHidden` if that may
 * have been a refusal.
 */
async function requestTokens(oidc, fields) {
  const body = new URLSearchParams({ client_id: oidc.client_id, ...fields });
  const request = { method: "POST", body, signal: AbortSignal.timeout(TIMEOUT), ...ASKING };
  const { status, given } = await fetch(oidc.token_endpoint, request).then(read, () => ({}));
  if (given?.id_token) return given;
  if (status < 500 && !RETRY_STATUSES.includes(status)) {
    const why = given?.error_description ?? given?.error ?? `status ${status}, and no ID token`;
    throw errorOf(`${hostOf(oidc)} refused: ${String(why).slice(0, MAX_REASON)}`, status);
  }
  throw await unreachableError(oidc, status);
}

const ASKING = { credentials: "omit", redirect: "error" };

/** The error if the provider sent no usable answer, perhaps just a status. */
async function unreachableError(oidc, status) {
  const isHidden = !status && (isBlocked || (await isReachable(oidc.token_endpoint)));
  const why = isHidden ? `does not let ${location.origin} ask it (CORS)` : "cannot be reached";
  return Object.assign(new Error(`${hostOf(oidc)} ${why}.`), { isHidden });
}

/** Whether anything answers there, even if CORS forbids us to read it. */
function isReachable(url) {
  const request = { mode: "no-cors", signal: AbortSignal.timeout(TIMEOUT), credentials: "omit" };
  return fetch(url, request).then(
    () => true,
    () => false,
  );
}

/** The status and the JSON of a response; the latter is null if it is not JSON. */
const read = async (response) => ({
  status: response.status,
  given: await response.json().catch(() => null),
});

// Renewal

let timer;

/** Schedules the renewal of the token before it expires, if there is a refresh token. */
export function planRenewal() {
  clearTimeout(timer);
  const { refresh, at } = currentGrant() ?? {};
  if (!refresh || !(lifetime() > 0)) return; // without `iat` or `exp`, it is renewed when refused
  const early = Math.min(RENEW_EARLY, lifetime() / 3);
  const due = Math.min(at, Date.now()) + 1000 * Math.max(lifetime() - early, MIN_RENEWAL);
  timer = setTimeout(renew, Math.min(due - Date.now(), MAX_TIMEOUT));
}

/** The token's lifetime in seconds. Our clock may differ, so we count it from the time of issue. */
function lifetime() {
  const { iat, exp } = claimsOf(currentToken());
  return exp - iat;
}

const hasEnded = () => !isWithin(currentGrant().at, 1000 * lifetime());

let renewing = null; // one renewal at a time: a provider may accept each refresh token only once

/** Renews the token, if there is a refresh token and the provider accepts it. */
export function renew() {
  renewing ??= renewOnce().finally(() => (renewing = null));
  return renewing;
}

async function renewOnce() {
  const [token, grant] = [currentToken(), currentGrant()];
  if (!grant?.refresh) return;
  for (let tries = 1; ; tries++) {
    const result = await requestRenewal(grant.refresh);
    if (takeRenewal(result, token, grant)) return;
    if (hasEnded()) {
      if (result.problem.isHidden && tries >= MAX_TRIES) return; // the person has to sign in again
      reportLost(result.problem.message);
    }
    await pause(tries);
  }
}

/** Takes the result of a renewal. Returns whether it is final. */
function takeRenewal({ given, oidc, problem }, token, grant) {
  if (currentToken() !== token) return true; // the user signed out, or in again, meanwhile
  if (given) {
    replaceToken(given.id_token, grantOf(given, oidc, grant.refresh));
    useToken(given.id_token);
    planRenewal();
    return true;
  }
  if (!problem.status) return false;
  replaceToken(token, { ...grant, refresh: undefined }); // at its expiry, the person signs in again
  return true;
}

/** Sends a refresh token. Returns the provider's answer as `given`, or the `problem`. */
async function requestRenewal(refresh) {
  try {
    const oidc = await askProvider().catch(() => null);
    if (!oidc?.token_endpoint) throw new Error(unreachable(oidc));
    const given = await requestTokens(oidc, {
      grant_type: "refresh_token",
      refresh_token: refresh,
    });
    const isSame = subjectOf(given.id_token) === subjectOf(currentToken());
    if (!isSame) throw errorOf("The token is another person's.", 401);
    return { given, oidc };
  } catch (problem) {
    return { problem };
  }
}

/**
 * Signs out at the provider of the user who has just signed out here, if it has an endpoint for
 * that. In any case, the next sign-in asks for the account.
 */
export function signOutAtProvider() {
  const oidc = JSON.parse(sessionStorage.getItem("leaving"));
  store("leaving", "");
  localStorage.setItem(PROMPT_LOGIN, "yes");
  if (!oidc?.end_session_endpoint) return;
  redirect(oidc.end_session_endpoint, {
    client_id: oidc.client_id,
    post_logout_redirect_uri: redirectURI(),
  });
}
