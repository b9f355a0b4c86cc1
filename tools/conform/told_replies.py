"""The cases that are data: replies.toml and answers.toml."""

import functools
import pathlib
import tomllib
import uuid

from calling import Caller
from casebook import Case
from thinking import see_thoughts

HERE = pathlib.Path(__file__).parent


def read_table(name):
    """The rows of this table."""
    with (HERE / name).open("rb") as file:
        [rows] = tomllib.load(file).values()
    return rows


def told_cases():
    """A case for each row."""
    for row in read_table("replies.toml"):
        yield Case(row["promise"], row["says"], functools.partial(see_reply, row))
    for row in read_table("answers.toml"):
        yield Case(row["promise"], row["says"], functools.partial(see_answer, row))


def see_reply(row, trial):
    script = trial.script(*row["script"])
    stream = trial.whole(script, fields=row.get("fields", {}))
    text = stream.text
    if "text" in row:
        trial.same(text, row["text"], "the text")
    trial.same(len(text), row.get("size", len(row.get("text", ""))), "the length of the text")
    trial.same(script.calls, row.get("calls", 1), "the number of calls")
    trial.see(set(row.get("has", [])) <= set(stream.names), f"the events are {stream.names}")
    turn = see_end(trial, row, stream)
    trial.same(turn["content"], text, "the text that is stored")
    for name, value in row.get("turn", {}).items():
        trial.same(turn[name], None if value == "null" else value, name)
    if "thought" in row:
        see_thoughts(trial, stream, turn, row["thought"])


def see_end(trial, row, stream):
    """Compare the end of the stream with the row; returns the turn that is shown."""
    turn = trial.turns(stream.session)[-1]
    if "error" not in row:
        trial.same(turn["status"], row.get("status", "complete"), "the status")
        trial.same(stream.names[-2:], ["assistant_turn", "done"], "the end")
        trial.see(stream.turn == turn, f"{stream.turn} is shown as {turn}", "S-17")
        return turn
    trial.same(turn["status"], "failed", "the status")
    trial.see(stream.end and stream.end.name == "error", f"the end is {stream.end}", "S-21")
    error = {name: stream.end.data.get(name) for name in ("status", "message")}
    trial.same(error["status"], row["error"], "the status of the error")
    trial.see(error == turn["error"], f"the turn has {turn['error']}, not {error}", "S-21")
    return turn


@functools.cache
def session_of(place):
    """The path of a session whose reply is complete."""
    script = place.model.script([["Fine."]])
    return place.user.read("POST", "/sessions", {"content": script.message}).session


def see_answer(row, trial):
    place = trial.place
    path = row["path"].replace("{none}", f"/sessions/{uuid.uuid4()}")
    if "{session}" in path:
        path = path.replace("{session}", session_of(place))
    headers = {name.replace("-", "_"): value for name, value in row.get("headers", {}).items()}
    if "token" in row:
        headers["Authorization"] = f"Bearer {row['token']}" if row["token"] else None
    body = row["raw"].encode() if "raw" in row else row.get("body")
    user = Caller(place.url, place.token, place.streams, place.answers)
    answer = user.call(row["method"], path, body, **headers)
    if not trial.same(answer.status, row["status"], "the status"):
        trial.see(False, answer)
        return
    if "source" in row:
        trial.same(answer.source, row["source"], "the source")
    for name in row.get("has", []):
        trial.see(name in answer.headers, f"there is no {name}")
    for name in row.get("lacks", []):
        trial.see(name not in answer.headers, f"there is {name}")
    if "echoes" in row:
        sent = {name.lower(): value for name, value in row["headers"].items()}
        trial.same(answer.headers.get(row["echoes"]), sent[row["echoes"]], row["echoes"])
    for name, value in row.get("shows", {}).items():
        trial.same((answer.json or {}).get(name), value, name)
