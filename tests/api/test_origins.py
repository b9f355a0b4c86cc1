"""Pages of other origins: which are allowed, and what they can do."""

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
    """A server that pages of some other origins may use."""
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
def test_a_preflight_needs_no_token_on_any_path(shared, path):
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
def test_a_request_that_is_no_valid_preflight_is_answered_as_usual(shared, headers):
    of_the_api, public = preflight(shared, **headers), preflight(shared, "/health", **headers)
    assert (of_the_api.status_code, public.status_code) == (401, 200)
    assert set(public.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    for answer in (of_the_api, public):
        assert not {"Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} & set(
            answer.headers
        )
        assert answer.headers["Vary"] == "Origin"


# The Origin that is sent, and the origin that LISTED allows, and `*`.
ORIGINS = [
    (ORIGIN, ORIGIN, "*"),
    (
        "HTTPS://APP.example.com",
        "HTTPS://APP.example.com",
        "*",
    ),  # no browser sends this; a client that does gets it back as it is
    ("http://localhost", "http://localhost", "*"),
    ("https://web.example", "https://web.example", "*"),
    ("http://127.0.0.1:3000", "http://127.0.0.1:3000", "*"),
    ("capacitor://localhost", "capacitor://localhost", "*"),
    ("app://Desk-TOP", "app://Desk-TOP", "*"),  # browsers keep capitals in such origins
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
def test_an_answer_allows_a_listed_origin_and_no_other(
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


def test_a_request_with_two_origins_is_not_allowed(shared):
    told = raw(
        shared, head("GET", "/health", Connection="close", Origin=f"{ORIGIN}\r\nOrigin: {ORIGIN}")
    )
    assert told.status_code == 200
    assert "Access-Control-Allow-Origin" not in told.headers


def answers_of_every_kind(server, **headers):
    """(a name, the answer) for all kinds of answers that this server gives a client with these headers."""
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
    """The names in Vary, except those that the page and its files add themselves."""
    names = {name for name in answer.headers.get("Vary", "").split(", ") if name}
    path = answer.request.path_url
    is_of_page = path in ("/", "/openapi.json") or path.startswith("/static/")
    return names - {"Accept", "Accept-Encoding"} if is_of_page else names


def test_a_page_of_a_listed_origin_may_read_every_answer(shared, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    for status, answer in answers_of_every_kind(shared, Origin=ORIGIN):
        assert answer.status_code == status, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"] == EXPOSED_HEADERS
        assert varies_besides(answer) == {"Origin"}


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "https://other.example.com"}], ids=["no origin", "another origin"]
)
def test_every_answer_varies_by_origin(shared, provider, headers):
    provider.script = [reply("One."), reply("Two."), reply("Three."), cut("Half"), REFUSED]
    for status, answer in answers_of_every_kind(shared, **headers):
        assert answer.status_code == status, answer.text
        assert "Origin" in answer.headers["Vary"]
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]


def test_a_page_of_a_listed_origin_may_read_a_500(tmp_path, monkeypatch):
    folder = copy_of_the_service(tmp_path / "changed")
    with open(folder / "replies" / "titles.py", "a") as file:
        file.write("\ndef local_title(text):\n    raise ValueError")
    monkeypatch.setattr(servers, "ROOT", folder)
    with running(tmp_path / "server", ALLOWED_ORIGINS=ORIGIN) as server:
        answer = server.client().post("/sessions", {"content": "Hello"}, Origin=ORIGIN)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (500, ORIGIN)


def test_without_the_setting_answers_do_not_mention_origins(server_with, provider):
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
    """Run this script in the open page, as the body of an asynchronous function with `args`; returns its result."""
    driver.set_script_timeout(60)
    return driver.execute_async_script(ASYNCHRONOUS % script, *arguments)


def console(driver):
    return [entry["message"] for entry in driver.get_log("browser")]


@pytest.fixture
def origins(server_with, site):
    """A server for pages of `localhost` at the site's port, and not for those of 127.0.0.1 there."""
    return server_with(
        ALLOWED_ORIGINS=f"{ORIGIN},http://localhost:{site.port}", MAX_CONTENT_LENGTH="100000"
    )


def test_a_page_of_a_listed_origin_can_use_the_whole_api(driver, origins, site, provider):
    provider.script = [silence(30)]
    driver.get(f"http://localhost:{site.port}/")
    assert run_in(driver, ALL_OF_IT, origins.url, make_token()) == SEEN
    assert [entry for entry in console(driver) if "CORS" in entry] == []


def test_a_page_of_another_origin_can_use_none_of_the_api(driver, origins, site, provider):
    driver.get(f"http://127.0.0.1:{site.port}/")
    alice = origins.client("https://github.com/nobody-else")
    assert run_in(driver, WITHOUT_LEAVE, origins.url, alice.token) == ["rejected TypeError"] * 9
    assert sum("CORS" in entry for entry in console(driver)) == 9
    assert alice.get("/sessions").json()["data"] == []
    assert provider.posts == []


@pytest.mark.parametrize("script", READERS.values(), ids=READERS)
def test_a_page_of_a_listed_origin_resumes_after_a_break(driver, origins, site, provider, script):
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
