// A link with a token in it, which anyone can send.

import { $ } from "../dom.js";
import { ask } from "./dialog.js";
import { knock, otherThan, signedIn, signIn } from "./sign-in.js";
import { subjectOf } from "./tokens.js";

/**
 * Signs in with the token of a link. Anyone can send one, so it renews at once only the sign-in of
 * its own user. Another one is asked, and for who is not signed in it lies at the door.
 */
export async function takeOver(token) {
  const other = otherThan(token);
  if (signedIn() && !other) {
    await signIn(token, Boolean(localStorage.getItem("token")));
    return;
  }
  const isolated = (subject) => `\u2068${subject}\u2069`;
  const offer = `This link signs in ${isolated(subjectOf(token) || "nobody")}.`;
  if (!other) {
    $("token").value = token;
    knock(`${offer} If that is you, sign in.`, "faint");
    return;
  }
  if (await ask(`${offer} You are signed in as ${isolated(other)}. Change?`, "Change")) {
    await signIn(token, false);
  }
}
