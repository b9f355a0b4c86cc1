// A page of chats. Its address names the chat: `#` and an id.

import { StrictMode, useEffect, useState, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { Conversation } from "./Conversation.jsx";
import { forgetToken, keptToken, transport } from "./chats.js";
import { Door } from "./Door.jsx";
import "./style.css";

const idOfAddress = () => location.hash.slice(1);

function onAddress(tell) {
  addEventListener("hashchange", tell);
  return () => removeEventListener("hashchange", tell);
}

function begin() {
  location.hash = crypto.randomUUID();
}

function App() {
  const id = useSyncExternalStore(onAddress, idOfAddress);
  const [isIn, setIsIn] = useState(Boolean(keptToken()));
  useEffect(() => {
    if (!id) begin();
  }, [id]);
  const leave = () => {
    forgetToken();
    setIsIn(false);
  };
  if (!isIn) return <Door onEnter={() => setIsIn(true)} />;
  return (
    <>
      <header>
        <button onClick={begin}>New chat</button>
        <button onClick={leave}>Sign out</button>
      </header>
      {id && <Chat key={id} id={id} />}
    </>
  );
}

/** A chat, once its messages are there. */
function Chat({ id }) {
  const [messages, setMessages] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!messages && !error) transport.messages(id).then(setMessages, setError);
  }, [id, messages, error]);
  if (messages) return <Conversation id={id} first={messages} />;
  if (!error) return <p role="status">…</p>;
  return (
    <>
      <p role="alert">{error.message}</p>
      <button onClick={() => setError(null)}>Try again</button>
    </>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
