// Sign-in by a link that contains a token.

import { $ } from "../dom.js";
import { ask } from "./dialog.js";
import { attempt, say } from "./screen.js";
import { askForToken, closeApp, otherUserThan, signedIn, signIn } from "./sign-in.js";
import { nameOf, subjectOf } from "./tokens.js";

const LOOPBACK = ["127.0.0.1", "[::1]", "localhost"];

/**
 * Signs in with the token of a link. Anyone can send such a link, and a person who follows it
 * unaware would write into somebody else's account. So we ask first, unless that user is signed in
 * already.
 */
export async function signInByLink(token) {
  const subject = subjectOf(token);
  const other = otherUserThan(token);
  if (other) await askToChange(token, subject || "nobody", other);
  else if (signedIn()) await signIn(token, Boolean(localStorage.getItem("token")));
  else if (subject) askWhetherItIs(token, subject);
  else askForToken("The token in this link is incomplete. Copy the link again.");
}

async function askToChange(token, subject, other) {
  const isolated = (name) => `\u2068${name}\u2069`;
  const signsIn = `This link signs in ${isolated(subject)}.`;
  if (await ask(`${signsIn} You are signed in as ${isolated(other)}. Change?`, "Change")) {
    await signIn(token, false);
  }
}

/** Asks the person whether they are this user. Nothing is sent or stored before they confirm. */
function askWhetherItIs(token, subject) {
  closeApp("by-link");
  $("link-subject").textContent = subject;
  $("sign-in-by-link").textContent = `Sign in as ${nameOf(subject)}`;
  $("sign-in-by-link").onclick = attempt(
    () => signIn(token, $("remember-link").checked),
    (message) => message && ($("app").hidden ? askForToken(message) : say(message)),
  );
  $("sign-in-by-link").focus();
  $("remember-link").checked = LOOPBACK.includes(location.hostname);
  $("other-token").onclick = () => askForToken();
}
