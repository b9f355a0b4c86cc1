"""What the documents have for a server: a systemd unit, proxies, and a PostgreSQL that is saved
and restored."""

import http.client
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from client import Client, make_token
from documents import block_with, heredoc, text_of
from fronts import DEBIANS, NGINX_CONF, proxy_in_front_of
from provider import reply
from servers import free_port, running


def test_the_systemd_unit_is_valid(tmp_path):
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


# What each block is put into, and its line with the port: first as in the document, then as here.
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


def proxy_of_the_documents(server, name, folder):
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
def test_a_message_and_a_stream_pass_through_the_documented_proxies(
    upstream, provider, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("CADDY_ADMIN", f"127.0.0.1:{free_port()}")
    with proxy_of_the_documents(upstream, name, tmp_path) as url:
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
def test_the_documented_proxies_pass_on_a_cut_as_a_cut(provider, tmp_path, name):
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with (
        running(tmp_path, **settings) as server,
        proxy_of_the_documents(server, name, tmp_path) as url,
    ):
        provider.script = [reply("One ", threading.Event())]
        with Client(url, make_token()).stream("POST", "/sessions", {"content": "Count."}) as stream:
            events = iter(stream)
            assert [next(events).name for _ in range(2)] == ["session", "content_delta"]
            server.kill()
            with pytest.raises(http.client.IncompleteRead):
                stream.response.read()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_postgresql_is_saved_and_restored_as_documented(start, new_database, tmp_path):
    if not shutil.which("pg_dump"):
        pytest.skip("PostgreSQL's programs are not installed")
    url = new_database()
    text = block_with("pg_dump -Fc -f")
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
