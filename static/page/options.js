// The fields of the settings panel: the system prompt and options of a session.

import { $, element } from "../dom.js";

/**
 * A session's options. `word`: its name in a sentence; `tag` and `input`: its field and the field's
 * properties. A `textarea` has a list, one text per line.
 */
const OPTIONS = [
  {
    name: "temperature",
    label: "Temperature",
    word: "temperature",
    input: { type: "number", step: "any" },
  },
  { name: "max_tokens", label: "Max tokens", word: "tokens", input: { type: "number" } },
  {
    name: "reasoning_effort",
    label: "Reasoning effort",
    word: "effort",
    input: { maxLength: 40, autocomplete: "off" },
    suggestions: ["low", "medium", "high"],
  },
  { name: "top_p", label: "Top p", word: "top p", input: { type: "number", step: "any" } },
  { name: "seed", label: "Seed", word: "seed", input: { type: "number" } },
  {
    name: "stop",
    label: "Stop before these texts, one per line",
    word: "stop texts",
    tag: "textarea",
    input: { rows: 2, spellcheck: false },
  },
];
const NAMES = OPTIONS.map(({ name }) => name);

$("options").append(...OPTIONS.map(fieldOf));
$("option-words").textContent = new Intl.ListFormat("en-GB").format(
  OPTIONS.map((each) => each.word),
);

function fieldOf({ name, label, tag = "input", input, suggestions }) {
  const field = element(tag, { id: name, ...input });
  const fault = element("small", { id: `${name}-fault`, role: "alert" });
  field.setAttribute("aria-describedby", fault.id);
  const all = element("div", {}, element("label", {}, `${label} `, field), fault);
  if (suggestions) {
    const rows = suggestions.map((each) => new Option(each));
    all.append(element("datalist", { id: `${name}-list` }, rows));
    field.setAttribute("list", `${name}-list`);
  }
  return all;
}

export const isOpen = () => $("settings").matches(":popover-open");

/** The system prompt in the field; null if it is empty. */
export function systemPrompt() {
  return $("system").textContent.trim() || null; // innerText has no newlines in a hidden field
}

/** The options in the fields; null for an empty one. */
export function options() {
  return Object.fromEntries(NAMES.map((name) => [name, valueOf($(name))]));
}

function valueOf({ type, value }) {
  if (type === "textarea") return textsOf(value);
  if (!value.trim()) return null;
  return type === "number" ? Number(value) : value.trim();
}

// In a line of the field, `\n` stands for a new line, and `\\` for a backslash.

function textsOf(lines) {
  const texts = lines.split("\n").filter(Boolean).map(unescaped);
  return texts.length ? texts : null;
}

const unescaped = (line) => line.replace(/\\([\\n])/g, (_, mark) => (mark === "n" ? "\n" : mark));

const lineOf = (text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");

export function fill(system, values) {
  $("system").textContent = system ?? "";
  for (const name of NAMES) {
    const value = values?.[name] ?? "";
    $(name).value = Array.isArray(value) ? value.map(lineOf).join("\n") : value;
  }
}

/** Shows errors of options at their fields. Returns a message with all others. */
export function showFaults({ message, faults = [] }) {
  const faultOf = (name) => faults.find(({ source }) => source?.pointer === `/options/${name}`);
  const wrong = NAMES.filter(faultOf);
  for (const name of NAMES) {
    $(`${name}-fault`).textContent = faultOf(name)?.detail ?? "";
    $(name).ariaInvalid = wrong.includes(name) ? "true" : null;
  }
  if (!wrong.length) return message;
  if (!isOpen()) $("settings").showPopover();
  $(wrong[0]).focus();
  const shown = wrong.map(faultOf);
  const others = faults.filter((fault) => !shown.includes(fault));
  return others.map(({ detail }) => detail).join(" ");
}
