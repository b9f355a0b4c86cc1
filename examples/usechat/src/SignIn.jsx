import { useState } from "react";
import { keepToken } from "./chats.js";

/** Asks for a token. */
export function SignIn({ onSignIn }) {
  const [token, setToken] = useState("");
  const signIn = (event) => {
    event.preventDefault();
    keepToken(token.trim());
    onSignIn();
  };
  return (
    <form onSubmit={signIn}>
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
