// Conversations of ChatGPT and Claude as what POST /sessions/import takes. Neither publishes what its export looks like: it is
// known from what users and other programs have published. `flask import` has the same rules.

const LONGEST_TITLE = 200; // characters
const TEXTS = ["text", "multimodal_text"]; // ChatGPT's kinds of content that are shown as they are
const TOOLS = ["thinking", "redacted_thinking", "tool_use", "tool_result"]; // Claude's kinds of blocks that are not
const FILES = ["image", "document"];
// Between two characters of Unicode's private use ChatGPT names its sources.
const MARKER = /\ue200[^\ue200\ue201]*\ue201/g;
// Claude has this in `text` for each block of `content` that is none of text.
const PLACEHOLDER = "```\nThis block is not supported on your current device yet.\n```";

const DATE = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:\d\d)?$/;

/** Why a conversation is not imported. */
export class Refusal extends Error {}
const CIRCLE = "its messages refer to each other in a circle";

/**
 * The `body` of an import, and how much of the conversation was `left` out: images and other `files`, `tools` and thinking, and
 * messages of other `branches`. Nothing, where the value is no conversation. Throws a Refusal.
 */
export function convert(value) {
  const left = { files: 0, tools: 0, branches: 0 };
  if (Array.isArray(value.turns)) return { body: { ...value, origin: originOf("parley", value.id) }, left };
  if (isObject(value.mapping)) return { body: fromChatGPT(value, left), left };
  if (Array.isArray(value.chat_messages)) return { body: fromClaude(value, left), left };
  return undefined;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const objectsOf = (list) => (Array.isArray(list) ? list.filter(isObject) : []);
const isText = (value) => typeof value === "string" && value.trim() !== "";
/** What a database can hold of a text. */
const storable = (text) => text.toWellFormed().replaceAll("\0", "\ufffd");
/** The texts that are some, as one. */
const join = (texts) => texts.filter(isText).join("\n\n");

/** The time in whole seconds, of seconds since 1970 or of an ISO date; undefined where it is none. */
function timeOf(time) {
  const [, day, zone = "Z"] = DATE.exec(time) ?? [];
  const seconds = typeof time === "number" ? time : Date.parse(day + zone) / 1000;
  const isTime = seconds > 0 && seconds < 253_402_300_800; // the year 10000
  return isTime ? `${new Date(Math.floor(seconds) * 1000).toISOString().slice(0, 19)}Z` : undefined;
}

const titleOf = (title) => (isText(title) ? storable([...title].slice(0, LONGEST_TITLE).join("")) : undefined);

function originOf(from, id) {
  if (!isText(id)) throw new Refusal("it has no id");
  return `${from}:${id}`;
}

/** The ids from the first to this one, by the `parents` of all. */
function branchTo(id, parents) {
  const branch = new Set();
  for (; parents.has(id); id = parents.get(id)) {
    if (branch.has(id)) throw new Refusal(CIRCLE);
    branch.add(id);
  }
  return [...branch].reverse();
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
      last.model = message.model ?? last.model;
    } else if (last) turns.push(message);
  }
  if (!turns.length) throw new Refusal("it has no message of yours");
  return turns;
}

// ChatGPT: nodes, of which each names its parent, and perhaps has a message

function fromChatGPT({ id, conversation_id, title, create_time, update_time, mapping, current_node }, left) {
  const nodes = new Map(Object.entries(mapping).filter(([, node]) => isObject(node)));
  const parents = new Map([...nodes].map(([key, { parent }]) => [key, parent]));
  const end = nodes.has(current_node) ? current_node : leavesOf(parents).at(-1);
  if (nodes.size && end === undefined) throw new Refusal(CIRCLE);
  const branch = branchTo(end, parents);
  const messages = branch.map((key) => readChatGPT(nodes.get(key).message, left)).filter(Boolean);
  branch.forEach((key) => nodes.delete(key));
  const others = [...nodes.values()].map(({ message }) => readChatGPT(message)).filter(Boolean);
  left.branches = others.length;
  return {
    origin: originOf("chatgpt", isText(id) ? id : conversation_id),
    title: titleOf(title),
    created_at: timeOf(create_time),
    updated_at: timeOf(update_time),
    turns: turnsOf(messages),
  };
}

/** A turn of a message; nothing where it has none to show. */
function readChatGPT(message, left = {}) {
  if (!isObject(message) || message.metadata?.is_visually_hidden_from_conversation) return undefined;
  const { author, content, recipient, metadata, create_time } = message;
  const [isUser, isAssistant] = ["user", "assistant"].map((role) => author?.role === role);
  const isShown = TEXTS.includes(content?.content_type);
  const isForAll = [undefined, null, "all"].includes(recipient); // else for a tool
  if (author?.role === "tool" || (isAssistant && !(isShown && isForAll))) return void left.tools++;
  if (!isShown || !(isUser || isAssistant)) return undefined;
  const { text, files, mark } = partsOfChatGPT(content.parts, metadata?.attachments);
  left.files += files;
  const shown = text || (isUser && mark);
  if (!shown) return undefined;
  const turn = { kind: author.role, content: shown, created_at: timeOf(create_time) };
  return isUser ? turn : { ...turn, model: isText(metadata?.model_slug) ? storable(metadata.model_slug) : undefined };
}

/** The text of a message, how many images and other files it has, and what is said where it has nothing but these. */
function partsOfChatGPT(parts, attachments) {
  const all = Array.isArray(parts) ? parts : [];
  const isSpoken = (part) => part?.content_type === "audio_transcription";
  const text = storable(join(all.map((part) => (isSpoken(part) ? part.text : part))).replace(MARKER, ""));
  const others = objectsOf(all).filter((part) => !isSpoken(part));
  const files = Math.max(others.length, objectsOf(attachments).length); // an image is in both
  const mark = others.some((part) => part.content_type === "image_asset_pointer") ? "[image]" : "[file]";
  return { text: isText(text) ? text : "", files, mark: files ? mark : "" };
}

// Claude: messages in a list, which may name their parents

function fromClaude({ uuid, name, created_at, updated_at, chat_messages, current_leaf_message_uuid }, left) {
  const all = objectsOf(chat_messages);
  const branch = branchOfClaude(all, current_leaf_message_uuid);
  const isOnBranch = new Set(branch);
  const messages = branch.map((message) => readClaude(message, left)).filter(Boolean);
  left.branches = all.filter((message) => !isOnBranch.has(message) && readClaude(message)).length;
  return {
    origin: originOf("claude", uuid),
    title: titleOf(name),
    created_at: timeOf(created_at),
    updated_at: timeOf(updated_at),
    turns: turnsOf(messages),
  };
}

/** All messages; where some have the same parent, those that lead to the one that is named, or to the newest. */
function branchOfClaude(messages, named) {
  const given = messages.map(({ parent_message_uuid }) => parent_message_uuid).filter(isText);
  if (new Set(given).size === given.length) return messages;
  const byId = new Map(messages.map((message) => [message.uuid, message]));
  const parents = new Map(messages.map(({ uuid, parent_message_uuid }) => [uuid, parent_message_uuid]));
  const time = (id) => Date.parse(byId.get(id).created_at) || 0;
  const later = (one, other) => (time(one) > time(other) ? one : other);
  const leaves = leavesOf(parents);
  if (!byId.has(named) && !leaves.length) throw new Refusal(CIRCLE);
  return branchTo(byId.has(named) ? named : leaves.reduce(later), parents).map((id) => byId.get(id));
}

/** A turn of a message; nothing where it has none to show. */
function readClaude({ sender, text, content, attachments, files, created_at }, left = {}) {
  if (!["human", "assistant"].includes(sender)) return undefined;
  const blocks = objectsOf(content);
  const countOf = (types) => blocks.filter(({ type }) => types.includes(type)).length;
  const texts = blocks.filter(({ type }) => type === "text").map((block) => block.text).filter(isText);
  const enclosed = [...objectsOf(attachments), ...objectsOf(files)];
  left.tools += countOf(TOOLS);
  left.files += countOf(FILES) + enclosed.filter(({ extracted_content }) => !isText(extracted_content)).length;
  if (!texts.length && isText(text)) texts.push(text.replaceAll(PLACEHOLDER, ""));
  if (sender === "human") texts.push(...enclosed.map(fileAsText));
  const shown = storable(join(texts));
  return shown ? { kind: sender === "human" ? "user" : sender, content: shown, created_at: timeOf(created_at) } : undefined;
}

function fileAsText({ file_name, extracted_content }) {
  const mark = isText(file_name) ? `[file ${file_name}]` : "[file]";
  return isText(extracted_content) ? `${mark}\n${extracted_content}` : mark;
}
