// What compiles of parley-client, and what does not, held against the types that openapi-typescript makes of the description.
import type { ChatTransport, UIMessage } from "ai";
import { Parley, ParleyError, reply } from "parley-client";
import { ParleyTransport } from "parley-client/ai";
import type { AssistantTurn, Event } from "parley-client/openapi";
import type { components, paths } from "./schema.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Schemas = components["schemas"];
type Json<Answer> = Answer extends { content: { "application/json": infer Body } } ? Body : never;
type Told<Operation> = Operation extends { responses: infer All } ? Json<All[keyof All & (200 | 201)]> : never;
type Does<Name extends keyof Parley> = Parley[Name] extends (...all: never[]) => Promise<infer Answer> ? Answer : never;
type Sent<Operation> = Operation extends { requestBody?: { content: { "application/json": infer Body } } } ? Body : never;

type One = paths["/sessions/{id}"];

/** Each operation gives what the description says. */
export const isSame: [
  Same<Does<"sessions">, Told<paths["/sessions"]["get"]>>,
  Same<Does<"session">, Told<One["get"]>>,
  Same<Does<"thinking">, Told<paths["/sessions/{id}/turns/{turn}/thinking"]["get"]>>,
  Same<ReturnType<ParleyTransport["thinking"]>, ReturnType<Parley["thinking"]>>,
  Same<Does<"change">, Told<One["patch"]>>,
  Same<Does<"upload">, Told<paths["/files"]["post"]>>,
  Same<Does<"cancel">, Told<paths["/sessions/{id}/cancel"]["post"]>>,
  Same<Does<"fork">, Told<paths["/sessions/{id}/fork"]["post"]>>,
  Same<Does<"import">, Told<paths["/sessions/import"]["post"]>>,
  Same<Does<"models">, Told<paths["/models"]["get"]>>,
  Same<Does<"usage">, Told<paths["/usage"]["get"]>>,
  Same<Does<"me">, Schemas["Me"]>, // it never sends `anonymous`, whose answer may have no user
  Same<Parameters<Parley["change"]>[1], Sent<One["patch"]>>,
  Same<Parameters<Parley["import"]>[0], Sent<paths["/sessions/import"]["post"]>>,
  Same<Event, Schemas["Event"]>,
  Same<AssistantTurn, Schemas["AssistantTurn"]>,
] = [true, true, true, true, true, true, true, true, true, true, true, true, true, true, true, true];

const parley = new Parley("https://chat.example.com", { token: () => "token" });
for await (const { event, data } of parley.create("Hello", { body: { model: "m-1" } })) {
  if (event === "content_delta") data.delta satisfies string;
  if (event === "thinking") [data.start, data.delta] satisfies [number | undefined, string | undefined];
  if (event === "assistant_turn") data.usage.input_tokens satisfies number | null;
  // @ts-expect-error: only the event `waiting` has this
  data.seconds;
}
for await (const session of parley.export()) await parley.import(session);
for await (const { id } of reply(new URL("https://chat.example.com/sessions"), { content: "Hello", lastId: "7-0" })) {
  id satisfies string;
}
// @ts-expect-error: the message is a text
reply("/sessions", { content: 7 });
// @ts-expect-error: a title is a text
await parley.change("id", { title: null });
const problem = new ParleyError("No.", 429);
problem.retryAfter satisfies number;
problem.faults satisfies Schemas["ErrorObject"][];

const picture = await parley.upload(new Blob());
parley.send("id", "", { files: [picture.id] });
parley.retry("id", { files: [] });
(await parley.file(picture.id)) satisfies Blob;
// @ts-expect-error: an image has an id
parley.create("Hello", { files: [7] });

type MyMessage = UIMessage<{ mine: string }>;
export const transport: ChatTransport<UIMessage> = new ParleyTransport("https://chat.example.com");
export const ofMyMessages: ChatTransport<MyMessage> = new ParleyTransport("/chat/v1", {
  token: async (refused) => refused ?? null,
  places: new Map(),
  body: { model: "m-1" },
  cancels: false,
});
