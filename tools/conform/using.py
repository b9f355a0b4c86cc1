"""docs/api.md: how a reply is received, retried, moved and found."""

import time

from casebook import case
from scripted_model import GATE, REFUSED


@case("Retry", "a retry is a new reply with ids of its own, and an old id gives it from its start")
def retried(trial):
    script = trial.script(["One."], ["Two."], [REFUSED])
    stream = trial.whole(script)
    for wanted, name in (("Two.", "done"), ("", "error")):
        with trial.streaming("POST", f"{stream.session}/retry", {}) as following:
            trial.same(following.rest().text, wanted, "the text")
        trial.same(following.names[-1:], [name], "the end")
    shown = [turn["content"] for turn in trial.turns(stream.session)]
    trial.same(shown, [script.message, "Two."], "what is shown where a retry fails")


@case("Receive", "a reply is received whole, deferred at once, or as a stream")
def received(trial):
    script = trial.script(["One."])
    answer = trial.user.call("POST", "/sessions", {"content": script.message})
    trial.same(answer.status, 201, "the status of a session")
    session = answer.headers.get("location", "")
    trial.same(session, f"/sessions/{answer.json['id']}", "the Location")
    answer = trial.user.call(
        "POST", f"{session}/messages", {"content": trial.script(["Two."]).message}
    )
    trial.same((answer.status, answer.json["content"]), (201, "Two."), "a message")
    script = trial.script(["Three.", GATE])
    answer = trial.user.call(
        "POST", f"{session}/messages", {"content": script.message}, Prefer="respond-async"
    )
    trial.same((answer.status, answer.json), (202, {"accepted": True}), "the deferred answer")
    trial.same(answer.headers.get("preference-applied"), "respond-async", "Preference-Applied")
    trial.same(answer.headers.get("location"), f"{session}/events", "the Location")
    script.open()
    trial.same(trial.followed(session).text, "Three.", "the events")


@case("Receive", "a wait of a second defers the answer, and a stream wins over Prefer")
def received_later(trial):
    script = trial.script([GATE, "One."])
    began = time.monotonic()
    answer = trial.user.call("POST", "/sessions", {"content": script.message}, Prefer="wait=1")
    took = time.monotonic() - began
    trial.same(answer.status, 201, "the status")
    trial.see(0.8 < took < 10, f"it took {took:.1f} s")
    session = answer.headers["location"]
    trial.same(trial.turns(session)[-1]["status"], "in_progress", "the reply")
    script.open()
    trial.same(trial.followed(session).text, "One.", "the events")
    for prefer in ("respond-async", "wait=0"):
        with trial.ask(session, trial.script([0.2, "Two."]), Prefer=prefer) as stream:
            trial.same(stream.rest().text, "Two.", f"the stream with {prefer}")


@case("Turn", "what was exported is imported, forked and talked on in")
def moved(trial):
    stream = trial.whole(trial.script(["One."]))
    fork = trial.user.call("POST", f"{stream.session}/fork", {})
    trial.same(fork.status, 201, "the status of a fork")
    shown = trial.turns(stream.session)
    copy = trial.turns(fork.headers["location"])
    trial.same([turn["content"] for turn in copy], [turn["content"] for turn in shown], "the fork")
    turns = [{name: turn[name] for name in ("kind", "content")} for turn in shown]
    imported = trial.user.call("POST", "/sessions/import", {"turns": turns})
    trial.same(imported.status, 201, "the status of an import")
    with trial.ask(imported.headers["location"], trial.script(["Two."])) as following:
        trial.same(following.rest().text, "Two.", "the next reply")


@case("Pages", "a list has its pages, the last used first, and finds what was said")
def listed(trial):
    script = trial.script(["One."])
    session = trial.whole(script).session
    page = trial.user.call("GET", f"/sessions?query={script.mark}&page[limit]=1").json
    trial.same([f"/sessions/{each['id']}" for each in page["data"]], [session], "what is found")
    trial.same(page["meta"]["has_more"], False, "has_more")
    last = trial.user.call("GET", f"{session}?turns[limit]=1").json
    trial.same([turn["content"] for turn in last["turns"]], ["One."], "the last turn")
    trial.same(last["meta"]["has_more"], True, "has_more")
