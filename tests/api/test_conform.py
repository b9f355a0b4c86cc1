"""The cases of tools/conform: our server passes them, clients read all of their list, and a server
that deviates is found, with the number of the promise it breaks."""

import concurrent.futures
import contextlib
import os
import re
import shutil
import subprocess
import sys
import uuid

import pytest

import forked
from casebook import Place
from client import BOB, Client, make_token
from client_list import numbered_rows, problems_of_events, read_list
from coming_back import Own, Program
from conforming import broken, conform, left_out, numbers
from deviating import DEVIATIONS
from front_end import write_reader
from planting import read_faults
from product import ROOT, copy_of_the_service
from readers import Reader
from relaying import Relay, Straight
from scripted_model import ScriptedModel
from servers import Host, running

FAULTS = read_faults()
PLANTED = {  # a fault of tools/plant → the promises that it breaks
    "break-beyond-the-limit": {"S-23"},
    "halves-of-a-character": {"S-16"},
    "position-off-by-one": {"S-13"},
    "end-of-before-a-continue": {"S-32"},
    "events-of-another-user": {"S-38"},
    "restarts-of-before-a-continue": {"S-28"},
    "held-back-at-the-end": {"S-27"},
    "key-of-the-first-try": {"S-39"},
}


def settings_of(model):
    return {"OPENAI_BASE_URL": model.url, "DEFAULT_MODEL": "conform"}


class Restarted(Host):
    """A server that uses the tool's model, can be killed, and restarts at the same port."""

    def __init__(self, folder, model, **settings):
        super().__init__(folder, **settings_of(model), **settings)
        token, other = make_token(), make_token(BOB)
        self.place = Place(self.server.url, token, model, other, self.restart)

    def restart(self):
        self.server.kill()
        self.start()


@pytest.fixture(scope="module")
def model():
    with contextlib.closing(ScriptedModel()) as model:
        yield model


@pytest.fixture(scope="module")
def place(new_database, model, tmp_path_factory):
    """Two processes, started as in the Procfile."""
    folder = tmp_path_factory.mktemp("conform")
    restarted = Restarted(folder, model, DATABASE_URL=new_database())
    yield restarted.place
    restarted.end()


def failures(seen):
    return [str(each) for each in seen if each.problems or each.left_out]


def test_the_server_passes_all_cases(place):
    assert failures(conform(place, is_quick=True)) == []


# Clients


class Kept(Reader):
    """The tests' reader, which keeps the events that it has read."""

    def __init__(self, url, token):
        # Cases have events that a later release may add.
        super().__init__([Client(url, token, is_described=False)])
        self.key, self.seen = str(uuid.uuid4()), []

    def read(self, stream):
        super().read(self._keep(stream))

    def _keep(self, stream):
        for event in stream:
            self.seen.append({"event": event.name, "data": event.data, "id": event.id})
            yield event


class OfTheTests:
    name, is_text = "the reader of the tests", False

    def read(self, url, token, message):
        reader = Kept(url, token)
        reader.ask(message)
        return reader.seen, ""


class FlaskChat(Program):
    """`flask chat`, in a process that has the libraries already."""

    def __init__(self):
        words = "flask chat --url {url} --token {token} {message}"
        super().__init__(words, is_text=True)

    def run(self, words):
        clean = {
            name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ
        }
        clean |= {"LANG": "C.UTF-8", "TERM": "dumb", "DATABASE_URL": "sqlite:////nowhere/none.db"}
        return forked.run(["-m", *words], ROOT, clean)


def test_clients_read_every_case_on_the_list(place, tmp_path):
    """The tool's own client, the tests' reader, `flask chat`, the client for Python, and the one that
    every server serves."""
    clients = [
        Own(),
        OfTheTests(),
        FlaskChat(),
        Program(write_reader("parley_client.py", tmp_path)),
    ]
    if shutil.which("node"):
        clients.append(Program(write_reader("parley.js", tmp_path)))
    seen = [*read_list(place, *clients)]
    assert failures(seen) == []
    assert len(seen) == len(clients) * len([*numbered_rows()])


DONE = {"event": "done", "data": {}, "id": "1-4-end"}
TURN = {"event": "assistant_turn", "data": {"content": "One."}, "id": "1-4-turn"}
DELTA = {"event": "content_delta", "data": {"delta": "One."}, "id": "1-4"}


@pytest.mark.parametrize("events", ([DELTA, DELTA, TURN, DONE], [DELTA, TURN], [DELTA, DONE, TURN]))
def test_a_client_that_reports_wrong_events_is_found(events):
    assert [*problems_of_events([DELTA, TURN, DONE], "One.", "done")] == []
    assert [*problems_of_events(events, "One.", "done")]


# Servers that deviate


def found_behind(place, plan, wanted):
    """Which of these promises are found broken when a relay alters the server's answers."""
    with contextlib.closing(Relay(place.url, plan())) as relay:
        altered = Place(relay.url, place.token, place.model, place.other.token)
        return broken(conform(altered, wanted, is_quick=True))


def test_altered_answers_are_found_with_the_numbers_of_the_promises(place):
    unaltered = Straight, set().union(*DEVIATIONS.values())
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda each: found_behind(place, *each), [*DEVIATIONS.items(), unaltered])
    *found, nothing = found
    assert missed_of(DEVIATIONS, found) == {}
    assert nothing == set()


def missed_of(deviations, found):
    """The promises that were not found broken, for each deviation."""
    pairs = zip(deviations.items(), found, strict=True)
    return {each: wanted - numbers for (each, wanted), numbers in pairs if wanted - numbers}


def found_in_a_copy(model, folder, name, wanted):
    """Which of these promises are found broken when this fault is planted in the service."""
    root = copy_of_the_service(folder / name)
    path = root / FAULTS[name].file
    path.write_text(FAULTS[name].planted_in(path.read_text("utf-8")), "utf-8")
    with running(folder / f"of-{name}", root=root, **settings_of(model)) as server:
        place = Place(server.url, make_token(), model, make_token(BOB))
        return broken(conform(place, wanted, is_quick=True))


def test_planted_faults_are_found_with_the_numbers_of_the_promises(model, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda each: found_in_a_copy(model, tmp_path, *each), PLANTED.items())
        assert missed_of(PLANTED, found) == {}


# The table


def test_every_promise_has_a_case_or_a_reason_for_none():
    streams = (ROOT / "docs" / "streams.md").read_text("utf-8")
    promises = set(re.findall(r"^\| (S-\d+) \|", streams, re.MULTILINE))
    seen = {number for number in numbers() if number.startswith("S-")}
    assert seen | set(left_out()) == promises
    assert not seen & set(left_out())


def test_the_command_reports_each_case_and_fails_if_one_fails(place):
    words = [sys.executable, "tools/conform", place.url, "--token", place.token]
    for more, status, told in (
        (
            ["--provider", "0", "--only", "S-18"],
            1,
            "S-18       to follow the events asks no model: ",
        ),
        (["--provider", "0", "--only", "Errors"], 0, "Errors     a blank message: ok"),
    ):
        done = subprocess.run([*words, *more], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (status, "")
        assert told in done.stdout
