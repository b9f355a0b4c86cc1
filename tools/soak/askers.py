"""Users who repeat a request with the same Idempotency-Key, and note the answers."""

import collections
import time

from client import Client, make_token
from readers import LOST, is_to_come_back
from service import REPLY_WAIT
from talk import LONGEST
from talker import mark_of
from users import PATIENCE, USERS, User, UsersReader, session_in


def lasting_token(subject):
    """A token that is valid whatever the clock says."""
    now = int(time.time())
    return make_token(subject, iat=now - 7200, exp=now + 2 * 86400)


def recorded(url, subject, notes):
    """A client whose token is valid whatever the clock says, and that writes in the soak's history."""
    client = Client(url, lasting_token(subject))
    client.history = notes.history
    return client


class Asker(Client):
    """A client that repeats a request if it loses the answer, or is told to try again. Each time it
    uses any one of the hosts.

    `keyed`: how likely a request for a reply has an Idempotency-Key. One without is not repeated if
    its answer is lost.
    """

    def __init__(self, service, subject, chance, notes, keyed=1.0):
        self.urls = service.urls
        super().__init__(self.urls[0], lasting_token(subject))
        self.chance, self.notes, self.keyed = chance, notes, keyed
        self.history = notes.history
        self.last = {}  # session → the mark of its last message
        self.deleted = set()
        self.told = collections.Counter()  # the statuses at each try
        self.continued = 0  # replies that this user has continued
        self.unsure = 0  # requests to continue whose outcome the user does not know

    def key(self):
        return f"{self.chance.getrandbits(64):x}"

    def request(self, method, path, body=None, timeout=60, **headers):
        what, session, mark = f"{method} {path}", session_in(path), self.mark_in(method, path, body)
        asks, goes_on = self.asks(method, path), path.endswith("/continue")
        if asks and self.chance.random() < self.keyed:
            headers.setdefault("Idempotency_Key", self.key())
        self.note_before(method, path, session, mark)
        limit = self.limit(method, asks and not headers.get("Prefer"))
        for tries, began in enumerate(self.tries(what), 1):
            self.turn()
            try:
                response = super().request(method, path, body, timeout, **headers)
            except LOST as problem:
                self.lose(what, began, limit, problem)
                self.unsure += goes_on
                if asks and not headers.get("Idempotency_Key"):
                    raise
                continue
            if not self.hear(what, began, limit, response.status_code, response.headers):
                self.continued += goes_on and response.status_code not in (404, 409)
                self.keep(response.status_code, response.headers, session, body and mark)
                response.tries = tries
                return response
            self.unsure += goes_on

    def turn(self):
        """The next request goes to any one of the hosts."""
        self.url = self.chance.choice(self.urls)

    def asks(self, method, path):
        """Whether this requests a reply."""
        return method == "POST" and not path.endswith("/cancel")

    def limit(self, method, waits):
        """Seconds until an answer. A deletion has several steps, each with this limit."""
        return LONGEST + REPLY_WAIT * waits + LONGEST * (method == "DELETE")

    def tries(self, what):
        """The times at which the same request is sent again, with a pause between."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            yield time.monotonic()
            time.sleep(self.chance.uniform(0.2, 1.5))
        raise AssertionError(
            f"{what} was not answered within {PATIENCE} s; he was told {dict(self.told)}"
        )

    def mark_in(self, method, path, body):
        """The mark of the message that this sends, or else of the last one in its session."""
        if method != "POST":
            return None
        return mark_of(body["content"]) if body else self.last.get(session_in(path))

    def note_before(self, method, path, session, mark):
        """Note what may have been done, though no answer says so."""
        if method == "DELETE":
            self.deleted.add(session)
        if path.endswith("/cancel"):
            self.notes.cancelled.add(mark)

    def lose(self, what, began, limit, problem):
        self.told["lost"] += 1
        self.notes.lose(what, began, self.url, problem)
        self.notes.in_time(what, began, limit, self.url)

    def hear(self, what, began, limit, code, headers):
        """Note an answer; returns whether the same request is to be sent again."""
        self.told[code] += 1
        self.notes.in_time(what, began, limit, self.url)
        return is_to_come_back(code, headers)

    def keep(self, code, headers, session, mark):
        """Note what an answer shows to exist: the message of this mark, whatever its reply becomes."""
        kept = session_in(headers.get("Location", "")) or session
        if mark and kept and code in (200, 201, 202, 502, 503, 504):
            self.last[kept] = mark


class AskersReader(UsersReader):
    """The reader of an asker. It resumes if it loses its connection."""

    def __init__(self, client, session):
        super().__init__(client, session, client.chance)
        self.key = client.key() if client.chance.random() < client.keyed else None
        self.pause = client.chance.uniform(0, 0.5)

    def open(self, client):
        client.turn()
        self.began = time.monotonic()
        self.what = f"stream of {self.asks[0] if self.asks else self.session['id']}"
        return super().open(client)

    def take(self, stream, client):
        if not client.hear(self.what, self.began, LONGEST, stream.status, stream.headers):
            path, body = self.asks or ("", None)
            session = self.session["id"] if self.session else session_in(path)
            mark = body and mark_of(body["content"])
            client.keep(stream.status, stream.headers, session, mark)
        super().take(stream, client)

    def lose(self, problem):
        self.lost += 1
        self.clients[0].lose(self.what, self.began, float("inf"), problem)


class PatientUser(User):
    """A user who repeats requests. The first of the owners deletes nothing."""

    taken = *User.taken, 504

    def __init__(self, service, subject, seed, until, notes, keyed=1.0):
        super().__init__(service, subject, seed, until)
        self.client = Asker(service, subject, self.chance, notes, keyed)
        self.deleted = self.client.deleted

    def reader(self, session=None):
        return AskersReader(self.client, session)

    def delete(self):
        if self.subject != USERS[0]:
            super().delete()

    def see_deleted(self, response):
        self.see(response, 204, *[404] * (response.tries > 1))  # the first answer was lost

    def see_changed(self, response):
        if super().see_changed(response) == 200:
            changed = response.json()
            self.client.notes.titles[changed["id"]] = changed["title"]
