import { useState } from "react";
import { keepToken } from "./chats.js";

/** Asks for a token. */
export function Door({ onEnter }) {
  const [token, setToken] = useState("");
  const enter = (event) => {
    event.preventDefault();
    keepToken(token.trim());
    onEnter();
  };
  return (
    <form onSubmit={enter}>
      <input
        aria-label="Token"
        autoFocus
        required
        type="password"
        value={token}
        onChange={(event) => setToken(event.target.value)}
      />
      <button>Sign in</button>
    </form>
  );
}
