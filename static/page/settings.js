// The model, the system prompt and the options: of the session on the screen, or of one to be
// created.

import { $, element } from "../dom.js";
import { write } from "../markdown/markdown.js";
import { api } from "./api.js";
import { beginning, choose, chosen, setForNew } from "./choices.js";
import { showDraft } from "./drafts.js";
import { fill, isOpen, options, showFaults, systemPrompt } from "./options.js";
import { attempt, frame, state, tell } from "./screen.js";

/**
 * Shows model, system prompt, options and draft of the session on the screen, or of one to be
 * created.
 */
export function takeUp() {
  const { current } = state;
  chooseModel();
  const { system, options: held } = current ?? beginning();
  if (!isOpen()) fill(system, held); // else they are being typed
  showDraft();
  frame();
}

export const defaultModel = () => state.models.find((model) => model.default)?.id;

let isListed = false; // whether the list of models has come

/** The model of a new chat: the default, where the one that was chosen is not served any more. */
function newModel() {
  const { model } = beginning();
  const isServed = !isListed || state.models.some(({ id }) => id === model);
  return (isServed && model) || defaultModel() || "";
}

export function chooseModel() {
  const model = state.current?.model?.id ?? newModel();
  const isThere = [...$("model").options].some(({ value }) => value === model);
  if (!isThere) $("model").append(new Option(isListed && !model ? "No model yet" : model, model));
  $("model").value = model;
  $("model").disabled = isListed && !model;
}

export async function listModels() {
  const { data, meta } = await api("GET", "models");
  state.models = data;
  isListed = true;
  const groups = [group("Default", true), group("Other models", false)];
  $("model").replaceChildren(...groups.filter(({ children }) => children.length));
  chooseModel();
  write($("hint"), meta.hint ?? "");
  $("hint").hidden = !meta.hint;
  frame();
}

// As long as there is no model, one may be pulled any time.

const LOOK_AGAIN = 5000; // ms

let isLooking = false;

const lookForModels = attempt(
  async () => {
    const isWanted = isListed && !state.models.length && !$("app").hidden && !document.hidden;
    if (!isWanted || isLooking) return;
    isLooking = true;
    await listModels().finally(() => (isLooking = false));
  },
  () => {},
);

setInterval(lookForModels, LOOK_AGAIN);
addEventListener("focus", lookForModels);
addEventListener("visibilitychange", lookForModels);

function group(label, isDefault) {
  const models = state.models.filter((model) => Boolean(model.default) === isDefault);
  return element(
    "optgroup",
    { label },
    models.map(({ id }) => new Option(id)),
  );
}

/** Changes title, model, system prompt or options of a session. */
export async function change(id, changes) {
  const changed = await api("PATCH", `sessions/${id}`, { body: changes });
  if (state.current?.id === id) state.current = { ...state.current, ...changed };
  frame();
}

/** Gives a session the default model, and returns it; undefined where there is none. */
export async function takeDefault(id) {
  await listModels();
  const model = defaultModel();
  if (!model || state.current?.id !== id) return undefined;
  await change(id, { model });
  chooseModel();
  return model;
}

$("model").onchange = attempt(async ({ target }) => {
  const model = target.value;
  const { current } = state;
  frame();
  if (current) await change(current.id, { model }).finally(chooseModel);
  else setForNew({ model });
  // The default is no choice: new chats follow it where the server has another one one day.
  choose({ model: model === defaultModel() ? undefined : model });
  if (current) tell("model");
});

$("settings").oninput = ({ target }) => {
  if (state.current) return;
  if (target !== $("system")) setForNew({ options: options() });
  else {
    const isAsChosen = systemPrompt() === (chosen().system ?? null);
    setForNew({ system: isAsChosen ? undefined : target.textContent });
  }
};

// What new chats begin with is rarely changed: what shows it is fetched when the panel is opened.
// The panel is there without it, too.
$("settings").onbeforetoggle = ({ newState }) => {
  if (newState !== "open") return;
  import("./own-prompt.js").then(
    ({ show }) => show(),
    () => {},
  );
};

$("settings").ontoggle = ({ newState }) => {
  if (newState === "closed") showFaults({ faults: [] });
};

$("settings").onsubmit = attempt(async () => {
  const { current } = state;
  const held = options();
  if (current) await change(current.id, { system: systemPrompt(), options: held });
  choose({ options: held });
  $("settings").hidePopover();
  frame();
});

// Its panel gives it the focus; as an attribute in the HTML, the whole page would try to.
$("system").autofocus = true;
