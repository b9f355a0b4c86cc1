"""S-27 to S-39: what is continued, and by which user: the part of them that one server shows."""

import uuid

from calling import text_of
from casebook import case
from scripted_model import GATE, REFUSED

LIMIT = {"finish": "length"}
ODD = {"error": {"type": "invalid_request_error", "message": "It is odd."}}
TOO_LONG = {"message": "It is too long.", "code": "context_length_exceeded"}


@case("S-31", "the stream of a continue begins where the text had stopped, in the same turn")
def continued(trial):
    script = trial.script(["One ", LIMIT], ["two ", LIMIT], ["three."])
    stream = trial.whole(script)
    ends, stopped = [(stream.end.id, "two three.")], stream.turn["id"]
    wanted = "One "
    for text, rest in (("two ", "three."), ("three.", "")):
        with trial.go_on(stream.session) as following:
            following.rest()
        wanted += text
        trial.same(following.text, text, "what comes")
        trial.same(following.turn["content"], wanted, "the turn's content", "S-27")
        trial.same(following.turn["id"], stopped, "the id of the turn", "S-27")
        ends += [(event.id, rest) for event in following.events[-2:]]
    trial.same(trial.turns(stream.session)[-1]["continued"], 2, "continued")
    for last_id, rest in ends[:-2]:
        came = trial.followed(stream.session, last_id)
        trial.same(came.text, rest, f"behind the end {last_id}", "S-32")
    trial.same(trial.followed(stream.session, ends[-1][0]).status, 204, "behind the last", "S-24")


@case("S-28", "a reply that is continued may break as often again")
def breaks_behind_a_continue(trial):
    cut, words = {"cut": True}, ("One ", "two ", "three ", "four ", "five ")
    answers = [[word, LIMIT if word == "three " else cut] for word in words]
    stream = trial.whole(trial.script(*answers, ["six."]))
    with trial.go_on(stream.session) as following:
        trial.same(following.rest().text, "four five six.", "what comes")
    trial.same(following.names[-1:], ["done"], "the end")


@case("S-32", "the id of an end gives exactly what came behind it, once the reply went on")
def behind_an_old_end(trial):
    for end in (LIMIT, ODD):
        continue_and_look(trial, end)


def continue_and_look(trial, end):
    script = trial.script(["One ", end], ["two ", GATE, "three."])
    stream = trial.whole(script)
    with trial.go_on(stream.session) as following:
        following.until("content_delta")
        for number, event in enumerate(stream.events):
            with trial.follow(stream.session, event.id) as behind:
                behind.until("content_delta")
            before = text_of(stream.events[: number + 1])
            trial.see(
                "One two three.".startswith(before + behind.text),
                f"behind {event} comes {behind.text!r} behind {before!r}",
            )
        script.open()
        following.rest()
    for last in (stream.events[-2], stream.end):
        came = trial.followed(stream.session, last.id)
        trial.same(came.text, "two three.", f"behind {last.name}")


@case("S-33", "a continue that fails at once says so, and changes nothing but usage and thinking")
def continued_in_vain(trial):
    too_long = {"status": 400, "body": {"error": TOO_LONG}}
    for answer, status in (([REFUSED], 502), ([too_long], 409), ([{"thought": "Hm."}, ODD], 502)):
        stream = trial.whole(trial.script(["One ", LIMIT], answer))
        before = trial.turns(stream.session)[-1]
        with trial.go_on(stream.session) as following:
            following.rest()
        trial.same(following.kept, ["error"], "the events")
        trial.same(following.end.data["status"], status, "the status of the error")
        after = trial.turns(stream.session)[-1]
        before |= {name: after[name] for name in ("usage", "thinking")}
        trial.same(after, before, "the turn")
        trial.same(trial.followed(stream.session, stream.end.id).status, 204, "behind the end")


@case("S-35", "while a reply is in progress, another request gets a 409, and changes nothing")
def one_at_a_time(trial):
    for first in ([], ["One "]):
        script = trial.script([*first, GATE, "two."])
        with trial.create(script) as stream:
            stream.until("content_delta" if first else "session")
            before = trial.user.call("GET", stream.session).json
            for path in ("messages", "retry", "continue"):
                see_a_refusal(trial, f"{stream.session}/{path}")
            after = trial.user.call("GET", stream.session).json
            for name in ("turns", "updated_at"):
                trial.same(after[name], before[name], f"{name}, as stored,")
            script.open()
            trial.same(stream.rest().text, "".join(first) + "two.", "the text")


def see_a_refusal(trial, path):
    other = trial.script(["Three."])
    body = {"content": other.message} if path.endswith("messages") else {}
    for accept in ("text/event-stream", "application/json"):
        answer = trial.user.read("POST", path, body, Accept=accept)
        trial.same(answer.status, 409, f"the status of {path}")
        seconds = answer.headers.get("retry-after", "0")
        trial.see(int(seconds) >= 1, f"Retry-After of {path} is {seconds}")
    trial.same(other.calls, 0, "the number of calls")


@case("S-38", "another user's session is a 404, whatever id is sent", needs="other")
def of_another_user(trial):
    script = trial.script(["One ", GATE, "two."])
    with trial.create(script) as stream:
        stream.until("content_delta")
        see_nothing(trial, stream)
        script.open()
        trial.same(stream.rest().text, "One two.", "the text")
    see_nothing(trial, stream)
    trial.same(len(trial.turns(stream.session)), 2, "the number of turns")


def see_nothing(trial, stream):
    """Check that the other user sees nothing of this stream."""
    for last_id in (None, "odd", *(event.id for event in stream.events)):
        way = ("GET", f"{stream.session}/events")
        with trial.other.stream(*way, Last_Event_ID=last_id) as came:
            trial.same(came.status, 404, f"the status behind {last_id}")
    for path in ("messages", "retry", "continue", "cancel"):
        body = {"content": "Hello"} if path == "messages" else {}
        with trial.other.stream("POST", f"{stream.session}/{path}", body) as came:
            trial.same(came.status, 404, f"the status of {path}")


@case("S-39", "a POST that is sent again makes nothing twice, and asks no model again")
def sent_again(trial):
    key, script = str(uuid.uuid4()), trial.script(["One."])
    first = trial.whole(script, Idempotency_Key=key)
    again = trial.whole(script, Idempotency_Key=key)
    trial.same(again.session, first.session, "the session")
    trial.same((again.text, again.names[-1:]), ("One.", ["done"]), "the stream")
    plain = trial.user.call("POST", "/sessions", {"content": script.message}, Idempotency_Key=key)
    trial.same(plain.status, 201, "the status without a stream")
    trial.same(script.calls, 1, "the number of calls")
    found = trial.user.call("GET", f"/sessions?query={script.mark}").json["data"]
    trial.same(len(found), 1, "the number of sessions")
    trial.same(len(trial.turns(first.session)), 2, "the number of turns")


@case("S-39", "a message sent again while its reply is in progress gets a 409 with Location")
def sent_again_under_way(trial):
    key, script = str(uuid.uuid4()), trial.script(["One ", GATE, "two."])
    with trial.create(script, Idempotency_Key=key) as stream:
        stream.until("content_delta")
        body = {"content": script.message}
        again = trial.user.read("POST", "/sessions", body, Idempotency_Key=key)
        trial.same(again.status, 409, "the status")
        trial.same(again.headers.get("location"), stream.session, "the Location")
        trial.see("retry-after" in again.headers, "there is no Retry-After")
        script.open()
        stream.rest()
    trial.same(script.calls, 1, "the number of calls")


@case("S-39", "a message whose reply failed is asked anew under its key, in the same session")
def sent_again_behind_a_failure(trial):
    key, script = str(uuid.uuid4()), trial.script([REFUSED], ["Half ", ODD], ["Better."])
    sessions = set()
    for text, end in (("", "error"), ("Half ", "error"), ("Better.", "done"), ("Better.", "done")):
        stream = trial.whole(script, Idempotency_Key=key)
        sessions.add(stream.session)
        trial.same((stream.text, stream.names[-1:]), (text, [end]), "the stream")
    trial.same(len(sessions), 1, "the number of sessions")
    trial.same(script.calls, 3, "the number of calls")
    shown = [turn["content"] for turn in trial.turns(stream.session)]
    trial.same(shown, [script.message, "Better."], "the turns")


@case("S-39", "another body under the same key is a 422; a continue again gives its end alone")
def keys_of_other_requests(trial):
    key, script = str(uuid.uuid4()), trial.script(["One ", LIMIT], ["two."])
    stream = trial.whole(script, Idempotency_Key=key)
    body = {"content": trial.script(["Else."]).message}
    other = trial.user.call("POST", "/sessions", body, Idempotency_Key=key)
    trial.same(other.status, 422, "the status of another body")
    key = str(uuid.uuid4())
    for names in (["content_delta", "assistant_turn", "done"], ["assistant_turn", "done"]):
        with trial.go_on(stream.session, Idempotency_Key=key) as following:
            trial.same(following.rest().kept, names, "the events")
    trial.same(script.calls, 2, "the number of calls")
