"""S-53 to S-58: what a model thinks, as far as the server shows and keeps it."""

import json

from calling import thoughts_of
from casebook import NotApplicable, Unfit, case
from scripted_model import CUT, GATE

LIMIT = {"finish": "length"}
COUNTED = "what is shown of thinking, since the server only counts it"
NOT_KEPT = "what is kept of thinking, since the server keeps none"


def see_thoughts(trial, stream, turn, wanted):
    """Check that this stream has shown these thoughts, and that they are kept next to the turn."""
    told = [event for event in stream.events if event.name == "thinking"]
    if told and all("start" not in event.data for event in told):
        trial.same(turn["thinking"], None, "the turn's thinking")
        raise NotApplicable(COUNTED)
    trial.same(thoughts_of(told), wanted, "what is told")
    kept = kept_thoughts(trial.user, stream, turn)
    if not wanted:
        trial.same((turn["thinking"], kept.status), (None, 404), "the turn's thinking")
        return
    figures = turn["thinking"] or {}
    trial.same(figures.get("characters"), len(wanted), "the number of characters in the turn")
    if figures and kept.status == 404:
        raise NotApplicable(NOT_KEPT)
    trial.same(kept.json, {"text": thoughts_of(told)}, "what is kept", "S-57")


def kept_thoughts(user, stream, turn):
    """The answer to a request for the kept thoughts."""
    return user.call("GET", f"{stream.session}/turns/{turn['id']}/thinking")


@case("S-53", "a model that thinks for three seconds is told of at once, and not too often")
def told_in_time(trial):
    stream = trial.whole(trial.script([*[{"thought": "Hm, so. "}, 0.05] * 60, "It is."]))
    times = [event.at for event in stream.events if event.name == "thinking"]
    if not trial.see(len(times) > 1, f"the events are {stream.names}"):
        return
    seconds = times[-1] - times[0]
    trial.see(len(times) <= 4 * (seconds + 1), f"{len(times)} events come in {seconds:.1f} s")


@case("S-53", "a model whose thoughts and words alternate is not told of with each of them")
def told_in_turns(trial):
    parts = [part for number in range(40) for part in ({"thought": "Hm. "}, f"{number} ", 0.05)]
    stream = trial.whole(trial.script(parts))
    times = [event.at for event in stream.events if event.name == "thinking"]
    most = 4 * (times[-1] - times[0] + 1)
    trial.see(len(times) <= most, f"{len(times)} events come in {times[-1] - times[0]:.1f} s")


@case("S-54", "who comes while a model thinks is given all of it, and so is who comes back")
def given_from_the_beginning(trial):
    script = trial.script([{"thought": "Hm, "}, GATE, {"thought": "so."}, "Yes."])
    with trial.create(script) as stream:
        first = stream.until("thinking")
        if not first:
            raise Unfit(f"no thinking comes: {stream}")
        if "start" not in first.data:
            raise NotApplicable(COUNTED)
        for last_id in (None, first.id):
            with trial.follow(stream.session, last_id) as following:
                event = following.until("thinking")
            # With THINKING=live, another process knows only the number of characters.
            if trial.see(event, f"no thinking comes behind {last_id}") and "start" in event.data:
                told = event.data["start"], event.data["delta"]
                trial.same(told, (0, "Hm, "), f"what comes behind {last_id}")
        script.open()
        trial.same(thoughts_of(stream.rest().events), "Hm, so.", "what is told")


@case("S-55", "what was thought is in nothing that a model is sent later")
def sent_without_thoughts(trial):
    thought, tagged = {"thought": "Mauve."}, "<think>Mauve.</think>"
    script = trial.script([thought, "One ", CUT], [tagged, "two ", LIMIT], [tagged, "three."])
    stream = trial.whole(script)
    with trial.go_on(stream.session) as following:
        following.rest()
    trial.same(following.turn["content"], "One two three.", "the content")
    second = trial.script(["Four."])
    with trial.ask(stream.session, second) as following:
        following.rest()
    for body in (*script.asked, *second.asked):
        trial.see("Mauve" not in json.dumps(body), f"the model is sent {body['messages']}")


@case("S-58", "another user's thinking is a 404", needs="other")
def of_another_user(trial):
    stream = trial.whole(trial.script([{"thought": "Hm."}, "Yes."]))
    trial.same(kept_thoughts(trial.other, stream, stream.turn).status, 404, "the status")
    if kept_thoughts(trial.user, stream, stream.turn).status == 404:
        raise NotApplicable(NOT_KEPT)
