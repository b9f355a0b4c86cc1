"""Backups while the service runs, by the documents' own commands: each is restored, and shows
the service at one moment.

Users do at random everything that can be done, as in tools/soak, and a worker is killed. The
model always answers a message with the same text, so the test knows the text of every reply,
whichever process continues it. `-s` shows the figures.
"""

import collections
import contextlib
import os
import random
import shutil
import stat
import statistics
import subprocess
import sys
import time

import pytest

from client import Client, at_once, make_token, wait_until
from documents import BLOCKS
from fleet import kill_worker
from invariants import counts_of, in_pairs, list_titles, problems_of, turns_at_rest
from product import copy_of_the_service
from provider import asked, so_far, writes
from raw_tables import tables_of
from readers import LOST
from talker import MARK, mark_of
from together import on_sqlite
from users import USERS, User, session_in

ARCHIVE = "https://github.com/archive"
BIG = {"sqlite": 40, "postgresql": 8}  # MB of messages, so that a backup takes some time
AT_REST = 60  # seconds within which a restored server has ended all replies that were in progress
FAST, SLOW = 0.01, 0.2  # seconds from one word of a reply to the next
URL = "postgresql://parley:pass%20word@db.example.com/parley"  # the document's
USED = "SELECT owner, day, model, replies, input_tokens, output_tokens, cached_tokens, estimated_tokens FROM usage"


def fast_mark():
    return f"[00f{random.getrandbits(36):09x}]"


def text_of(mark):
    """The model's answer to a message with this mark, whoever asks, and however often."""
    return " ".join(
        [mark, *(f"{mark}{number}" for number in range(10 + int(mark[1:3], 16) % 32)), "end."]
    )


def model(request):
    """An eighth of the replies is slow. On the server that is saved, a fifth of them break and
    are continued."""
    mark = MARK.findall(asked(request))[-1]
    breaks = request.path.startswith("/live/") and not so_far(request) and random.random() < 0.2
    return writes(text_of(mark), *[4] * breaks, pace=SLOW if mark[3] in "01" else FAST)(request)


class Line:
    """A request in a diary: when it was sent, and when it was answered or lost."""

    def __init__(self, method, path, body, key=None):
        self.method, self.path, self.body, self.key, self.began = (
            method,
            path,
            body or {},
            key,
            time.monotonic(),
        )
        self.session, self.is_done, self.is_lost, self.answer, self.ended = (
            session_in(path),
            False,
            False,
            None,
            float("inf"),
        )
        self.title, self.mark = (
            self.body.get("title"),
            (MARK.findall(self.body.get("content", "")) or [None])[0],
        )

    @contextlib.contextmanager
    def losing(self):
        try:
            yield
        except LOST:
            self.is_lost, self.ended = True, time.monotonic()
            raise

    def close(self, status, headers, answer=None):
        self.ended, self.answer, self.is_done = (
            time.monotonic(),
            answer,
            status in (200, 201, 202, 204),
        )
        self.session = self.session or session_in(headers.get("Location", ""))


class Diary(Client):
    """A client that remembers its requests and the answers."""

    def __init__(self, url, token):
        super().__init__(url, token)
        self.lines = []

    def _add(self, *line):
        self.lines.append(Line(*line))
        return self.lines[-1]

    def request(self, method, path, body=None, **options):
        line = self._add(method, path, body, options.get("Idempotency_Key"))
        with line.losing():
            response = super().request(method, path, body, **options)
        line.close(response.status_code, response.headers, response)
        return response

    @contextlib.contextmanager
    def stream(self, method, path, body=None, **options):
        line = self._add(method, path, body)
        with line.losing(), super().stream(method, path, body, **options) as stream:
            line.close(stream.status, stream.headers)
            yield stream


class Writer(User):
    """A user as in tools/soak, with a diary, who accepts no 502 or 503: his model never fails,
    and a backup must not fail him either."""

    pause = 0.05
    taken = (409,)

    def __init__(self, server, subject, token, seed):
        super().__init__(server, subject, seed, float("inf"), Diary(server.url, token))


class Place:
    """A folder with the service and its database. With SQLite, it has a key of its own, which is
    part of the backup."""

    def __init__(self, folder, database, start, provider):
        self.folder, self.start, self.provider = copy_of_the_service(folder), start, provider
        (folder / ".venv").symlink_to(sys.prefix)
        self.is_sqlite = database.startswith("sqlite")
        self.url = f"sqlite:///{folder}/instance/parley.db" if self.is_sqlite else database

    def serve(self, name):
        """Start a server whose calls of the model have this name in their paths."""
        self.name = name
        settings = {
            "OPENAI_BASE_URL": f"{self.provider.url}/{name}/v1",
            "DEFAULT_MODEL": "m-1",
            "REPLY_WAIT": 1,
        }
        settings |= {"DATABASE_URL": self.url, "CONTINUE_LIMIT": 1000, "WEB_CONCURRENCY": 2}
        if self.is_sqlite:
            (self.folder / "instance").mkdir(0o700, exist_ok=True)
            settings |= {"JWT_SECRET": ""}
        self.server = self.start(root=self.folder, **settings)
        return self.server

    def clients(self, tokens):
        return [Client(self.server.url, token) for token in tokens.values()]

    def calls(self):
        return sum(request.path.startswith(f"/{self.name}/") for request in self.provider.posts)

    def save(self):
        """Returns the largest size of SQLite's log meanwhile, and the backup."""
        return self._run(0), max(self.folder.glob("backup-*" if self.is_sqlite else "2*.dump"))

    def restore(self, backup):
        """Restore this backup, which may be from another folder. Next to it is an incomplete
        one, which must not be used."""
        if backup.parent != self.folder:
            (shutil.copytree if self.is_sqlite else shutil.copy)(backup, self.folder / backup.name)
        (self.folder / ".part-2999").mkdir()
        for name in (".part-2999/parley.db", "part-2999.dump"):
            (self.folder / name).touch()
        self._run(1)
        if self.is_sqlite:
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in (self.folder / "instance").iterdir()
            }
            assert modes == {"parley.db": 0o600, "jwt_key.pem": 0o600}
            with tables_of(self.url) as tables:
                assert tables.rows("PRAGMA integrity_check") == [("ok",)]
                assert tables.rows("PRAGMA foreign_key_check") == []
        with tables_of(
            self.url
        ) as tables:  # as on another machine, where it is not seen at once who is dead
            tables.rows("UPDATE turn SET writer = NULL")

    def _run(self, number):
        """Run the documents' commands. The first of them saves, and the second restores."""
        if self.is_sqlite:
            command = [
                block.text
                for block in BLOCKS
                if "flask backup" in block.text or "flask restore" in block.text
            ][number]
        else:
            [text] = [block.text for block in BLOCKS if "pg_dump -Fc -f" in block.text]
            command = [
                line
                for line in text.replace(URL, self.url).splitlines()
                if not line.startswith("#")
            ][number]
        largest, process = (
            0,
            subprocess.Popen(["sh", "-ec", command], cwd=self.folder, stdin=subprocess.PIPE),
        )
        process.stdin.write(b"y\n")
        process.stdin.close()
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                largest = max(
                    largest, os.stat(self.url.removeprefix("sqlite:///") + "-wal").st_size
                )
            time.sleep(0.02)
        assert process.returncode == 0
        return largest

    def used(self):
        """(owner, day, model) → the counts of the ledger."""
        with tables_of(self.url) as tables:
            return {row[:3]: row[3:] for row in tables.rows(USED)}


def read_all(clients):
    """id of a session → the session with its turns, and when it was requested and answered."""
    found = {}
    for client in clients:
        for session in list_titles(client):
            began = time.monotonic()
            response = client.get(f"/sessions/{session}")
            if response.status_code == 200:  # otherwise it was deleted meanwhile
                found[session] = response.json() | {"began": began, "ended": time.monotonic()}
    return found


class Backup:
    """One backup, and what was there before it began and after it ended."""

    def __init__(self, place, clients, kill):
        self.began = time.monotonic()
        self.used_before, self.before = place.used(), read_all(clients)
        if kill:
            kill_worker(place.server)
        second = time.time() // 1
        wait_until(lambda: time.time() // 1 > second)  # the name of a backup ends with its second
        self.since = time.monotonic()
        self.log_size, self.path = place.save()
        self.until = time.monotonic()
        self.after, self.used_after = read_all(clients), place.used()

    def is_before(self, line):
        return line.is_done and line.ended <= self.since

    def problems(self, found, used, lines):
        """The faults in these sessions and ledger counts, which must be those of one moment of
        the backup."""
        lines = [line for line in lines if line.session]
        of_sessions = [
            problem
            for each in (self._lost, self._wrong_titles, self._changed)
            for problem in each(found, lines)
        ]
        return [*of_sessions, *self._miscounted(used)]

    def _lost(self, found, lines):
        """Everything answered before the backup is there; nothing requested after it is."""
        turns = [
            (key, turn["content"])
            for key, session in found.items()
            for turn in session["turns"][::2]
        ]
        marks = collections.Counter((key, mark_of(content)) for key, content in turns)
        deletions = {line.session: line for line in lines if line.method == "DELETE"}
        for line in lines:
            deletion, count = deletions.get(line.session), marks[line.session, line.mark]
            if line.session not in found:
                if self.is_before(line) and not (deletion and deletion.began < self.until):
                    yield f"{line.session} is lost, of {line.method} {line.path}"
            elif deletion and self.is_before(deletion):
                yield f"{line.session} was deleted, and is there"
            elif line.mark and self.is_before(line) and count != 1:
                yield f"{line.mark} is {count} times in {line.session}"
            elif (
                line.mark and line.began >= self.until and count and not line.key
            ):  # the same text may have been sent before
                yield f"{line.mark} was sent later, and is in {line.session}"

    def _wrong_titles(self, found, lines):
        """A title is the last one that was given before, or one that was given meanwhile."""
        for key, session in found.items():
            changes = [
                line
                for line in lines
                if line.session == key and line.title and line.began < self.until
            ]
            known = [line.title for line in changes if self.is_before(line)][-1:]
            if known and session["title"] not in known + [
                line.title for line in changes if line.ended > self.since
            ]:
                yield f"the title of {key} is {session['title']}, not {known}"

    def _changed(self, found, lines):
        """Unchanged sessions are exactly the same. Of those that grew, each moment has as much
        as the one before."""
        for key, session in found.items():
            before, after = self.before.get(key), self.after.get(key)
            for first, second in (before, session), (session, after):
                if first and second:
                    yield from shrunk(key, first["turns"], second["turns"])
            if (
                before
                and after
                and without_times(before) == without_times(after) != without_times(session)
            ):
                asked = [line for line in lines if line.session == key and line.method != "GET"]
                if not any(
                    line.began < after["ended"] and line.ended > before["began"] for line in asked
                ):
                    yield f"nothing happened to {key}, which was {before}, and is {session}"

    def _miscounted(self, used):
        for row in {*self.used_before, *used}:
            counts = [each.get(row, [0] * 5) for each in (self.used_before, used, self.used_after)]
            if not all(before <= now <= after for before, now, after in zip(*counts, strict=True)):
                yield f"the ledger has {counts} of {row}"


def without_times(session):
    return {name: value for name, value in session.items() if name not in ("began", "ended")}


def shrunk(key, first, second):
    """The faults in a session's turns and its later ones: only the last turn may change, by
    growing or by being replaced."""
    if second[: len(first) - 1] != first[:-1]:
        yield f"the turns of {key} were {first}, and are {second}"
    later = {turn["id"]: turn for turn in second}.get(first[-1]["id"])
    if later and not later["content"].startswith(first[-1]["content"]):
        yield f"the last turn of {key} was {first[-1]}, and is {later}"


def check_at_rest(place, clients, found, backup, lines):
    """What must hold of a restored server: it ends every reply in progress, with one call each,
    and serves. Returns the figures."""
    under_way = {
        key for key, session in found.items() if session["turns"][-1]["status"] == "in_progress"
    }
    owners, now = {session: client for client in clients for session in list_titles(client)}, {}
    assert set(owners) == set(found)
    counts, deadline = collections.Counter(), time.monotonic() + AT_REST
    for key, client in owners.items():
        now[key] = turns_at_rest(client, key, deadline)
        assert not list(problems_of(now[key])), key
        counts += counts_of(now[key])
        for message, answer in in_pairs(now[key]):
            text = text_of(mark_of(message["content"]))
            assert text.startswith(answer["content"]) and (
                answer["status"] != "complete" or answer["content"] == text
            )
    for client in clients:
        for listed in client.get("/sessions?page[limit]=100").json()["data"]:
            assert (
                listed["last_message_preview"]
                == [turn["content"] for turn in now[listed["id"]] if turn["content"]][-1][:100]
            )
    repeated = check_keys(owners, found, backup, lines)
    assert place.calls() == len(under_way)
    for key in under_way:
        turn, known = now[key][-1], backup.after.get(key, found[key])["turns"][-1]
        assert turn["status"] == "complete"
        for length in (
            (0, len(known["content"])) if known["id"] == turn["id"] else (0,)
        ):  # also with an id from before the restart
            with owners[key].events({"id": key}, f"{turn['id']}-{length}") as stream:
                assert text_in(stream) == turn["content"][length:]
    for key in {*under_way, *random.sample(sorted(owners), 4)}:
        client, mark = owners[key], fast_mark()
        query = {"query": mark_of(now[key][0]["content"])}
        assert [each["id"] for each in client.get("/sessions", params=query).json()["data"]] == [
            key
        ]
        with client.stream("POST", f"/sessions/{key}/messages", {"content": mark}) as stream:
            assert text_in(stream) == text_of(mark)
    return f"{len(under_way)} replies were in progress, {repeated} requests known by their keys; in the end, {dict(counts)}"


def check_keys(owners, found, backup, lines):
    """A request that was answered before, repeated with its key, gets the same answer. Returns
    how many there were."""
    settled = {
        turn["id"]
        for session in found.values()
        for turn in session["turns"]
        if turn.get("status") == "complete"
    }
    known = [
        line
        for line in lines
        if line.key and backup.is_before(line) and line.answer.json().get("id") in settled
    ]
    for line in known:
        again = owners[line.session].post(line.path, line.body, Idempotency_Key=line.key)
        assert (again.status_code, again.json()["id"]) == (201, line.answer.json()["id"])
    return len(known)


def text_in(stream):
    return "".join(event.data.get("delta", "") for event in stream)


def tell_waits(backups, lines):
    """Print how long requests took that do not wait for the model, the shortest first."""
    waits = {
        (method, when): []
        for method in ("GET", "PATCH", "DELETE")
        for when in ("beside a backup", "else")
    }
    for line in lines:
        if (
            (line.method, "else") in waits
            and not line.path.endswith("/events")
            and not line.is_lost
        ):
            is_beside = any(
                line.began < backup.until and line.ended > backup.since for backup in backups
            )
            waits[line.method, "beside a backup" if is_beside else "else"].append(
                line.ended - line.began
            )
    for (method, when), some in waits.items():
        if some:
            print(
                f"{method} {when}: {len(some)} took {statistics.median(some):.3f} s (median), {max(some):.3f} s (worst)"
            )


@pytest.mark.long
@on_sqlite
def test_a_backup_under_load_is_restored_as_the_service_of_one_moment(
    engine, new_database, start, provider, tmp_path
):
    provider.default = model
    live = Place(tmp_path / "live", new_database(), start, provider)
    server = live.serve("live")
    key = (
        {"key": (live.folder / "instance/jwt_key.pem").read_bytes(), "algorithm": "EdDSA"}
        if live.is_sqlite
        else {}
    )
    tokens = {owner: make_token(owner, **key) for owner in [*USERS, ARCHIVE]}
    *clients, archive = live.clients(tokens)

    def fill(number):
        for _ in range(BIG[engine] // 4):
            assert (
                archive.post(
                    "/sessions", {"content": fast_mark() + random.randbytes(500_000).hex()}
                ).status_code
                == 201
            )

    at_once(4, fill)
    wait_until(
        lambda: all(
            session["turns"][-1]["status"] == "complete" for session in read_all([archive]).values()
        )
    )
    kept = [without_times(session) for session in read_all([archive]).values()]
    users = [Writer(server, owner, tokens[owner], random.random()) for owner in USERS * 3]
    for user in users:
        user.start()
    try:
        wait_until(lambda: all(len(user.sessions) > 1 for user in users), 60)
        backups = [Backup(live, clients, kill) for kill in (False, True, False)]
    finally:
        for user in users:
            user.until = 0
        for user in users:
            user.join()
    lines = sorted(
        (line for user in users for line in user.client.lines), key=lambda line: line.began
    )
    lost, problems = (
        [line for line in lines if line.is_lost],
        [problem for user in users for problem in user.problems],
    )
    assert len(problems) == len(lost), problems
    assert all(
        line.began < backups[1].since and line.ended > backups[1].began for line in lost
    )  # while a worker was killed
    print(f"\n{engine}: {len(lines)} requests, {len(lost)} lost with their worker")
    tell_waits(backups, lines)
    server.kill()
    assert (
        not live.is_sqlite or (live.folder / "instance/parley.db-wal").stat().st_size
    )  # next to which the last is restored
    restored = []
    for number, backup in enumerate(backups):
        # The last in its own folder, where the service has gone on writing since.
        place = (
            live
            if number == 2
            else Place(tmp_path / f"restored-{number}", new_database(), start, provider)
        )
        place.restore(backup.path)
        used, _ = place.used(), place.serve(f"restored-{number}")
        *clients, archive = place.clients(tokens)
        found = read_all(
            clients
        )  # so the lapsed leases have not been watched long enough for a takeover
        problems = backup.problems(found, used, lines)
        assert not problems, "\n".join(problems)
        assert [without_times(session) for session in read_all([archive]).values()] == kept
        restored.append((place, clients, found, backup, lines))
    for number, told in enumerate(at_once(3, lambda number: check_at_rest(*restored[number]))):
        place, _, found, backup, _ = restored[number]
        assert "ERROR" not in place.server.output()
        log = f" beside a log of {backup.log_size / 2**20:.0f} MB" * place.is_sqlite
        print(
            f"backup {number} took {backup.until - backup.since:.1f} s{log}; {len(found)} sessions; {told}"
        )
