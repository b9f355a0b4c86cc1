// The page of Parley. It begins here: each room sets its own part of the page up as it is imported.

import { $ } from "../dom.js";
import { on } from "./api.js";
import "./composer.js";
import { list } from "./list.js";
import { goToNew, route } from "./replies.js";
import { announce, attempt, sayBehind, sayIfAny } from "./screen.js";
import "./shortcuts.js";
import { knock, start, useLink } from "./sign-in.js";
import { takeToken } from "./tokens.js";

on.lost = (why = "The connection is lost.") => {
  $("connection").textContent = `${why} Trying again…`;
};
on.found = () => {
  $("connection").textContent = "";
};

$("new").onclick = goToNew;
$("sidebar").onclick = ({ target }) => {
  if (target.closest("a, #new") && $("sidebar").matches(":popover-open")) {
    $("sidebar").hidePopover();
  }
};

addEventListener(
  "hashchange",
  attempt(async () => {
    const token = takeToken();
    await (token ? useLink(token) : route());
  }),
);

// The panel of what was used. Most visits need neither it nor what moves chats.

const showUsage = attempt(async () => {
  const { attemptUsage } = await import("./usage.js");
  await attemptUsage();
}, sayIfAny);

$("usage").autofocus = true; // a property, as that of the system prompt
$("usage").onbeforetoggle = ({ newState }) => {
  if (newState === "open") showUsage();
  // From within a drawer, no browser gives the focus back.
  else if ($("usage").contains(document.activeElement)) $("usage-button").focus();
};

// The panel of the account: colours, and chats that leave in a file or come from one.

const page = { say: sayBehind, announce, list };

const moving = () => import("./moving.js");

$("account").onbeforetoggle = moving;

$("download").onclick = attempt(
  async () => (await moving()).downloadAll($("download"), page),
  sayIfAny,
);
$("import").onclick = () => $("file").click();
const takeFile = attempt(async (file) => {
  await (await moving()).importFile(file, $("import"), page);
}, sayIfAny);

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = ""; // else the same file could not be chosen again
  if (file) takeFile(file);
};
$("stop-moving").onclick = attempt(async () => (await moving()).stopMoving(), sayIfAny);

const colours = document.documentElement.dataset;
colours.theme = localStorage.getItem("theme") ?? "";
$("theme").value = colours.theme;
$("theme").onchange = ({ target }) => {
  colours.theme = target.value;
  localStorage.setItem("theme", target.value);
};

attempt(start, (message) => message && knock(message))();
