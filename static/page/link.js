// A link with a token in it, which anyone can send.

import { $ } from "../dom.js";
import { ask } from "./dialog.js";
import { attempt, say } from "./screen.js";
import { closeApp, knock, otherThan, signedIn, signIn } from "./sign-in.js";
import { nameOf, subjectOf } from "./tokens.js";

const LOOPBACK = ["127.0.0.1", "[::1]", "localhost"];

/**
 * Signs in with the token of a link. Anyone can send one, so only the user who is signed in is not
 * asked: a person who signed in as somebody else would write into that user's account.
 */
export async function takeOver(token) {
  const subject = subjectOf(token);
  const other = otherThan(token);
  if (other) await askToChange(token, subject || "nobody", other);
  else if (signedIn()) await signIn(token, Boolean(localStorage.getItem("token")));
  else if (subject) askWhetherItIs(token, subject);
  else knock("The token of this link is not whole. Copy the link again.");
}

async function askToChange(token, subject, other) {
  const isolated = (name) => `\u2068${name}\u2069`;
  const signsIn = `This link signs in ${isolated(subject)}.`;
  if (await ask(`${signsIn} You are signed in as ${isolated(other)}. Change?`, "Change")) {
    await signIn(token, false);
  }
}

/** Asks the person whether they are this user. Nothing is sent or kept until they say so. */
function askWhetherItIs(token, subject) {
  closeApp("by-link");
  $("link-subject").textContent = subject;
  $("sign-in-by-link").textContent = `Sign in as ${nameOf(subject)}`;
  $("sign-in-by-link").onclick = attempt(
    () => signIn(token, $("remember-link").checked),
    (message) => message && ($("app").hidden ? knock(message) : say(message)),
  );
  $("sign-in-by-link").focus();
  $("remember-link").checked = LOOPBACK.includes(location.hostname);
  $("other-token").onclick = () => knock();
}
