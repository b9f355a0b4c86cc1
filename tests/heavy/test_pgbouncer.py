"""PgBouncer in transaction mode: each transaction may get another connection to PostgreSQL, and
there are few of them."""

import concurrent.futures
import contextlib
import shutil
import subprocess
import time
import uuid
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from client import at_once, wait_for_status, wait_until
from cluster import AS_SOMEBODY, folder_of_somebody
from provider import reply
from servers import free_port

POOL = 5
CONFIGURATION = """
[databases]
* = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
min_pool_size = 0
max_client_conn = 200
server_login_retry = 1
max_prepared_statements = 0
"""


@contextlib.contextmanager
def pgbouncer(url):
    """A PgBouncer in front of the PostgreSQL of this URL. Yields the URL that leads through it."""
    command = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if not command:
        pytest.skip("pgbouncer is not installed")
    parts, port, folder = urlsplit(url), free_port(), folder_of_somebody("parley-bouncer-")
    target = {
        "host": parts.hostname,
        "port": parts.port or 5432,
        "user": parts.username,
        "password": parts.password,
    }
    target = " ".join(f"{name}='{unquote(str(value))}'" for name, value in target.items() if value)
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(target=target, port=port, pool=POOL))
    if AS_SOMEBODY:
        shutil.chown(folder / "pgbouncer.ini", AS_SOMEBODY["user"])
    (folder / "pgbouncer.ini").chmod(0o600)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [command, folder / "pgbouncer.ini"], stdout=log, stderr=log, env={}, **AS_SOMEBODY
        )
    through = f"postgresql://parley@127.0.0.1:{port}{parts.path}"
    try:
        wait_until_it_answers(through, process, folder / "log")
        yield through
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def wait_until_it_answers(url, process, log):
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5).close()
            return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.fixture
def pair(start, new_database, provider):
    """A user of two processes, each with an address of its own, on one database behind
    PgBouncer."""
    with pgbouncer(new_database()) as url:
        settings = {
            "DATABASE_URL": url,
            "OPENAI_BASE_URL": provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
            "WEB_CONCURRENCY": 1,
        }
        servers = [start(**settings), start(**settings)]
        yield [server.client() for server in servers]
        for server in servers:
            assert "Traceback" not in server.output()
            server.stop()  # as long as there is a database


def text_of(events):
    return "".join(event.data["delta"] for event in events if event.name == "content_delta")


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_everything_works_in_two_processes_behind_pgbouncer(pair, provider):
    """Often enough that each statement is a prepared one, whichever connection its transaction
    gets."""
    for number in range(12):
        here, there = pair[::-1] if number % 2 else pair
        mark = uuid.uuid4().hex

        provider.script = [reply("Some ", 0.05, "words ", 0.05, f"about {mark}.")]
        created = here.post(
            "/sessions", {"content": f"Hello {mark}", "system": "Be brief."}, Prefer="respond-async"
        )
        assert created.status_code == 201
        session = created.json()
        with there.events(session) as stream:
            events = list(stream)
        assert text_of(events) == f"Some words about {mark}." and events[-1].name == "done"
        assert there.turns(session)[1] == events[-2].data

        provider.script = [reply("More ", 0.05, "words.")]
        with here.stream(
            "POST", f"/sessions/{session['id']}/messages", {"content": "And then?"}
        ) as stream:
            assert text_of(stream) == "More words."

        provider.script = [reply("For ", 30, "ever.")]
        assert (
            here.post(
                f"/sessions/{session['id']}/messages", {"content": "On"}, Prefer="respond-async"
            ).status_code
            == 202
        )
        wait_until(lambda: there.turns(session)[-1]["content"] == "For ")
        assert (
            there.post(f"/sessions/{session['id']}/messages", {"content": "Me too"}).status_code
            == 409
        )
        cancelled = there.post(f"/sessions/{session['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"], cancelled.json()["content"]) == (
            200,
            "interrupted",
            "For ",
        )

        provider.script = [reply("Done.")]
        retried = there.post(f"/sessions/{session['id']}/retry")
        assert (retried.status_code, retried.json()["content"]) == (201, "Done.")
        contents = [turn["content"] for turn in here.turns(session)]
        assert contents == [
            f"Hello {mark}",
            f"Some words about {mark}.",
            "And then?",
            "More words.",
            "On",
            "Done.",
        ]

        def ask(client, content=f"Once {mark}"):
            return client.post("/sessions", {"content": content}, Idempotency_Key=mark)

        first, second = ask(here), ask(there)
        assert first.status_code == second.status_code == 201 and first.json() == second.json()
        assert ask(there, "Another").status_code == 422

        found = there.get(f"/sessions?query={mark}").json()["data"]
        assert {each["id"] for each in found} == {session["id"], first.json()["id"]}
        assert (
            there.patch(f"/sessions/{session['id']}", {"title": f"Title {number}"}).json()["title"]
            == f"Title {number}"
        )
        listed = here.get("/sessions?page[limit]=2").json()["data"]
        assert [(each["id"], each["last_message_preview"]) for each in listed] == [
            (first.json()["id"], "The answer."),
            (session["id"], "Done."),
        ]
        assert here.delete(f"/sessions/{session['id']}").status_code == 204
        assert there.get(f"/sessions/{session['id']}").status_code == 404


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_twenty_streams_share_a_few_connections(pair, provider):
    """Each begins in one process and is also followed in the other, while the processes wait for
    one connection after the other."""
    words = [f"wörd-{number} " for number in range(40)]
    provider.default = reply(*(part for word in words for part in (word, 0.05)))

    def follow(number):
        here, there = pair[number % 2], pair[1 - number % 2]
        with here.stream("POST", "/sessions", {"content": f"Message {number}"}) as stream:
            events = iter(stream)
            session = next(events).data
            with there.events(session) as other, concurrent.futures.ThreadPoolExecutor() as pool:
                reading = pool.submit(text_of, other)
                texts = text_of(events), reading.result()
        return *texts, wait_for_status(there, session, "complete")["content"]

    assert set(sum(at_once(20, follow), ())) == {"".join(words)}
    for client in pair:
        assert len(client.get("/sessions?page[limit]=100").json()["data"]) == 20


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_forty_creations_at_once_share_a_few_connections(pair, provider):
    keys = [uuid.uuid4().hex for _ in range(20)]
    answers = at_once(
        40,
        lambda number: pair[number % 2].post(
            "/sessions", {"content": f"Message {number // 2}"}, Idempotency_Key=keys[number // 2]
        ),
    )
    assert {answer.status_code for answer in answers} <= {201, 409}, [
        answer.text for answer in answers
    ]
    assert all(answer.status_code == 201 or answer.headers["Retry-After"] for answer in answers)
    assert len(pair[0].get("/sessions?page[limit]=100").json()["data"]) == 20
