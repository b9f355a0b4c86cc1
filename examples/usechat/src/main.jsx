// A page with chats. Its URL names the chat: `#` and an id.

import { StrictMode, useEffect, useState, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { Conversation } from "./Conversation.jsx";
import { forgetToken, keptToken, transport } from "./chats.js";
import { SignIn } from "./SignIn.jsx";
import "./style.css";

const idInURL = () => location.hash.slice(1);

function onURLChange(listener) {
  addEventListener("hashchange", listener);
  return () => removeEventListener("hashchange", listener);
}

function startChat() {
  location.hash = crypto.randomUUID();
}

function App() {
  const id = useSyncExternalStore(onURLChange, idInURL);
  const [isSignedIn, setIsSignedIn] = useState(Boolean(keptToken()));
  useEffect(() => {
    if (!id) startChat();
  }, [id]);
  const signOut = () => {
    forgetToken();
    setIsSignedIn(false);
  };
  if (!isSignedIn) return <SignIn onSignIn={() => setIsSignedIn(true)} />;
  return (
    <>
      <header>
        <button onClick={startChat}>New chat</button>
        <button onClick={signOut}>Sign out</button>
      </header>
      {id && <Chat key={id} id={id} />}
    </>
  );
}

/** A chat, once its messages have been fetched. */
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
