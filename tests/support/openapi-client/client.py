"""Does what the API offers, with the package that openapi-python-client makes of /openapi.json; prints what came of it. The
generated functions return a stream as text when it has ended; one that is read as it comes is read by the client's own httpx.
client.ts does the same.
"""

import json
import sys
import uuid

import httpx
from parley_client import AuthenticatedClient, models
from parley_client.api.models import list_models
from parley_client.api.replies import (
    add_message,
    cancel_reply,
    continue_reply,
    follow_events,
    retry_reply,
)
from parley_client.api.service import show_health
from parley_client.api.sessions import (
    change_session,
    create_session,
    delete_session,
    list_sessions,
    show_session,
)

EVENTS = {
    "session": models.SessionEvent,
    "thinking": models.ThinkingEvent,
    "waiting": models.WaitingEvent,
    "content_delta": models.ContentDeltaEvent,
    "assistant_turn": models.AssistantTurnEvent,
    "done": models.DoneEvent,
    "error": models.ErrorEvent,
}
URL, TOKEN = sys.argv[1:]


def connect(**headers):
    return AuthenticatedClient(
        URL, TOKEN, headers=headers, timeout=httpx.Timeout(60)
    )  # by default 5 s, and a reply takes longer


def read(chunks):
    """The events of a stream, which comes in chunks of text. `str.splitlines` and `iter_lines` will not do: they end a line at
    U+2028 as well."""
    rest = ""
    for chunk in chunks:
        *frames, rest = (rest + chunk).split("\n\n")
        for frame in frames:
            fields = dict(
                line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":")
            )
            if fields.get("event") in EVENTS:  # a later release may have others
                yield EVENTS[fields["event"]].from_dict(
                    fields | {"data": json.loads(fields["data"])}
                )


def collect(*chunks):
    told = {"events": [], "text": "", "end": None}
    for event in read(chunks):
        if told["events"][-1:] != [event.event]:
            told["events"].append(event.event)
        if isinstance(event, models.ContentDeltaEvent):
            told["text"] += event.data.delta
        elif isinstance(event, models.AssistantTurnEvent):
            told["end"] = event.data.status
        elif isinstance(event, models.ErrorEvent):
            told["end"] = event.data.status
    return told


def fault(response):
    first = response.parsed.errors[0]
    return {
        "status": response.status_code,
        "title": first.title,
        "source": first.source.to_dict() if first.source else None,
    }


def describe(turn):
    return (
        f"user: {turn.content}"
        if turn.kind == "user"
        else f"{turn.model.id} ({turn.status}): {turn.content}"
    )


def use(client, streaming):
    creation = {
        "client": client,
        "body": models.NewSession(
            content="Hello", model="m-1", options=models.Options(temperature=0.5)
        ),
        "idempotency_key": str(uuid.uuid4()),
    }
    created = create_session.sync_detailed(**creation)
    session = created.parsed
    repeated = create_session.sync(**creation)

    streamed = add_message.sync(session.id, client=streaming, body=models.Message("As a stream?"))
    events = collect(streamed)

    deferred = add_message.sync(
        session.id, client=client, body=models.Message("Later?"), prefer="respond-async"
    )
    with client.get_httpx_client().stream("GET", f"/sessions/{session.id}/events") as response:
        last = next(
            event
            for event in read(response.iter_text())
            if isinstance(event, models.ContentDeltaEvent)
        )
    cancelled = cancel_reply.sync(session.id, client=client, body=models.Empty())
    rest = collect(follow_events.sync(session.id, client=client, last_event_id=last.id))

    continued = continue_reply.sync(session.id, client=client, body=models.Empty())
    retried = retry_reply.sync(session.id, client=client, body=models.Retry("Changed?"))
    failed = add_message.sync_detailed(session.id, client=client, body=models.Message("And this?"))
    failing = collect(retry_reply.sync(session.id, client=streaming, body=models.Retry()))

    whole = show_session.sync(session.id, client=client)
    page = show_session.sync(session.id, client=client, turnslimit=1)
    listed = list_sessions.sync(client=client, pagelimit=1)
    changed = change_session.sync(
        session.id, client=client, body=models.Change(title="Mine", system=None)
    )

    incomplete = create_session.sync_detailed(client=client, body=models.NewSession(content=""))
    idle = cancel_reply.sync_detailed(session.id, client=client, body=models.Empty())
    deleted = delete_session.sync_detailed(session.id, client=client)
    gone = show_session.sync_detailed(session.id, client=client)

    return {
        "created": [
            session.title,
            created.headers["Location"] == f"/sessions/{session.id}",
            repeated.id == session.id,
        ],
        "streamed": events,
        "deferred": deferred.to_dict(),
        "cancelled": describe(cancelled),
        "resumed": rest,
        "continued": [
            describe(continued),
            continued.continued,
            continued.stop_reason,
            continued.usage.output_tokens,
        ],
        "retried": describe(retried),
        "failed": fault(failed) | {"kept": failed.parsed.errors[0].meta.session_id == session.id},
        "failing": failing,
        "turns": [describe(turn) for turn in whole.turns],
        "options": whole.options.to_dict(),
        "page": [len(page.turns), page.meta.has_more],
        "listed": [[one.id == session.id for one in listed.data], listed.meta.has_more],
        "changed": [changed.title, changed.system],
        "models": [
            [model.id, model.provider]
            for model in list_models.sync(client=client).data
            if model.default
        ],
        "health": show_health.sync(client=client).status,
        "faults": [fault(response) for response in (incomplete, idle, gone)],
        "deleted": deleted.status_code,
    }


with connect() as client, connect(Accept="text/event-stream") as streaming:
    print(json.dumps(use(client, streaming)))
