"""Pages of other origins: which are let in, and what they can do."""

import re
import threading

import pytest
import requests

import servers
from client import Client, make_token, wait_until
from other_origin import ALL_OF_IT, ASYNCHRONOUS, READERS, SEEN, START, WITHOUT_LEAVE, Site
from product import copy_of_the_service
from provider import REFUSED, cut, reply, silence
from proxy import Proxy
from raw_http import head, raw
from servers import npm_folder, running

ORIGIN = "https://app.example.com"


LISTED = f"{ORIGIN}, http://LOCALHOST:80,https://web.example:443, http://127.0.0.1:3000,capacitor://localhost,app://Desk-TOP"


ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
)


EXPOSED_HEADERS = "Location, Retry-After, X-Request-ID, First-Turn-Sent, Link"


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
    [
        "/sessions",
        "/sessions/odd/events",
        "/nowhere",
        "/a//b",
        "/static/page/main.js",
        "/health",
        "/",
    ],
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
    page = free.get("/static/page/main.js", **headers)
    yield 200, page
    yield 304, free.get("/static/page/main.js", If_None_Match=page.headers["ETag"], **headers)
    yield 200, free.get("/openapi.json", **headers)
    yield 200, free.get("/", **headers)
    yield 200, free.get("/", Accept="text/html", **headers)
    yield 502, alice.post("/sessions", {"content": "Fail", "model": "m-2"}, **headers)
    yield 204, alice.delete(path, **headers)


def varies_besides(answer):
    """What an answer depends on, besides what the page and its files do themselves."""
    names = {name for name in answer.headers.get("Vary", "").split(", ") if name}
    path = answer.request.path_url
    is_of_page = path in ("/", "/openapi.json") or path.startswith("/static/")
    return names - {"Accept", "Accept-Encoding"} if is_of_page else names


def test_every_answer_may_be_read_by_a_page_of_a_listed_origin(shared, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    for status, answer in answers_of_every_kind(shared, Origin=ORIGIN):
        assert answer.status_code == status, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"] == EXPOSED_HEADERS
        assert varies_besides(answer) == {"Origin"}


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
    monkeypatch.setattr(servers, "ROOT", folder)
    with running(tmp_path / "server", ALLOWED_ORIGINS=ORIGIN) as server:
        answer = server.client().post("/sessions", {"content": "Hello"}, Origin=ORIGIN)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (500, ORIGIN)


def test_without_the_setting_nothing_is_said_of_origins(server_with, provider):
    server = server_with(MAX_CONTENT_LENGTH="100000")
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    assert preflight(server).status_code == 401
    for status, answer in answers_of_every_kind(server, Origin=ORIGIN):
        assert answer.status_code == status, answer.text
        assert varies_besides(answer) == set()
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]


# Pages of other origins, in a browser


@pytest.fixture(scope="module")
def site():
    site = Site()
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
    driver.get(f"http://localhost:{site.port}/")
    driver.execute_script(START % script, proxy.url, make_token())
    wait_until(lambda: driver.execute_script("return seen.text") == "One ")
    proxy.cut_behind = "ö".encode()[:1]
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
