// Conversations of ChatGPT and Claude as what POST /sessions/import takes. Neither publishes what

// its export looks like: it is known from what users and other programs have published. `flask
// import` has the same rules.

const LONGEST_NAME = 200; // characters of a title, or of a model
// ChatGPT's types of content that are said; of the others, these are settings.
const TEXTS = ["text", "multimodal_text"];
const CONTEXTS = ["user_editable_context", "model_editable_context"];
const MARKER = /\ue200[^\ue200\ue201]*\ue201/g; // of a source: ChatGPT shows a link there
// And here a name. A browser's stack bears no millions of repetitions of a group, but those of one
// set of characters.
const ENTITY =
  /\ue200entity\ue202\["[^"]*","([^"\\]*(?:\\[^][^"\\]*){0,99999})"[^\ue200\ue201]*\ue201/g;
const SAID = ["text", "voice_note"]; // Claude's types of blocks that are said
// What stands in the text of its old messages for a block of another type.
const NOT_SUPPORTED = /```\s*This block is not supported on your current device yet\.\s*```/g;
const FILES = ["image", "document"]; // Claude's types of blocks whose bytes are not in its export
// Those that it does not show.
const HIDDEN = ["injected_prompt_block", "token_budget", "summaries"];

const DATE = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:\d\d)?$/;

/** Why a conversation is not imported: a sentence. */
export class Refusal extends Error {}
const CIRCLE = "Its messages refer to each other in a circle.";

/** Whether this is a conversation, by what only Parley's, ChatGPT's and Claude's have. */
export const isConversation = (value) =>
  ["turns", "mapping", "chat_messages"].some((name) => Object.hasOwn(value, name));

/**
 * The `body` of a conversation's import, and how much of it was `left` out: images and other
 * `files`, `tools` and thinking, and messages of other `branches`. Throws a Refusal.
 */
export function convert(value) {
  const left = { files: 0, tools: 0, branches: 0 };
  if (Object.hasOwn(value, "turns")) {
    return { body: { ...value, origin: originOf("parley", value.id) }, left };
  }
  return {
    body: Object.hasOwn(value, "mapping") ? fromChatGPT(value, left) : fromClaude(value, left),
    left,
  };
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const objectsOf = (list) => (Array.isArray(list) ? list.filter(isObject) : []);
const isText = (value) => typeof value === "string" && value.trim() !== "";
/** What a database can hold of a text. */
const storable = (text) => text.toWellFormed().replaceAll("\0", "\ufffd");
/** The texts that are some, as one. */
const join = (texts) => texts.filter(isText).join("\n\n");

/**
 * The time in whole seconds, of seconds since 1970 or of an ISO date; undefined where it is none.
 */
function timeOf(time) {
  const [, day, zone = "Z"] = DATE.exec(time) ?? [];
  const seconds = typeof time === "number" ? time : Date.parse(day + zone) / 1000;
  const isTime = seconds >= 0 && seconds < 253_402_300_800; // the year 10000
  return isTime ? `${new Date(Math.floor(seconds) * 1000).toISOString().slice(0, 19)}Z` : undefined;
}

const nameOf = (name) =>
  isText(name) ? storable([...name].slice(0, LONGEST_NAME).join("")) : undefined;

function originOf(from, id) {
  if (!isText(id)) throw new Refusal("It has no id.");
  return `${from}:${id}`;
}

/** The ids from the first to this one, by the `parents` of all. */
function branchTo(id, parents) {
  const branch = new Set();
  for (; parents.has(id); id = parents.get(id)) {
    if (branch.has(id)) throw new Refusal(CIRCLE);
    branch.add(id);
  }
  return [...branch].toReversed();
}

function leavesOf(parents) {
  const inner = new Set(parents.values());
  return [...parents.keys()].filter((id) => !inner.has(id));
}

/** Turns, of which the first is the user's. Replies that follow each other are one. */
function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    const last = turns.at(-1);
    if (message.kind === "user") turns.push(message);
    else if (last?.kind === "assistant") {
      last.content = join([last.content, message.content]);
      last.model = message.model;
    } else if (last) turns.push(message);
  }
  if (!turns.length) throw new Refusal("It has no message of yours.");
  return turns;
}

// ChatGPT: nodes, of which each names its parent, and perhaps has a message

function fromChatGPT(
  { id, conversation_id, title, create_time, update_time, mapping, current_node },
  left,
) {
  const origin = originOf("chatgpt", isText(id) ? id : conversation_id);
  const nodes = new Map(Object.entries(mapping ?? {}).filter(([, node]) => isObject(node)));
  const parents = new Map([...nodes].map(([key, { parent }]) => [key, parent]));
  const end = nodes.has(current_node) ? current_node : leavesOf(parents).at(-1);
  if (nodes.size && end === undefined) throw new Refusal(CIRCLE);
  const branch = branchTo(end, parents);
  const messages = branch.map((key) => readChatGPT(nodes.get(key).message, left)).filter(Boolean);
  branch.forEach((key) => nodes.delete(key));
  const others = [...nodes.values()].map(({ message }) => readChatGPT(message)).filter(Boolean);
  left.branches = others.length;
  return {
    origin,
    title: nameOf(title),
    created_at: timeOf(create_time),
    updated_at: timeOf(update_time),
    turns: turnsOf(messages),
  };
}

/** A turn of a message; nothing where it has none to show. */
function readChatGPT(message, left = {}) {
  if (isHiddenByChatGPT(message)) return undefined;
  const { author, content, metadata, create_time } = message;
  if (!isTextOfChatGPT(message)) {
    left.tools++;
    return undefined;
  }
  const { text, files, mark } = partsOfChatGPT(content.parts, objectsOf(metadata?.attachments));
  left.files += files;
  const isUser = author.role === "user";
  const shown = isUser ? text || mark : text;
  if (!shown) return undefined;
  const model = isUser ? {} : { model: nameOf(metadata?.model_slug) };
  return { kind: author.role, content: shown, created_at: timeOf(create_time), ...model };
}

/** What is not shown there is no turn either: system prompts, and what is put before a talk. */
function isHiddenByChatGPT(message) {
  if (!isObject(message)) return true;
  const { author, content, metadata } = message;
  const isMarked = metadata?.is_visually_hidden_from_conversation;
  return (
    isMarked ||
    CONTEXTS.includes(content?.content_type) ||
    !author?.role ||
    author.role === "system"
  );
}

/** Whether it is what a person or the model says: not what a tool is told, or tells. */
function isTextOfChatGPT({ author, content, recipient }) {
  const isForAll = [undefined, null, "", "all"].includes(recipient);
  return (
    isForAll && ["user", "assistant"].includes(author.role) && TEXTS.includes(content?.content_type)
  );
}

/**
 * The text of a message, how many images and other files it has, and what is said where it has
 * nothing but these.
 */
function partsOfChatGPT(parts, attachments) {
  const all = Array.isArray(parts) ? parts : [];
  const isSpoken = (part) => part?.content_type === "audio_transcription";
  const text = join(
    all.map((part) => (isSpoken(part) ? part.text : typeof part === "string" && unmarked(part))),
  );
  const others = objectsOf(all).filter((part) => !isSpoken(part));
  const types = [
    ...others.map(({ content_type }) => content_type),
    ...attachments.map(({ mime_type }) => mime_type),
  ];
  const files = Math.max(others.length, attachments.length); // an image is in both
  return { text: storable(text), files, mark: files ? markOf(types) : "" };
}

const unmarked = (text) => text.replace(ENTITY, "$1").replace(MARKER, "");

/** What is said where a message has nothing but images and files of these types. */
const markOf = (types) =>
  types.some((type) => isText(type) && type.includes("image")) ? "[image]" : "[file]";

// Claude: messages in a list, which may name their parents

function fromClaude(
  { uuid, name, created_at, updated_at, chat_messages, current_leaf_message_uuid },
  left,
) {
  const origin = originOf("claude", uuid);
  const all = objectsOf(chat_messages);
  const branch = branchOfClaude(all, current_leaf_message_uuid);
  const isOnBranch = new Set(branch);
  const messages = branch.map((message) => readClaude(message, left)).filter(Boolean);
  left.branches = all.filter((message) => !isOnBranch.has(message) && readClaude(message)).length;
  return {
    origin,
    title: nameOf(name),
    created_at: timeOf(created_at),
    updated_at: timeOf(updated_at),
    turns: turnsOf(messages),
  };
}

/**
 * All messages; where some have the same parent, those that lead to the one that is named, or to
 * the newest.
 */
function branchOfClaude(messages, named) {
  const given = messages.map(({ parent_message_uuid }) => parent_message_uuid).filter(isText);
  if (new Set(given).size === given.length) return messages;
  const byId = new Map(messages.map((message) => [message.uuid, message]));
  const parents = new Map(
    messages.map(({ uuid, parent_message_uuid }) => [uuid, parent_message_uuid]),
  );
  const time = (id) => Date.parse(byId.get(id).created_at) || 0;
  const later = (one, other) => (time(one) > time(other) ? one : other);
  const leaves = leavesOf(parents);
  if (!byId.has(named) && !leaves.length) throw new Refusal(CIRCLE);
  return branchTo(byId.has(named) ? named : leaves.reduce(later), parents).map((id) =>
    byId.get(id),
  );
}

/** A turn of a message; nothing where it has none to show. */
function readClaude(message, left = {}) {
  const { sender, created_at } = message;
  if (!["human", "assistant"].includes(sender)) return undefined;
  const isUser = sender === "human";
  const content = textOfClaude(message, isUser, left);
  if (!content) return undefined;
  return { kind: isUser ? "user" : sender, content, created_at: timeOf(created_at) };
}

/** What a message says. A user's files are of it where there is their text. */
function textOfClaude({ text, content, attachments, files }, isUser, left) {
  const blocks = objectsOf(content);
  const types = blocks.map(({ type }) => type);
  const shown = types.filter((type) => FILES.includes(type));
  const enclosed = [...objectsOf(attachments), ...objectsOf(files)];
  left.tools += types.filter((type) => ![...SAID, ...FILES, ...HIDDEN].includes(type)).length;
  left.files +=
    shown.length + enclosed.filter(({ extracted_content }) => !isText(extracted_content)).length;
  const texts = blocks.filter(({ type }) => SAID.includes(type)).map((block) => block.text);
  if (!blocks.length && isText(text)) texts.push(text.replace(NOT_SUPPORTED, ""));
  if (isUser) texts.push(...enclosed.map(fileAsText));
  const mark = isUser && shown.length ? markOf(shown) : "";
  return storable(join(texts)) || mark;
}

function fileAsText({ file_name, extracted_content }) {
  const label = isText(file_name) ? `[file ${file_name}]` : "[file]";
  return isText(extracted_content) ? `${label}\n${extracted_content}` : label;
}
