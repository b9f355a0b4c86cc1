"""Every value, link, file and word in the documents and `.env.example` is right.
`tests/heavy/test_document_blocks.py` runs their commands."""

import os
import re
import subprocess

import pytest

import forked
from documents import BLOCKS, DOCUMENTS, TEXTS
from product import ROOT, copy_of_the_service, files_of_the_service
from servers import free_port, wait_until_up
from settings import SETTINGS, read_settings

EXAMPLE = (ROOT / ".env.example").read_text("utf-8")


@pytest.mark.parametrize("text", [block.text for block in BLOCKS if block.language == "sh"])
def test_sh_can_parse_every_block_of_commands(text):
    told = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


# Settings that need another one.
NEEDED = {
    "TRUSTED_USER_HEADER": {"TRUSTED_PROXIES": "unix"},
    "TRUSTED_PROXIES": {"TRUSTED_USER_HEADER": "Remote-User"},
    "OIDC_CLIENT_ID": {"JWT_ISSUER": "https://id.example.com"},
}


def test_every_value_that_the_documents_give_a_setting_is_accepted():
    given = {}
    everything = "\n".join(TEXTS.values())
    for name, value in re.findall(r"\b([A-Z][A-Z_]+)=({.*}|[^\s`$\"']+)", everything):
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
    """The service starts with these lines in its `.env`, and complains about nothing."""
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
def test_the_service_starts_with_the_settings_that_a_document_shows(tmp_path, lines):
    start_with(lines, copy_of_the_service(tmp_path / "parley"))


def test_the_service_starts_with_every_line_of_the_example(tmp_path):
    lines = re.sub(r"^#(?=[A-Z_]+=)", "", EXAMPLE, flags=re.MULTILINE)
    assert re.findall(r"^[A-Z_]+(?==)", lines, re.MULTILINE) == list(SETTINGS)
    start_with(lines, copy_of_the_service(tmp_path / "parley"))


def test_each_value_that_the_example_describes_is_accepted():
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


def test_the_architecture_names_every_file_of_the_service_and_no_other():
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
    """The anchors of this document's headings, as GitHub makes them."""
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
def test_every_file_that_a_document_names_exists(document):
    """Such as `tests/heavy` or `tools/soak`."""
    named = re.findall(r"(?<![\w/.])((?:tests|tools|docs|static)/[\w./-]*\w)", TEXTS[document])
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_readme_stays_short():
    assert len(TEXTS["README.md"].splitlines()) <= 180
    assert len(TEXTS["CONTRIBUTING.md"].splitlines()) <= 66


# What people search for, and what we call it if we use another word.
WORDS = """
    Ollama, llama.cpp, LM Studio, vLLM, OpenRouter, OpenAI, Anthropic, phone, family, pipx, uvx, image,
    export, uninstall, OIDC, Keycloak, Authelia, CORS, MCP, math, Docker, Podman, PostgreSQL, backup
"""
WORDS_OF_DOCUMENTS = "revoke, sign out, reset, Tailscale, temperature, size"


def test_the_readme_has_the_words_that_people_search_for():
    for word in re.split(r",\s*", WORDS.strip()):
        assert word.lower() in TEXTS["README.md"].lower(), word
    everything = " ".join(TEXTS.values()).lower()
    for word in re.split(r",\s*", WORDS_OF_DOCUMENTS):
        assert word.lower() in everything, word
