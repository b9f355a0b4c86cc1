// Who is signed in: by a token, which may be an identity provider's, or by the word of a proxy in
// front of the server.

import { $, button } from "../dom.js";
import { write } from "../markdown/markdown.js";
import { pause } from "../parley.js";
import { api, lose, on, store, useProxy, useToken } from "./api.js";
import { forgetChoices, useChoicesOf } from "./choices.js";
import { list } from "./list.js";
import { route } from "./replies.js";
import { attempt, say, sayAt, sayIfAny, state } from "./screen.js";
import { listModels } from "./settings.js";
import {
  heldGrant,
  heldToken,
  isRemembered,
  keepToken,
  lastSubject,
  nameOf,
  removeToken,
  replaceToken,
  subjectOf,
  takeAnswer,
  takeToken,
} from "./tokens.js";

// Most servers have no identity provider. What goes there is fetched where there is one.
const loadOidc = () => import("./oidc.js");

let shown = ""; // whose chats the page shows
let isProxied = false; // whether a proxy signs people in, and no token is needed

// A new tab is signed in as the others are. Only pages of this address hear the question, and the
// answer.
const tabs = new BroadcastChannel(`parley ${new URL(".", location).pathname}`);
tabs.addEventListener("message", ({ data }) => {
  // A refresh token is one tab's: providers may take each once only.
  const grant = heldGrant() && { ...heldGrant(), refresh: undefined };
  if (data === "token?" && shown) tabs.postMessage({ token: heldToken(), grant });
  if (data === "signed out" && shown && !isProxied) leaveEmpty();
});

/**
 * The token that another tab has of the user who has signed in last, and its grant, if one answers
 * within a fifth of a second.
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
 * Who is signed in in this tab or, without "Remember", in another. A token comes before the proxy.
 */
export function signedIn() {
  if (heldToken()) return subjectOf(heldToken());
  return isProxied ? shown : lastSubject();
}

/** The user who is signed in, if that is another one than this token's. */
export const otherThan = (token) =>
  [shown, signedIn()].find((subject) => subject && subject !== subjectOf(token));

/** Signs in with this token, if the server takes it; with its grant, if a provider has given it. */
export async function signIn(token, remember, grant) {
  await api("GET", "me", { as: token });
  const isOther = otherThan(token);
  if (isOther) sessionStorage.clear();
  keepToken(token, remember, grant);
  if (isOther) leave();
  else await enter(token);
}

/**
 * Loads the page again, so that nothing that one user has seen or typed stays in memory for
 * another.
 */
function leave() {
  history.replaceState(null, "", location.pathname);
  location.reload();
}

/** The same, and forgets what was typed. */
function leaveEmpty() {
  sessionStorage.clear();
  leave();
}

/** Shows the chats of the user of this token, or without one of `user`, whom a proxy names. */
async function enter(token, user) {
  isProxied = !token;
  shown = token ? subjectOf(token) : user.subject;
  if (isProxied) useProxy(shown);
  else useToken(token);
  takeTab(shown);
  useChoicesOf(shown);
  $("remembered").checked = isRemembered(token);
  $("remembering").hidden = Boolean(heldGrant());
  $("of-token").hidden = isProxied;
  if (heldGrant()) loadOidc().then(({ planRenewal }) => planRenewal());
  showOnly("app");
  tellUser(isProxied ? user : { subject: shown, name: nameOf(shown) });
  await Promise.all([!isProxied && api("GET", "me").then(tellUser), route(), list(), listModels()]);
}

/** Says who is signed in. */
function tellUser({ subject, name }) {
  $("user").textContent = name || subject;
  $("account-button").ariaLabel = `Signed in as ${name || subject}`;
  $("subject").textContent = subject;
}

/**
 * Forgets what this tab has kept of another user, and opens the chat from which the page of the
 * proxy, or of the identity provider, was visited.
 */
function takeTab(subject) {
  if (!subject) return; // what is no token is nobody's, and will be refused
  const before = sessionStorage.getItem("subject");
  const chat = before && before !== subject ? "" : sessionStorage.getItem("chat");
  if (before !== subject) clearButToken();
  sessionStorage.setItem("subject", subject);
  if (chat && !location.hash) history.replaceState(null, "", chat);
  store("chat", "");
}

function clearButToken() {
  const [token, grant] = [sessionStorage.getItem("token"), heldGrant()];
  sessionStorage.clear();
  if (token) replaceToken(token, grant);
}

const PARTS = ["app", "door", "by-link", "ended"];

/** Shows one part of the page: the app, the door, a link's question, or a proxy's end of sign-in. */
function showOnly(shownPart) {
  for (const part of PARTS) $(part).hidden = part !== shownPart;
}

/** Shows another part of the page in the place of the app. */
export function closeApp(part) {
  state.screen.abort();
  document.querySelectorAll(".shown").forEach((dialog) => dialog.close());
  document.querySelectorAll(":popover-open").forEach((popover) => popover.hidePopover());
  showOnly(part);
}

/**
 * Says that the proxy has to sign in anew, which it does where the page is loaded. What was typed
 * is kept.
 */
function showEndOfSignIn() {
  closeApp("ended");
  $("again").focus();
}

function signInAgain() {
  store("chat", location.hash);
  location.reload();
}

$("again").onclick = signInAgain;

// In another tab, somebody may have signed in anew at the proxy, or somebody else.
let looking = new AbortController(); // aborts when it is looked again
const look = attempt(async () => {
  looking.abort();
  looking = new AbortController();
  const { subject } = await api("GET", "me", { signal: looking.signal, unless: 401 });
  if (!subject) showEndOfSignIn();
  else if (!$("ended").hidden) signInAgain();
}, sayIfAny);
addEventListener("visibilitychange", () => {
  if (isProxied && !document.hidden) look();
});

/** What is refused is an answer, too; what else goes wrong is not. */
function orRefusal(error) {
  if (!error.status) throw error;
  return error;
}

export const refuse = sayAt("refusal");

/**
 * Asks for a token, and says why. What was typed is kept for when the same user comes back. `user`
 * is what `GET /me` has told.
 */
export async function knock(reason = "", className = "", user) {
  closeApp("door");
  refuse(reason, className);
  $("token").focus();
  $("source").replaceChildren();
  const told = user ?? (await api("GET", "me", { as: "" }).catch(orRefusal));
  const { subject, name, message, meta } = told;
  const oidc = meta?.sign_in?.oidc;
  if (oidc) {
    (await loadOidc()).offer(oidc, reason);
  } else if (subject) {
    $("source").replaceChildren(
      button(`Go on as ${name}`, { className: "", onclick: forgetToken }),
    );
  }
  // Tells where tokens come from.
  else if (message !== reason) write($("source"), message.split("<token>. ").at(-1));
}

/**
 * Forgets the token, but not what was typed. Where a proxy signs people in, the page goes on by its
 * word.
 */
function forgetToken() {
  removeToken();
  leave();
}

/** Signs in with the token of a link. Most visits have none. */
export const useLink = async (token) => (await import("./link.js")).takeOver(token);

$("sign-in").onsubmit = attempt(async () => {
  const token = $("token").value.trim();
  $("token").value = "";
  await signIn(token, $("remember").checked);
}, refuse);

$("remembered").onchange = ({ target }) => {
  if (heldToken()) keepToken(heldToken(), target.checked);
};

$("sign-out").onclick = () => {
  const grant = heldGrant();
  removeToken();
  forgetChoices();
  tabs.postMessage("signed out");
  sessionStorage.clear();
  // The page that is loaded goes on to the provider: it knows nothing that could be seen or kept.
  if (grant) sessionStorage.setItem("leaving", JSON.stringify(grant.oidc ?? null));
  leave();
};

addEventListener("storage", () => {
  if (shown && signedIn() !== shown) leaveEmpty(); // another tab has signed out, or another user in
});

on.refused = async (message) => {
  if (isProxied) showEndOfSignIn();
  else if (heldGrant()) (await loadOidc()).goAgain(message);
  else knock(message);
};

on.renew = async () => {
  if (heldGrant()?.refresh) await (await loadOidc()).renew();
};

let isLeaving = false; // several requests may be refused at once
on.changed = () => {
  if (isLeaving) return;
  if (Date.now() - sessionStorage.getItem("changed") < 10_000) {
    // A proxy that names now this user, now that would have the page loaded for ever.
    showEndOfSignIn();
    return;
  }
  isLeaving = true;
  store("changed", String(Date.now()));
  leave();
};

/**
 * Who asks without a token, or the refusal that tells why nobody does. Where the server fails, it
 * is asked again, three times.
 */
async function askProxy() {
  for (let tries = 1; ; tries++) {
    const user = await api("GET", "me", { as: "" }).catch(orRefusal);
    const hasFailed = user.status >= 500 || user.status === 429;
    if (!hasFailed || tries > 3) return user;
    lose();
    await pause(tries);
  }
}

/**
 * Signs in the user of the token that is kept here; else whom a proxy names; else the user of
 * another tab's token.
 */
export async function start() {
  if (sessionStorage.getItem("leaving")) (await loadOidc()).leaveProvider();
  const given = takeToken();
  const answer = takeAnswer();
  const user = heldToken() && !answer ? {} : await askProxy();
  if (user.subject) {
    shown = user.subject; // so that a link asks first
    isProxied = true;
  }
  const problem = await problemOf(takeIn(given, answer));
  if (PARTS.every((part) => $(part).hidden)) await enterAs(user, problem);
  else say(problem);
}

/** Shows the chats of who is signed in. `user` is the answer to who asks without a token. */
async function enterAs(user, problem) {
  if (!heldToken() && !user.subject) await takeFromTabs();
  if (heldToken() || user.subject) {
    attempt(enter)(heldToken(), user); // what goes wrong from here on is said in the app
    say(problem);
  } else {
    await refuseEntry(user, problem);
  }
}

/** Nobody is signed in. */
async function refuseEntry(user, problem) {
  const isPortal = user.status === 401 && !user.meta.sign_in; // it is the proxy who says so
  if (isPortal) showEndOfSignIn();
  else await knock(problem || (user.status === 401 ? "" : user.message), "", user);
}

/** Signs in with the token of a link, or with what an identity provider has answered. */
async function takeIn(given, answer) {
  if (given) await useLink(given);
  else if (answer) await (await loadOidc()).finish(answer);
}

const problemOf = (work) =>
  work.then(
    () => "",
    ({ message }) => message,
  );

async function takeFromTabs() {
  if (!lastSubject()) return;
  const { token, grant } = await askTabs();
  if (token && lastSubject()) keepToken(token, false, grant); // else it was signed out meanwhile
}
