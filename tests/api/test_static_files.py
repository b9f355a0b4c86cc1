"""The page's files, sent plain or compressed; and which answers are never compressed."""

import contextlib
import dataclasses
import gzip
import os
import re
import subprocess
from collections.abc import Mapping

import pytest
import requests

from commands import FLASK, environment_of
from product import ROOT, copy_of_the_service, files_of_the_page
from raw_http import errors_of, head, raw
from servers import end, free_port, npm_folder, running, wait_until_up

FILES = sorted(name for name in files_of_the_page() if not name.endswith(".png"))
MODULES = [name for name in FILES if name.endswith(".js") and "/vendor/" not in name]
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}


STRAY = ["private.pem", "x.db", ".env", "README", "vendor/.npmrc", "vendor/key.pem"]


@dataclasses.dataclass
class Sent:
    """An answer exactly as it was sent."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def ask(server, path, encoding="gzip", method="GET", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    names["Accept-Encoding"] = encoding
    options = {"headers": names, "timeout": 20, "stream": True}
    with requests.request(method, f"{server.url}/{path}", **options) as answer:
        data = answer.raw.read(decode_content=False)
    return Sent(answer.status_code, answer.headers, data)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the service, with more files and one more folder among its static files."""
    folder = copy_of_the_service(tmp_path_factory.mktemp("clone") / "service")
    (folder / "static" / "vendor").mkdir(exist_ok=True)
    for name in STRAY:
        (folder / "static" / name).write_text("sk-secret")
    (folder / "static" / "vendor" / "more.js").write_text("export const one = 1;")
    (folder / "static" / ".#page.js").symlink_to("somebody@laptop.4711")  # how Emacs locks a file
    return folder


@pytest.fixture(scope="module")
def server(clone, tmp_path_factory):
    with running(tmp_path_factory.mktemp("server"), root=clone) as server:
        yield server


# Plain and compressed


def test_each_file_is_sent_plain_and_compressed(server):
    for path in FILES:
        check_both_forms(server, path)


def check_both_forms(server, path):
    whole, zipped = ask(server, path, "identity"), ask(server, path)
    assert gzip.decompress(zipped.data) == whole.data
    assert path in MODULES or whole.data == (ROOT / path).read_bytes()
    assert "Content-Encoding" not in whole.headers
    assert zipped.headers["Content-Encoding"] == "gzip"
    for answer in (whole, zipped):
        assert answer.status == 200
        assert answer.headers["Content-Type"] == KINDS[os.path.splitext(path)[1]]
        assert answer.headers["Content-Length"] == str(len(answer.data))
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["ETag"].startswith('"')  # a strong one
    assert whole.headers["ETag"] != zipped.headers["ETag"]


def test_modules_are_sent_without_comments_and_with_the_same_lines(server):
    for path in MODULES:
        lines = (ROOT / path).read_text("utf-8").split("\n")
        sent = ask(server, path, "identity").data.decode().split("\n")
        assert len(sent) == len(lines) and sent != lines, path
        assert all(line.startswith(other) for line, other in zip(lines, sent, strict=True)), path
        assert [line for line in sent if re.search(r"^\s*(?://|\* |\*/|/\*)| // ", line)] == []


def test_a_module_without_its_comments_is_the_same_program(server, tmp_path):
    """esbuild reads both: if a text that looks like a comment had been removed, they would differ."""
    esbuild = npm_folder("axe") / "node_modules" / ".bin" / "esbuild"

    def programs(folder):
        files = [folder / path for path in MODULES]
        out = tmp_path / "out" / folder.name
        command = [esbuild, "--minify", f"--outdir={out}", f"--outbase={folder}", *files]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return [(out / path).read_text("utf-8") for path in MODULES]

    for path in MODULES:
        (tmp_path / "sent" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sent" / path).write_bytes(ask(server, path, "identity").data)
    assert programs(tmp_path / "sent") == programs(ROOT)


ENCODINGS = {
    "gzip": True,
    "GZIP": True,
    "gzip, deflate, br, zstd": True,
    "br;q=1.0, gzip;q=0.8, *;q=0.1": True,
    "gzip;q=0.001": True,
    "gzip ; q=0.5": True,
    "*": True,
    "gzip, identity": True,
    "identity;q=0.5, gzip;q=0.5": True,
    "identity;q=0, gzip": True,
    "": False,
    "identity": False,
    "br, zstd": False,
    "gzip;q=0": False,
    "gzip;q=0.000, *": False,
    "*;q=0": False,
    "identity;q=0": False,  # the plain file, then: never a 406
    "identity;q=0.5, gzip;q=0.2": False,
    "gzip;q=odd": False,
}


@pytest.mark.parametrize("encoding, is_zipped", ENCODINGS.items())
def test_a_client_gets_an_encoding_that_it_accepts(server, encoding, is_zipped):
    for path in ("static/page.css", "openapi.json", ""):
        answer = ask(server, path, encoding, Accept="text/html, */*;q=0.8")
        assert answer.status == 200
        assert (answer.headers.get("Content-Encoding") == "gzip") == is_zipped
        assert answer.data.startswith(b"\x1f\x8b") == is_zipped
        assert "Accept-Encoding" in answer.headers["Vary"]


def test_without_accept_encoding_the_file_is_sent_plain(server):
    answer = raw(server, head("GET", "/static/page.css", Connection="close"))
    assert answer.text == (ROOT / "static" / "page.css").read_text()
    assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_page_is_the_same_as_its_file_in_each_encoding(server, encoding):
    page = ask(server, "", encoding, Accept="text/html")
    itself = ask(server, "static/index.html", encoding)
    assert page.data == itself.data
    assert set(page.headers["Vary"].split(", ")) == {"Accept", "Accept-Encoding"}
    for answer in (page, itself):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")


def test_an_image_is_not_compressed_again(server):
    path = "static/icons/icon-192.png"
    answer = ask(server, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.data == (ROOT / path).read_bytes()
    assert not {"Content-Encoding", "Vary"} & set(answer.headers)


# Caching


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_file_that_the_browser_has_is_not_sent_again(server, encoding, method):
    path = "static/page/main.js"
    kept = ask(server, path, encoding)
    assert kept.headers["Cache-Control"] == "no-cache"  # the browser asks each time
    answer = ask(server, path, encoding, method, If_None_Match=kept.headers["ETag"])
    assert (answer.status, answer.data) == (304, b"")
    for name in ("ETag", "Vary", "Cache-Control", "Date"):  # RFC 9110, section 15.4.5
        assert answer.headers[name] == kept.headers[name] or name == "Date"
    assert not {"Content-Encoding", "Content-Length", "Content-Type"} & set(answer.headers)


def test_each_encoding_has_an_etag_of_its_own(server):
    kept = ask(server, "static/page/main.js", "identity").headers["ETag"]
    answer = ask(server, "static/page/main.js", "gzip", If_None_Match=kept)
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")


@pytest.mark.parametrize(
    "path", ["static/page/main.js", "static/icons/icon-192.png", "openapi.json"]
)
def test_head_has_the_same_headers_as_get(server, path):
    whole, alone = ask(server, path), ask(server, path, method="HEAD")
    assert (alone.status, alone.data) == (200, b"")
    of_one = {"Date", "X-Request-ID"}
    assert {name: alone.headers[name] for name in alone.headers if name not in of_one} == {
        name: whole.headers[name] for name in whole.headers if name not in of_one
    }


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=-10", "bytes=10000000-"])
def test_a_range_request_gets_the_whole_file(server, wanted, encoding):
    answer = ask(server, "static/page/main.js", encoding, Range=wanted)
    assert (answer.status, "Content-Range" in answer.headers) == (200, False)
    assert answer.data == ask(server, "static/page/main.js", encoding).data


# Other files and answers


@pytest.mark.parametrize(
    "path", [*STRAY, "vendor", "vendor/", "..%2fapp.py", "%2e/index.html", ".%23page.js"]
)
def test_nothing_else_in_the_folder_is_sent(server, path):
    answer = requests.get(f"{server.url}/static/{path}", timeout=20)
    errors_of(answer, 404)
    assert "sk-secret" not in answer.text


def test_a_file_in_a_subfolder_is_sent(server):
    answer = requests.get(f"{server.url}/static/vendor/more.js", timeout=20)
    assert (answer.status_code, answer.text) == (200, "export const one = 1;")


def test_answers_of_the_api_are_never_compressed(server):
    """Their length would reveal secrets next to text that somebody else chose (BREACH)."""
    alice = server.client()
    session = alice.create("Hello " * 1000)["id"]
    token = {"Authorization": f"Bearer {alice.token}"}
    asked = {"static/nothing": 404, "": 200, "health": 200, "me": 200, "sessions": 200}
    asked |= {f"sessions/{session}": 200, f"sessions/{session}/events": 200, "export": 200}
    for path, status in asked.items():
        answer = ask(server, path, **token)
        assert answer.status == status, path
        assert "Content-Encoding" not in answer.headers, path
    document = ask(server, f"sessions/{session}", Accept="text/markdown", **token)
    assert "Content-Encoding" not in document.headers and b"Hello Hello" in document.data


# When a file changes


def test_a_running_server_keeps_the_files_from_its_start(server, clone):
    """A page with some new modules and some old ones would not run."""
    path = clone / "static" / "vendor" / "more.js"
    before = path.read_text()
    try:
        path.write_text("export const two = 2;")
        answer = requests.get(f"{server.url}/static/vendor/more.js", timeout=20)
        assert answer.text == before
    finally:
        path.write_text(before)


@contextlib.contextmanager
def flask_run(clone, folder):
    """Run `flask run` in this clone; gives its URL."""
    port = free_port()
    settings = {"DATABASE_URL": f"sqlite:///{folder}/parley.db"}
    with open(folder / "log", "wb") as log:
        output = {"stdout": log, "stderr": log}
        command = [*FLASK, "run", "--port", str(port)]
        process = subprocess.Popen(command, cwd=clone, env=environment_of(settings), **output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(url, process)
        yield url
    finally:
        end(process)


def test_flask_run_serves_changed_files_at_once(tmp_path):
    """Without the reloader: files that were changed, added or removed."""
    clone = copy_of_the_service(tmp_path / "service")
    page, module = clone / "static" / "page.css", clone / "static" / "page" / "new.js"
    with flask_run(clone, tmp_path) as url:

        def seen(name):
            answer = requests.get(f"{url}/static/{name}", timeout=20)
            return answer.text if answer.status_code == 200 else answer.status_code

        assert seen("page.css") == page.read_text()
        assert seen("page/new.js") == 404
        page.write_text("body { color: red; }")
        module.parent.mkdir(exist_ok=True)
        module.write_text("export const one = 1;")
        assert seen("page.css") == "body { color: red; }"
        assert seen("page/new.js") == "export const one = 1;"
        module.unlink()
        assert seen("page/new.js") == 404
