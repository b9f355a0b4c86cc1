"""The README and `.env.example` to the letter: a new user's way from top to bottom, and every value that they show."""

import contextlib
import http.client
import importlib.metadata
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from client import Client, make_token, wait_until
from documents import BLOCKS, README, Block, heredoc, text_of
from fronts import DEBIANS, NGINX_CONF, proxy_in_front_of
from pins import PINNED_BY, Pin, read_pins
from product import ROOT, copy_of_the_service, files_of_the_service
from provider import reply
from servers import end, free_port, running, wait_until_up
from settings import SETTINGS, read_settings

EXAMPLE = (ROOT / ".env.example").read_text("utf-8")


# Blocks that name one of these are read by `sh -n` only, and why: all others are run.
LEFT_OUT = {
    r"\b(apt|systemctl)\b": "they are for root on a machine of its own",
    r"\bheroku\b": "they need an account",
    r"^docker\b": "they need Docker, with which tools/container runs them",
    r"\bexample\.com\b": "they need other hosts",
    r"bin/pytest$": "that is what runs here",
    r"^uv\b": "they need uv, and a network",
    r"flask forget": "it would forget whoever has run the others",
}
INSTALLS = "python3 -m venv .venv && .venv/bin/pip install -qr requirements.txt && "  # `.ci/run` does that; it needs a network
SERVES = r"flask run$|gunicorn\.conf\.py$"  # how the last line of a block ends that starts a server
VARIES = {
    r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}": "UUID",
    r"\b\d{19}\b": "TURN",
    r"\d{4}-\d\d-\d\dT[\d:]{8}Z": "TIME",
}
VARIES[r"(?m)^ +\d+( +\d+)+"] = "COUNTS"


def is_left_out(block):
    """Whether this block is not run here; that one which needs sqlite3 neither, where it is not installed."""
    lacks_sqlite3 = block.text.startswith("sqlite3 ") and not shutil.which("sqlite3")
    return lacks_sqlite3 or any(re.search(words, block.text, re.MULTILINE) for words in LEFT_OUT)


def without_what_varies(text):
    for pattern, name in VARIES.items():
        text = re.sub(pattern, name, text)
    return text.strip()


class NewUser:
    """Someone in a fresh clone, with an empty home and nothing in the environment.

    Root has a network of their own, where no other program has Parley's ports. For anybody else, they are other ones.
    """

    def __init__(self, folder):
        self.folder, home = folder / "parley", folder / "home"
        home.mkdir()
        for name in (
            subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
            .rstrip("\0")
            .split("\0")
        ):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / ".venv").mkdir()  # the one of whoever runs the tests
        for path in os.scandir(sys.prefix):
            (self.folder / ".venv" / path.name).symlink_to(path.path)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        self.port, self.enter, self.network, self.server = 5000, [], None, None
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
        with contextlib.suppress(FileNotFoundError):
            pipes = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.DEVNULL,
                "text": True,
            }
            self.network = subprocess.Popen(command, **pipes)
        if self.network and self.network.stdout.readline():
            self.enter = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net"]
        else:
            self.port = free_port()
            self.environment |= {
                "FLASK_RUN_PORT": str(self.port),
                "PARLEY_URL": f"http://127.0.0.1:{self.port}",
            }

    def command(self, text):
        return [*self.enter, "sh", "-ec", text.replace(":5000", f":{self.port}")]

    def run(self, text):
        """What these commands print, which do not fail. Whatever asks at the terminal is told to quit."""
        terminal, stdin = os.openpty()
        os.write(terminal, b"/quit\n")
        try:
            options = {"stdin": stdin, "capture_output": True, "text": True, "timeout": 60}
            done = subprocess.run(
                self.command(text), cwd=self.folder, env=self.environment, **options
            )
        finally:
            os.close(terminal)
            os.close(stdin)
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def serve(self, text):
        self.stop()
        with open(self.folder.parent / "log", "wb") as log:
            options = {"stdout": log, "stderr": log, "start_new_session": True}
            self.server = subprocess.Popen(
                self.command(f"exec {text}"), cwd=self.folder, env=self.environment, **options
            )
        health = self.command("curl -fsS http://127.0.0.1:5000/health")
        wait_until(
            lambda: (
                subprocess.run(health, capture_output=True).returncode == 0
                or self.server.poll() is not None
            )
        )
        assert self.server.poll() is None, self.log()

    def log(self):
        return (self.folder.parent / "log").read_text()

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            assert self.server.wait(30) == 0, self.log()
            self.server = None

    def leave(self):
        for process in (self.server, self.network):
            if process is not None:
                end(process)


@pytest.fixture
def new_user(tmp_path):
    for name in ("git", "curl", "openssl"):
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    new_user = NewUser(tmp_path)
    yield new_user
    new_user.leave()


def test_a_new_user_runs_the_blocks_of_the_readme_in_their_order(new_user):
    folder, serving, output = new_user.folder, None, None
    for block, following in itertools.pairwise([*BLOCKS, Block(None, None, None)]):
        text = block.text.replace(INSTALLS, "").strip()
        if block.language != "sh" or is_left_out(block):
            continue
        if re.search(SERVES, text):
            serving = text
            new_user.serve(serving)
        elif "stop the service" in block.above:
            new_user.stop()
            (folder / "instance" / "parley.db").unlink()
            output = new_user.run(text)
            new_user.serve(serving)
        else:
            output = new_user.run(text)
        if following.language == "text":
            assert without_what_varies(output) == without_what_varies(following.text)
        if "flask backup" in text:
            second = time.time() // 1
            wait_until(
                lambda: time.time() // 1 > second
            )  # the name of a backup ends with its second
            new_user.run(text)

    backups = sorted(folder.glob("backup-*"))
    assert [sorted(os.listdir(backup)) for backup in backups] == [["jwt_key.pem", "parley.db"]] * 2
    for path in [
        folder / "private.pem",
        *backups,
        *(file for backup in backups for file in backup.iterdir()),
    ]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    # The last block printed a token, which the server takes from its next start on. What was restored, or saved, is there.
    for path in (
        ["instance/parley.db", "saved.db"] if shutil.which("sqlite3") else ["instance/parley.db"]
    ):
        new_user.stop()
        (folder / path).rename(folder / "instance" / "parley.db")
        new_user.serve(serving)
        sessions = (
            "'http://127.0.0.1:5000/sessions?page[limit]=9'"  # the README says why it needs -g
        )
        assert "Hello, Parley!" in new_user.run(
            f"curl -sfg {sessions} -H 'Authorization: Bearer {output.strip()}'"
        )
    # Whatever came to the folder is ignored by git.
    assert new_user.run("git init -q && git add . && git ls-files") == subprocess.check_output(
        ["git", "ls-files"], cwd=ROOT, text=True
    )


@pytest.mark.parametrize("text", [block.text for block in BLOCKS if block.language == "sh"])
def test_every_block_of_commands_is_read_by_sh(text):
    told = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_what_is_left_out_is_there():
    for words in LEFT_OUT:
        assert any(re.search(words, block.text, re.MULTILINE) for block in BLOCKS), words


def test_every_value_that_the_readme_gives_a_setting_is_taken():
    given = {}
    for name, value in re.findall(r"\b([A-Z][A-Z_]+)=([^\s`$\"']+)", README):
        if name in SETTINGS:
            given[name] = value
            assert read_settings({name: value})[name], name
    assert {
        "DATABASE_URL",
        "JWT_JWKS_URL",
        "ANTHROPIC_API_KEY",
        "OPENAI_BASE_URL",
        "DEFAULT_MODEL",
    } <= set(given)


def start_with(lines, folder):
    """The service with these lines in its `.env` starts, and says nothing against them."""
    (folder / ".env").write_text(lines)
    port = free_port()
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    server = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    try:
        wait_until_up(f"http://127.0.0.1:{port}", server)
    finally:
        told = end(server)
    assert not re.search("WARNING|ERROR|dotenv", told), told


ENV = "\n\n".join(block.text for block in BLOCKS if block.language == "ini").strip().split("\n\n")


@pytest.mark.parametrize("lines", ENV, ids=lambda lines: lines.split()[1].strip(","))
def test_the_service_starts_with_the_lines_that_the_readme_has_for_a_file_of_settings(
    tmp_path, lines
):
    start_with(lines, copy_of_the_service(tmp_path / "parley"))


def test_the_service_starts_with_every_line_of_the_example(tmp_path):
    lines = re.sub(r"^#(?=[A-Z_]+=)", "", EXAMPLE, flags=re.MULTILINE)
    assert re.findall(r"^[A-Z_]+(?==)", lines, re.MULTILINE) == list(SETTINGS)
    start_with(lines, copy_of_the_service(tmp_path / "parley"))


def test_each_value_that_the_example_describes_is_taken():
    described = dict(
        reversed(pair) for pair in re.findall(r"^# (.+)\n#([A-Z_]+)=", EXAMPLE, re.MULTILINE)
    )
    for name, values in {
        "DATABASE_URL": ["sqlite:///path"],
        "LOG_FORMAT": ["text", "json"],
        "RATE_LIMIT": ["10/minute"],
    }.items():
        for value in values:
            assert value in described[name]
            assert read_settings({name: value})[name]


def test_the_unit_of_systemd_is_one(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    unit = heredoc("/etc/systemd/system/parley.service")
    (tmp_path / "parley.service").write_text(unit.replace("/opt/parley/.venv", sys.prefix))
    told = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "parley.service"], capture_output=True, text=True
    )
    assert (told.returncode, told.stderr) == (0, "")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory, provider_of_all):
    folder = tmp_path_factory.mktemp("upstream")
    with running(
        folder, OPENAI_BASE_URL=provider_of_all.url + "/v1", DEFAULT_MODEL="m-1"
    ) as server:
        yield server


# What each block stands in, and where it says on which port to listen: first as in the README, then as here.
PROXIES = {
    "nginx": (
        NGINX_CONF,
        heredoc("/etc/nginx/conf.d/parley.conf"),
        "listen 80;",
        "listen 127.0.0.1:{port};",
    ),
    "caddy": ("%s", text_of("caddy"), "chat.example.com\n", "http://127.0.0.1:{port}\n"),
    "haproxy": (DEBIANS, text_of("haproxy"), "bind :80\n", "bind 127.0.0.1:{port}\n"),
}


def proxy_of_the_readme(server, name, folder):
    around, block, listens, here = PROXIES[name]
    assert block.count(listens) == block.count("127.0.0.1:8000") == 1
    block = (
        block.replace("{", "{{")
        .replace("}", "}}")
        .replace(listens, here)
        .replace("127.0.0.1:8000", "{server}")
    )
    return proxy_in_front_of(server, name, around % block, "", folder)


@pytest.mark.parametrize("name", PROXIES)
def test_a_message_and_a_stream_pass_through_the_proxies_of_the_readme(
    upstream, provider, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("CADDY_ADMIN", f"127.0.0.1:{free_port()}")
    with proxy_of_the_readme(upstream, name, tmp_path) as url:
        client = Client(url, make_token())
        session = client.create("Hello")
        gate = threading.Event()
        provider.script = [reply("One ", "two ", gate, "three.")]
        with client.stream(
            "POST", f"/sessions/{session['id']}/messages", {"content": "Count."}
        ) as stream:
            events = iter(stream)
            text = ""
            while text != "One two ":  # while the model writes
                text += next(events).data["delta"]
            gate.set()
            rest = list(events)
        assert len(rest) == 3, (rest, upstream.output()[-3000:])
        _, turn, done = rest
        assert (turn.data["content"], done.name) == ("One two three.", "done")
        assert (
            client.post("/sessions", {"content": "x" * 1_100_000}).json()["errors"][0]["status"]
            == "413"
        )


@pytest.mark.parametrize("name", ["nginx", "haproxy"])  # Caddy passes on no difference
def test_a_cut_is_told_from_an_end_through_the_proxies_of_the_readme(provider, tmp_path, name):
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with (
        running(tmp_path, **settings) as server,
        proxy_of_the_readme(server, name, tmp_path) as url,
    ):
        provider.script = [reply("One ", threading.Event())]
        with Client(url, make_token()).stream("POST", "/sessions", {"content": "Count."}) as stream:
            events = iter(stream)
            assert [next(events).name for _ in range(2)] == ["session", "content_delta"]
            server.kill()
            with pytest.raises(http.client.IncompleteRead):
                stream.response.read()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_postgresql_is_saved_and_restored_by_the_readme(start, new_database, tmp_path):
    if not shutil.which("pg_dump"):
        pytest.skip("PostgreSQL's programs are not installed")
    url = new_database()
    [text] = [block.text for block in BLOCKS if "pg_dump" in block.text]
    text = text.replace("postgresql://parley:pass%20word@db.example.com/parley", url)
    save, restore = [line for line in text.splitlines() if not line.startswith("#")]
    server = start(DATABASE_URL=url)
    session = server.client().create("Hello")
    run = {"shell": True, "cwd": tmp_path, "check": True, "env": {"PATH": os.environ["PATH"]}}
    subprocess.run(save, **run)
    [dump] = tmp_path.glob("*.dump")
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert server.client().delete(f"/sessions/{session['id']}").status_code == 204
    server.stop()
    subprocess.run(restore, **run)
    assert [turn["content"] for turn in start(DATABASE_URL=url).client().turns(session)] == [
        "Hello",
        "Hello",
    ]


def test_the_readme_names_every_file_of_the_service_and_none_that_is_not_there():
    table = README.partition("| file | holds |")[2].partition("\n\n")[0]
    named = {
        name
        for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(.+?)`", cell)
    }
    files = files_of_the_service()
    assert {name for name in files if "/" not in name} <= named
    assert {name.partition("/")[0] + "/" for name in files if "/" in name} <= named
    assert all((ROOT / name).exists() for name in named)


def test_every_link_of_the_readme_leads_somewhere():
    headings = re.findall(
        r"^#+ (.+)$",
        re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL),
        re.MULTILINE,
    )
    anchors = {
        "#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
    }
    links = re.findall(r"\]\((.+?)\)", README)
    assert links and all(link in anchors or (ROOT / link).exists() for link in links)


def test_what_is_required_is_pinned_by_its_hashes_and_the_same_everywhere():
    together: dict[str, Pin] = {}
    for path, pinned in PINNED_BY.items():
        pins = read_pins(pinned)
        for name, required in read_pins(path).items():
            assert required.version == pins[name].version, name
        for name, pin in pins.items():
            assert re.fullmatch(r"\d[\w.]*", pin.version), name
            assert pin.hashes and all(
                re.fullmatch(r"sha256:[\da-f]{64}", word) for word in pin.hashes
            ), name
            first = together.setdefault(name, pin)
            assert (pin.version, pin.hashes) == (first.version, first.hashes), name


def brought_by(requirements: list[Requirement]) -> set[str]:
    """The names of all that is installed for these, by what each of them says that it needs."""
    due, seen = [(each.name, extra) for each in requirements for extra in ("", *each.extras)], set()
    while due:
        name, extra = due.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        needs = [
            need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
        ]
        due += [(need.name, extra) for need in needs for extra in ("", *need.extras)]
    return {name for name, extra in seen}


@pytest.mark.parametrize(
    "path", ["requirements.in", "tests/requirements.in"]
)  # these are installed here
def test_all_that_the_requirements_bring_is_pinned_and_here(path: str):
    pins = {name: pin.version for name, pin in read_pins(PINNED_BY[path]).items() if pin.applies}
    brought = brought_by([pin.requirement for pin in read_pins(path).values()])
    assert {name: importlib.metadata.version(name) for name in brought} == pins


def test_the_readme_tells_how_each_file_of_pins_is_made():
    [commands] = [block.text.splitlines() for block in BLOCKS if block.text.startswith("uv ")]
    heads = [(ROOT / path).read_text("utf-8").splitlines()[1] for path in PINNED_BY.values()]
    assert [head.removeprefix("#").strip() for head in heads] == commands
