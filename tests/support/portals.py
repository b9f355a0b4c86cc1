"""Sign-in in front of a server: a stand-in for Authelia and oauth2-proxy, and nginx and Caddy as
docs/sign-in.md has them.

The stand-in answers as the two are documented to. A request with the cookie `user=alice` is signed
in as Alice. `user=` matches a rule that needs no user (Authelia's `bypass`). Without a cookie, a
person is sent to sign in.
"""

import contextlib
import http.server
import re
import ssl
import subprocess
import threading
import time

from documents import BLOCKS
from fronts import NGINX_CONF, USER, filled, running_proxy
from servers import free_port
from trusted import Peer

HOST = "chat.example.com"
PORTAL = "https://auth.example.com/?rd=there"


class Portal:
    """The stand-in, at a port of the loopback interface."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler):
                found = re.search(r"\buser=([^;]*)", handler.headers.get("Cookie", ""))
                self._answer(handler, found and found[1])

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def _answer(handler, user):
        path, headers, accept = handler.path, {}, handler.headers.get("Accept", "")
        is_oauth2 = path.startswith("/oauth2/")
        name = "X-Auth-Request-Preferred-Username" if is_oauth2 else "Remote-User"
        if path.startswith("/oauth2/sign_in"):
            status = 200
        elif not _is_asked_right(handler):
            status = 400
        elif user is not None:
            status, headers = (202 if is_oauth2 else 200), {name: user} if user else {}
        else:
            is_redirected = path == "/api/authz/forward-auth" and "text/html" in accept
            status, headers = (302 if is_redirected else 401), {"Location": PORTAL}
        handler.send_response(status)
        for field in (headers | {"Content-Length": "0"}).items():
            handler.send_header(*field)
        handler.end_headers()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def _is_asked_right(handler):
    """Whether the proxy names the requested address in the way that Authelia and oauth2-proxy need:
    with https."""
    sent = handler.headers
    if handler.path == "/api/authz/auth-request":
        is_told = sent.get("X-Original-URL", "").startswith(f"https://{HOST}/")
        return is_told and bool(sent.get("X-Original-Method"))
    if handler.path == "/api/authz/forward-auth":
        told = [sent.get(f"X-Forwarded-{name}") for name in ("Method", "Proto", "Host", "Uri")]
        return all(told) and told[1] == "https"
    told = [sent.get(f"X-{name}") for name in ("Forwarded-Uri", "Forwarded-Proto", "Real-IP")]
    return all(told) and told[1] == "https" and sent.get("Host") == HOST


class TLS(Peer):
    """A client that connects by TLS, and accepts any certificate."""

    def connect(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(super().connect(), server_hostname=HOST)


def block_for(language, words):
    """The block of docs/sign-in.md for nginx or Caddy that has these words."""
    [text] = [
        block.text
        for block in BLOCKS
        if (block.document, block.language) == ("docs/sign-in.md", language) and words in block.text
    ]
    return text


def certificate(folder):
    """Makes `chat.pem` and `chat.key` there."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
        + ["-keyout", folder / "chat.key", "-out", folder / "chat.pem"],
        check=True,
        capture_output=True,
    )


NGINX_HERE = {
    "    listen [::]:80 default_server;\n": "",
    "    listen [::]:443 ssl default_server;\n": "",
    "    listen [::]:80;\n": "",
    "    listen [::]:443 ssl;\n": "",
    "listen 80;": "listen 127.0.0.1:{plain};",
    "listen 80 default_server": "listen 127.0.0.1:{plain} default_server",
    "listen 443 ssl": "listen 127.0.0.1:{port} ssl",
    "/etc/ssl/chat.example.com": "{folder}/chat",
}
# Caddy makes the certificates itself.
CADDY_HERE = """{{
    admin off
    http_port {plain}
    https_port {port}
    local_certs
    skip_install_trust
}}
"""
EVERYWHERE = {"/run/parley/parley.sock": "{upstream}", "/run/front": "{folder}"}
EVERYWHERE |= {"127.0.0.1:9091": "127.0.0.1:{portal}", "127.0.0.1:4180": "127.0.0.1:{portal}"}


def as_here(text, here, places):
    """A block of the document with the ports and the files of this machine."""
    for there, place in (here | EVERYWHERE).items():
        text = text.replace(there, filled(place, places))
    return text


@contextlib.contextmanager
def front(program, words, folder, upstream, portal):
    """nginx or Caddy by the block of docs/sign-in.md that has these words, in front of the socket
    `upstream`. Returns a peer that connects by TLS (or by a socket, if the block listens at one),
    and one without TLS."""
    certificate(folder)
    places = {"port": free_port(), "plain": free_port(), "folder": folder, "upstream": upstream}
    places["portal"] = portal.port
    block = as_here(block_for(program, words), NGINX_HERE if program == "nginx" else {}, places)
    at = re.search(rf"(?:listen unix:|bind unix/)({re.escape(str(folder))}[^;\s]*)", block)
    if program == "nginx":
        text = (NGINX_CONF % "{block}").format(folder=folder, user=USER, block=block)
    else:
        text = CADDY_HERE.format(**places) + block
    peer = Peer(at[1]) if at else TLS(("127.0.0.1", places["port"]))
    with running_proxy(program, text, folder) as process:
        wait_for(peer, process, folder / "proxy.log")
        yield peer, Peer(("127.0.0.1", places["plain"]))


def wait_for(peer, process, log):
    """Wait until something listens there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), contextlib.closing(peer.connect()):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
