// The model, the system prompt and the options: of the session on the screen, or of one to be

import { $ } from "../dom.js";
import { api, store } from "./api.js";
import { draft } from "./drafts.js";
import { fill, isOpen, options, showFaults, systemPrompt } from "./options.js";
import { attempt, frame, state, tell } from "./screen.js";

// created.

/**
 * Shows model, system prompt, options and draft of the session on the screen, or of one to be
 * created.
 */
export function takeUp() {
  const { current } = state;
  chooseModel();
  if (!isOpen()) fillFields(current); // else they are being typed
  if ($("text").value !== draft()) $("text").value = draft(); // else the cursor stays where it is
  frame();
}

function fillFields(current) {
  if (current) fill(current.system, current.options);
  else fill(sessionStorage.getItem("system"), JSON.parse(sessionStorage.getItem("options")));
}

export const defaultModel = () => state.models.find((model) => model.default)?.id;

export function chooseModel() {
  const model = state.current?.model?.id ?? defaultModel() ?? "";
  const isListed = [...$("model").options].some(({ value }) => value === model);
  if (!isListed) $("model").append(new Option(model));
  $("model").value = model;
}

export async function listModels() {
  state.models = (await api("GET", "models")).data;
  $("model").replaceChildren(...state.models.map(({ id }) => new Option(id)));
  chooseModel();
  frame();
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

/**
 * What a new chat begins with is that of another one. What was typed for it comes back with
 * `clearSettings`.
 */
export function takeSettings({ system, options: held }) {
  const typed = ["system", "options"].map((name) => sessionStorage.getItem(name));
  // Else they are those of an earlier try.
  if (!sessionStorage.getItem("typed")) store("typed", JSON.stringify(typed));
  store("system", system);
  store("options", JSON.stringify(held));
}

/**
 * A new chat has begun. For the next one, what was typed for it before this one took the settings
 * of another is left.
 */
export function clearSettings() {
  const [system = "", held = ""] = JSON.parse(sessionStorage.getItem("typed")) ?? [];
  store("system", system);
  store("options", held);
  store("typed", "");
}

$("model").onchange = attempt(async () => {
  frame();
  if (!state.current) return;
  await change(state.current.id, { model: $("model").value }).finally(chooseModel);
  tell("model");
});

$("settings").oninput = () => {
  if (state.current) return;
  store("system", $("system").textContent);
  store("options", JSON.stringify(options()));
};

$("settings").ontoggle = ({ newState }) => {
  if (newState === "closed") showFaults({ faults: [] });
};

$("settings").onsubmit = attempt(async () => {
  const { current } = state;
  if (current) await change(current.id, { system: systemPrompt(), options: options() });
  $("settings").hidePopover();
  frame();
});

// Its panel gives it the focus; as an attribute in the HTML, the whole page would try to.
$("system").autofocus = true;
