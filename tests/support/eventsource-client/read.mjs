// Reads an event stream with the eventsource package until the server says that it is over, and prints what came.
import { EventSource } from "eventsource";

const [url, token] = process.argv.slice(2);
const seen = { text: "", turn: null, connections: 0 };
const source = new EventSource(url, {
  fetch: (input, init) => {
    seen.connections += 1;
    return fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
  },
});
source.addEventListener("content_delta", (event) => (seen.text += JSON.parse(event.data).delta));
source.addEventListener("assistant_turn", (event) => (seen.turn = JSON.parse(event.data)));
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) console.log(JSON.stringify(seen));
});
