// The server, the token, and the transport for useChat.

import { ParleyTransport } from "parley-client/ai";

const SERVER = import.meta.env.VITE_PARLEY ?? "http://127.0.0.1:5000";

/** The token that was pasted in this tab; null if there is none. */
export const keptToken = () => sessionStorage.getItem("token");

export const keepToken = (token) => sessionStorage.setItem("token", token);

export const forgetToken = () => sessionStorage.removeItem("token");

// The SDK also aborts a stream when its component unmounts. With `cancels: false`, that and `stop`
// only close the connection. The Stop button calls `transport.cancel`, which ends the stream.
export const transport = new ParleyTransport(SERVER, { token: keptToken, cancels: false });
