"""The list of reading cases, which can be run on any client."""

import concurrent.futures
import contextlib

from calling import KEPT
from casebook import Seen, within
from relaying import PLANS, Relay
from told_replies import read_table

AT_A_TIME = 20
PATIENCE = 30  # seconds until all have read what comes before the server is killed
TOLD = KEPT | {"session", "thinking", "waiting"}


def read_list(place, *clients):
    """The result of each reading, by each of these clients. The server is killed once for all."""
    readings = [Reading(place, client, row) for client in clients for row in numbered_rows()]
    killing = [reading for reading in readings if "kill" in reading.row]
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        quiet = [reading for reading in readings if "kill" not in reading.row]
        yield from pool.map(Reading.see, quiet)
    if not place.restart:
        yield from (each.told([], "it needs --restart") for each in killing)
        return
    with concurrent.futures.ThreadPoolExecutor(len(killing)) as pool:
        seen = [pool.submit(reading.see) for reading in killing]
        within(PATIENCE, lambda: all(reading.is_to_be_killed for reading in killing))
        place.restart()
        yield from (each.result() for each in seen)


def numbered_rows():
    """The rows of the list, from C-1 on."""
    for number, row in enumerate(read_table("readings.toml"), 1):
        yield row | {"number": f"C-{number}"}


class Reading:
    """A client that reads one row of the list."""

    def __init__(self, place, client, row):
        self.place, self.client, self.row = place, client, row
        self.script = place.model.script(row["script"])
        self.passed = None  # the bytes of streams that have reached the client

    @property
    def is_to_be_killed(self):
        return self.passed is not None and self.row["kill"].encode() in self.passed

    def see(self):
        with contextlib.closing(Relay(self.place.url, PLANS[self.row["plan"]]())) as relay:
            self.passed = relay.passed
            events, problem = self.client.read(relay.url, self.place.token, self.script.message)
        number = self.row["number"]
        return self.told([(number, each) for each in self._problems(events, problem)])

    def told(self, problems, left_out=""):
        says = f"{self.client.name}: {self.row['says']}"
        return Seen(self.row["number"], says, problems, left_out)

    def _problems(self, events, problem):
        """What is wrong with what the client has read, and with its requests."""
        end = self.row.get("end", "done")
        if problem and not (self.client.is_text and end == "error"):
            yield problem
        deltas = [each for each in events if each["event"] == "content_delta"]
        text = "".join(each["data"]["delta"] for each in deltas)
        if not self._is_text(text):
            yield f"the text is {repr(text)[:150]}, {len(text)} characters"
        if not self.client.is_text:
            yield from problems_of_events(events, text, end)
        if self.script.calls != self.row.get("calls", 1):
            yield f"the model is asked {self.script.calls} times"
        found = self.place.user.call("GET", f"/sessions?query={self.script.mark}").json["data"]
        if len(found) != 1:
            yield f"there are {len(found)} sessions"

    def _is_text(self, text):
        if "text" in self.row:
            return text == self.row["text"]
        return text.startswith(self.row["begins"]) and len(text) == self.row["size"]


def problems_of_events(events, text, end):
    names = [each["event"] for each in events if each["event"] in TOLD]
    if names[-1:] != [end] or names.count(end) != 1:
        yield f"the events are {names}"
    if end == "done" and names[-2:-1] != ["assistant_turn"]:
        yield f"the events are {names}"
    ids = [each["id"] for each in events if each["event"] in KEPT]
    if len(ids) != len(set(ids)):
        yield f"an id comes twice among {ids}"
    for each in events:
        if each["event"] == "assistant_turn" and each["data"]["content"] != text:
            yield f"the turn has {each['data']['content'][:150]!r}"
