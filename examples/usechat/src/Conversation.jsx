import { useRef, useState } from "react";
import { useChat } from "@ai-sdk/react";
import { transport } from "./chats.js";

const EMPTY = { text: "", isChange: false };

const textOf = ({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")).join("");

function partOf({ type, text }, index) {
  if (type !== "reasoning") return text;
  return (
    <details key={index}>
      <summary>Thinking</summary>
      {text}
    </details>
  );
}

/** A chat. `first`: the messages that it has on the server. */
export function Conversation({ id, first }) {
  const [draft, setDraft] = useState(EMPTY); // a message, or an edit of the last one
  const [failure, setFailure] = useState(null); // an error outside useChat
  const sent = useRef(EMPTY);
  // `resume` follows a reply in progress, from its beginning.
  const chat = useChat({ id, messages: first, transport, resume: true, onError, onFinish });
  const isBusy = chat.status === "submitted" || chat.status === "streaming";
  const error = failure ?? chat.error;
  const asked = chat.messages.findLast(({ role }) => role === "user");

  /** If the server refused a message, puts it back into the field. */
  function onError({ status }) {
    if (status < 500) setDraft(sent.current);
  }

  /** After an incomplete reply, what is on the screen may differ from what is stored. */
  async function onFinish({ message, isAbort, isDisconnect }) {
    if (isAbort || isDisconnect || message.metadata?.status === "complete") return;
    await transport.messages(id).then(chat.setMessages, setFailure);
  }

  function ask(next) {
    sent.current = next;
    setDraft(EMPTY);
    setFailure(null);
    if (next === EMPTY) chat.regenerate();
    else chat.sendMessage({ text: next.text, messageId: next.isChange ? asked.id : undefined });
  }

  const resume = () => transport.continue(id).then(() => chat.resumeStream(), setFailure);
  const change = () => setDraft({ text: textOf(asked), isChange: true });

  return (
    <main>
      {chat.messages.map((message) => (
        <article key={message.id} className={message.role}>
          {message.parts.map(partOf)}
        </article>
      ))}
      {chat.status === "submitted" && <p role="status">…</p>}
      {error && <p role="alert">{error.message}</p>}
      {isBusy ? (
        <button onClick={() => transport.cancel(id)}>Stop</button>
      ) : (
        <Actions last={chat.messages.at(-1)} {...{ resume, change }} again={() => ask(EMPTY)} />
      )}
      <Field draft={draft} onChange={setDraft} onSend={isBusy ? null : ask} />
    </main>
  );
}

/** The buttons of the last message. */
function Actions({ last, resume, again, change }) {
  if (!last) return null;
  const isCut = last.role === "assistant" && last.metadata?.status !== "complete";
  return (
    <nav>
      {isCut && textOf(last) && <button onClick={resume}>Continue</button>}
      <button onClick={again}>Answer again</button>
      <button onClick={change}>Edit</button>
    </nav>
  );
}

/** The message field. */
function Field({ draft, onChange, onSend }) {
  function submit(event) {
    event.preventDefault();
    if (onSend && draft.text.trim()) onSend(draft);
  }

  return (
    <form onSubmit={submit}>
      <input
        aria-label="Message"
        autoFocus
        value={draft.text}
        onChange={(event) => onChange({ ...draft, text: event.target.value })}
      />
      <button disabled={!onSend}>Send</button>
    </form>
  );
}
