// The fields of the settings: system prompt and options of a session.

import { $ } from "../dom.js";

export const OPTIONS = ["temperature", "max_tokens", "reasoning_effort"];

export const isOpen = () => $("settings").matches(":popover-open");

/** The system prompt; null where the field is empty. */
export function systemPrompt() {
  return $("system").textContent.trim() || null; // innerText has no newlines while it is not shown
}

/** What the fields hold of the options; null is what is empty. */
export function options() {
  return Object.fromEntries(OPTIONS.map((name) => [name, valueOf($(name))]));
}

function valueOf({ type, value }) {
  if (!value.trim()) return null;
  return type === "number" ? Number(value) : value.trim();
}

export function fill(system, held) {
  $("system").textContent = system ?? "";
  for (const name of OPTIONS) $(name).value = held?.[name] ?? "";
}

/** Shows the faults of options at their fields, and returns what is to be said of all else. */
export function showFaults({ message, faults = [] }) {
  const faultOf = (name) => faults.find(({ source }) => source?.pointer === `/options/${name}`);
  const wrong = OPTIONS.filter(faultOf);
  for (const name of OPTIONS) {
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
