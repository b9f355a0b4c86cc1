"""docs/sign-in.md: each block in front of a server, on real nginx and Caddy. A header that the
client itself sends identifies nobody."""

import contextlib
import subprocess
import uuid
from urllib.parse import urlsplit

import pytest

from documents import block_with
from portals import HOST, PORTAL, Portal, front
from raw_http import errors_of
from servers import running
from trusted import user_of

# What stands in front of the server → words of its block, the header that tells Parley the user,
# and what a client must send to be known there as this user.
COOKIE = "Cookie: user={}"
PAPERS = {
    ("Authelia", "nginx"): ("auth-request", "Remote-User", COOKIE),
    ("Authelia", "caddy"): ("forward-auth", "Remote-User", COOKIE),
    ("oauth2-proxy", "nginx"): ("/oauth2/auth", "Remote-User", COOKIE),
    ("oauth2-proxy", "caddy"): ("/oauth2/auth", "X-Auth-Request-Preferred-Username", COOKIE),
    ("Tailscale", "nginx"): ("tailscale.sock", "Remote-User", "Tailscale-User-Login: {}"),
    ("Tailscale", "caddy"): ("tailscale.sock", "Remote-User", "Tailscale-User-Login: {}"),
    ("Cloudflare", "nginx"): (
        "cloudflared.sock",
        "Remote-User",
        "Cf-Access-Authenticated-User-Email: {}",
    ),
    ("Cloudflare", "caddy"): (
        "cloudflared.sock",
        "Remote-User",
        "Cf-Access-Authenticated-User-Email: {}",
    ),
}
AT_A_PORT = [name for name, (*_, known) in PAPERS.items() if known == COOKIE]
AT_A_SOCKET = [name for name in PAPERS if name not in AT_A_PORT]
MACHINE = "chat.tailnet-name.ts.net"


class Paper:
    """A server behind the proxy that a block of the document starts."""

    def __init__(self, tmp_path_factory, leaving, service, program):
        self.service, self.program = service, program
        words, self.header, self.known = PAPERS[service, program]
        folder = tmp_path_factory.mktemp("paper")
        socket = folder / "parley.sock"
        self.server = leaving.enter_context(
            running(
                folder / "server",
                TRUSTED_USER_HEADER=self.header,
                TRUSTED_PROXIES="unix",
                ALLOWED_ORIGINS="*",
                GUNICORN_CMD_ARGS=f"--bind unix:{socket}",
            )
        )
        self.portal = Portal()
        leaving.callback(self.portal.close)
        self.peer, self.plain = leaving.enter_context(
            front(program, words, folder, socket, self.portal)
        )

    def ask(self, *fields, host=HOST, **request):
        """As a client that this proxy lets through. `tailscale serve` calls a socket
        `localhost`."""
        if self.service == "Tailscale":
            fields = (*fields, f"X-Forwarded-Host: {MACHINE if host == HOST else host}")
            host = "localhost"
        return self.peer.ask(*fields, host=host, **request)


@pytest.fixture(scope="module", params=PAPERS, ids=" by ".join)
def paper(request, tmp_path_factory):
    with contextlib.ExitStack() as leaving:
        yield Paper(tmp_path_factory, leaving, *request.param)


def test_a_user_who_has_signed_in_is_known(paper):
    assert user_of(paper.ask(paper.known.format("alice"))) == "proxy:/alice"
    assert user_of(paper.ask(paper.known.format("bob@example.com"))) == "proxy:/bob@example.com"


def spellings(header):
    """What a client may send to be taken for another user."""
    underscored = header.replace("-", "_")
    mixed = header.replace("-", "_", 1)
    return [header, header.upper(), header.lower(), underscored, underscored.upper(), mixed]


def test_a_header_that_the_client_sends_identifies_nobody(paper):
    for spelling in spellings(paper.header):
        forged = f"{spelling}: mallory"
        for fields in [(forged,), (forged, forged), (forged, f"Connection: {spelling}")]:
            known = paper.ask(paper.known.format("alice"), *fields)
            if known.status_code == 401:
                # Caddy removes the header by such a line, so nobody is known.
                assert paper.program == "caddy" and len(fields) == 2 and "Connection" in fields[1]
            else:
                assert user_of(known) == "proxy:/alice", fields
            unknown = paper.ask(*fields)
            assert unknown.status_code != 200, fields
            assert "mallory" not in unknown.text
    assert "proxy:/mallory" not in paper.server.output()


@pytest.mark.parametrize("paper", AT_A_SOCKET, indirect=True, ids=" by ".join)
def test_the_proxys_own_header_from_a_client_identifies_nobody_twice(paper):
    """If the service in front of the proxy lets another spelling of the header through."""
    field = paper.known.partition(":")[0]
    for spelling in spellings(field)[3:]:
        assert (
            user_of(paper.ask(paper.known.format("alice"), f"{spelling}: mallory"))
            == "proxy:/alice"
        )
        assert paper.ask(f"{spelling}: mallory").status_code == 401
    twice = paper.ask(paper.known.format("alice"), paper.known.format("mallory"))
    assert twice.status_code == 400 or user_of(twice) == "proxy:/alice"


def test_a_user_who_has_not_signed_in_is_sent_to_sign_in_or_stays_unknown(paper):
    answer = paper.ask("Accept: text/html, */*")
    if paper.known != COOKIE:
        assert answer.status_code == 401
    elif paper.service == "Authelia":
        assert (answer.status_code, answer.headers["Location"]) == (302, PORTAL)
    else:
        place = urlsplit(answer.headers["Location"])
        told = (answer.status_code, place.path, place.query)
        assert told == (302, "/oauth2/sign_in", f"rd=https://{HOST}/me")
        assert paper.ask(path="/oauth2/sign_in?rd=x").status_code == 200  # by oauth2-proxy itself


def test_a_request_without_a_user_from_the_service_is_unknown(paper):
    """As after a rule of Authelia's that requires no sign-in. No user may have the name that
    Caddy sends then."""
    answer = paper.ask(paper.known.format(""), f"{paper.header}: mallory")
    assert answer.status_code in (400, 401)
    assert "X-Request-ID" in answer.headers  # Parley itself says so
    assert answer.json()["errors"][0]["status"] == str(answer.status_code)


OTHERS = [
    "evil.example",
    "127.0.0.1",
    "localhost.evil.example",
    f"{HOST}.evil.example",
    f"x.{HOST}",
    "",
]


def test_another_host_name_does_not_reach_the_server(paper):
    """DNS rebinding: a browser would take the attacker's page for the server's own."""
    number = f"evil-{uuid.uuid4().hex}"
    for host in OTHERS:
        fields = (
            paper.known.format("alice"),
            f"X-Request-ID: {number}",
            "Sec-Fetch-Site: same-origin",
            f"Origin: https://{host}",
        )
        answer = paper.ask(*fields, host=host)
        assert answer.status_code in (400, 421), answer.text  # 400: no name, no host
        assert "X-Request-ID" not in answer.headers
    own = f"X-Request-ID: own-{number}"
    assert paper.ask(paper.known.format("alice"), own).status_code == 200
    assert f"id={number}" not in paper.server.wait_for_output(f"id=own-{number}")


@pytest.mark.parametrize("paper", AT_A_PORT, indirect=True, ids=" by ".join)
def test_nothing_is_served_over_plain_http(paper):
    answer = paper.plain.ask(COOKIE.format("alice"))
    assert answer.status_code == (301 if paper.program == "nginx" else 308)
    assert answer.headers["Location"] == f"https://{HOST}/me"
    assert paper.plain.ask(COOKIE.format("alice"), host="evil.example").status_code == 421


def test_the_requested_host_arrives(paper):
    """The server recognizes its own page by it if a browser sends no `Sec-Fetch-Site`."""
    host = MACHINE if paper.service == "Tailscale" else HOST
    own = paper.ask(paper.known.format("alice"), f"Origin: https://{host}")
    assert user_of(own) == "proxy:/alice"
    for origin in (f"https://{host}:8443", "https://evil.example", "null", "http://localhost"):
        expect_refusal(paper.ask(paper.known.format("alice"), f"Origin: {origin}"))


def expect_refusal(answer):
    assert answer.status_code == 403
    assert not [field for field in answer.headers if field.startswith("Access-Control-")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_message_and_a_stream_pass_through(paper):
    fields = (paper.known.format("alice"), "Sec-Fetch-Site: same-origin")
    answer = paper.ask(*fields, method="POST", path="/sessions", content="Hello, Parley!")
    assert answer.status_code == 201, answer.text
    told = paper.ask(
        *fields,
        "Accept: text/event-stream",
        method="GET",
        path=answer.headers["Location"] + "/events",
    )
    assert "event: done" in told.text
    errors_of(paper.ask(*fields, method="POST", path="/sessions", content=" "), 400)


@pytest.mark.parametrize(
    "paper", [name for name in PAPERS if "nginx" in name], indirect=True, ids=" by ".join
)
def test_the_server_itself_refuses_a_body_that_is_too_large(paper):
    fields = (paper.known.format("alice"), "Sec-Fetch-Site: same-origin")
    large = paper.ask(*fields, method="POST", path="/sessions", content="x" * 1_100_000)
    assert (large.status_code, "X-Request-ID" in large.headers) == (413, True)


def test_the_commands_at_the_socket_answer_as_documented(tmp_path):
    """The two commands of `Does it work?`."""
    commands, shown = block_with("--unix-socket"), block_with('"by":"proxy"', "text")
    socket = tmp_path / "parley.sock"
    trusted = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "unix"}
    with running(tmp_path, **trusted, GUNICORN_CMD_ARGS=f"--bind unix:{socket}"):
        script = commands.replace("/run/parley/parley.sock", str(socket))
        told = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=20)
    assert (told.returncode, told.stdout.strip(), told.stderr) == (0, shown.strip(), "")
