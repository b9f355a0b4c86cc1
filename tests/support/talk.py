"""Replies that are in progress while something happens, and users who send requests meanwhile.

The provider talks until it is told to end. Each reply is read by a client that resumes whenever its
stream breaks, with the id of the last event that it has seen. In the end each is whole, in the
database and in its stream, and the provider was called once for it.
"""

import collections
import json
import threading
import time

import requests

from client import wait_until
from provider import KEEP, asked, chunk, events_of, head, reply
from readers import Reader
from trouble import stopped

# Seconds until a request is answered, whatever happens: ten, and one for a busy machine.
LONGEST = 11
PAUSE = 0.2  # seconds between two words

Answer = collections.namedtuple("Answer", "what at seconds status retry_after text")


class Followed(Reader):
    """The reader of a reply to this mark, in a thread of its own, until it is complete."""

    timeout, until_complete = 60, True

    def __init__(self, client, mark, patience):
        super().__init__([client])
        self.mark, self.patience, self.problem = mark, patience, None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.ask(self.mark, self.patience)
        except Exception as problem:
            self.problem = repr(problem)


class Talk:
    """So many replies in progress. Each continues until `end`, half of them until `end_half`."""

    def __init__(self, client, provider, count, patience=60):
        self.client, self.provider = client, provider
        self.said, self.calls = collections.defaultdict(str), collections.Counter()
        self._ends = [threading.Event(), threading.Event()]
        provider.default = self._answer
        self.replies = [Followed(client, f"talk-{number}", patience) for number in range(count)]

    def begin(self, server, path=None):
        """Begin them, as many in each of the server's workers; `path` is that of its SQLite file.
        Returns the Talk."""
        workers = server.workers()
        for number, pid in enumerate(workers):
            share = self.replies[number :: len(workers)]
            with stopped(
                [other for other in workers if other != pid], path
            ):  # a process that is stopped takes no request
                for each in share:
                    each.thread.start()
                wait_until(lambda: all(each.text or each.problem for each in share))
        return self

    def end_half(self):
        self._ends[1].set()

    def end(self):
        for event in self._ends:
            event.set()

    def _answer(self, request):
        mark = asked(request)
        if not mark.startswith("talk-"):
            return reply("The answer.")(request)
        return self._talk(request, mark)

    def _talk(self, request, mark):
        self.calls[mark] += 1
        yield head(Transfer_Encoding="chunked")
        for part in events_of(request, self._words(mark)):
            yield chunk(part) if isinstance(part, bytes) else part
        yield chunk(b"")
        yield KEEP

    def _words(self, mark):
        over, number = (
            self._ends[int(mark.partition("-")[2]) // 2 % 2],
            0,
        )  # in each of two workers, half of them
        while not over.is_set():
            yield self._say(mark, f"{mark}.{number}{'xyz'[: number % 4]} ")
            yield PAUSE
            number += 1
        yield self._say(mark, "end.")

    def _say(self, mark, word):
        self.said[mark] += word
        return word

    def check(self, seconds=30):
        """End them, and wait for all; each is whole, and asked for once. Returns how many readers
        saw another end before."""
        self.end()
        for each in self.replies:
            each.deadline = min(each.deadline, time.monotonic() + seconds)
        for each in self.replies:
            each.thread.join()
        problems = [f"{each.mark}: {each.problem}" for each in self.replies if each.problem]
        for each in self.replies:
            if each.problem:
                continue
            said, turns = self.said[each.mark], self.client.turns(each.session)
            if [turn["kind"] for turn in turns] != ["user", "assistant"]:
                problems.append(f"{each.mark}: {len(turns)} turns")
            elif (turns[1]["status"], turns[1]["content"]) != ("complete", said):
                problems.append(
                    f"{each.mark} is {turns[1]['status']}, {len(turns[1]['content'])} of {len(said)} characters"
                )
            elif each.text != said:
                problems.append(
                    f"{each.mark}: the stream had {len(each.text)} of {len(said)} characters"
                )
            elif each.end != "done":
                problems.append(f"{each.mark}: the stream ended as {each.end}")
        problems += [f"{mark}: {count} calls" for mark, count in self.calls.items() if count > 1]
        assert not problems, f"{len(problems)} problems: {problems[:6]}"
        return sum(bool(each.ends) for each in self.replies)


class Asking:
    """Users who send one request after the other, whatever happens, and remember the answers.

    `writers` of them create sessions; one asks for the list, one for a session, and one for
    /health.
    """

    def __init__(self, client, session, writers=3, content="Hello", user=None):
        self.client, self.path, self.content = client, f"/sessions/{session['id']}", content
        self.writer = user or client
        self.answers = []
        self._over = threading.Event()
        whats = ["health", "list", "show"] + ["create"] * writers
        self._threads = [
            threading.Thread(target=self._ask, args=(what,), daemon=True) for what in whats
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        """Send no more requests."""
        self._over.set()

    def __exit__(self, *exception):
        self.stop()
        for thread in self._threads:
            thread.join()

    def _ask(self, what):
        body = {"content": self.content}
        actions = {
            "health": lambda: self.client.get("/health", timeout=LONGEST + 2),
            "list": lambda: self.client.get("/sessions", timeout=LONGEST + 2),
            "show": lambda: self.client.get(self.path, timeout=LONGEST + 2),
            "create": lambda: self.writer.post(
                "/sessions", body, Prefer="respond-async", timeout=LONGEST + 2
            ),
        }
        while not self._over.is_set():
            began = time.monotonic()
            try:
                response = actions[what]()
                found = response.status_code, response.headers.get("Retry-After"), response.text
            except requests.RequestException as error:
                found = type(error).__name__, None, ""
            self.answers.append(Answer(what, began, time.monotonic() - began, *found))
            self._over.wait(0.3)

    def told(self, what, began=0.0, ended=float("inf")):
        """The statuses of these requests, of those that were sent within this time."""
        return {
            answer.status
            for answer in self.answers
            if answer.what == what and began <= answer.at < ended
        }

    def answered(self, what, began, ended):
        """The statuses of these requests, of those that were answered within this time."""
        return {
            each.status
            for each in self.answers
            if each.what == what and began <= each.at + each.seconds < ended
        }

    def wait_for(self, what, status, seconds):
        """Wait until a request that is sent from now on is answered so; returns how many seconds it
        took."""
        began = time.monotonic()

        def is_told():
            return any(
                each.what == what and each.status == status and each.at >= began
                for each in self.answers[-200:]
            )

        try:
            wait_until(is_told, seconds)
        except AssertionError:
            raise AssertionError(
                f"{what} was not {status} within {seconds} s: {self.answers[-8:]}"
            ) from None
        return time.monotonic() - began

    def check(self):
        """Every request was answered in time, with the right answer or a 503 that says when to try
        again; every session that an answer named is kept."""
        problems = [
            each
            for each in self.answers
            if each.seconds > LONGEST or each.status not in (200, 201, 503)
        ]
        problems += [each for each in self.answers if each.status == 503 and not each.retry_after]
        shown = [
            (each.what, each.status, round(each.seconds, 1), each.text[:200])
            for each in problems[:5]
        ]
        assert not problems, f"{len(problems)} of {len(self.answers)} answers: {shown}"
        for each in self.answers:
            if each.status == 201:
                self.check_kept(each)

    def check_kept(self, answer):
        session = json.loads(answer.text)

        def replied():
            turns = self.writer.turns(session)
            return turns[-1] if turns[-1]["status"] != "in_progress" else None

        turn = wait_until(replied, 40)
        assert (turn["status"], turn["content"]) == ("complete", "The answer."), turn
