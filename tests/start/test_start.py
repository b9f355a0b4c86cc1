"""What a start says about the settings, and the address that it prints.

Modules: `start/banner.py`, `start/summary.py`, `start/warnings.py`, `well_known.py`, `providers/nearby.py`.
"""

import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import jwt
import pytest

import app
import forked
from client import wait_until
from commands import COMMANDS, FLASK, check_that_it_commands_nothing, environment_of
from llm import open_catalog
from servers import free_port, running, wait_until_up
from settings import read_settings
from start.banner import is_open_to_all
from start.summary import describe
from tokens import ED25519, pem


def run(folder, *words, **settings):
    """This `flask` command, after it has ended."""
    return forked.run(["-m", "flask", *words], folder, environment_of(settings))


# The start


def start_lines(output):
    return [line for line in output.splitlines() if " start " in line or '"start"' in line]


def test_the_log_says_once_what_a_server_starts_with(provider, tmp_path):
    """Also after a reload. No password appears, in whatever form its URL has it."""
    public = pem(ED25519.public_key())
    settings = {
        "JWT_PUBLIC_KEY": public,
        "JWT_SECRET": "",
        "DEFAULT_MODEL": "m-1",
        "OPENAI_API_KEY": "sk-hush",
    }
    settings |= {
        "OPENAI_BASE_URL": provider.url.replace("//", "//hush:hush@") + "/v1",
        "WEB_CONCURRENCY": 2,
    }
    with running(tmp_path, **settings) as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_output("Booting worker", 4)
        (line,) = start_lines(server.output())
    assert line.partition(" INFO ")[2] == (
        f"start version={app.__version__} address=http://127.0.0.1:{server.port} database=sqlite:///{tmp_path}/parley.db "
        f"keys=JWT_PUBLIC_KEY providers=http://***@127.0.0.1:{provider.port}/v1 model=m-1"
    )


@pytest.mark.parametrize(
    "url, shown",
    [
        (
            "postgresql://hush:hu%40sh@db:5432,[::1]:5433/name?a=b",
            "postgresql://***@db:5432,[::1]:5433/name?a=b",
        ),
        (
            "postgresql://db/name?user=me&password=hush&a=b",
            "postgresql://db/name?user=me&password=***&a=b",
        ),
        ("postgres:///name?host=/tmp&pass%77ord=hush", "postgres:///name?host=/tmp&pass%77ord=***"),
        ("sqlite:///some/where.db", "sqlite:///some/where.db"),
    ],
)
def test_no_form_of_a_password_is_shown(url, shown):
    settings = read_settings(
        {"DATABASE_URL": url, "JWT_JWKS_URL": "https://hush@identity.example/keys"}
    )
    assert describe(settings, "/instance", open_catalog(settings)) == {
        "database": shown,
        "keys": "https://***@identity.example/keys",
        "providers": "echo",
        "model": "echo",
    }


def test_the_start_names_the_trusted_proxies():
    settings = read_settings(
        {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "unix,10.0.0.7,fd00::/64"}
    )
    described = describe(settings, "/instance", open_catalog(settings))
    assert described["proxies"] == "Remote-User from unix, 10.0.0.7, fd00::/64"


@pytest.mark.parametrize(
    "mode, of_socket, expected",
    [(0o755, 0o777, True), (0o750, 0o777, False), (0o755, 0o770, False), (0o711, 0o722, True)],
)
def test_a_socket_that_every_user_can_open_is_recognised(mode, of_socket, expected):
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,  # other users cannot enter pytest's own
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = pathlib.Path(folder) / "parley.sock"
        listener.bind(str(path))
        path.chmod(of_socket)
        pathlib.Path(folder).chmod(mode)
        assert is_open_to_all(f"unix:{path}") is expected
    assert not is_open_to_all("http://127.0.0.1:8000")
    assert is_open_to_all("unix:\0parley")  # an abstract socket


def test_a_start_warns_of_a_socket_that_every_user_can_open(tmp_path):
    trusted = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "unix"}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        pathlib.Path(folder).chmod(0o755)
        settings = trusted | {"GUNICORN_CMD_ARGS": f"--bind unix:{folder}/parley.sock"}
        with running(tmp_path, **settings) as server:
            server.wait_for_output(
                f"every user of this machine can connect to unix:{folder}/parley.sock"
            )


def test_the_start_says_that_only_the_provider_knows_its_default_model():
    """The provider is not asked."""
    settings = read_settings({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "ANTHROPIC_API_KEY": ""})
    described = describe(settings, "/instance", open_catalog(settings))
    assert described["model"].startswith("the first that 127.0.0.1:")
    assert described["keys"] == "/instance/jwt_key.pem"


def run_once(folder, *arguments, **settings):
    """(port, what `flask run` prints, what it logs) once it is up."""
    port, paths = free_port(), [folder.parent / name for name in ("printed", "log")]
    words = ["-m", "flask", "run", "--port", str(port), *arguments]
    with open(paths[0], "wb") as printed, open(paths[1], "wb") as log:
        how = {"start_new_session": True, "stdout": printed, "stderr": log}
        how |= {"cwd": folder, "env": environment_of(settings)}
        if "--debug" in arguments:  # it restarts itself by its command line
            process = subprocess.Popen([sys.executable, *words], **how)
        else:
            process = forked.Process(words, **how, is_fixed=True)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process)
            wait_until(lambda: re.search(f"^open.*:{port}/", paths[0].read_text(), re.MULTILINE))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
    return port, *(path.read_text() for path in paths)


def test_flask_run_prints_six_lines_once_and_the_link_last(folder):
    port, printed, log = run_once(folder, "--debug")
    lines = printed[printed.index("Parley ") :].splitlines()
    assert lines[:4] == [
        f"Parley {app.__version__}",
        f"database: sqlite:///{folder}/instance/parley.db",
        f"keys: {folder}/instance/jwt_key.pem",
        "providers: echo; the default model is echo",
    ]
    assert (
        lines[4].startswith(f"try: curl -N http://127.0.0.1:{port}/sessions ") and len(lines) == 6
    )
    told, _, token = lines[5].partition("#token=")
    assert told == f"open, a secret for 30 days: http://127.0.0.1:{port}/"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 30 * 86400
    assert token not in printed[: -len(token) - 1] and start_lines(log) == []


def test_flask_run_on_all_addresses_prints_one_that_works(folder):
    _, printed, _ = run_once(folder, "--host", "0.0.0.0")
    address = re.search("http://([0-9.]+):", printed)[1]
    assert address != "0.0.0.0"
    with socket.socket() as listener:
        listener.bind((address, 0))  # OSError if this machine does not have it


def test_gunicorn_prints_the_link_on_a_terminal_and_never_into_a_log(folder):
    for has_terminal in (True, False):
        port, (terminal, inside) = free_port(), pty.openpty()
        command = [sys.executable, "gunicorn.conf.py"]
        environment = environment_of({"PORT": str(port)}) | {"TERM": "xterm"}
        streams = {"stdout": inside if has_terminal else subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=folder, env=environment, **streams)
        os.close(inside)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            printed, log = (each or b"" for each in process.communicate(timeout=40))
        shown = os.read(terminal, 65536) if has_terminal else b""
        os.close(terminal)
        assert (b"#token=" in shown) == has_terminal and b"#token=" not in printed + log
        if has_terminal:
            token = shown.decode().partition("#token=")[2].strip()
            assert (
                jwt.decode(token, options={"verify_signature": False})["sub"]
                == "https://github.com/you"
            )


@pytest.mark.parametrize(
    "url, link", [("https://c.example", "https://c.example/"), ("http://h:80/x/", "http://h:80/x/")]
)
def test_flask_token_prints_a_link(folder, url, link):
    ended = run(folder, "token", "https://github.com/bob", "--url", url)
    told, _, token = ended.stdout.strip().partition("#token=")
    assert told == link
    assert jwt.decode(token, options={"verify_signature": False})["sub"] == "https://github.com/bob"


@pytest.mark.parametrize(
    "url", ["c.example", "https://", "https://c.example/#x", "https://a:b@c.example"]
)
def test_flask_token_refuses_an_invalid_address(folder, url):
    ended = run(folder, "token", "bob", "--url", url)
    assert (ended.returncode, ended.stdout) == (1, "") and "write it like https://" in ended.stderr


def test_flask_run_prints_no_control_characters(folder):
    settings = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "DEFAULT_MODEL": f"m{COMMANDS}"}
    _, printed, log = run_once(folder, **settings)
    assert "owned" in printed
    check_that_it_commands_nothing(printed + log)


def test_flask_run_prints_no_token_if_it_cannot_make_one(folder):
    port, printed, _ = run_once(folder, JWT_PUBLIC_KEY=pem(ED25519.public_key()))
    assert printed.endswith(
        "tokens: The person who runs this server has tokens for it, or links with one.\n"
        f"open: http://127.0.0.1:{port}/\n"
    )
    assert "curl" not in printed


def test_flask_run_says_where_users_sign_in(folder):
    """It asks the identity provider nothing before somebody comes."""
    issuer = "http://127.0.0.1:9/realms/home"
    port, printed, log = run_once(folder, OIDC_CLIENT_ID="parley", JWT_ISSUER=issuer)
    assert printed.endswith(f"tokens: Sign in at {issuer}.\nopen: http://127.0.0.1:{port}/\n")
    assert f"keys: those of {issuer}\n" in printed and "#token=" not in printed + log
    assert (
        f"ALLOWED_USERS is not set: everybody with an account at {issuer} can use this server."
        in log
    )
    assert "cannot be had" not in log
    assert not (folder / "instance" / "jwt_key.pem").exists()


def test_flask_run_prints_the_link_of_a_user_who_is_allowed(folder):
    """Not that of the machine's own user, who would not be let in."""
    _, printed, log = run_once(folder, ALLOWED_USERS="eve,alice,bob", BLOCKED_USERS="eve")
    claims = jwt.decode(
        printed.partition("#token=")[2].strip(), options={"verify_signature": False}
    )
    assert claims["sub"] == "https://github.com/alice"
    assert "token https://github.com/alice)" in printed
    assert "ALLOWED_USERS lacks you, so the link of `.venv/bin/flask run` signs in as alice" in log


WARNINGS = [  # the settings, and what a start says about them
    (
        {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "10.0.0.0/8,0.0.0.0/0"},
        "TRUSTED_PROXIES: everybody can pose as any user; name the proxy's own address",
    ),
    (
        {"MODELS": "m-1 m-2", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
        "MODELS: m-1 m-2 is one model with spaces in its id. Write m-1,m-2",
    ),
    ({"REQUESTS_CA_BUNDLE": "/nowhere.pem"}, "REQUESTS_CA_BUNDLE: /nowhere.pem does not exist."),
    ({"PORT": "8001"}, "PORT does not apply to `.venv/bin/flask run`, which listens on port"),
]


@pytest.mark.parametrize("settings, told", WARNINGS)
def test_flask_run_warns_of_probable_mistakes(folder, settings, told):
    _, _, log = run_once(folder, **{"PORT": ""} | settings)
    warned = [line for line in log.splitlines() if " WARNING " in line]
    assert len(warned) == 1 and told in warned[0], log


def test_flask_run_prints_nothing_if_its_port_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [*FLASK, "run", "--port", str(port)]
        ended = subprocess.run(
            command, cwd=folder, env=environment_of({}), capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr.splitlines()[-1]
        == f"Error: Another program listens on port {port}. Stop it, or: .venv/bin/flask run -p {port + 1}"
    )


IN_A_NETWORK_OF_ITS_OWN = r"""
import http.server, json, subprocess, sys, threading

class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "llama3.2"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
silent = __import__("socket").create_server(("127.0.0.1", 11434))
if sys.argv[1] == "8080":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
code = '''
import app, flask, start.summary
from api import hints
made = app.create_app()
print(start.summary.summarize(made)["model"])
for is_operator in (True, False):
    with made.app_context():
        flask.g.is_operator = is_operator
        print("hint:", *hints.about_models(True).split())
'''
command = [sys.executable, "-c", code]
print(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)
"""


HAS_NETWORKS = os.getuid() == 0 and shutil.which("unshare") and shutil.which("ip")


@pytest.mark.skipif(not HAS_NETWORKS, reason="a network of its own needs root, unshare and ip")
def test_a_model_server_on_this_machine_is_named_and_not_used(folder):
    """A silent one on Ollama's port does not delay the start. One with a list is named, whatever proxy is set."""
    command = ["unshare", "-n", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN]
    environment = environment_of(
        {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    )
    named = "echo; 127.0.0.1:8080 answers on this machine: put OPENAI_BASE_URL=http://127.0.0.1:8080/v1 into .env"
    hint = (
        "hint: No model is set up yet: `echo` repeats your own words. 127.0.0.1:8080 answers on this machine: "
        "put `OPENAI_BASE_URL=http://127.0.0.1:8080/v1` into `.env`, and start Parley again."
    )
    both = f"{named}\n{hint}\nhint:"  # the second is for other users, who cannot change it
    for port, found in (("8080", both), ("0", "echo\nhint:\nhint:")):
        ended = subprocess.run(
            [*command, port],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.stdout.strip() == found, ended.stderr


def test_a_server_does_not_load_the_commands(folder):
    """Nor the libraries that only they need."""
    names = {"terminal", "pygments", "readline"}
    program = f"import sys, app, start; app.create_app(); print({names} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=folder, env=environment_of({}), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr
