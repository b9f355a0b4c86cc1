"""A run of the soak: a crowd is at work, faults befall the service, and in the end all must hold."""

import collections
import concurrent.futures
import contextlib
import os
import random
import shutil
import tempfile
import time

import invariants
from askers import PatientUser
from faults import at_hand, befall, wait_for
from notes import Notes
from service import Service
from talker import FAST, SLOW, Talker
from users import USERS, Looking, Stranger


class Crowd:
    """Those who use the service. Where nothing befalls it, they are more and faster."""

    def __init__(self, service, seed, until, has_faults):
        self.users = [
            PatientUser(
                service.server,
                USERS[number % 3],
                f"{seed} {number}",
                until,
                service.notes,
                keyed=1 if has_faults else 0.5,
            )
            for number in range(6 if has_faults else 9)
        ]
        strangers = [
            Stranger(service.server, f"{seed} {number}", until)
            for number in range(1 if has_faults else 2)
        ]
        expected = (200, 503) if has_faults else (200,)
        self.looking = Looking(service.server, service.notes, until, expected)
        for each in self.users:
            each.pause = 0.5 if has_faults else 0
        for each in strangers:
            each.pause = 0.5 if has_faults else 0.05
        self.threads = [*self.users, *strangers, self.looking]

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
        """What users were told at each try, and what became of what they asked for."""
        tries = sum((user.client.told for user in self.users), collections.Counter())
        outcomes = sum((user.told for user in self.users), collections.Counter())
        sentences = {what: count for what, count in outcomes.items() if isinstance(what, str)}
        return dict(sorted(tries.items(), key=str)), dict(sorted(sentences.items()))


def talker_of(seed, has_faults):
    """Where nothing befalls it, an answer may break again and again."""
    if has_faults:
        return Talker(seed, SLOW, failing=0.2, in_a_row=False)
    return Talker(seed, FAST, failing=0.25, in_a_row=True)


def soak(folder, engine, seconds, seed, faults, url=None):
    """Run it on this engine; returns a summary. Raises AssertionError where something does not hold.

    `url` names an empty database for a run without faults, in place of one of its own.
    """
    chance, notes = random.Random(f"{seed} {engine}"), Notes()
    needs = {need for fault in faults.values() for need in fault.needs}
    talker = talker_of(f"{seed} {engine}", bool(faults))
    with Service(folder, engine, talker, notes, needs, url) as service:
        notes.began, until = time.monotonic(), time.monotonic() + seconds
        crowd = Crowd(service, f"{seed} {engine}", until, bool(faults))
        with crowd.at_work():
            befall(service, faults, seconds, chance)
            wait_for(service, until)
        ending = invariants.Ending(service, crowd.users, chance)
        problems = list(invariants.problems(ending))
        answers, outcomes = crowd.told()
        summary = [
            *notes.done,
            f"answers {answers}, {outcomes}",
            f"replies {dict(ending.counts)}",
            f"slowest /health {crowd.looking.slowest:.2f} s",
        ]
        summary = f"{engine}: " + "; ".join(summary)
        if problems:
            tell_problems(problems, summary, service.server.log_file, f"soak_{engine}_{seed}.log")
    return summary


def tell_problems(problems, summary, log, name):
    """Its folder goes, so its log is copied to a file of this name."""
    copy = shutil.copy(log, os.path.join(tempfile.gettempdir(), name))
    shown = "\n".join(problems[:10])
    raise AssertionError(f"{len(problems)} problems:\n{shown}\nof {summary}; its log is {copy}")


def soak_on(folder, engines, seconds, seed, faults_of=at_hand):
    """Run it on these engines, beside each other, and print what each was told.

    `faults_of` is a function that has the faults of an engine.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = []
        for engine in engines:
            (folder / engine).mkdir()
            runs.append(
                pool.submit(soak, folder / engine, engine, seconds, seed, faults_of(engine))
            )
    for run in runs:
        if not run.exception():
            print(run.result(), flush=True)
    for run in runs:
        run.result()
