// Creates a session and talks on, with the types that openapi-typescript makes of /openapi.json; prints what came.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Schemas = components["schemas"];
type Turn = Schemas["WholeSession"]["turns"][number];

const [baseUrl, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const api = createClient<paths, "application/json">({ baseUrl, headers });

function unwrap<T>(answer: { data?: T; error?: Schemas["Errors"] }): T {
  if (answer.data === undefined) throw new Error(answer.error?.errors.map((fault) => fault.detail).join(" "));
  return answer.data;
}

function describe(turn: Turn): string {
  return turn.kind === "user" ? `user: ${turn.content}` : `${turn.model.id} (${turn.status}): ${turn.content}`;
}

const session: Schemas["CreatedSession"] = unwrap(
  await api.POST("/sessions", {
    body: { content: "Hello", model: "m-1" },
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
  }),
);
const path = { session_id: session.id };
unwrap(await api.POST("/sessions/{session_id}/messages", { params: { path }, body: { content: "And again" } }));
const whole = unwrap(await api.GET("/sessions/{session_id}", { params: { path } }));
const listed = unwrap(await api.GET("/sessions", { params: { query: { "page[limit]": 1 } } }));

// @ts-expect-error: a session begins with a message
const { error } = await api.POST("/sessions", { body: { model: "m-1" } });

console.log(
  JSON.stringify({
    title: session.title,
    turns: whole.turns.map(describe),
    listed: listed.data.map((one) => one.id === session.id),
    fault: error?.errors[0]?.source,
  }),
);
