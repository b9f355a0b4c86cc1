// The model, system prompt and options of the session on the screen, or of the next new one.

import { $, element } from "../dom.js";
import { write } from "../markdown/markdown.js";
import { api } from "./api.js";
import { newChatSettings, saveChoices, savedChoices, setForNextChat } from "./choices.js";
import { showDraft } from "./drafts.js";
import { fill, isOpen, options, showFaults, systemPrompt } from "./options.js";
import { attempt, publish, state, updateFrame } from "./screen.js";

/**
 * Shows the model, system prompt, options and draft of the session on the screen, or of a new one.
 */
export function showSettings() {
  const { current } = state;
  chooseModel();
  const { system, options: values } = current ?? newChatSettings();
  if (!isOpen()) fill(system, values); // if the panel is open, somebody may be typing
  showDraft();
  updateFrame();
}

export const defaultModel = () => state.models.find((model) => model.default)?.id;

let isListed = false; // whether the list of models has arrived

/** The model of a new chat: the chosen one; the default if that is no longer served. */
function newModel() {
  const { model } = newChatSettings();
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
  const isSame = isListed && JSON.stringify(data) === JSON.stringify(state.models);
  state.models = data;
  state.maxFile = meta.max_file;
  isListed = true;
  // Replacing the options would close the list if it is open.
  if (!isSame) {
    const groups = [group("Default", true), group("Other models", false)];
    $("model").replaceChildren(...groups.filter(({ children }) => children.length));
  }
  chooseModel();
  write($("hint"), meta.hint ?? "");
  $("hint").hidden = !meta.hint;
  updateFrame();
  publish("models");
}

// As long as there are no models, or there is a hint, ask again: somebody may be pulling a model, for
// example with Ollama, or starting a provider again.

const LOOK_AGAIN = 5000; // ms

let isLooking = false;

const lookForModels = attempt(
  async () => {
    const isLacking = isListed && (!state.models.length || !$("hint").hidden);
    if (!isLacking || isLooking || $("app").hidden || document.hidden) return;
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

/** Changes a session's title, model, system prompt or options. */
export async function change(id, changes) {
  const changed = await api("PATCH", `sessions/${id}`, { body: changes });
  if (state.current?.id === id) state.current = { ...state.current, ...changed };
  updateFrame();
}

/** Sets a session's model to the default, and returns that; undefined if there is none. */
export async function useDefaultModel(id) {
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
  updateFrame();
  if (current) await change(current.id, { model }).finally(chooseModel);
  else setForNextChat({ model });
  // The default is not stored as a choice: if the server's default changes, new chats follow.
  saveChoices({ model: model === defaultModel() ? undefined : model });
  if (current) publish("model");
});

$("settings").oninput = ({ target }) => {
  if (state.current) return;
  if (target !== $("system")) setForNextChat({ options: options() });
  else {
    const isAsChosen = systemPrompt() === (savedChoices().system ?? null);
    setForNextChat({ system: isAsChosen ? undefined : target.textContent });
  }
};

// The row for the default prompt is fetched when the panel opens. The panel works without it.
$("settings").onbeforetoggle = ({ newState }) => {
  if (newState !== "open") return;
  import("./default-prompt.js").then(
    ({ show }) => show(),
    () => {},
  );
};

$("settings").ontoggle = ({ newState }) => {
  if (newState === "closed") showFaults({ faults: [] });
};

$("settings").onsubmit = attempt(async () => {
  const { current } = state;
  const values = options();
  if (current) await change(current.id, { system: systemPrompt(), options: values });
  saveChoices({ options: values });
  $("settings").hidePopover();
  updateFrame();
});

// Focuses the field when its panel opens. As an attribute in the HTML, it would apply to the page's
// load.
$("system").autofocus = true;
