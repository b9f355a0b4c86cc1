// Where the chats are: the server, the token, and the transport that useChat speaks by.

import { ParleyTransport } from "parley-client/ai";

const SERVER = import.meta.env.VITE_PARLEY ?? "http://127.0.0.1:5000";

/** The token of this tab, as somebody has pasted it, or nothing. */
export const keptToken = () => sessionStorage.getItem("token");

export const keepToken = (token) => sessionStorage.setItem("token", token);

export const forgetToken = () => sessionStorage.removeItem("token");

// The SDK's `stop` only hangs up, as it does where a component goes: the reply goes on at the
// server. The button Stop calls `transport.cancel`, and the stream then ends by itself.
export const transport = new ParleyTransport(SERVER, { token: keptToken, cancels: false });
