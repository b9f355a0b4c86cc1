// A chat of the AI SDK over parley-client's transport, as a page has it that was just loaded. It does what each line of its
// input says, and answers each with a line: what it shows then. A message, a new answer and a stop are not waited for.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { ParleyTransport } from "parley-client/ai";

const [sdk, url, token, file, id] = process.argv.slice(2); // the file is what a browser keeps
const { AbstractChat } = await import(sdk);

/** As those of the SDK for React, Vue and Svelte are: they keep what is shown. */
class Chat extends AbstractChat {
  constructor({ messages, ...options }) {
    const state = {
      status: "ready",
      error: undefined,
      messages,
      pushMessage: (message) => (state.messages = [...state.messages, message]),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (index, message) => (state.messages = state.messages.with(index, message)),
      snapshot: structuredClone,
    };
    super({ ...options, state });
  }
}

const kept = existsSync(file) ? JSON.parse(readFileSync(file, "utf-8")) : {};
const places = {
  get: (name) => kept[name],
  set(name, place) {
    kept[name] = place;
    writeFileSync(file, JSON.stringify(kept));
  },
};
const transport = new ParleyTransport(url, { token: async () => token, places });
const chat = new Chat({ id, transport, messages: await transport.messages(id) });

const shown = () => ({
  status: chat.status,
  error: chat.error ? [chat.error.message, chat.error.status ?? null] : null,
  messages: chat.messages.map(({ role, parts }) => {
    const text = parts.filter(({ type }) => type === "text").map((part) => part.text);
    return `${role}: ${text.join("")}`;
  }),
  parts: (chat.lastMessage?.parts ?? []).map(({ type, state, text }) => `${type}: ${text}${state === "streaming" ? "…" : ""}`),
  metadata: chat.lastMessage?.metadata ?? null,
});

const partOf = (url) => ({ type: "file", mediaType: "image/png", url });

const DO = {
  send: ({ text }) => void chat.sendMessage({ text }),
  // Without a text, the SDK wants none.
  attach: ({ text, urls }) => void chat.sendMessage({ ...(text && { text }), files: urls.map(partOf) }),
  edit({ text, index, keeps }) {
    const { id, parts } = chat.messages.at(index);
    const files = parts.filter(({ type }) => type === "file");
    void chat.sendMessage({ text, ...(keeps && { files }), messageId: id });
  },
  // The images of all messages, and their bytes.
  async files() {
    const parts = chat.messages.flatMap(({ parts }) => parts.filter(({ type }) => type === "file"));
    const blobs = await Promise.all(parts.map((part) => transport.file(part)));
    const bytes = await Promise.all(blobs.map((blob) => blob.arrayBuffer()));
    return { files: parts, bytes: bytes.map((each) => Buffer.from(each).toString("base64")) };
  },
  regenerate: () => void chat.regenerate(),
  stop: () => void chat.stop(),
  resume: () => void chat.resumeStream(),
  // As React does in its strict mode: it lets a component come, go and come.
  async resumeTwice() {
    void chat.resumeStream();
    void chat.stop();
    void chat.resumeStream();
  },
  async goOn() {
    await transport.continue(chat.id);
    void chat.resumeStream();
  },
  cancel: () => transport.cancel(chat.id),
  open: ({ session }) => transport.open(chat.id, session),
  think: async () => ({ thinking: await transport.thinking(chat.id, chat.lastMessage.id) }),
  look: () => {},
};

for await (const line of createInterface({ input: process.stdin })) {
  const { does, ...options } = JSON.parse(line);
  const told = await DO[does](options);
  console.log(JSON.stringify({ ...shown(), ...told }));
}
