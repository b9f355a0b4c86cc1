// Signing in at an identity provider: OpenID Connect Core 1.0, section 3.1, by a code with PKCE (RFC
// 7636), as a public client. The server verifies the ID token that comes of it.

import { $ } from "../dom.js";
import { pause } from "../parley.js";
import { api, errorOf, lose, store, useToken } from "./api.js";
import { attempt } from "./screen.js";
import { knock, refuse, signIn } from "./sign-in.js";
import { claimsOf, heldGrant, heldToken, replaceToken, subjectOf } from "./tokens.js";

const TIMEOUT = 15_000; // ms, for an answer of the provider
const SOON = 10_000; // ms within which a token that was given is not asked for again
const VISIT = 15_000; // ms in which the page has been left for the provider
const MOST_TRIES = 5; // to renew a token that has ended, where the provider's answers are hidden
const ASK_WHO = "ask who"; // in localStorage: the provider is to ask who comes
const LONGEST_REASON = 200; // characters of what a provider says
const EARLY = 60; // seconds before its end that a token is renewed, but a third of its time at most
// What the server says of a token that was given just now only where clocks differ.
const CLOCKS = /not valid yet|has expired/;
const LATER = [408, 429]; // statuses that are no refusals
const SHORTEST = 5; // seconds between two renewals that no refusal asks for
const LONGEST = 2 ** 31 - 1; // ms, of a browser's timer

/**
 * How the server's users sign in elsewhere, as it says itself; null where they do not. Where a proxy
 * names who asks without a token, it is as it was told before.
 */
async function askProvider() {
  const user = await api("GET", "me", { as: "", unless: 401 });
  return user.meta?.sign_in?.oidc ?? heldGrant()?.oidc ?? null;
}

const hostOf = ({ issuer }) => new URL(issuer).host;

/** Where the provider sends the browser back to: this page, also under a prefix. */
const here = () => new URL(".", location).href;

function encode(bytes) {
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));

// The way there

/** Offers the provider at the door, in the place of a token. */
export function offer(oidc, reason) {
  $("provider").textContent = `Sign in at ${hostOf(oidc)}`;
  $("provider").hidden = false;
  $("by-token").open = Boolean($("token").value);
  if (!$("by-token").open) $("provider").focus();
  if (!oidc.authorization_endpoint && !reason) refuse(whyAway(oidc));
}

$("provider").onclick = attempt(async () => goTo(await askProvider()), refuse);

let leftAt = 0; // when the page went to the provider: several requests may be refused at once
addEventListener("pageshow", () => (leftAt = 0)); // it may come back as it was left

/**
 * Goes to the provider again, whose token has ended. What was typed is kept. A token that is
 * refused as it is given would have the browser go to and fro for ever; and a visit may not come to
 * pass.
 */
export async function goAgain(reason) {
  if (!heldGrant() || isWithin(leftAt, VISIT)) return;
  if (leftAt || isWithin(heldGrant().at, SOON)) {
    leftAt = 0;
    await knock(reason);
    return;
  }
  leftAt = Date.now();
  try {
    await goTo(await askProvider());
  } catch (error) {
    leftAt = 0;
    await knock(error.message);
  }
}

/** Whether that was so short a time ago. A clock may have been set back. */
const isWithin = (time, milliseconds) => Math.abs(Date.now() - time) < milliseconds;

/** Goes to the provider, which sends the browser back to `finish`. */
async function goTo(oidc) {
  if (!oidc?.authorization_endpoint) throw errorOf(whyAway(oidc), 503);
  if (!crypto.subtle) throw errorOf("Open this page by https:// to sign in.", 400);
  const [state, nonce, verifier] = [random(), random(), random()];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  store("signing in", JSON.stringify({ state, nonce, verifier, oidc }));
  store("chat", location.hash);
  send(oidc.authorization_endpoint, {
    response_type: "code",
    client_id: oidc.client_id,
    redirect_uri: here(),
    scope: oidc.scope,
    state,
    nonce,
    code_challenge: encode(digest),
    code_challenge_method: "S256",
    // Else it would answer at once for who was there before.
    ...(localStorage.getItem(ASK_WHO) && { prompt: "login" }),
  });
}

/** What the page says where the server has not reached the provider. */
const whyAway = (oidc) =>
  `${oidc ? hostOf(oidc) : "The identity provider"} cannot be reached. Try again later.`;

/** Leaves the page for this address, with this query besides its own. */
function send(endpoint, query) {
  const url = new URL(endpoint);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  location.assign(url);
}

// The way back

/**
 * Signs in with what the provider has sent the browser back with. Throws where that is not an
 * answer to this tab, and what the person can do.
 */
export async function finish(answer) {
  const begun = JSON.parse(sessionStorage.getItem("signing in"));
  if (!begun || answer.get("state") !== begun.state) {
    throw errorOf("This sign-in was not begun in this tab, or has ended. Sign in again.", 401);
  }
  store("signing in", "");
  // The token before has ended: to go on with it would lead to the provider again.
  store("token", "");
  store("grant", "");
  const { oidc } = begun;
  checkAnswer(answer, oidc);
  const given = await askForToken(oidc, {
    grant_type: "authorization_code",
    code: answer.get("code"),
    redirect_uri: here(),
    code_verifier: begun.verifier,
  });
  if (claimsOf(given.id_token).nonce !== begun.nonce) {
    throw errorOf("The token belongs to another sign-in. Sign in again.", 401);
  }
  localStorage.setItem(ASK_WHO, "yes"); // where this person is refused, another one may come
  await signIn(given.id_token, false, grantOf(given, oidc)).catch((error) => {
    if (!CLOCKS.test(error.message)) throw error;
    throw errorOf(`${error.message} The clocks of ${hostOf(oidc)} and of this server differ.`, 401);
  });
  localStorage.removeItem(ASK_WHO);
}

/** Throws what the provider says has gone wrong, or where another one answers (RFC 9207). */
function checkAnswer(answer, oidc) {
  if (answer.has("error")) {
    const why = answer.get("error_description") ?? answer.get("error");
    throw errorOf(`${hostOf(oidc)} refused: ${why.slice(0, LONGEST_REASON)}`, 401);
  }
  if ((answer.get("iss") ?? oidc.issuer) !== oidc.issuer) {
    throw errorOf(`Another provider than ${hostOf(oidc)} has answered. Sign in again.`, 401);
  }
}

const grantOf = ({ refresh_token }, oidc, before = undefined) => ({
  at: Date.now(),
  refresh: refresh_token ?? before,
  oidc,
});

let isBlocked = false; // the server did not know the provider as it sent the page
addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
  isBlocked ||= effectiveDirective === "connect-src";
});

/**
 * What the provider gives for this, with an ID token in it. Throws an error with a status where it
 * refuses, and one without where it cannot be reached, which `isHidden` where it may have refused.
 */
async function askForToken(oidc, fields) {
  const body = new URLSearchParams({ client_id: oidc.client_id, ...fields });
  const request = { method: "POST", body, signal: AbortSignal.timeout(TIMEOUT), ...ASKING };
  const { status, given } = await fetch(oidc.token_endpoint, request).then(read, () => ({}));
  if (given?.id_token) return given;
  if (status < 500 && !LATER.includes(status)) {
    const why = given?.error_description ?? given?.error ?? `status ${status}, and no ID token`;
    throw errorOf(`${hostOf(oidc)} refused: ${String(why).slice(0, LONGEST_REASON)}`, status);
  }
  throw await whyNothing(oidc, status);
}

const ASKING = { credentials: "omit", redirect: "error" };

/** Why there is no answer of the provider's, but perhaps this status. */
async function whyNothing(oidc, status) {
  const isHidden = !status && (isBlocked || (await isThere(oidc.token_endpoint)));
  const why = isHidden ? `does not let ${location.origin} ask it (CORS)` : "cannot be reached";
  return Object.assign(new Error(`${hostOf(oidc)} ${why}.`), { isHidden });
}

/** Whether something answers there, which the page may not read. */
function isThere(url) {
  const request = { mode: "no-cors", signal: AbortSignal.timeout(TIMEOUT), credentials: "omit" };
  return fetch(url, request).then(
    () => true,
    () => false,
  );
}

/** The status of an answer and its JSON; null where it is none. */
const read = async (response) => ({
  status: response.status,
  given: await response.json().catch(() => null),
});

// A token ends, and another takes its place

let timer;

/** Has the token renewed before it ends, if there is a refresh token. */
export function planRenewal() {
  clearTimeout(timer);
  const { refresh, at } = heldGrant() ?? {};
  if (!refresh || !(lifetime() > 0)) return; // where a time is missing, a refusal has it renewed
  const early = Math.min(EARLY, lifetime() / 3);
  const due = Math.min(at, Date.now()) + 1000 * Math.max(lifetime() - early, SHORTEST);
  timer = setTimeout(renew, Math.min(due - Date.now(), LONGEST));
}

/** The seconds for which the token is good. Clocks may differ: they count from when it was given. */
function lifetime() {
  const { iat, exp } = claimsOf(heldToken());
  return exp - iat;
}

const hasEnded = () => !isWithin(heldGrant().at, 1000 * lifetime());

let renewing = null; // a provider may take each refresh token once only

/** Renews the token by the refresh token, if there is one, and the provider takes it. */
export function renew() {
  renewing ??= renewOnce().finally(() => (renewing = null));
  return renewing;
}

async function renewOnce() {
  const [token, grant] = [heldToken(), heldGrant()];
  if (!grant?.refresh) return;
  for (let tries = 1; ; tries++) {
    const told = await askToRenew(grant.refresh);
    if (isSettled(told, token, grant)) return;
    if (hasEnded()) {
      if (told.problem.isHidden && tries >= MOST_TRIES) return; // the person goes there
      lose(told.problem.message);
    }
    await pause(tries);
  }
}

/** Takes what the provider has told. Returns whether it need not be asked again. */
function isSettled({ given, oidc, problem }, token, grant) {
  if (heldToken() !== token) return true; // somebody has signed out meanwhile
  if (given) {
    replaceToken(given.id_token, grantOf(given, oidc, grant.refresh));
    useToken(given.id_token);
    planRenewal();
    return true;
  }
  if (!problem.status) return false;
  replaceToken(token, { ...grant, refresh: undefined }); // one goes there once the token has ended
  return true;
}

/** What the provider gives for a refresh token, or the problem for which it does not. */
async function askToRenew(refresh) {
  try {
    const oidc = await askProvider().catch(() => null);
    if (!oidc?.token_endpoint) throw new Error(whyAway(oidc));
    const given = await askForToken(oidc, { grant_type: "refresh_token", refresh_token: refresh });
    const isSame = subjectOf(given.id_token) === subjectOf(heldToken());
    if (!isSame) throw errorOf("The token is another person's.", 401);
    return { given, oidc };
  } catch (problem) {
    return { problem };
  }
}

/**
 * Signs out at the provider that the page has just left, if that has a place for it. It asks who
 * comes next, also where it has none.
 */
export function leaveProvider() {
  const oidc = JSON.parse(sessionStorage.getItem("leaving"));
  store("leaving", "");
  localStorage.setItem(ASK_WHO, "yes");
  if (!oidc?.end_session_endpoint) return;
  send(oidc.end_session_endpoint, {
    client_id: oidc.client_id,
    post_logout_redirect_uri: here(),
  });
}
