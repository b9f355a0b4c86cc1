"""Origins, and paths under a prefix."""

from provider import REFUSED, cut, reply

PREFIX = "/chat/v1"


def use(alice, provider):
    """Use everything that takes or returns a path, with a client whose URL ends with the prefix."""
    assert alice.get("/health").json()["status"] == "ok"
    assert alice.get("/openapi.json").json()["openapi"].startswith("3.1")
    urls = alice.get("/").json()["urls"]
    assert urls == {
        "openapi_url": f"{PREFIX}/openapi.json",
        "health_url": f"{PREFIX}/health",
        "sessions_url": f"{PREFIX}/sessions",
        "models_url": f"{PREFIX}/models",
    }
    provider.script = [reply("One."), reply("Two."), cut("Half"), REFUSED]
    [first, again] = [
        alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="a key of one")
        for _ in range(2)
    ]
    session = first.json()
    assert (
        first.headers["Location"]
        == again.headers["Location"]
        == f"{PREFIX}/sessions/{session['id']}"
    )
    with alice.stream("POST", f"/sessions/{session['id']}/messages", {"content": "More"}) as stream:
        assert stream.headers["Location"] == f"{PREFIX}/sessions/{session['id']}/events"
        *_, turn, done = stream
    with alice.events(session, turn.id) as stream:
        assert [event.name for event in stream] == ["done"]
    assert alice.get(f"/sessions/{session['id']}/events", Last_Event_ID=done.id).status_code == 204
    failed = alice.post("/sessions", {"content": "Hello"})
    assert failed.status_code == 502
    assert (
        failed.headers["Location"]
        == f"{PREFIX}/sessions/{failed.json()['errors'][0]['meta']['session_id']}"
    )
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "One.", "More", "Two."]
    assert len(provider.posts) == 4
