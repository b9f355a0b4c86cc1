// What is typed and not sent yet is kept for this tab, by session.

import { $ } from "../dom.js";
import { store } from "./api.js";
import { state } from "./screen.js";

export const draftName = () => `draft ${state.current?.id ?? ""}`;
export const editName = () => `edit ${state.current?.id}`;

/** What was typed and what is being sent, which may fail. */
export const unsent = () => [state.pending, $("text").value].filter(Boolean).join("\n\n");
export const keepDraft = () => store(draftName(), unsent());
export const draft = () => sessionStorage.getItem(draftName()) ?? "";

/** Takes a message out of a draft: it was sent. */
export const takeOut = (content, name) =>
  store(
    name,
    sessionStorage
      .getItem(name)
      ?.replace(content, () => "")
      .trim(),
  );

/** Forgets what was typed in a session that is gone. */
export function forgetDrafts(id) {
  for (const name of ["draft", "edit"]) store(`${name} ${id}`, "");
}
