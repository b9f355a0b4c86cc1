"""A run of the soak: a crowd is at work while faults are injected, and in the end all must hold."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import invariants
from askers import PatientUser
from faults import at_hand, befall, wait_for
from history import History
from notes import Notes
from rest import read_all
from service import CONTINUE_LIMIT, REPLY_WAIT, Service
from talker import FAST, SLOW, Talker
from users import USERS, Looking, Stranger

AUDIT = pathlib.Path(__file__).parents[1] / "audit"


class Crowd:
    """The users of the service. In a run without faults, they are more and faster."""

    def __init__(self, service, seed, until, has_faults):
        self.users = [
            PatientUser(
                service,
                USERS[number % 3],
                f"{seed} {number}",
                until,
                service.notes,
                keyed=1 if has_faults else 0.5,
            )
            for number in range(6 if has_faults else 9)
        ]
        strangers = [
            Stranger(server, f"{seed} {number}", until)
            for server in service.servers
            for number in range(1 if has_faults else 2)
        ]
        expected = (200, 503) if has_faults else (200,)
        self.looking = [Looking(each, service.notes, until, expected) for each in service.servers]
        for each in self.users:
            each.pause = 0.5 if has_faults else 0
        for each in strangers:
            each.pause = 0.5 if has_faults else 0.05
        self.threads = [*self.users, *strangers, *self.looking]

    @contextlib.contextmanager
    def at_work(self):
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            for thread in self.threads:
                thread.until = 0
            for thread in self.threads:
                thread.join()

    def told(self):
        """The statuses that users got at each try, and what became of their requests."""
        tries = sum((user.client.told for user in self.users), collections.Counter())
        outcomes = sum((user.told for user in self.users), collections.Counter())
        sentences = {what: count for what, count in outcomes.items() if isinstance(what, str)}
        return dict(sorted(tries.items(), key=str)), dict(sorted(sentences.items()))


def talker_of(seed, has_faults, history):
    """In a run without faults, an answer may break again and again."""
    if has_faults:
        return Talker(seed, SLOW, failing=0.2, in_a_row=False, history=history)
    return Talker(seed, FAST, failing=0.25, in_a_row=True, history=history)


def audit(path):
    """The result of tools/audit for this history: whether it is right, and its lines."""
    command = [sys.executable, AUDIT, path]
    run = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return run.returncode == 0, run.stdout.splitlines()


def soak(folder, engine, seconds, seed, faults, url=None, history=None):
    """Run it on this engine; returns a summary. Raises AssertionError if something does not hold.

    `url` names an empty database for a run without faults, in place of one of its own. `history` is
    the file for its history, in place of one in its folder.
    """
    path = history or folder / "history.jsonl"
    settings = {"REPLY_WAIT": REPLY_WAIT, "CONTINUE_LIMIT": CONTINUE_LIMIT}
    record = History(path, engine=engine, seed=seed, seconds=seconds, **settings)
    chance, notes = random.Random(f"{seed} {engine}"), Notes(record)
    needs = {need for fault in faults.values() for need in fault.needs}
    talker = talker_of(f"{seed} {engine}", bool(faults), record)
    with Service(folder, engine, talker, notes, needs, url) as service:
        notes.began, until = time.monotonic(), time.monotonic() + seconds
        crowd = Crowd(service, f"{seed} {engine}", until, bool(faults))
        with crowd.at_work():
            befall(service, faults, seconds, chance)
            wait_for(service, until)
        ending = invariants.Ending(service, crowd.users, chance)
        problems = list(unread(ending))
        record.close()
        is_right, audited = audit(path)
        problems += [*audited * (not is_right), *invariants.problems(ending)]
        answers, outcomes = crowd.told()
        summary = [
            *notes.done,
            f"answers {answers}, {outcomes}",
            f"replies {dict(ending.counts)}",
            f"slowest /health {max(each.slowest for each in crowd.looking):.2f} s",
            f"figures {dict(notes.figures | figures_of(service.logs))}",
            *audited,
        ]
        summary = f"{engine}: " + "; ".join(summary)
        if problems:
            tell_problems(problems, summary, f"soak_{engine}_{seed}", service, path)
    return summary


def unread(ending):
    """Write down what there is in the end; yields what is wrong if it cannot be read."""
    try:
        read_all(ending)
    except Exception as problem:  # an assertion, or a connection that was cut
        yield f"what there is in the end cannot be read: {problem!r}"


def figures_of(logs):
    """How many replies were taken over, by these logs: those lines name no request."""
    figures = collections.Counter()
    for path in logs:
        with path.open() as lines:
            figures["replies taken over"] += sum(
                " reply session=" in line and " id=" not in line for line in lines
            )
    return figures


def tell_problems(problems, summary, name, service, history):
    """Its folder is removed, so its logs and its history are copied to files of this name."""
    stem = os.path.join(tempfile.gettempdir(), name)
    copies = [shutil.copy(history, stem + history.suffix), stem + ".log"]
    with open(copies[-1], "wb") as file:
        for path in service.logs:
            file.write(f"--- {path.parent.parent.name}, {path.parent.name}\n".encode())
            shutil.copyfileobj(path.open("rb"), file)
    shown = "\n".join(problems[:10])
    raise AssertionError(
        f"{len(problems)} problems:\n{shown}\nof {summary}; what is left of it: {copies}"
    )


def history_of(path, engine, engines):
    """The file for the history of this engine, or None. If there are several engines, its name has
    the engine."""
    if path and len(engines) > 1:
        return path.with_stem(f"{path.stem}_{engine}")
    return path


def soak_on(folder, engines, seconds, seed, faults_of=at_hand, history=None):
    """Run it on these engines at the same time, and print each one's results.

    `faults_of` is a function that returns the faults of an engine. `history` is where histories are
    written, in place of the folder.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = []
        for engine in engines:
            (folder / engine).mkdir()
            own = history_of(history, engine, engines)
            options = seconds, seed, faults_of(engine)
            runs.append(pool.submit(soak, folder / engine, engine, *options, history=own))
    for run in runs:
        if not run.exception():
            print(run.result(), flush=True)
    for run in runs:
        run.result()
