// Does what the API offers, with the types that openapi-typescript makes of /openapi.json; prints what came of it.
// client.py does the same.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Schemas = components["schemas"];
type Answer<T> = { data?: T; error?: Schemas["Errors"]; response: Response };

const [baseUrl, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
// Without the second type, an answer is a text or an object, since it may be a stream.
const api = createClient<paths, "application/json">({ baseUrl, headers });
const asStream = { headers: { Accept: "text/event-stream" }, parseAs: "stream" } as const;

function unwrap<T>({ data, error }: Answer<T>): T {
  if (data === undefined) throw new Error(error?.errors.map((fault) => fault.detail).join(" "));
  return data;
}

function stored<T extends object>(answer: Answer<T | Schemas["AssistantTurn"]>): Schemas["AssistantTurn"] {
  const data = unwrap(answer);
  if (!("kind" in data)) throw new Error("The reply goes on.");
  return data as Schemas["AssistantTurn"];
}

function fault({ error, response }: Answer<unknown>) {
  return { status: response.status, title: error?.errors[0]?.title, source: error?.errors[0]?.source ?? null };
}

function describe(turn: Schemas["Turn"]): string {
  return turn.kind === "user" ? `user: ${turn.content}` : `${turn.model.id} (${turn.status}): ${turn.content}`;
}

async function* read(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Schemas["Event"]> {
  if (body === null) throw new Error("There is no stream.");
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const frames = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
    rest = frames.pop() ?? "";
    for (const frame of frames) {
      const lines = frame.split("\n").filter((line) => !line.startsWith(":"));
      const fields = Object.fromEntries(lines.map((line) => line.split(/: (.*)/s)));
      if (lines.length > 0) yield { ...fields, data: JSON.parse(fields.data) };
    }
  }
}

async function collect(body: ReadableStream<Uint8Array> | null) {
  const told = { events: [] as string[], text: "", end: null as string | number | null };
  for await (const event of read(body)) {
    if (told.events.at(-1) !== event.event) told.events.push(event.event);
    if (event.event === "content_delta") told.text += event.data.delta;
    else if (event.event === "assistant_turn") told.end = event.data.status;
    else if (event.event === "error") told.end = event.data.status;
  }
  return told;
}

const idempotent = { header: { "Idempotency-Key": crypto.randomUUID() } };
const creation = { body: { content: "Hello", model: "m-1", options: { temperature: 0.5 } }, params: idempotent };
const created = await api.POST("/sessions", creation);
const session: Schemas["CreatedSession"] = unwrap(created);
const repeated = unwrap(await api.POST("/sessions", creation));
const path = { id: session.id };

const message = "/sessions/{id}/messages";
const streamed = await api.POST(message, { params: { path }, body: { content: "As a stream?" }, ...asStream });
const events = await collect(unwrap(streamed));

const later = { path, header: { Prefer: "respond-async" } };
const deferred = unwrap(await api.POST(message, { params: later, body: { content: "Later?" } }));
let last: Schemas["Event"] | undefined;
for await (const event of read(unwrap(await api.GET("/sessions/{id}/events", { params: { path }, parseAs: "stream" })))) {
  last = event;
  if (event.event === "content_delta") break;
}
const cancelled = unwrap(await api.POST("/sessions/{id}/cancel", { params: { path } }));
const resume = { path, header: { "Last-Event-ID": last?.id } };
const resumed = await api.GET("/sessions/{id}/events", { params: resume, parseAs: "stream" });
const rest = await collect(unwrap(resumed));

const continued = stored(await api.POST("/sessions/{id}/continue", { params: { path } }));
const retried = stored(await api.POST("/sessions/{id}/retry", { params: { path }, body: { content: "Changed?" } }));
const failed = await api.POST(message, { params: { path }, body: { content: "And this?" } });
const failing = await collect(unwrap(await api.POST("/sessions/{id}/retry", { params: { path }, ...asStream })));

const whole = unwrap(await api.GET("/sessions/{id}", { params: { path } }));
const page = unwrap(await api.GET("/sessions/{id}", { params: { path, query: { "turns[limit]": 1 } } }));
const listed = unwrap(await api.GET("/sessions", { params: { query: { "page[limit]": 1 } } }));
const changed = unwrap(await api.PATCH("/sessions/{id}", { params: { path }, body: { title: "Mine", system: null } }));
const models = unwrap(await api.GET("/models"));

// @ts-expect-error: a session begins with a message
const incomplete = await api.POST("/sessions", { body: { model: "m-1" } });
const idle = await api.POST("/sessions/{id}/cancel", { params: { path } });
const deleted = await api.DELETE("/sessions/{id}", { params: { path } });
const gone = await api.GET("/sessions/{id}", { params: { path } });

console.log(
  JSON.stringify({
    created: [session.title, created.response.headers.get("Location") === `/sessions/${session.id}`, repeated.id === session.id],
    streamed: events,
    deferred,
    cancelled: describe(cancelled),
    resumed: rest,
    continued: [describe(continued), continued.continued, continued.stop_reason, continued.usage.output_tokens],
    retried: describe(retried),
    failed: { ...fault(failed), kept: failed.error?.errors[0]?.meta?.session_id === session.id },
    failing,
    turns: whole.turns.map(describe),
    options: whole.options,
    page: [page.turns.length, page.meta.has_more],
    listed: [listed.data.map((one) => one.id === session.id), listed.meta.has_more],
    changed: [changed.title, changed.system],
    models: models.data.filter((model) => model.default).map((model) => [model.id, model.provider]),
    health: unwrap(await api.GET("/health")).status,
    faults: [incomplete, idle, gone].map(fault),
    deleted: deleted.response.status,
  }),
);
