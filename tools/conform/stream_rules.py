"""What holds of every stream and every answer that any case has seen, each a promise of its own."""

import itertools
import json
import re

from calling import KEPT
from casebook import Seen
from scripted_model import MARK

PASSING = {"session", "thinking", "waiting"}  # events with the id of the position before them
ENDS = {"done", "error"}
LONGEST = 16_384  # characters of a delta
SILENCE = 16  # seconds: 15, and one for the way
AT_ONCE = 0.5  # seconds: half of the promised one, since events may come late, and then together
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
STATUS = {"create": 201, "ask": 200, "continue": 200, "follow": 200}
UNREAD = {
    408,
    414,
    417,
    431,
}  # statuses of requests that are refused before their operation is known
RULES = []


def rule(number, says, of="streams", only=None):
    """A generator of what breaks this promise in one stream, or one answer. `only` says to which of
    them the promise applies."""

    def keep(function):
        RULES.append((number, says, of, only, function))
        return function

    return keep


def judge(place, numbers=None):
    """The result of each rule over all that was seen; only of these numbers, if any are given."""
    for number, says, of, only, function in RULES:
        if numbers and number not in numbers:
            continue
        seen = [each for each in getattr(place, of) if only is None or only(each)]
        problems = []
        for each in seen:
            place_of = " ".join(each.sent)
            try:
                problems += [(number, f"{place_of}: {text}") for text in function(each)]
            except (TypeError, KeyError, AttributeError, ValueError) as problem:
                problems.append((number, f"{place_of} is odd, {problem!r}: {each!r}"[:300]))
        what = f"{says} ({len(seen)} {of})"
        yield Seen(number, what, problems[:3], "" if seen else f"there are no such {of}")


@rule("S-6", "a frame has event, data and id, each once, on one line, in this order")
def frames(stream):
    for event in stream.events:
        names = [line.partition(": ")[0] for line in event.raw]
        if names != ["event", "data", "id"] or any("\r" in line for line in event.raw):
            yield f"a frame is {event.raw}"
        elif not isinstance(event.data, dict):
            yield f"the data is {event.raw[1]}"


@rule("S-7", "session is first in the answer to POST /sessions, and in no other stream")
def sessions(stream):
    sessions = [event for event in stream.events if event.name == "session"]
    if stream.kind != "create":
        if sessions:
            yield f"there is a {sessions[0]}"
    elif stream.events and stream.names[0] != "session":
        yield f"the first event is {stream.events[0]}"
    titles = [event.data["title"] for event in sessions]
    if any(one == other for one, other in itertools.pairwise(titles)):
        yield f"it comes again with the same title: {titles}"


@rule("S-8", "the events of an end come last, and in order")
def ends(stream):
    names = stream.names
    if "done" in names and names.index("done") and "assistant_turn" in names:
        if names.index("assistant_turn") != names.index("done") - 1:
            yield f"the events are {names[-4:]}"
    elif "done" in names and not (stream.last_id or "").endswith("-turn") and len(names) > 1:
        yield f"done comes without assistant_turn: {names[-4:]}"
    if "error" in names and "assistant_turn" in names:
        yield f"an error and a turn come: {names[-4:]}"


@rule("S-9", "no two events that are kept have one id")
def ids(stream):
    kept = [event.id for event in stream.events if event.name in KEPT]
    if twice := {each for each in kept if kept.count(each) > 1}:
        yield f"an id comes twice: {sorted(twice)[:3]}"


@rule("S-10", "session, thinking and waiting have the id of the position before them")
def passing(stream):
    before = stream.last_id if stream.kind == "follow" else None
    for event in stream.events:
        if event.name in PASSING and before and turn_of(before) == turn_of(event.id):
            if event.id != before:
                yield f"{event.name} has {event.id} behind {before}"
        before = event.id


@rule("S-12", "the deltas from the beginning are the content of assistant_turn")
def contents(stream):
    is_from_the_beginning = stream.kind in ("create", "ask") or (
        stream.kind == "follow" and stream.last_id is None
    )
    if stream.turn and is_from_the_beginning and stream.text != stream.turn["content"]:
        yield f"the deltas are {stream.text!r:.80}, the turn has {stream.turn['content']!r:.80}"


@rule("S-16", "a delta has from 1 to 16,384 characters, and none is cut in two")
def sizes(stream):
    for event in stream.events:
        if event.name == "content_delta":
            delta = event.data["delta"]
            if not 1 <= len(delta) <= LONGEST:
                yield f"a delta has {len(delta)} characters"
            if re.search("[\ud800-\udfff\ufffd]", delta):
                yield f"a delta has half of a character: {delta!r:.80}"


@rule("S-19", "behind done or error nothing comes, and the body ends")
def bodies(stream):
    ends = [number for number, name in enumerate(stream.names) if name in ENDS]
    if ends and ends[0] != len(stream.names) - 1:
        yield f"behind the end there is {stream.names[ends[0] + 1 :]}"
    if ends and stream.is_broken:
        yield "the connection breaks behind the end"


@rule("S-40", "a stream begins with a comment or a session")
def beginnings(stream):
    if stream.first == "event" and stream.names and stream.names[0] != "session":
        yield f"it begins with {stream.events[0]}"


@rule("S-41", "no 15 seconds pass without an event or a comment")
def silences(stream):
    gaps = [later - earlier for earlier, later in itertools.pairwise(stream.arrivals)]
    if gaps and max(gaps) > SILENCE:
        yield f"nothing comes for {max(gaps):.0f} seconds"


@rule("S-51", "an id has at most 40 characters, all of them ASCII")
def shortness(stream):
    for event in stream.events:
        if not event.id or len(event.id) > 40 or not event.id.isascii():
            yield f"an id is {event.id!r}"


def shows_thoughts(stream):
    """Whether it shows what a model thinks, and does not only count it."""
    told = [event.data for event in stream.events if event.name == "thinking"]
    return any(isinstance(data, dict) and "start" in data for data in told)


@rule("S-53", "at most four thinking events come in a second")
def paces(stream):
    times = [event.at for event in stream.events if event.name == "thinking"]
    for first, fifth in zip(times, times[4:], strict=False):
        if fifth - first < AT_ONCE:
            yield f"five events come within {fifth - first:.2f} s"


@rule("S-54", "thinking begins at 0, and goes on where it has stopped", only=shows_thoughts)
def pieces_of_thoughts(stream):
    given = 0
    for event in stream.events:
        if event.name == "thinking" and "start" in event.data:
            start = event.data["start"]
            if start not in (0, given):
                yield f"{event} comes after {given} code points"
            given = start + len(event.data["delta"])


@rule("Ids", "what stands before the first - of an id is the id of the turn")
def turns(stream):
    if stream.turn:
        others = {turn_of(event.id) for event in stream.events} - {stream.turn["id"]}
        if others:
            yield f"the turn is {stream.turn['id']}, ids name {others}"


@rule("Stream", "a stream has its status, and the headers that keep it from being stored")
def heads(stream):
    if stream.status != STATUS[stream.kind]:
        yield f"the status is {stream.status}"
    for name, value in STREAM_HEADERS.items():
        if stream.headers.get(name) != value:
            yield f"{name} is {stream.headers.get(name)!r}, not {value!r}"
    if stream.sent[0] == "POST" and stream.events:
        wanted = re.sub("/[a-z]+$", "/events", stream.sent[1])
        if stream.kind == "create":
            wanted = f"/sessions/{stream.events[0].data['id']}"
        place = stream.headers.get("location", "")
        if not place.endswith(wanted):  # a prefix may come before it
            yield f"Location is {place!r}, not {wanted!r}"


@rule("Data", "the data of each event has the fields that the table of events gives it")
def data(stream):
    fields = {
        "session": {"id", "title", "model", "created_at", "updated_at"},
        "thinking": {"characters"},
        "waiting": {"seconds"},
        "content_delta": {"delta"},
        "assistant_turn": {"id", "kind", "content", "created_at", "model", "status", "usage"},
        "done": set(),
        "error": {"status", "message"},
    }
    for event in stream.events:
        if lacking := fields.get(event.name, set()) - event.data.keys():
            yield f"{event.name} has no {', '.join(sorted(lacking))}"
        if len({"start", "delta"} & event.data.keys()) == 1 and event.name == "thinking":
            yield f"{event} has only one of start and delta"


@rule("Errors", "an error has its one shape, and a sentence for each fault", of="answers")
def errors(answer):
    if answer.status < 400:
        return
    if not isinstance(answer.json, dict) or not answer.json.get("errors"):
        yield f"the answer is {answer}"
        return
    if "application/json" not in answer.headers.get("content-type", ""):
        yield f"its type is {answer.headers.get('content-type')}"
    for each in answer.json["errors"]:
        if not {"status", "title", "detail"} <= each.keys():
            yield f"an entry is {json.dumps(each)}"
        elif each["status"] != str(answer.status) or not each["detail"].endswith((".", "?", "!")):
            yield f"an entry of a {answer.status} is {json.dumps(each)}"
        elif MARK.search(each["detail"]):
            yield f"what was said is in {each['detail']}"


def caching_of(answer):
    """What its Cache-Control must be."""
    is_file = answer.sent[0] == "GET" and answer.sent[1].startswith("/files/")
    return "private, no-cache" if is_file and answer.status == 200 else "no-store"


@rule("Headers", "an answer names its request, and may not be stored on its way", of="answers")
def headers(answer):
    if answer.headers.get("cache-control") != caching_of(answer):
        yield f"Cache-Control is {answer.headers.get('cache-control')!r}"
    if answer.status not in UNREAD and not answer.headers.get("x-request-id"):
        yield "it has no X-Request-ID"
    if answer.status in (429, 503) and not answer.headers.get("retry-after"):
        yield f"a {answer.status} has no Retry-After"
    if answer.status == 401 and not answer.headers.get("www-authenticate"):
        yield "a 401 has no WWW-Authenticate"


def turn_of(event_id):
    return event_id.partition("-")[0]
