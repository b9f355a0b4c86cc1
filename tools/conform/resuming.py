"""S-1 to S-26: storing before showing, exactness, resumption and ends."""

from calling import KEPT, text_of
from casebook import Unfit, case, within
from scripted_model import GATE, REFUSED


@case("S-1", "the message and the empty reply are stored before the model answers, or a byte comes")
def stored_first(trial):
    script = trial.script([GATE, "Yes."])
    with trial.create(script) as stream:
        shown = trial.turns(stream.session)
        trial.same([turn["kind"] for turn in shown], ["user", "assistant"], "what is stored")
        trial.same(shown[0]["content"], script.message, "the message")
        trial.same(shown[-1].get("status"), "in_progress", "the reply")
        script.open()
        stream.rest()


@case("S-2", "the text of a delta is stored when it comes")
def stored_deltas(trial):
    words = ["Grü", "ße ", "👩‍👩‍👧", "\u200d👦 ", "e", "\u0301", "\u2028", "x\ny\r\nz "]
    parts = [part for number, word in enumerate(words) for part in (word, {"gate": str(number)})]
    script = trial.script([*parts, "end."])
    with trial.create(script) as stream:
        for number in range(len(words)):
            stream.until("content_delta")
            stored = trial.turns(stream.session)[-1]["content"]
            trial.see(stored.startswith(stream.text), f"{stream.text!r} came, {stored!r} is stored")
            script.open(str(number))
        trial.same(stream.rest().text, "".join(words) + "end.", "the text", "S-12")


@case("S-3", "the session takes the next message once assistant_turn, or an error, has come")
def taken_behind_the_end(trial):
    for answer, name in ((["Yes."], "assistant_turn"), ([REFUSED], "error")) * 8:
        script, second = trial.script(answer), trial.script(["And this."])
        with trial.create(script) as stream:
            if not stream.until(name):
                raise Unfit(f"no {name} comes: {stream}")
            with trial.ask(stream.session, second) as following:  # in the same instant
                trial.same(following.rest().text, "And this.", "the next reply")
        shown = trial.turns(stream.session)[1]["status"]
        trial.see(shown in ("complete", "failed"), f"behind {name} the reply is {shown}")


@case("S-5", "a reply is read to its end, though its client has gone")
def read_to_the_end(trial):
    script = trial.script(["One ", GATE, "two."])
    with trial.create(script) as stream:
        stream.until("content_delta")
    script.open()
    ended = within(10, lambda: trial.turns(stream.session)[-1]["status"] == "complete")
    trial.see(ended, "it never ends")
    trial.same(trial.turns(stream.session)[-1]["content"], "One two.", "what is stored")


@case("S-7", "no session is in the streams of other requests")
def sessions_of_one_stream(trial):
    stream = trial.whole(trial.script(["One."]))
    trial.see(stream.names[:1] == ["session"], f"the events are {stream.names}")
    shown = trial.user.call("GET", stream.session).json
    for name in ("id", "title", "model", "created_at", "updated_at"):
        trial.same(stream.events[0].data.get(name), shown[name], name)
    with trial.ask(stream.session, trial.script(["Two."])) as following:
        trial.see("session" not in following.rest().names, following.names)


def come_back_behind_each(trial, session, events, whole, number=None):
    """Resume after each event of a stream: its id gives the rest."""
    for count, event in enumerate(events, 1):
        before = text_of(events[:count])
        came = trial.followed(session, event.id)
        rest = "" if came.status == 204 else came.text
        trial.see(before + rest == whole, f"behind {event} comes {rest!r:.100}", number)
        is_end = event.name in ("done", "error")
        trial.see((came.status == 204) == is_end, f"behind {event} comes {came}", "S-24")
        if event.name == "assistant_turn" and came.status == 200:
            trial.see(came.names == ["done"], f"behind the turn come {came.names}", "S-25")


@case("S-10", "who comes back behind session, thinking or waiting lacks nothing")
def passing_events(trial):
    pause = {"status": 429, "headers": {"Retry-After": "2"}, "body": {"error": {"message": "x"}}}
    script = trial.script([pause], [{"thought": "Hm."}, 0.1, "One ", {"cut": True}], ["two."])
    stream = trial.whole(script)
    trial.see({"session", "waiting", "thinking"} <= set(stream.names), stream.names)
    passing = [event for event in stream.events if event.name not in KEPT]
    for event in passing:
        at = stream.events.index(event)
        rest = trial.followed(stream.session, event.id).text
        text = text_of(stream.events[:at]) + rest
        trial.same(text, "One two.", f"the text by way of {event.name}")


@case("S-11", "the text up to an id stays the beginning of the reply, over breaks and a continue")
def beginnings_stay(trial):
    answers = (["One ", {"cut": True}], ["two ", {"finish": "length"}], ["three."])
    script = trial.script(*answers)
    stream = trial.whole(script)
    with trial.go_on(stream.session) as following:
        following.rest()
    whole = "One two three."
    for count, event in enumerate(stream.events, 1):
        if event.name == "content_delta":
            came = trial.followed(stream.session, event.id)
            trial.same(text_of(stream.events[:count]) + came.text, whole, "the text by that id")


@case("S-13", "behind each event of a stream that has ended, its id gives exactly the rest")
def resumed_when_ended(trial):
    parts = [part for word in ("One ", "twö ", "🎉🎉 ", "\u2028four.") for part in (word, 0.05)]
    stream = trial.whole(trial.script(parts))
    come_back_behind_each(trial, stream.session, stream.events, "One twö 🎉🎉 \u2028four.")


@case("S-13", "after each event of an open stream, its id gives exactly the rest")
def resumed_under_way(trial):
    words = ["One ", "twö ", "🎉 ", "four "]
    parts = [part for number, word in enumerate(words) for part in (word, {"gate": str(number)})]
    script = trial.script([*parts, "five."])
    with trial.create(script) as stream:
        stream.until("session")
        for number in range(len(words)):
            last = stream.until("content_delta")
            with trial.follow(stream.session, last.id) as following:
                script.open(str(number))
                event = following.until("content_delta")
            trial.see(event is not None, f"nothing comes behind {last}")
            wanted = [*words, "five."][number + 1]
            trial.see(event and wanted.startswith(event.data["delta"]), f"{event} is not {wanted}")
        stream.rest()
    come_back_behind_each(trial, stream.session, stream.events, "One twö 🎉 four five.")


@case("S-13", "ids of a long text, in slices of two streams, give exactly the rest")
def resumed_in_slices(trial):
    text = "word 🎉 " * 6000
    stream = trial.whole(trial.script([text, "end."]))
    again = trial.followed(stream.session)
    for each in (stream, again):
        events = [event for event in each.events if event.name == "content_delta"]
        come_back_behind_each(trial, each.session, events, text + "end.")


@case("S-14", "an id means the same to each process: asked eight times, it gives one rest")
def one_meaning(trial):
    script = trial.script(["One ", GATE, "two."])
    with trial.create(script) as stream:
        event = stream.until("content_delta")
        script.open()
        stream.rest()
    for _ in range(8):
        trial.same(trial.followed(stream.session, event.id).text, "two.", "the rest")


@case("S-14", "an id means the same to each process while the reply is in progress")
def one_meaning_under_way(trial):
    script = trial.script(["Öne 🎉 ", {"gate": "1"}, "twö ", GATE, "three."])
    with trial.create(script) as stream:
        event = stream.until("content_delta")
        script.open("1")
        stream.until("content_delta")
        for _ in range(8):
            with trial.follow(stream.session, event.id) as following:
                following.until("content_delta")
            if not trial.same(following.text, "twö ", "the rest"):
                break
        script.open()
        stream.rest()


@case("S-15", "two streams of one reply are the same text, wherever each cuts it")
def two_streams(trial):
    script = trial.script(["One ", GATE, {"text": "word ", "times": 9000}, "end."])
    with trial.create(script) as stream:
        stream.until("content_delta")
        with trial.follow(stream.session) as other:
            script.open()
            stream.rest()
            other.rest()
    later = trial.followed(stream.session)
    wanted = "One " + "word " * 9000 + "end."
    for each in (stream, other, later):
        trial.see(each.text == wanted, f"{each.kind} has {len(each.text)} of {len(wanted)}")


@case("S-16", "a character whose halves the model says one by one comes whole")
def halves(trial):
    stream = trial.whole(trial.script([{"halves": "a🎉b"}, "."]))
    trial.same(stream.text, "a🎉b.", "the text")


@case("S-17", "assistant_turn is what is shown of the turn, until it is continued")
def shown_turns(trial):
    thought = {"thought": "Hm."}
    script = trial.script([thought, "One ", {"finish": "length"}], [thought, "two.", GATE])
    stream = trial.whole(script)
    trial.same(trial.turns(stream.session)[-1], stream.turn, "what is shown")
    with trial.streaming("POST", f"{stream.session}/continue", {}) as following:
        following.until("content_delta")
        trial.cancel(stream.session)
        following.rest()
    shown = trial.turns(stream.session)[-1]
    late = {"usage": None, "turns_left_out": None, "thinking": None}
    trial.same(shown | late, following.turn | late, "what is shown behind a cancel")


@case("S-18", "to follow the events asks no model")
def no_call(trial):
    script = trial.script(["One."])
    stream = trial.whole(script)
    for last_id in (None, stream.events[0].id, stream.end.id, "odd"):
        trial.followed(stream.session, last_id)
    trial.same(script.calls, 1, "the number of calls")
    turns = [{"kind": "user", "content": script.message}]
    place = trial.user.call("POST", "/sessions/import", {"turns": turns}).headers["location"]
    came = trial.user.read("GET", f"{place}/events")
    trial.same(came.status, 204, "the status where no reply was asked for")
    trial.same(script.calls, 1, "the number of calls")


@case("S-22", "a stream whose session is deleted ends with error 404, and so do its events")
def deleted(trial):
    script = trial.script(["One ", GATE, "two."])
    with trial.create(script) as stream:
        stream.until("content_delta")
        trial.same(trial.user.call("DELETE", stream.session).status, 204, "the status of DELETE")
        stream.rest()
    trial.see(stream.end.name == "error" and stream.end.data["status"] == 404, stream.end)
    trial.same(trial.followed(stream.session, stream.events[0].id).status, 404, "the events")


@case("S-24", "behind an end, that of a failure too, there is nothing: 204")
def nothing_behind(trial):
    for answer in (["One."], [REFUSED], ["One ", {"error": {"type": "invalid_request_error"}}]):
        stream = trial.whole(trial.script(answer))
        came = trial.followed(stream.session, stream.end.id)
        trial.same(came.status, 204, f"the status behind {stream.end.name}")
        for event in stream.events[:-1]:
            names = trial.followed(stream.session, event.id).names
            trial.same(names[-1:], stream.names[-1:], f"the end behind {event.name}", "S-21")


@case("S-25", "behind assistant_turn there is done alone")
def done_alone(trial):
    stream = trial.whole(trial.script(["One."]))
    came = trial.followed(stream.session, stream.events[-2].id)
    trial.same(came.status, 200, "the status")
    trial.same(came.names, ["done"], "what comes")
    trial.same(came.events[0].id, stream.end.id, "the id")


@case("S-26", "the id of an older reply, or what is no id, gives the latest from its beginning")
def older_ids(trial):
    stream = trial.whole(trial.script(["One."]))
    older = [event.id for event in stream.events]
    second = trial.script(["Two ", {"finish": "length"}], ["goes on."])
    with trial.ask(stream.session, second) as following:
        following.rest()
    older += [event.id for event in following.events]
    with trial.go_on(stream.session) as following:
        following.rest()
    with trial.ask(stream.session, trial.script(["Three."])) as following:
        following.rest()
    odd = ["odd", "1-x", "1-2-3", "7-99999999999999999999", " ", "-", "x" * 500, "9" * 30 + "-0"]
    for last_id in [*older, older[1] + "0000", *odd]:
        came = trial.followed(stream.session, last_id)
        is_so = came.status == 200 and came.text == "Three."
        trial.see(is_so, f"behind {last_id[:60]!r} comes {came}")


@case("S-30", "behind a stream that its client has left, the last id gives the rest")
def left_in_the_middle(trial):
    script = trial.script(["One ", {"gate": "1"}, "two ", {"gate": "2"}, "three."])
    with trial.create(script) as stream:
        last = stream.until("content_delta")
    script.open("1")
    with trial.follow(stream.session, last.id) as second:
        last = second.until("content_delta")
    script.open("2")
    third = trial.followed(stream.session, last.id)
    trial.same(stream.text + second.text + third.text, "One two three.", "the text")
    trial.same(third.names[-2:], ["assistant_turn", "done"], "the end")
