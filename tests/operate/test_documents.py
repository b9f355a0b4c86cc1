"""The documents and `.env.example` to the letter: a new user's way from top to bottom, and every value that they show."""

import itertools
import os
import re
import shutil
import stat
import subprocess
import time

import pytest

import forked
from client import wait_until
from documents import BLOCKS, DOCUMENTS, TEXTS, Block, blocks_of
from new_user import NewUser
from product import ROOT, copy_of_the_service, files_of_the_service
from servers import free_port, wait_until_up
from settings import SETTINGS, read_settings

EXAMPLE = (ROOT / ".env.example").read_text("utf-8")

# Blocks that name one of these are read by `sh -n` only, and why: all others are run.
LEFT_OUT = {
    r"\b(apt|systemctl)\b": "they are for root on a machine of its own",
    r"\bheroku\b": "they need an account",
    r"^(umask 077 && )?docker\b": "they need Docker, with which tools/container runs them",
    r"\bexample\.com\b": "they need other hosts",
    r"bin/pytest": "that is what runs here",
    r"^tailscale\b": "they need Tailscale",
    r"/opt/parley|/run/parley": "they are for root, and a server of that place",
    r"^uv\b": "they need uv, and a network",
    r"pip install .*tests/requirements": "that needs a network",
    r"bin/python tools/": "they take minutes",
    r"flask forget": "it would forget whoever has run the others",
}
INSTALLS = "python3 -m venv .venv && .venv/bin/pip install -qr requirements.txt && "  # `.ci/run` does that; it needs a network
SERVES = r"flask run$|gunicorn\.conf\.py$"  # how the last line of a block ends that starts a server
VARIES = {
    r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}": "UUID",
    r"\b\d{18}\b": "TURN",
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


def is_run(block):
    return block.language == "sh" and not is_left_out(block)


class Walk:
    """What a new user does who runs the blocks of a document in their order."""

    def __init__(self, new_user):
        self.user, self.serving, self.output = new_user, None, None

    def run(self, blocks):
        for block, following in itertools.pairwise([*blocks, Block(None, None, None, None)]):
            if is_run(block):
                self._run(block)
                if following.language == "text":
                    told, expected = self.output, following.text
                    assert without_what_varies(told) == without_what_varies(expected)

    def _run(self, block):
        text = block.text.replace(INSTALLS, "").strip()
        if re.search(SERVES, text):
            self.serving = text
            self.user.serve(text)
        elif "stop the service" in block.above:
            self.user.stop()
            if "flask restore" in text:
                (self.user.folder / "instance" / "parley.db").unlink()
            self.output = self.user.run(text)
            self.user.serve(self.serving)
        else:
            self.output = self.user.run(text)
        if "flask backup" in text:  # the name of a backup ends with its second
            second = time.time() // 1
            wait_until(lambda: time.time() // 1 > second)
            self.user.run(text)

    def check_database(self, path, token):
        """The server starts on this file, and has what was said."""
        instance = self.user.folder / "instance" / "parley.db"
        self.user.stop()
        (self.user.folder / path).rename(instance)
        self.user.serve(self.serving)
        # curl takes brackets for a pattern, but for -g.
        sessions = "'http://127.0.0.1:5000/sessions?page[limit]=9'"
        told = self.user.run(f"curl -sfg {sessions} -H 'Authorization: Bearer {token.strip()}'")
        assert "Hello, Parley!" in told

    def check_folder(self):
        """Two backups, which only their owner can read; git ignores all that has come to the folder."""
        folder = self.user.folder
        backups = sorted(folder.glob("backup-*"))
        names = [sorted(os.listdir(backup)) for backup in backups]
        assert names == [["jwt_key.pem", "parley.db"]] * 2
        files = [file for backup in backups for file in backup.iterdir()]
        for path in [*folder.glob("private.pem"), *backups, *files]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
        assert self.user.run("git init -q && git add . && git ls-files") == listed


def test_a_new_user_runs_the_blocks_of_the_readme_in_their_order(new_user):
    walk = Walk(new_user)
    walk.run(blocks_of("README.md"))
    token = new_user.run(".venv/bin/flask token https://github.com/you")
    walk.check_database("instance/parley.db", token)
    walk.check_folder()


OTHERS = [name for name in DOCUMENTS[1:] if any(map(is_run, blocks_of(name)))]


@pytest.mark.parametrize("document", OTHERS)
def test_a_new_user_runs_the_blocks_of_a_document_in_their_order(new_user, document):
    """Behind the README's first two, which start the server, and talk to it."""
    walk = Walk(new_user)
    walk.run([block for block in blocks_of("README.md") if is_run(block)][:2])
    walk.run(blocks_of(document))
    if document == "docs/growing.md":
        token = new_user.run(".venv/bin/flask token https://github.com/you")
        walk.check_database("instance/again.db", token)
    if document == "docs/operating.md":
        # The last block printed a token, which the server takes from its next start on.
        token = walk.output
        walk.check_database("instance/parley.db", token)
        if shutil.which("sqlite3"):
            walk.check_database("saved.db", token)
        walk.check_folder()


@pytest.mark.parametrize("text", [block.text for block in BLOCKS if block.language == "sh"])
def test_every_block_of_commands_is_read_by_sh(text):
    told = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_what_is_left_out_is_there():
    for words in LEFT_OUT:
        assert any(re.search(words, block.text, re.MULTILINE) for block in BLOCKS), words


# The settings that need another one.
NEEDED = {
    "TRUSTED_USER_HEADER": {"TRUSTED_PROXIES": "unix"},
    "TRUSTED_PROXIES": {"TRUSTED_USER_HEADER": "Remote-User"},
    "OIDC_CLIENT_ID": {"JWT_ISSUER": "https://id.example.com"},
}


def test_every_value_that_the_documents_give_a_setting_is_taken():
    given = {}
    everything = "\n".join(TEXTS.values())
    for name, value in re.findall(r"\b([A-Z][A-Z_]+)=([^\s`$\"']+)", everything):
        if name in SETTINGS:
            given[name] = value
            assert read_settings(NEEDED.get(name, {}) | {name: value})[name] is not None, name
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
    words = ["-m", "flask", "run", "--port", str(port)]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    with open(folder / "log", "w+") as log:
        server = forked.Process(words, folder, environment, log, log)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()
            server.wait(30)
        log.seek(0)
        told = log.read()
    assert not re.search("WARNING|ERROR|dotenv", told), told


ENV = [
    (block.document, lines.strip())
    for block in BLOCKS
    if block.language == "ini"
    for lines in block.text.strip().split("\n\n")
]


@pytest.mark.parametrize(
    "lines",
    [lines for _, lines in ENV],
    ids=[f"{name}: {re.split(r'[,;:(]', lines)[0][2:]}" for name, lines in ENV],
)
def test_the_service_starts_with_the_lines_that_a_document_has_for_a_file_of_settings(
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


def test_the_architecture_names_every_file_of_the_service_and_none_that_is_not_there():
    table = TEXTS["docs/architecture.md"].partition("| file | holds |")[2].partition("\n\n")[0]
    named = {
        name
        for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(.+?)`", cell)
    }
    files = files_of_the_service()
    assert {name for name in files if "/" not in name} <= named
    assert {name.partition("/")[0] + "/" for name in files if "/" in name} <= named
    assert all((ROOT / name).exists() for name in named)


def anchors_of(text):
    """What a link to a heading of this document ends with, as GitHub makes it."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(document):
    for link in re.findall(r"\]\((.+?)\)", TEXTS[document]):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target.read_text("utf-8")), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(document):
    """Such as `tests/heavy` or `tools/soak`."""
    named = re.findall(r"(?<![\w/.])((?:tests|tools|docs|static)/[\w./-]*\w)", TEXTS[document])
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_readme_is_read_on_one_page():
    assert len(TEXTS["README.md"].splitlines()) <= 180
    assert len(TEXTS["CONTRIBUTING.md"].splitlines()) <= 60


# What people search for, and how we call it if otherwise.
WORDS = """
    Ollama, llama.cpp, LM Studio, vLLM, OpenRouter, OpenAI, Anthropic, phone, family, pipx, uvx, image,
    export, uninstall, OIDC, Keycloak, Authelia, CORS, MCP, math, Docker, Podman, PostgreSQL, backup
"""
WORDS_OF_DOCUMENTS = "revoke, sign out, reset, Tailscale, temperature, size"


def test_words_that_people_search_for_are_in_the_readme():
    for word in re.split(r",\s*", WORDS.strip()):
        assert word.lower() in TEXTS["README.md"].lower(), word
    everything = " ".join(TEXTS.values()).lower()
    for word in re.split(r",\s*", WORDS_OF_DOCUMENTS):
        assert word.lower() in everything, word
