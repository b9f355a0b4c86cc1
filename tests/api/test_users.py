"""The user of a request, from a token or from a trusted proxy; and requests from other sites' pages."""

import contextlib
import socket
import time
import uuid

import pytest
import requests

import forked
from client import Client, make_token
from commands import environment_of, flask
from portals import wait_for
from product import ROOT
from provider import Provider, status
from raw_http import errors_of
from servers import free_port, running
from tokens import ED25519, jwk, pem
from trusted import HEADER, Peer, name, user_of

TRUSTED, OTHER = "127.0.0.2", "127.0.0.3"  # both are addresses of this machine
SETTINGS = {"TRUSTED_USER_HEADER": HEADER, "TRUSTED_PROXIES": f"unix, {TRUSTED}"}


class Trusting:
    """A server that listens at a Unix socket, at an IPv4 address, and at all IPv6 addresses, which accept IPv4, too."""

    def __init__(self, folder, leaving, **settings):
        socket_path, port = str(folder / "parley.sock"), free_port()
        arguments = f"--bind unix:{socket_path} --bind [::]:{port} "
        arguments += settings.pop("GUNICORN_CMD_ARGS", "")
        environment = SETTINGS | {"GUNICORN_CMD_ARGS": arguments} | settings
        self.server = leaving.enter_context(running(folder, **environment))
        self.socket = Peer(socket_path)
        self.listed = Peer(("127.0.0.1", self.server.port), TRUSTED)
        self.mapped = Peer(("127.0.0.1", port), TRUSTED)
        self.unlisted = Peer(("127.0.0.1", self.server.port), OTHER)
        self.unlisted_mapped = Peer(("127.0.0.1", port), OTHER)
        self.ipv6 = Peer(("::1", port))


@pytest.fixture(scope="module")
def trusting_with(tmp_path_factory):
    """A function that returns a server with further settings."""
    with contextlib.ExitStack() as leaving:
        yield lambda **settings: Trusting(tmp_path_factory.mktemp("trusting"), leaving, **settings)


@pytest.fixture(scope="module")
def trusting(trusting_with):
    return trusting_with(ALLOWED_ORIGINS="*", RATE_LIMIT="3/hour")


@pytest.fixture
def proxy(trusting):
    return trusting.socket


@pytest.fixture
def user():
    return f"user-{uuid.uuid4().hex}"


# Trusted proxies


@pytest.mark.parametrize("peer", ["socket", "listed", "mapped"])
def test_a_trusted_proxy_names_the_user(trusting, peer):
    answer = getattr(trusting, peer).ask(name("alice"))
    assert answer.json() == {"subject": "proxy:/alice", "name": "alice", "by": "proxy"}


CLAIMS = [
    (),
    (f"X-Forwarded-For: {TRUSTED}",),
    (f"X-Forwarded-For: unix, {TRUSTED}", f"X-Real-IP: {TRUSTED}", f"Forwarded: for={TRUSTED}"),
    ("X-Forwarded-Proto: https", f"X-Forwarded-Host: {TRUSTED}", f"Remote-Addr: {TRUSTED}"),
]


@pytest.mark.parametrize("claims", CLAIMS, ids=["nothing", "one", "all of them", "others"])
@pytest.mark.parametrize("peer", ["unlisted", "unlisted_mapped", "ipv6"])
def test_the_header_of_any_other_peer_is_ignored(trusting, peer, claims, user):
    answer = getattr(trusting, peer).ask(
        name(user), *claims, f"X-Request-ID: {user[:30]}", path="/sessions"
    )
    assert errors_of_401(answer) == "Send a token"
    line = line_of(trusting.server, user[:30])
    assert "TRUSTED_PROXIES" in line and f"user={user}" not in line


def errors_of_401(answer):
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="parley"'
    return answer.json()["errors"][0]["detail"].partition(":")[0]


def line_of(server, request_id):
    log = server.wait_for_output(f"id={request_id}")
    return next(line for line in log.splitlines() if f"id={request_id}" in line)


def test_ipv6_and_mapped_ipv4_addresses_may_be_listed(trusting_with):
    trusting = trusting_with(TRUSTED_PROXIES=f"::1,::ffff:{TRUSTED}")
    assert user_of(trusting.ipv6.ask(name("alice"))) == "proxy:/alice"
    assert user_of(trusting.listed.ask(name("alice"))) == "proxy:/alice"
    assert user_of(trusting.mapped.ask(name("alice"))) == "proxy:/alice"
    for peer in (trusting.socket, trusting.unlisted, trusting.unlisted_mapped):
        assert peer.ask(name("alice")).status_code == 401


def claim_of(version, address):
    """What HAProxy sends before a request with this client address (its doc/proxy-protocol.txt)."""
    if version == 1:
        return f"PROXY TCP4 {address} 127.0.0.1 50000 80\r\n".encode()
    addresses = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + b"\xc3\x50\0\x50"
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses


@pytest.fixture(scope="module")
def by_the_proxy_protocol(trusting_with):
    return trusting_with(GUNICORN_CMD_ARGS="--proxy-protocol auto --proxy-allow-from *")


@pytest.mark.parametrize("version", [1, 2])
def test_the_proxy_protocol_makes_no_peer_trusted(by_the_proxy_protocol, version):
    """gunicorn gives the application the address that this protocol claims."""
    trusting = by_the_proxy_protocol
    claim, other = claim_of(version, TRUSTED), claim_of(version, OTHER)
    assert trusting.unlisted.ask(name("alice"), before=claim).status_code == 401
    assert user_of(trusting.listed.ask(name("alice"), before=other)) == "proxy:/alice"
    errors_of(trusting.listed.ask(name("alice"), "Remote_User: bob", before=other), 400)
    long = [f"X-{number}: {'x' * 8000}" for number in range(9)]
    assert trusting.listed.ask(name("alice"), *long, before=other).status_code == 431
    late = {"method": "POST", "path": "/sessions", "content": "Hello", "before": other}
    pause = lambda: time.sleep(0.3)  # noqa: E731
    assert trusting.listed.ask(name("alice"), **late, pause=pause).status_code == 201


def test_gunicorns_options_for_underscores_let_no_header_name_a_user(trusting_with):
    for option in ("--header-map dangerous", "--forwarder-headers REMOTE_USER"):
        trusting = trusting_with(GUNICORN_CMD_ARGS=option)
        assert user_of(trusting.socket.ask(name("alice"))) == "proxy:/alice"
        assert trusting.socket.ask("Remote_User: bob").status_code in (400, 401)
        errors_of(trusting.socket.ask(name("alice"), "Remote_User: bob"), 400)


def test_gunicorns_own_workers_trust_no_proxy(tmp_path):
    """They know only an address that the PROXY protocol may have claimed."""
    path = tmp_path / "parley.sock"
    arguments = f"--bind unix:{path} -k gthread --proxy-protocol auto --proxy-allow-from *"
    settings = SETTINGS | {"GUNICORN_CMD_ARGS": arguments}
    with running(tmp_path, **settings) as server:
        at_port = Peer(("127.0.0.1", server.port), TRUSTED)
        for peer in (at_port, Peer(str(path))):
            assert peer.ask(name("alice"), before=claim_of(1, TRUSTED)).status_code == 401
            assert peer.ask(name("alice")).status_code == 401


@pytest.fixture(scope="module")
def trusting_no_socket(trusting_with):
    return trusting_with(TRUSTED_PROXIES=TRUSTED)


@pytest.mark.parametrize("own", [b"\0\xff\xfe", b"\0" + b"127.0.0.2", "127.0.0.2"])
def test_the_address_that_a_unix_socket_client_chooses_is_not_trusted(
    tmp_path, trusting_no_socket, own, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trusting = trusting_no_socket
    with socket.socket(socket.AF_UNIX) as client:
        client.bind(own)
        client.connect(trusting.socket.address)
        client.sendall(
            f"GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name('alice')}\r\n\r\n".encode()
        )
        assert client.recv(20).startswith(b"HTTP/1.1 401")


# `flask run`


@pytest.mark.parametrize(
    "way, proxies, expected",
    [
        ("port", f"unix,{TRUSTED}", 200),
        ("socket", "127.0.0.1,0.0.0.0/0,::/0", 401),
    ],
)
def test_flask_run_accepts_a_trusted_proxy(tmp_path, way, proxies, expected):
    """Its server drops headers with `_` in their names."""
    port, path, log = free_port(), tmp_path / "flask.sock", tmp_path / "log"
    peer = Peer(("127.0.0.1", port), TRUSTED) if way == "port" else Peer(str(path))
    place = [f"-p{port}"] if way == "port" else [f"-hunix://{path}"]
    settings = {"TRUSTED_USER_HEADER": HEADER, "TRUSTED_PROXIES": proxies}
    settings |= {"DATABASE_URL": f"sqlite:///{tmp_path}/flask.db"}
    with open(log, "wb") as output:
        words = ["-m", "flask", "run", *place]
        process = forked.Process(words, ROOT, environment_of(settings), output, output)
    try:
        wait_for(peer, process, log)
        answer = peer.ask(name("alice"), "Remote_User: bob")
        assert answer.status_code == expected
        assert expected == 401 or user_of(answer) == "proxy:/alice"
        assert peer.ask("Remote_User: bob").status_code == 401
        twice = peer.ask(name("alice"), name("bob"))
        assert twice.status_code == (400 if expected == 200 else 401)
    finally:
        process.terminate()
        process.wait(30)


def test_the_log_says_if_a_trusted_proxy_names_no_user(trusting, proxy, user):
    answer = proxy.ask(f"X-Request-ID: {user}")
    assert "Or come through this server's proxy" in answer.json()["errors"][0]["detail"]
    assert answer.json()["errors"][0]["meta"] == {"sign_in": {"oidc": None}}
    assert f"sent no {HEADER}" in line_of(trusting.server, user)


# User names

NAMES = [
    "alice",
    "Alice",
    "a",
    "x" * 200,
    "alice@example.com",
    "tailscale:alice",
    "!",
    "~",
    "a%2Fb",
]
NAMES += ["{alice", "alice}", "{a}b", "<script>", "'\"\\;", "..", "proxy:"]


@pytest.mark.parametrize("user", NAMES)
def test_a_name_is_used_exactly_as_sent(proxy, user):
    expected = {"subject": f"proxy:/{user}", "name": user, "by": "proxy"}
    assert proxy.ask(name(user)).json() == expected


NO_NAMES = ["(null)", "{http.reverse_proxy.header.Remote-User}", "{http.auth.user.id}", "{}"]
NO_NAMES += [
    "",
    "a b",
    "a\tb",
    "a,b",
    "a/b",
    "a?b",
    "a#b",
    "/",
    "x" * 201,
    "é",
    "\x80",
    "ÿ",
    "alice,",
]


@pytest.mark.parametrize("user", NO_NAMES)
def test_an_invalid_name_is_refused(proxy, user):
    [(source, detail)] = errors_of(proxy.ask(name(user)), 400)
    assert detail.startswith("The proxy must send Remote-User once, with a name.")


SPELLINGS = [
    "Remote-User",
    "remote-user",
    "REMOTE-USER",
    "Remote_User",
    "REMOTE_USER",
    "remote_User",
]


@pytest.mark.parametrize("second", ["bob", "alice", ""])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "behind"])
def test_a_header_that_comes_twice_is_refused(proxy, spelling, second, is_first):
    lines = [name("alice"), "Accept: */*", f"{spelling}: {second}"]
    errors_of(proxy.ask(*(lines[::-1] if is_first else lines)), 400)


@pytest.mark.parametrize("spelling", SPELLINGS[3:])
def test_a_header_with_only_an_underscore_spelling_names_no_user(proxy, spelling):
    assert proxy.ask(f"{spelling}: alice").status_code == 401


ODD = ["Remote-User : bob", " Remote-User: bob", "Remote-User\t: bob", "Remote-User:bob\rX: y"]


@pytest.mark.parametrize("line", ODD)
def test_a_malformed_second_header_is_refused(proxy, line):
    """Some servers would accept it as a header, so the whole request is refused."""
    assert proxy.ask(name("alice"), line).status_code == 400


def test_a_header_name_with_several_dashes_is_recognized_in_all_spellings(trusting_with):
    header = "X-Forwarded-Preferred-Username"
    proxy = trusting_with(TRUSTED_USER_HEADER=header).socket
    assert user_of(proxy.ask(f"{header}: alice")) == "proxy:/alice"
    for spelling in ("X_Forwarded_Preferred_Username", "x-forwarded-preferred_username"):
        errors_of(proxy.ask(f"{header}: alice", f"{spelling}: bob"), 400)
        assert proxy.ask(f"{spelling}: bob").status_code == 401


def test_a_late_body_does_not_change_the_user(trusting_with):
    """The application is called again once the body is there."""
    proxy = trusting_with().socket
    late = {
        "method": "POST",
        "path": "/sessions",
        "content": "Hello",
        "pause": lambda: time.sleep(0.5),
    }
    assert proxy.ask(name("alice"), **late).status_code == 201
    errors_of(proxy.ask(name("alice"), "Remote_User: bob", **late), 400)
    assert proxy.ask("Remote_User: bob", **late).status_code == 401


# Nobody


def test_a_page_asks_for_the_user_without_a_401(trusting, proxy, user):
    """Only if there is no user: a token and a proxy's name decide as ever."""
    plain = proxy.ask(path="/me").json()["errors"][0]
    answer = proxy.ask(f"X-Request-ID: {user}", path="/me?anonymous=1")
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    nobody = answer.json()
    assert plain["detail"] == f"Send a token: Authorization: Bearer <token>. {nobody.pop('advice')}"
    assert nobody == {"subject": None, "name": None, "by": None, "sign_in": {"oidc": None}}
    assert f"sent no {HEADER}" in line_of(trusting.server, user)

    assert proxy.ask(name("alice"), path="/me?anonymous=1").json()["by"] == "proxy"
    for authorization in ("Bearer none", "Bearer"):
        refused = proxy.ask(f"Authorization: {authorization}", path="/me?anonymous=1")
        assert refused.status_code == 401
    assert proxy.ask(path="/sessions?anonymous=1").status_code == 401


# Tokens


def test_a_bearer_token_takes_precedence_even_if_it_is_refused(proxy):
    token = make_token("https://github.com/bob")
    told = {"subject": "https://github.com/bob", "name": "bob", "by": "token"}
    assert proxy.ask(name("alice"), f"Authorization: Bearer {token}").json() == told
    for authorization in (f"bearer {token}x", "Bearer", "Bearer ", "BEARER none"):
        answer = proxy.ask(name("alice"), f"Authorization: {authorization}")
        assert answer.status_code == 401
        assert answer.json()["errors"][0]["meta"] == {"sign_in": {"oidc": None}}
    for authorization in (
        ("Basic YTpi", "Bearer xyz"),
        ("Bearer xyz", "Basic YTpi"),
        ("Basic !!, Bearer xyz",),
        ("Bearer\txyz",),
        ("Bearer,xyz",),
        ("Digest username=x, Bearer xyz",),
    ):
        lines = [f"Authorization: {value}" for value in authorization]
        assert proxy.ask(name("alice"), *lines).status_code == 401
    for authorization in ("Basic YWxpY2U6eA==", "Negotiate abc", "Digest username=x", ""):
        assert (
            user_of(proxy.ask(name("alice"), f"Authorization: {authorization}")) == "proxy:/alice"
        )


def test_a_token_of_this_server_may_name_a_user_of_the_proxy(trusting, proxy, user):
    created = proxy.ask(name(user), method="POST", path="/sessions", content="Hello").json()
    client = Client(trusting.server.url, make_token(f"proxy:/{user}"))
    assert [session["id"] for session in client.get("/sessions").json()["data"]] == [created["id"]]
    assert client.get("/me").json() == {"subject": f"proxy:/{user}", "name": user, "by": "token"}
    other = Client(trusting.server.url, make_token(f"https://github.com/{user}"))
    assert other.get("/sessions").json()["data"] == []
    assert other.get(f"/sessions/{created['id']}").status_code == 404


def test_a_token_of_another_issuer_names_no_user_of_the_proxy(tmp_path):
    """Otherwise another issuer of tokens could be any user that the proxy knows."""
    token = make_token("proxy:/alice", ED25519, "EdDSA", {"kid": "one"})
    other = make_token("https://github.com/alice", ED25519, "EdDSA", {"kid": "one"})
    sentence = "Only a token that this server signed may have proxy:/ in its sub."
    with contextlib.closing(Provider()) as identity:
        identity.models = status(200, {"keys": [jwk(ED25519.public_key(), "one")]})
        for keys in (
            {"JWT_PUBLIC_KEY": pem(ED25519.public_key())},
            {"JWT_JWKS_URL": identity.url + "/models"},
        ):
            settings = SETTINGS | keys | {"JWT_SECRET": ""}
            with running(tmp_path / next(iter(keys)), **settings) as server:
                assert Client(server.url, other).get("/me").status_code == 200
                answer = Client(server.url, token).get("/me")
                assert answer.status_code == 401
                assert answer.json()["errors"][0]["detail"] == sentence


# Requests from other sites' pages

SAME, CROSS = "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"
SITES = [
    ((), True),
    ((SAME,), True),
    (("Sec-Fetch-Site: none",), True),
    ((CROSS,), False),
    (("Sec-Fetch-Site: same-site",), False),
    (("Sec-Fetch-Site: ",), False),
    (("Sec-Fetch-Site: Same-Origin",), False),
    (("Sec-Fetch-Site: odd",), False),
    ((SAME, CROSS), False),
    ((CROSS, "Origin: https://chat.example.com"), False),
    ((SAME, "Origin: https://evil.example"), True),
    (("Origin: https://chat.example.com",), True),
    (("Origin: http://chat.example.com",), True),
    (("Origin: https://CHAT.example.com",), True),
    (("Origin: https://chat.example.com:443",), True),
    (("Origin: https://chat.example.com:8443",), False),
    (("Origin: http://chat.example.com:8000",), False),
    (("Origin: https://evil.example",), False),
    (("Origin: https://chat.example.com.evil.example",), False),
    (("Origin: https://evil.example/chat.example.com",), False),
    (("Origin: https://evil.example#chat.example.com",), False),
    (("Origin: null",), False),
    (("Origin: ",), False),
    (("Origin: chat.example.com",), False),
    (("Origin: https://[",), False),
    (("Origin: //chat.example.com",), False),
    (("Origin: https://chat.example.com/",), False),
    (("Origin: https://chat.example.com:0",), False),
    (("Origin: https://evil@chat.example.com",), False),
    (("Origin: capacitor://chat.example.com",), False),
    (("Origin: chrome-extension://chat.example.com",), False),
    (("Origin: https://chat.example.com:odd",), False),
    (("Origin: https://chat.example.com", "Origin: https://evil.example"), False),
    (("Origin: https://evil.example", "Referer: https://chat.example.com/"), False),
]


@pytest.mark.parametrize("fields, is_own", SITES, ids=[" ".join(fields) for fields, _ in SITES])
def test_a_request_from_another_sites_page_is_refused(proxy, fields, is_own):
    answer = proxy.ask(name("alice"), *fields)
    if is_own:
        assert answer.status_code == 200
    else:
        [(_, detail)] = [(error["status"], error["detail"]) for error in answer.json()["errors"]]
        assert (answer.status_code, detail.partition(",")[0]) == (
            403,
            "A page of another site sent this request",
        )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"])
def test_a_request_from_another_sites_page_is_refused_with_any_method(proxy, method):
    assert proxy.ask(name("alice"), CROSS, method=method).status_code == 403
    own = {"GET": 200, "HEAD": 200, "OPTIONS": 200}.get(method, 405)
    assert proxy.ask(name("alice"), SAME, method=method).status_code == own


HOSTS = [
    ("https://chat.example.com", "chat.example.com:443", True),
    ("http://chat.example.com", "chat.example.com:80", True),
    ("http://chat.example.com:8000", "chat.example.com:8000", True),
    ("https://chat.example.com", "Chat.Example.com", True),
    ("http://[fd00::1]:8000", "[fd00::1]:8000", True),
    ("http://192.168.1.7", "192.168.1.7", True),
    ("https://chat.example.com", "chat.example.com:8000", False),
    ("https://chat.example.com", "127.0.0.1:8000", False),
    ("http://chat.example.com:8000", "chat.example.com", False),
    ("https://chat.example.com", "", False),
]


@pytest.mark.parametrize("origin, host, is_own", HOSTS)
def test_an_origin_is_compared_with_the_requested_host(proxy, origin, host, is_own):
    answer = proxy.ask(name("alice"), f"Origin: {origin}", host=host)
    assert answer.status_code == (200 if is_own else 403)


NAVIGATES, LOADS = "Sec-Fetch-Mode: navigate", "Sec-Fetch-Mode: no-cors"
FREE = [
    ("/", NAVIGATES, 200),
    ("/", LOADS, 403),
    ("/", "Sec-Fetch-Mode: cors", 403),
    ("/static/page/main.js", LOADS, 200),
    ("/static/manifest.webmanifest", LOADS, 200),
    ("/static/icons/icon.svg", LOADS, 200),
    ("/static/nothing", LOADS, 404),
    ("/health", LOADS, 200),
    ("/openapi.json", LOADS, 200),
    ("/sessions", NAVIGATES, 403),
    ("/me", NAVIGATES, 403),
    ("/models", LOADS, 403),
    ("/usage", NAVIGATES, 403),
    ("/metrics", NAVIGATES, 403),
    ("/nothing", NAVIGATES, 403),
]


@pytest.mark.parametrize("path, mode, expected", FREE)
def test_public_paths_are_open_to_other_sites(proxy, path, mode, expected):
    assert proxy.ask(name("alice"), CROSS, mode, path=path).status_code == expected


@pytest.mark.parametrize("path", ["/sessions", "/me", "/sessions/x/events"])
def test_requests_with_a_token_are_open_to_other_sites(trusting, proxy, path):
    token = f"Authorization: Bearer {make_token()}"
    answer = proxy.ask(name("alice"), token, CROSS, "Origin: https://evil.example", path=path)
    assert answer.status_code in (200, 404)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Cross-Origin-Resource-Policy" not in answer.headers


def test_no_other_site_may_read_an_answer_to_a_user_of_the_proxy(trusting, proxy, user):
    own = (name(user), "Origin: https://chat.example.com")
    created = proxy.ask(*own, method="POST", path="/sessions", content="Hello")
    path = created.headers["Location"]
    answers = [
        (201, created),
        (200, proxy.ask(*own, path=path)),
        (200, proxy.ask(*own, path=path + "/events")),
        (204, proxy.ask(*own, path=path, method="DELETE")),
        (404, proxy.ask(*own, path=path)),
        (400, proxy.ask(name("a b"), *own[1:])),
        (403, proxy.ask(name(user), "Origin: https://evil.example")),
        (404, proxy.ask(*own, path="/a//b")),
        (405, proxy.ask(*own, method="PUT")),
        (406, proxy.ask(*own, "Accept: image/png")),
        (415, proxy.ask(*own, method="POST", path="/sessions")),
        (200, proxy.ask(*own, path="/health")),
        (200, proxy.ask(*own, path="/static/page/main.js")),
    ]
    for _ in range(2):
        proxy.ask(*own, method="POST", path="/sessions", content="Hello")
    answers.append((429, proxy.ask(*own, method="POST", path="/sessions", content="Hello")))
    for expected, answer in answers:
        assert answer.status_code == expected, answer.text
        assert not [field for field in answer.headers if field.startswith("Access-Control-")]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_preflight_depends_only_on_the_allowed_origins(proxy):
    asks = ("Origin: https://app.example.com", CROSS, "Access-Control-Request-Method: POST")
    answer = proxy.ask(name("alice"), *asks, method="OPTIONS", path="/sessions")
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Cross-Origin-Resource-Policy" not in answer.headers
    behind = proxy.ask(name("alice"), *asks, method="POST", path="/sessions", content="Hello")
    assert behind.status_code == 403
    assert not [field for field in behind.headers if field.startswith("Access-Control-")]


def test_without_allowed_origins_a_preflight_is_refused(trusting_with):
    proxy = trusting_with().socket
    asks = ("Origin: https://app.example.com", CROSS, "Access-Control-Request-Method: POST")
    answer = proxy.ask(name("alice"), *asks, method="OPTIONS", path="/sessions")
    assert answer.status_code == 401
    assert not [field for field in answer.headers if field.startswith("Access-Control-")]


# Like any other user


def test_allowed_and_blocked_users_are_compared_exactly(trusting_with):
    listed = trusting_with(
        ALLOWED_USERS="alice, tailscale:bob@example.com, eve", BLOCKED_USERS="eve"
    )
    allowed = ["alice", "tailscale:bob@example.com"]
    others = ["Alice", "alice.", "eve", "bob@example.com", "tailscale:bob", "proxy:", "mallory"]
    for user in allowed + others:
        answer = listed.socket.ask(name(user))
        assert answer.status_code == (200 if user in allowed else 403), user


def test_limits_and_usage_apply_to_the_proxys_user(trusting, proxy, user):
    def create(who):
        return proxy.ask(name(who), method="POST", path="/sessions", content="Hello").status_code

    assert [create(user) for _ in range(4)] == [201, 201, 201, 429]
    assert create(user.upper()) == 201
    days = proxy.ask(name(user), path="/usage").json()["data"]
    assert sum(day["replies"] for day in days) == 3


def test_commands_know_the_proxys_user(new_database, tmp_path):
    with contextlib.ExitStack() as leaving:
        database = new_database()
        trusting = Trusting(tmp_path, leaving, DATABASE_URL=database)
        proxy = trusting.socket
        assert (
            proxy.ask(name("alice"), method="POST", path="/sessions", content="Hi").status_code
            == 201
        )
        assert "proxy:/alice" in flask(ROOT, "usage", DATABASE_URL=database).stdout
        assert flask(ROOT, "forget", "proxy:/alice", "--yes", DATABASE_URL=database).returncode == 0
        assert proxy.ask(name("alice"), path="/sessions").json()["data"] == []


def test_a_page_may_name_the_user_it_expects(proxy, user):
    """By the time a request arrives, the proxy may name another one."""

    def ask(meant, **request):
        return proxy.ask(name(user), f"For-Subject: {meant}", **request)

    assert user_of(ask(f"proxy:/{user}")) == f"proxy:/{user}"
    for meant in ("proxy:/other", user, "", f"proxy:/{user},proxy:/{user}"):
        created = ask(meant, method="POST", path="/sessions", content="For another one")
        assert created.status_code == 412
        assert "Somebody else has signed in since" in created.json()["errors"][0]["detail"]
    assert proxy.ask(name(user), path="/sessions").json()["data"] == []
    token = f"Authorization: Bearer {make_token()}"
    assert proxy.ask(token, "For-Subject: https://github.com/alice").status_code == 200
    assert proxy.ask(token, f"For-Subject: proxy:/{user}").status_code == 412


# Without these settings


def test_without_the_settings_the_header_is_ignored(server, user):
    free = {HEADER: "alice", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = requests.get(server.url + "/sessions", headers=free, timeout=20)
    detail = answer.json()["errors"][0]["detail"].partition("<token>. ")[2]
    sentence = "`.venv/bin/flask token https://github.com/you` prints one."
    assert detail == f"On the server, in Parley's folder, {sentence}"
    assert "Cross-Origin-Resource-Policy" not in answer.headers
    answer = server.client(f"https://github.com/{user}").get("/me", **free)
    assert answer.json() == {"subject": f"https://github.com/{user}", "name": user, "by": "token"}


def test_a_subject_that_ends_with_a_slash_has_an_empty_name(server):
    told = server.client("https://id.example/").get("/me").json()
    assert told == {"subject": "https://id.example/", "name": "", "by": "token"}
