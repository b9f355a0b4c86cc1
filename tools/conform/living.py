"""S-40 to S-52: what comes in time; and what a killed server keeps."""

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

from calling import LOST, TIMEOUT, Answer, connect, text_of
from casebook import case, within
from scripted_model import GATE

TAKEN_AGAIN = 40  # seconds after which a client that took nothing has lost its connection
SOON = 4  # seconds for what takes one: a machine may be busy


@case("S-40", "head and first event or comment do not wait for the model")
def at_once(trial):
    script = trial.script([GATE, "One."])
    with waiting_for(script), trial.create(script) as stream:
        trial.see(stream.until("session"), "no session comes")
        trial.see(not script.gates["go"].is_set(), "a session comes when the model speaks")
    session = stream.session
    script.open()
    trial.see(trial.followed(session).text == "One.", "the reply is another one")
    script = trial.script([GATE, "Two."])
    with waiting_for(script), trial.ask(session, script) as stream:
        data = stream.read()
        trial.see(data.startswith(b":"), f"the first bytes are {data[:80]}")
        trial.see(not script.gates["go"].is_set(), "a comment comes when the model speaks")


@contextlib.contextmanager
def waiting_for(script):
    """The model waits within this context, for some seconds at most."""
    timer = threading.Timer(SOON, script.open)
    timer.start()
    yield
    timer.cancel()


@case("S-41", "a stream whose model is silent for 32 seconds has comments", needs="time")
def comments(trial):
    script = trial.script(["One ", 16, 16, "two."])
    with trial.create(script) as stream:
        trial.same(stream.rest().text, "One two.", "the text")
    trial.see(len(stream.arrivals) >= 6, "no two comments came")


@case("S-42", "a cancel hangs up on the model, and ends the streams with what is stored")
def cancelled(trial):
    script = trial.script(["One ", GATE, "two."])
    with trial.create(script) as stream:
        stream.until("content_delta")
        with trial.follow(stream.session) as other:
            other.until("content_delta")
            began = time.monotonic()
            answer = trial.cancel(stream.session)
            trial.same(answer.status, 200, "the status")
            for each in (stream, other):
                each.rest()
            took = time.monotonic() - began
    trial.see(took < SOON, f"the streams end {took:.1f} s later")
    trial.see(script.hung_up.wait(SOON), "the connection to the model stays open")
    for each in (stream, other):
        trial.same(each.names[-2:], ["assistant_turn", "done"], "the end", "S-20")
        trial.same(each.turn["status"], "interrupted", "the status")
        trial.same(each.turn["content"], "One ", "the content")
    trial.same(script.calls, 1, "the number of calls", "S-34")
    again = trial.cancel(stream.session)
    trial.same(again.status, 409, "the status of a second one")


@case("S-47", "a client that takes nothing loses its connection, and others do not wait", "time")
def takes_nothing(trial):
    script = trial.script([GATE, *[{"text": "word ", "times": 10_000}] * 5, "end."])
    with (
        trial.create(script) as stream,
        contextlib.closing(idle(trial, stream.session)) as response,
    ):
        script.open()
        trial.see(stream.rest().names[-1:] == ["done"], f"another stream ends by {stream.end}")
        time.sleep(TAKEN_AGAIN)
        with contextlib.suppress(*LOST):
            came = response.read()
            trial.see(b"event: done" not in came, f"{len(came)} bytes and the end come to it")


def idle(trial, session):
    """The answer with a stream of which nothing is taken, not even by the kernel."""
    place = urlsplit(trial.place.url)
    connection = connect(place, TIMEOUT)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    headers = {"Authorization": f"Bearer {trial.user.token}"}
    connection.request("GET", f"{place.path}{session}/events", headers=headers)
    return connection.getresponse()


@case("S-52", "a POST does not look at Last-Event-ID")
def no_look(trial):
    stream = trial.whole(trial.script(["One."]))
    for last in stream.events:
        with trial.ask(stream.session, trial.script(["Two."]), Last_Event_ID=last.id) as following:
            following.rest()
        trial.same(following.text, "Two.", f"the text behind {last.id}")
        trial.same(following.names[-1:], ["done"], "the end")


# With a server that is killed, and starts again


@case("S-4", "text that came is stored behind a kill, and its reply goes on to the end", "restart")
def killed(trial):
    older = trial.whole(trial.script(["Older."]))
    script = trial.script(["One ", "two ", {"gate": "never"}], ["three."])
    with trial.create(script) as stream:
        within(10, lambda: stream.until("content_delta") and stream.text == "One two ")
        trial.place.restart()
        stream.rest()
    trial.see(stream.end.name == "content_delta", f"its end is {stream.end}")
    stored = trial.turns(stream.session)[-1]["content"]
    trial.see(stored.startswith("One two "), f"what is stored is {stored!r}")
    rest = trial.followed(stream.session, stream.end.id)
    if trial.see(not isinstance(rest, Answer), f"behind its last id comes {rest}", "S-30"):
        trial.same(rest.text, "three.", "what its last id gives", "S-30")
        trial.same(rest.turn["continued"], 1, "continued", "S-28")
    for event in stream.events:
        came = trial.followed(stream.session, event.id)
        before = text_of(stream.events[: stream.events.index(event) + 1])
        trial.same(before + came.text, "One two three.", f"the text by {event.id}", "S-14")
    trial.same(script.calls, 2, "the number of calls", "S-36")
    trial.same(trial.followed(older.session, older.end.id).status, 204, "an older end", "S-14")
