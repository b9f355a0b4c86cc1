"""A short life of a service with everything that an audit checks, and its history."""

import contextlib

from client import ALICE, BOB, Client, make_token, wait_for_status, wait_until
from history import History
from provider import Provider, asked, cut, fails, reply, so_far
from rest import read_all_of
from servers import running

WORDS = 12  # of an answer
PACE = 0.05  # seconds before each word of a slow answer


def words_of(content):
    """What the model answers: each word names its message."""
    tag = content.split()[0]
    return [f"{tag}-{number} " for number in range(WORDS)]


def model(request):
    """A message has a word that nothing else has, and a word that says how to answer it."""
    tag, how = asked(request).rpartition("\n\n")[2].split()[:2]
    words = words_of(tag)[so_far(request).count(tag) :]
    if how == "slowly":
        words = [part for word in words for part in (PACE, word)]
    answers = {"breaks": cut(*words[:4]), "fails": fails(*words[:4])}
    begins = not so_far(request) and how in answers
    return (answers[how] if begins else reply(*words))(request)


class Talker(Client):
    """A user whose messages are numbered."""

    def __init__(self, url, subject, history):
        super().__init__(url, make_token(subject))
        self.name, self.history, self.count = subject.rpartition("/")[2], history, 0

    def content(self, how="whole"):
        self.count += 1
        return f"{self.name}-says-{self.count:02} {how}"

    def say(self, session, how="whole", **headers):
        return self.post(
            f"/sessions/{session['id']}/messages", {"content": self.content(how)}, **headers
        )

    def show(self, session):
        return self.get(f"/sessions/{session['id']}").json()

    def read(self, method, path, body=None, deltas=None, **headers):
        """The events of a stream, or those up to so many deltas."""
        events = []
        with self.stream(method, path, body, **headers) as stream:
            for event in stream:
                events.append(event)
                if sum(each.name == "content_delta" for each in events) == deltas:
                    break
        return events

    def ask(self, session, how="whole", **options):
        """A message, whose reply is read as a stream."""
        path = f"/sessions/{session['id']}/messages"
        return self.read("POST", path, {"content": self.content(how)}, **options)

    def follow(self, session, last_id=None):
        return self.read("GET", f"/sessions/{session['id']}/events", Last_Event_ID=last_id)


def stop_one(user, session):
    """A slow reply that is cancelled after some words, while a request for another is refused."""
    user.say(session, "slowly", Prefer="respond-async")
    assert user.say(session).status_code == 409
    wait_until(lambda: user.show(session)["turns"][-1]["content"])
    user.post(f"/sessions/{session['id']}/cancel").raise_for_status()
    assert user.show(session)["turns"][-1]["status"] == "interrupted"


def delete_while_it_is_read(user, session):
    """Delete the session of a slow reply, after its first words."""
    path, is_deleted = f"/sessions/{session['id']}", False
    with user.stream("POST", path + "/messages", {"content": user.content("slowly")}) as stream:
        for event in stream:
            if event.name == "content_delta" and not is_deleted:
                user.delete(path).raise_for_status()
                is_deleted = True


def talk_of_alice(alice):
    """Alice deletes nothing, and repeats no request."""
    made = alice.read("POST", "/sessions", {"content": alice.content()})
    session = made[0].data
    alice.follow(session)
    alice.follow(session, made[-1].id)  # 204
    alice.follow(session, made[-2].id)  # done alone
    came = alice.ask(session, "slowly", deltas=4)
    alice.follow(session, came[-1].id)
    alice.follow(session)
    alice.say(session, "breaks").raise_for_status()
    alice.ask(session, "breaks")
    alice.ask(session, "slowly")
    key = {"Idempotency_Key": "key-of-alice"}
    path, body = f"/sessions/{session['id']}/messages", {"content": alice.content()}
    answers = [alice.post(path, body, **key).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert alice.post(path, {"content": "Another."}, **key).status_code == 422
    stop_one(alice, session)
    alice.read("POST", f"/sessions/{session['id']}/continue")
    alice.say(session).raise_for_status()
    alice.patch(f"/sessions/{session['id']}", {"title": "Alice's own"}).raise_for_status()
    return session


def talk_of_bob(bob, another):
    session, gone = bob.create(bob.content()), bob.create(bob.content())
    assert bob.ask(session, "fails")[-1].name == "error"
    assert bob.say(session, "fails").status_code == 502
    path = f"/sessions/{session['id']}/retry"
    for body in {"content": bob.content()}, None:  # change the message, then answer it again
        bob.post(path, body).raise_for_status()
    bob.ask(session)
    stop_one(bob, session)
    delete_while_it_is_read(bob, gone)
    for id in gone["id"], another["id"]:
        assert bob.get(f"/sessions/{id}").status_code == 404
    last = bob.create(bob.content())
    wait_for_status(bob, last, "complete")
    return [gone["id"]]


def record_a_life(folder, database):
    """Returns the path of the history."""
    path = folder / "history.jsonl"
    history = History(path)
    with contextlib.closing(Provider()) as provider:
        provider.default = history.model(model)
        settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
        with running(folder, DATABASE_URL=database, **settings) as server:
            alice, bob = (Talker(server.url, subject, history) for subject in (ALICE, BOB))
            session = talk_of_alice(alice)
            deleted = talk_of_bob(bob, session)
            history.rest()
            for user in alice, bob:
                read_all_of(user, deleted)
    history.close()
    return path
