// Signing in and out: by a token, which may be an identity provider's, or through a proxy that
// names the user.

import { $, button } from "../dom.js";
import { write } from "../markdown/markdown.js";
import { pause } from "../parley.js";
import { api, askUser, on, reportLost, store, useProxyUser, useToken } from "./api.js";
import { forgetChoices, useChoicesOf } from "./choices.js";
import { listChats } from "./list.js";
import { removeAllPictures } from "./picture-store.js";
import { route } from "./replies.js";
import { attempt, say, sayAt, sayIfAny, state } from "./screen.js";
import { listModels } from "./settings.js";
import {
  currentGrant,
  currentToken,
  isRemembered,
  keepToken,
  lastSubject,
  nameOf,
  removeToken,
  replaceToken,
  subjectOf,
  takeAuthResponse,
  takeTokenFromURL,
} from "./tokens.js";

// Fetched only if there is an identity provider; most servers have none.
const loadOidc = () => import("./oidc.js");

let shownSubject = ""; // the user whose chats the page shows
let isProxied = false; // whether a proxy names the user, so that no token is needed

// A new tab asks the others for their token. Its path is part of the channel's name, so that
// several servers behind one origin stay apart.
const tabs = new BroadcastChannel(`parley ${new URL(".", location).pathname}`);
tabs.addEventListener("message", ({ data }) => {
  // A refresh token stays with its tab: a provider may accept each only once.
  const grant = currentGrant() && { ...currentGrant(), refresh: undefined };
  if (data === "token?" && shownSubject) tabs.postMessage({ token: currentToken(), grant });
  if (data === "signed out" && shownSubject && !isProxied) clearAndReload();
});

/**
 * Asks the other tabs for a token of the user who last signed in. Returns it with its grant, or
 * `{}` if no tab answers within 200 ms.
 */
function askTabs() {
  const isWanted = (token) => token && subjectOf(token) === lastSubject();
  return new Promise((resolve) => {
    tabs.addEventListener("message", ({ data }) => isWanted(data.token) && resolve(data));
    tabs.postMessage("token?");
    setTimeout(resolve, 200, {});
  });
}

/**
 * The subject that is signed in: in this tab or, without "Remember", in another. A token takes
 * precedence over the proxy.
 */
export function signedIn() {
  if (currentToken()) return subjectOf(currentToken());
  return isProxied ? shownSubject : lastSubject();
}

/** The signed-in user, if it is not the user of this token. */
export const otherUserThan = (token) =>
  [shownSubject, signedIn()].find((subject) => subject && subject !== subjectOf(token));

/** Signs in with a token, if the server accepts it. `grant`: see `currentGrant`. */
export async function signIn(token, remember, grant) {
  await api("GET", "me", { as: token });
  const isOther = otherUserThan(token);
  if (isOther) await forgetUser();
  keepToken(token, remember, grant);
  if (isOther) reload();
  else await openApp(token);
}

/** Reloads the page, so that nothing of one user stays in memory for the next. */
function reload() {
  history.replaceState(null, "", location.pathname);
  location.reload();
}

/** Removes all that this tab has stored for its user, and the pictures of the user's drafts. */
function forgetUser() {
  sessionStorage.clear();
  return removeAllPictures();
}

/** Reloads the page, and removes all drafts. */
async function clearAndReload() {
  await forgetUser();
  reload();
}

/** Opens the app for the user of this token; without one, for `user`, whom a proxy names. */
async function openApp(token, user) {
  isProxied = !token;
  shownSubject = token ? subjectOf(token) : user.subject;
  if (isProxied) useProxyUser(shownSubject);
  else useToken(token);
  claimTab(shownSubject);
  useChoicesOf(shownSubject);
  $("remembered").checked = isRemembered(token);
  $("remembering").hidden = Boolean(currentGrant());
  $("of-token").hidden = isProxied;
  if (currentGrant()) loadOidc().then(({ planRenewal }) => planRenewal());
  showOnly("app");
  tellUser(isProxied ? user : { subject: shownSubject, name: nameOf(shownSubject) });
  await Promise.all([
    !isProxied && api("GET", "me").then(tellUser),
    route(),
    listChats(),
    listModels(),
  ]);
}

/** Shows who is signed in. */
function tellUser({ subject, name }) {
  $("user").textContent = name || subject;
  $("account-button").ariaLabel = `Signed in as ${name || subject}`;
  $("subject").textContent = subject;
}

/**
 * Removes what this tab has stored for another user, and returns to the chat that was open before
 * the visit to the proxy or identity provider.
 */
function claimTab(subject) {
  if (!subject) return; // the token is malformed: the server will refuse it
  const before = sessionStorage.getItem("subject");
  const chat = before && before !== subject ? "" : sessionStorage.getItem("chat");
  if (before !== subject) clearAllButToken();
  if (before && before !== subject) removeAllPictures();
  sessionStorage.setItem("subject", subject);
  if (chat && !location.hash) history.replaceState(null, "", chat);
  store("chat", "");
}

function clearAllButToken() {
  const [token, grant] = [sessionStorage.getItem("token"), currentGrant()];
  sessionStorage.clear();
  if (token) replaceToken(token, grant);
}

const PARTS = ["app", "sign-in-page", "by-link", "ended"];

/** Shows one of the PARTS. */
function showOnly(shownPart) {
  for (const part of PARTS) $(part).hidden = part !== shownPart;
}

/** Shows another part of the page instead of the app. */
export function closeApp(part) {
  state.screen.abort();
  document.querySelectorAll(".shown").forEach((dialog) => dialog.close());
  document.querySelectorAll(":popover-open").forEach((popover) => popover.hidePopover());
  showOnly(part);
}

/** Says that the proxy's sign-in has ended: a reload leads to its sign-in page. Drafts are kept. */
function showEndOfSignIn() {
  closeApp("ended");
  $("again").focus();
}

function signInAgain() {
  store("chat", location.hash);
  location.reload();
}

$("again").onclick = signInAgain;

// In another tab, the same person or another one may have signed in at the proxy.
let checking = new AbortController(); // aborts at the next check
const checkProxyUser = attempt(async () => {
  checking.abort();
  checking = new AbortController();
  const { subject } = await askUser({ signal: checking.signal, unless: 401 });
  if (!subject) showEndOfSignIn();
  else if (!$("ended").hidden) signInAgain();
}, sayIfAny);
addEventListener("visibilitychange", () => {
  if (isProxied && !document.hidden) checkProxyUser();
});

/** Returns a refusal by the server, since it is an answer, too; throws any other error. */
function orRefusal(error) {
  if (!error.status) throw error;
  return error;
}

export const showRefusal = sayAt("refusal");

/**
 * Shows the sign-in page, and the reason for it. Drafts are kept in case the same user returns.
 * `user` is the answer of `GET /me`, if we have it.
 */
export async function askForToken(reason = "", className = "", user) {
  closeApp("sign-in-page");
  showRefusal(reason, className);
  $("token").focus();
  $("source").replaceChildren();
  const answer = user ?? (await askUser({ as: "" }).catch(orRefusal));
  const { subject, name, message, advice = message, sign_in: { oidc } = {} } = answer;
  if (oidc) {
    (await loadOidc()).offerSignIn(oidc, reason);
  } else if (subject) {
    $("source").replaceChildren(
      button(`Continue as ${name}`, { className: "", onclick: forgetToken }),
    );
  }
  // Where to get a token; or else why the server does not say it.
  else if (advice !== reason) write($("source"), advice);
}

/** Removes the token, but no drafts. After the reload, the proxy names the user. */
function forgetToken() {
  removeToken();
  reload();
}

/** Signs in with the token of a link. */
export const useLink = async (token) => (await import("./sign-in-link.js")).signInByLink(token);

$("sign-in").onsubmit = attempt(async () => {
  const token = $("token").value.trim();
  $("token").value = "";
  await signIn(token, $("remember").checked);
}, showRefusal);

$("remembered").onchange = ({ target }) => {
  if (currentToken()) keepToken(currentToken(), target.checked);
};

$("sign-out").onclick = async () => {
  const grant = currentGrant();
  removeToken();
  forgetChoices();
  tabs.postMessage("signed out");
  await forgetUser();
  // The reloaded page signs out at the provider. By then, nothing of this user is in memory.
  if (grant) sessionStorage.setItem("leaving", JSON.stringify(grant.oidc ?? null));
  reload();
};

addEventListener("storage", () => {
  // Another tab signed out, or signed in another user.
  if (shownSubject && signedIn() !== shownSubject) clearAndReload();
});

on.refused = async (message) => {
  if (isProxied) showEndOfSignIn();
  else if (currentGrant()) (await loadOidc()).reauthenticate(message);
  else askForToken(message);
};

on.renew = async () => {
  if (currentGrant()?.refresh) await (await loadOidc()).renew();
};

let isLeaving = false; // several requests may be refused at once
on.changed = () => {
  if (isLeaving) return;
  if (Date.now() - sessionStorage.getItem("changed") < 10_000) {
    // A proxy that alternates between users would make the page reload for ever.
    showEndOfSignIn();
    return;
  }
  isLeaving = true;
  store("changed", String(Date.now()));
  reload();
};

/**
 * Asks who the user is without a token. Returns the user whom a proxy names, or the server's
 * refusal. If the server fails, asks up to three more times.
 */
async function askProxy() {
  for (let tries = 1; ; tries++) {
    const user = await askUser({ as: "" }).catch(orRefusal);
    const hasFailed = user.status >= 500 || user.status === 429;
    if (!hasFailed || tries > 3) return user;
    reportLost();
    await pause(tries);
  }
}

/**
 * Starts the page: takes a token or authorization response from the URL. Otherwise signs in with
 * the stored token, as the user whom a proxy names, or with another tab's token, in this order.
 */
export async function start() {
  if (sessionStorage.getItem("leaving")) (await loadOidc()).signOutAtProvider();
  const given = takeTokenFromURL();
  const answer = takeAuthResponse();
  const user = currentToken() && !answer ? {} : await askProxy();
  if (user.subject) {
    shownSubject = user.subject; // so that a link asks before it changes the user
    isProxied = true;
  }
  const problem = await problemOf(signInFromURL(given, answer));
  if (PARTS.every((part) => $(part).hidden)) await enterAs(user, problem);
  else say(problem);
}

/** Opens the app, or shows the sign-in page. `user` is the answer of `askProxy`. */
async function enterAs(user, problem) {
  if (!currentToken() && !user.subject) await signInFromTabs();
  if (currentToken() || user.subject) {
    attempt(openApp)(currentToken(), user); // later errors are shown in the app
    say(problem);
  } else {
    await showSignIn(user, problem);
  }
}

/** Shows the sign-in page, or a proxy's end of sign-in. */
async function showSignIn(user, problem) {
  const isPortal = user.status === 401; // a proxy's answer, not Parley's
  if (isPortal) showEndOfSignIn();
  else await askForToken(problem || user.message, "", user);
}

/** Signs in with the token of a link, or with an identity provider's authorization response. */
async function signInFromURL(given, answer) {
  if (given) await useLink(given);
  else if (answer) await (await loadOidc()).completeSignIn(answer);
}

const problemOf = (work) =>
  work.then(
    () => "",
    ({ message }) => message,
  );

async function signInFromTabs() {
  if (!lastSubject()) return;
  const { token, grant } = await askTabs();
  if (token && lastSubject()) keepToken(token, false, grant); // null if signed out meanwhile
}
