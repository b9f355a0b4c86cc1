// The page starts here. Each module sets up its own part of the page when it is imported.

import { $ } from "../dom.js";
import { on } from "./api.js";
import "./composer.js";
import { listAgain } from "./list.js";
import "./model-menu.js";
import { goToNewChat, route } from "./replies.js";
import { announce, attempt, sayAfter, sayIfAny } from "./screen.js";
import "./shortcuts.js";
import { askForToken, start, useLink } from "./sign-in.js";
import { takeTokenFromURL } from "./tokens.js";

on.lost = (why = "The connection is lost.") => {
  $("connection").textContent = `${why} Trying again…`;
};
on.found = () => {
  $("connection").textContent = "";
};

$("new").onclick = goToNewChat;

function closeDrawer() {
  if ($("sidebar").matches(":popover-open")) $("sidebar").hidePopover();
}

$("sidebar").onclick = ({ target }) => {
  if (target.closest("a, #new")) closeDrawer();
};
$("skip").onfocus = closeDrawer; // it would cover the link
$("skip").onclick = (event) => {
  event.preventDefault(); // the fragment of the address is the chat's id
  $("thread").focus();
};

addEventListener(
  "hashchange",
  attempt(async () => {
    const token = takeTokenFromURL();
    await (token ? useLink(token) : route());
  }),
);

// The usage panel. Its module, like that of the account panel, is fetched only when needed.

const showUsage = attempt(async () => {
  const { attemptUsage } = await import("./usage.js");
  await attemptUsage();
}, sayIfAny);

$("usage").autofocus = true; // as a property, for the same reason as the system prompt's
$("usage").onbeforetoggle = ({ newState }) => {
  if (newState === "open") showUsage();
  // The button is in the sidebar, itself a popover on a phone: browsers do not return the focus
  // there.
  else if ($("usage").contains(document.activeElement)) $("usage-button").focus();
};

// The account panel: theme, export and import.

const page = { say: sayAfter, announce, listAgain };

const loadTransfer = () => import("./transfer.js");

$("account").onbeforetoggle = loadTransfer;

$("download").onclick = attempt(
  async () => (await loadTransfer()).downloadAll($("download"), page),
  sayIfAny,
);
$("import").onclick = () => $("file").click();
const takeFile = attempt(async (file) => {
  await (await loadTransfer()).importFile(file, $("import"), page);
}, sayIfAny);

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = ""; // otherwise choosing the same file again would fire no event
  if (file) takeFile(file);
};
$("stop-transfer").onclick = attempt(async () => (await loadTransfer()).stopTransfer(), sayIfAny);

const colours = document.documentElement.dataset;
colours.theme = localStorage.getItem("theme") ?? "";
$("theme").value = colours.theme;
$("theme").onchange = ({ target }) => {
  colours.theme = target.value;
  localStorage.setItem("theme", target.value);
};

attempt(start, (message) => message && askForToken(message))();
