import { useRef, useState } from "react";
import { useChat } from "@ai-sdk/react";
import { convertFileListToFileUIParts } from "ai";
import { transport } from "./chats.js";
import { Picture } from "./Picture.jsx";

const EMPTY = { text: "", files: [], isChange: false };

const textOf = ({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")).join("");

const filesOf = ({ parts }) => parts.filter(({ type }) => type === "file");

function partOf(part, index) {
  const { type, text } = part;
  if (type === "file") return <Picture key={index} part={part} />;
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
    const { text, files, isChange } = next;
    if (next === EMPTY) chat.regenerate();
    else chat.sendMessage({ text, files, messageId: isChange ? asked.id : undefined });
  }

  const resume = () => transport.continue(id).then(() => chat.resumeStream(), setFailure);
  const change = () => setDraft({ text: textOf(asked), files: filesOf(asked), isChange: true });

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

/** The message field, and the images of the message. */
function Field({ draft, onChange, onSend }) {
  function submit(event) {
    event.preventDefault();
    if (onSend && (draft.text.trim() || draft.files.length)) onSend(draft);
  }

  async function attach({ target }) {
    const more = await convertFileListToFileUIParts(target.files);
    target.value = ""; // otherwise the same file could not be chosen again
    onChange((now) => ({ ...now, files: [...now.files, ...more] }));
  }

  const remove = (part) =>
    onChange({ ...draft, files: draft.files.filter((each) => each !== part) });

  return (
    <>
      {draft.files.map((part, index) => (
        <button key={index} aria-label="Remove image" onClick={() => remove(part)}>
          <Picture part={part} />
        </button>
      ))}
      <form onSubmit={submit}>
        <input
          aria-label="Message"
          autoFocus
          value={draft.text}
          onChange={(event) => onChange({ ...draft, text: event.target.value })}
        />
        <input
          aria-label="Images"
          type="file"
          accept="image/jpeg,image/png"
          multiple
          onChange={attach}
        />
        <button disabled={!onSend}>Send</button>
      </form>
    </>
  );
}
