"""Front ends of one's own: pages of other origins, a service under a prefix, and the client that the README has for both."""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
import requests

import client
from browser import Page, read_through_a_break
from client import (
    ROOT,
    Client,
    Server,
    copy_of_the_service,
    free_port,
    make_token,
    npm_folder,
    running,
    wait_until,
)
from other_origin import (
    ALL_OF_IT,
    ASYNCHRONOUS,
    CLIENT,
    READERS,
    SEEN,
    START,
    USE,
    WITHOUT_LEAVE,
    Site,
)
from provider import REFUSED, cut, reply, silence
from provider import status as answer_with
from proxy import Proxy
from raw_tables import tables_of
from test_errors import head, raw
from test_proxies import CADDY, HAPROXY, KEPT, NGINX, proxy_in_front_of
from test_readme import NGINX_CONF, text_of

ORIGIN = "https://app.example.com"
LISTED = f"{ORIGIN}, http://LOCALHOST:80,https://web.example:443, http://127.0.0.1:3000,capacitor://localhost,app://Desk-TOP"
ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
)
EXPOSED_HEADERS = "Location, Retry-After, X-Request-ID, First-Turn-Sent"
PREFIX = "/chat/v1"


@pytest.fixture(scope="module")
def server_with(tmp_path_factory, provider_of_all):
    """A function that returns a server with these settings, which is started once."""
    with contextlib.ExitStack() as leaving:

        @functools.cache
        def server_with(**settings):
            settings = {
                "OPENAI_BASE_URL": provider_of_all.url + "/v1",
                "DEFAULT_MODEL": "m-1",
            } | settings
            return leaving.enter_context(running(tmp_path_factory.mktemp("server"), **settings))

        yield server_with


@pytest.fixture
def shared(server_with):
    """A server that the pages of some origins may use."""
    return server_with(ALLOWED_ORIGINS=LISTED, MAX_CONTENT_LENGTH="100000")


def preflight(server, path="/sessions", **headers):
    headers = {"Origin": ORIGIN, "Access_Control_Request_Method": "POST"} | headers
    headers = {
        name.replace("_", "-"): value for name, value in headers.items() if value is not None
    }
    return requests.options(server.url + path, headers=headers, timeout=20)


@pytest.mark.parametrize(
    "path",
    ["/sessions", "/sessions/odd/events", "/nowhere", "/a//b", "/static/page.js", "/health", "/"],
)
def test_a_preflight_is_answered_on_any_path_before_a_token_is_asked_for(shared, path):
    answer = preflight(
        shared,
        path,
        Access_Control_Request_Headers="authorization,last-event-id",
        Accept="image/png",
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, PATCH, DELETE"
    assert answer.headers["Access-Control-Allow-Headers"] == ALLOWED_HEADERS
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers


NO_PREFLIGHTS = {
    "the origin is not listed": {"Origin": "https://other.example.com"},
    "there is no origin": {"Origin": None},
    "there is no method": {"Access_Control_Request_Method": None},
}


@pytest.mark.parametrize("headers", NO_PREFLIGHTS.values(), ids=NO_PREFLIGHTS)
def test_what_is_no_preflight_of_a_listed_origin_is_answered_as_ever(shared, headers):
    of_the_api, public = preflight(shared, **headers), preflight(shared, "/health", **headers)
    assert (of_the_api.status_code, public.status_code) == (401, 200)
    assert set(public.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    for answer in (of_the_api, public):
        assert not {"Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} & set(
            answer.headers
        )
        assert answer.headers["Vary"] == "Origin"


# What is sent as Origin, and what is allowed by LISTED, and by `*`.
ORIGINS = [
    (ORIGIN, ORIGIN, "*"),
    (
        "HTTPS://APP.example.com",
        "HTTPS://APP.example.com",
        "*",
    ),  # no browser sends it, and whoever does compares with that
    ("http://localhost", "http://localhost", "*"),
    ("https://web.example", "https://web.example", "*"),
    ("http://127.0.0.1:3000", "http://127.0.0.1:3000", "*"),
    ("capacitor://localhost", "capacitor://localhost", "*"),
    ("app://Desk-TOP", "app://Desk-TOP", "*"),  # browsers keep the capitals of such
    ("null", None, "*"),
    ("https://app.example.com.evil", None, "*"),
    ("https://app.example.co", None, "*"),
    ("https://evil-app.example.com", None, "*"),
    ("https://app.example.com:8443", None, "*"),
    ("https://app.example.com/", None, "*"),
    ("http://app.example.com", None, "*"),
    ("http://127.0.0.1", None, "*"),
    ("http://127.0.0.1:30000", None, "*"),
    (f"{ORIGIN},http://localhost", None, "*"),
    (f"{ORIGIN} http://localhost", None, "*"),
    ("*", None, "*"),
    ("", None, None),
    (None, None, None),
]


@pytest.mark.parametrize("origin, by_a_list, by_a_star", ORIGINS)
def test_an_answer_names_the_origin_that_is_listed_and_no_other(
    server_with, shared, origin, by_a_list, by_a_star
):
    for server, allowed in [(shared, by_a_list), (server_with(ALLOWED_ORIGINS="*"), by_a_star)]:
        for method in ("GET", "HEAD"):
            answer = requests.request(
                method, server.url + "/health", headers={"Origin": origin}, timeout=20
            )
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert answer.headers.get("Access-Control-Expose-Headers") == (
                EXPOSED_HEADERS if allowed else None
            )
            assert answer.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in answer.headers


def test_of_two_origins_none_is_allowed(shared):
    told = raw(
        shared, head("GET", "/health", Connection="close", Origin=f"{ORIGIN}\r\nOrigin: {ORIGIN}")
    )
    assert told.status_code == 200
    assert "Access-Control-Allow-Origin" not in told.headers


def answers_of_every_kind(server, **headers):
    """(what it is, the answer) for whatever this server may answer to a client with these headers."""
    alice, free = server.client("https://github.com/alice"), Client(server.url, "")
    created = alice.post("/sessions", {"content": "Hello"}, **headers)
    path = created.headers["Location"]
    yield 201, created
    yield 200, alice.get("/sessions", **headers)
    yield 200, alice.patch(path, {"title": "Other"}, **headers)
    yield 201, alice.post("/sessions", {"content": "Hello"}, Accept="text/event-stream", **headers)
    events = alice.get(path + "/events", **headers)
    yield 200, events
    last_id = re.findall("^id: (.*)$", events.text, re.MULTILINE)[-1]
    yield 204, alice.get(path + "/events", Last_Event_ID=last_id, **headers)
    yield (
        202,
        alice.post(path + "/messages", {"content": "Hello"}, Prefer="respond-async", **headers),
    )
    yield 400, alice.post("/sessions", {}, **headers)
    yield 401, free.get("/sessions", **headers)
    yield 401, free.get("/sessions", Authorization=None, **headers)
    yield 404, alice.get("/sessions/odd", **headers)
    yield 404, alice.get("/a//b", **headers)
    yield 405, alice.request("PUT", "/sessions", **headers)
    yield 406, alice.get("/sessions", Accept="image/png", **headers)
    yield 413, alice.post("/sessions", {"content": "x" * 200_000}, **headers)
    yield 415, alice.post("/sessions", **headers)
    yield 404, alice.get("/static/nothing", **headers)
    page = free.get("/static/page.js", **headers)
    yield 200, page
    yield 304, free.get("/static/page.js", If_None_Match=page.headers["ETag"], **headers)
    yield 200, free.get("/openapi.json", **headers)
    yield 200, free.get("/", **headers)
    yield 200, free.get("/", Accept="text/html", **headers)
    yield 502, alice.post("/sessions", {"content": "Fail", "model": "m-2"}, **headers)
    yield 204, alice.delete(path, **headers)


def test_every_answer_may_be_read_by_a_page_of_a_listed_origin(shared, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    for status, answer in answers_of_every_kind(shared, Origin=ORIGIN):
        assert answer.status_code == status, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"] == EXPOSED_HEADERS
        is_index = answer.request.path_url == "/"
        assert answer.headers["Vary"] == ("Accept, Origin" if is_index else "Origin")


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "https://other.example.com"}], ids=["no origin", "another origin"]
)
def test_every_answer_says_that_it_depends_on_the_origin(shared, provider, headers):
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    for status, answer in answers_of_every_kind(shared, **headers):
        assert answer.status_code == status, answer.text
        assert "Origin" in answer.headers["Vary"]
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]


def test_a_failure_of_the_server_itself_may_be_read_by_a_page_of_a_listed_origin(
    tmp_path, monkeypatch
):
    folder = copy_of_the_service(tmp_path / "changed")
    with open(folder / "replies" / "titles.py", "a") as file:
        file.write("\ndef local_title(text):\n    raise ValueError")
    monkeypatch.setattr(client, "ROOT", folder)
    with running(tmp_path / "server", ALLOWED_ORIGINS=ORIGIN) as server:
        answer = server.client().post("/sessions", {"content": "Hello"}, Origin=ORIGIN)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (500, ORIGIN)


def test_without_the_setting_nothing_is_said_of_origins(server_with, provider):
    server = server_with(MAX_CONTENT_LENGTH="100000")
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    assert preflight(server).status_code == 401
    for status, answer in answers_of_every_kind(server, Origin=ORIGIN):
        assert answer.status_code == status, answer.text
        assert answer.headers.get("Vary", "Accept") == "Accept"
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]


# Pages of other origins, in a browser


@pytest.fixture(scope="module")
def site():
    site = Site(**{"client.js": CLIENT})
    yield site
    site.close()


def run_in(driver, script, *arguments):
    """What this script returns, in the page that is open: the body of an asynchronous function, with `args`."""
    driver.set_script_timeout(60)
    return driver.execute_async_script(ASYNCHRONOUS % script, *arguments)


def console(driver):
    return [entry["message"] for entry in driver.get_log("browser")]


@pytest.fixture
def origins(server_with, site):
    """A server for the pages of `localhost` at the site's port, and not for those of 127.0.0.1 there."""
    return server_with(
        ALLOWED_ORIGINS=f"{ORIGIN},http://localhost:{site.port}", MAX_CONTENT_LENGTH="100000"
    )


def test_a_page_of_a_listed_origin_does_all_that_the_api_has(driver, origins, site, provider):
    provider.script = [silence(30)]
    driver.get(f"http://localhost:{site.port}/")
    assert run_in(driver, ALL_OF_IT, origins.url, make_token()) == SEEN
    assert [entry for entry in console(driver) if "CORS" in entry] == []


def test_a_page_of_another_origin_can_do_none_of_it(driver, origins, site, provider):
    driver.get(f"http://127.0.0.1:{site.port}/")
    alice = origins.client("https://github.com/nobody-else")
    assert run_in(driver, WITHOUT_LEAVE, origins.url, alice.token) == ["rejected TypeError"] * 9
    assert sum("CORS" in entry for entry in console(driver)) == 9
    assert alice.get("/sessions").json()["data"] == []
    assert provider.posts == []


@pytest.mark.parametrize("script", READERS.values(), ids=READERS)
def test_a_page_of_a_listed_origin_goes_on_where_the_connection_breaks(
    driver, origins, site, provider, script
):
    if "/eventsource.js" in script:
        for name in ("eventsource", "eventsource-parser"):
            text = (
                npm_folder("eventsource-client") / "node_modules" / name / "dist" / "index.js"
            ).read_text("utf-8")
            site.files[f"{name}.js"] = text.replace(
                'from "eventsource-parser"', 'from "/eventsource-parser.js"'
            )
    read, comes_back = threading.Event(), threading.Event()
    provider.script = [reply("One ", read, "twö ", comes_back, "🎉.")]
    proxy = Proxy(origins.port)
    proxy.cut_behind = "ö".encode()[:1]
    driver.get(f"http://localhost:{site.port}/")
    driver.execute_script(START % script, proxy.url, make_token())
    wait_until(lambda: driver.execute_script("return seen.text") == "One ")
    read.set()
    wait_until(lambda: b"last-event-id: " in proxy.sent.lower())
    comes_back.set()
    wait_until(lambda: driver.execute_script("return seen.over"))
    assert driver.execute_script("return seen.text") == "One twö 🎉."
    ids = driver.execute_script("return seen.ids")
    assert len(set(ids)) == len(ids)
    assert len(provider.posts) == 1
    assert [entry for entry in console(driver) if "CORS" in entry] == []
    proxy.close()


# A service under a prefix


@pytest.fixture
def prefixed(server_with):
    return server_with(SCRIPT_NAME=PREFIX)


def use(alice, provider):
    """Use all that gives or takes a path, by a client whose URL ends with the prefix."""
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


def test_the_api_is_whole_under_a_prefix(prefixed, provider):
    use(prefixed.client("https://github.com/plain"), provider)


def of_the_prefix(template):
    """The configuration of a proxy that passes on what begins with the prefix, as it is."""
    return template.replace("location / ", f"location {PREFIX} ").replace(
        "reverse_proxy ", f"reverse_proxy {PREFIX}* "
    )


PROXIES = {"nginx": (NGINX, KEPT), "caddy": (CADDY, ""), "haproxy": (HAPROXY, "")}


@pytest.mark.parametrize("name", PROXIES)
def test_the_api_is_whole_under_a_prefix_behind(prefixed, provider, tmp_path, name):
    template, more = PROXIES[name]
    with proxy_in_front_of(prefixed, name, of_the_prefix(template), more, tmp_path) as url:
        use(Client(url + PREFIX, make_token(f"https://github.com/{name}")), provider)


OUTSIDE = [
    "/",
    "/health",
    "/sessions",
    "/chat",
    "/Chat/v1/health",
    "/chat%2Fv1/health",
    "/x/chat/v1/health",
    "//chat/v1/health",
]
OUTSIDE += [
    PREFIX + path for path in ("health", "/nowhere", "x/health", "//health", "//example.com/health")
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_what_is_not_under_the_prefix_is_an_error_as_all_are(prefixed, path):
    answer = raw(prefixed, head("GET", path, Connection="close"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json")
    [error] = answer.json()["errors"]
    assert (error["status"], error["title"]) == ("404", "Not Found")
    assert error["detail"].startswith("There is nothing")
    assert "Traceback" not in prefixed.output()


def test_the_prefix_without_a_slash_leads_to_the_page(prefixed):
    answer = raw(prefixed, head("GET", PREFIX, Connection="close"))
    assert (answer.status_code, answer.headers["Location"]) == (308, f"{PREFIX}/")


def test_the_prefix_may_end_with_a_slash(tmp_path):
    with running(tmp_path, SCRIPT_NAME=f"{PREFIX}/") as server:
        assert requests.get(f"{server.url}/sessions", timeout=20).status_code == 401
        assert f"address={server.url} " in server.output()


@pytest.fixture(params=["itself", "the nginx of the README"])
def url(request, prefixed, tmp_path):
    """Where a browser finds the service under its prefix: by what, without the slash at the end."""
    if request.param == "itself":
        yield prefixed.url
    else:
        block = (
            text_of("nginx")
            .replace("{", "{{")
            .replace("}", "}}")
            .replace("127.0.0.1:8000", "{server}")
        )
        template = NGINX_CONF % f"server {{{{ listen 127.0.0.1:{{port}}; {block} }}}}"
        with proxy_in_front_of(prefixed, "nginx", template, "", tmp_path) as url:
            yield url + PREFIX


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_works_under_a_prefix(browser, prefixed, provider, url, slash):
    page = Page(browser, prefixed, url + slash).enter()
    assert page.run("location.pathname") == f"{PREFIX}/"
    provider.script = [reply("**Good.**"), cut("Half"), REFUSED, reply("Whole.")]
    page.say("One")
    page.wait_for_turns("One", "Good.")
    page.say("Two")
    page.wait_for_turns("One", "Good.", "Two", "Half")
    page.wait_for_text("The provider openai broke the connection", "article:last-child")
    page.click("Retry")
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    page.driver.refresh()
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    assert page.run("location.pathname") == f"{PREFIX}/"
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.click("One")
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    assert page.text("#notice") == ""
    browser.get(f"{url}#token={page.user.token}")  # as a link has it: a redirect keeps the fragment
    page.wait(lambda: page.titles == ["One"])
    assert page.run("location.href").endswith(f"{PREFIX}/")


def test_the_page_goes_on_under_a_prefix_where_the_connection_breaks(browser, prefixed, provider):
    proxy = Proxy(prefixed.port)
    read_through_a_break(Page(browser, prefixed, proxy.url + PREFIX).enter(), provider, proxy)
    proxy.close()


@pytest.mark.parametrize(
    "behind", [b"event: session", b"delta"], ids=["in the first event", "in a word"]
)
def test_flask_chat_works_under_a_prefix(prefixed, provider, tmp_path, behind):
    proxy = Proxy(prefixed.port)
    proxy.cut_behind = behind
    provider.script = [reply("One ", 0.3, "two."), reply("Three.")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PARLEY_TOKEN": make_token(),
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, "-m", "flask", "chat", "--url", proxy.url + PREFIX]
    run = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 30}
    told = subprocess.run(command, input="Count\n", **run)
    assert (told.returncode, told.stdout.strip()) == (0, "One two.")
    proxy.close()


# The client of the README, in Node.js


def test_the_client_of_the_readme_has_a_reply_exactly_whatever_breaks(
    new_database, provider, tmp_path
):
    """The answer to the POST is lost, then a connection in the middle of a letter; then the server dies, and another starts."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    settings = {
        "DATABASE_URL": new_database(),
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "twö ", gates[1], "drëi ", gates[2]), reply("🎉🎉.")]
    server = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
    alice, proxy = server.client(), Proxy(server.port)
    proxy.splits, proxy.cut_behind = True, b"HTTP/1.1 201"
    (tmp_path / "client.mjs").write_text(CLIENT, "utf-8")
    use = USE.replace('"https://chat.example.com/sessions"', "url")
    start = 'import { reply } from "./client.mjs";\nconst [url, token] = process.argv.slice(2);\n'
    (tmp_path / "use.mjs").write_text(f"{start}{use}\nconsole.log(JSON.stringify(text));", "utf-8")
    command = ["node", "use.mjs", f"{proxy.url}/sessions", alice.token]
    node = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: proxy.cut_behind is None and b"GET /sessions/" in proxy.sent)
        proxy.cut_behind = "ö".encode()[:1]
        gates[0].set()
        wait_until(lambda: proxy.sent.count(b"GET /sessions/") == 2)
        gates[1].set()
        [session] = alice.get("/sessions").json()["data"]
        wait_until(lambda: alice.turns(session)[1]["content"] == "One twö drëi ")
        server.kill()
        with tables_of(
            settings["DATABASE_URL"]
        ) as tables:  # its lease would lapse by itself, but later
            tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
        server.stop()
        server = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
        proxy.target = server.port
        told, problem = node.communicate(timeout=30)
    finally:
        node.kill()
        node.communicate()
        proxy.close()
        server.kill()
        server.stop()
    assert (problem, json.loads(told or "null")) == ("", "One twö drëi 🎉🎉.")
    assert len(provider.posts) == 2  # the second one by the process that took the reply over
    keys = re.findall(rb"^idempotency-key: (.+)$", proxy.sent, re.MULTILINE | re.IGNORECASE)
    assert proxy.sent.count(b"POST /sessions ") == 2 and len(set(keys)) == 1
    assert b"last-event-id: " in proxy.sent.lower()


NO = [(401, "none", "Hello"), (400, None, " "), (413, None, "x" * 200_000)]


@pytest.mark.parametrize("status, token, content", NO)
def test_the_client_of_the_readme_throws_what_it_is_refused(
    server_with, tmp_path, status, token, content
):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    arguments = ", ".join(
        map(json.dumps, [server.url + "/sessions", token or make_token(), content])
    )
    use = f"try {{ for await (const _ of reply({arguments})); }} catch (error) {{ console.log(error.status, error.message); }}"
    script = f"{CLIENT}\n{use}"
    told = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, timeout=30
    )
    code, _, document = told.stdout.partition(" ")
    assert (int(code), json.loads(document)["errors"][0]["status"]) == (status, str(status))


def test_the_client_of_the_readme_sends_a_further_message(server_with, provider):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    session = server.client().create("Hello")
    provider.script = [reply("Fine.")]
    use = USE.replace(
        '"https://chat.example.com/sessions"',
        json.dumps(f"{server.url}/sessions/{session['id']}/messages"),
    )
    script = f"{CLIENT}\nconst token = {json.dumps(make_token())};\n{use}\nconsole.log(text)"
    told = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, timeout=30
    )
    assert (told.stdout, told.stderr) == ("Fine.\n", "")
    assert [turn["content"] for turn in server.client().turns(session)] == [
        "Hello",
        "The answer.",
        "Hello!",
        "Fine.",
    ]


def in_node(client):
    """What a script that has the client of the README prints."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    told = subprocess.run(
        ["node", "--input-type=module"],
        input=CLIENT + client,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert told.stderr == ""
    return told.stdout


def test_the_client_of_the_readme_hangs_up_where_its_loop_is_left(server_with, provider):
    """Else a page would have no connection left behind six of them."""
    gate = threading.Event()
    provider.default = reply("One ", gate, "two.")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    use = f"for await (const {{ event }} of reply({json.dumps(server.url + '/sessions')}, {json.dumps(make_token())}, 'Hello'))"
    left = in_node(f"""
import {{ setTimeout as pause }} from "node:timers/promises";
const open = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
for (let number = 0; number < 3; number++) {{ {use} if (event === "content_delta") break; }}
while (open()) await pause(10);
console.log("none");""")
    gate.set()
    assert left == "none\n"


def test_the_client_of_the_readme_mixes_no_two_replies(server_with, provider):
    """Where another reply has followed while it was away, it says so: `/events` begins that one."""
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user, proxy, gate = (
        server.client("https://github.com/away"),
        Proxy(server.port),
        threading.Event(),
    )
    provider.script = [reply("One ", gate, "two."), reply("Another.")]
    proxy.cut_behind = b"-4\n\n"  # the end of the first word's frame

    def answer_meanwhile():
        wait_until(lambda: proxy.cut_behind is None)
        proxy.target = free_port()  # nothing is there
        gate.set()
        [session] = user.get("/sessions").json()["data"]
        wait_until(lambda: user.turns(session)[-1]["status"] == "complete")
        user.post(f"/sessions/{session['id']}/messages", {"content": "More"})
        proxy.target = server.port

    threading.Thread(target=answer_meanwhile).start()
    arguments = ", ".join(map(json.dumps, [proxy.url + "/sessions", user.token, "Hello"]))
    told = in_node(f"""
let text = "";
try {{ for await (const {{ event, data }} of reply({arguments})) if (event === "content_delta") text += data.delta; }}
catch (error) {{ text += `${{error.status}} ${{error.message}}`; }}
console.log(text);""")
    proxy.close()
    assert told == "One 409 Another reply followed: get the session.\n"


def test_the_client_of_the_readme_gives_up_on_what_is_no_parley(provider):
    provider.default = answer_with(200, "<html>")
    arguments = ", ".join(map(json.dumps, [provider.url + "/sessions", "token", "Hello"]))
    told = in_node(
        f"try {{ for await (const _ of reply({arguments})); }} catch (error) {{ console.log(error.status); }}"
    )
    assert (told, len(provider.posts)) == ("200\n", 1)
