"""A server is replaced on one host, or keeps running although something on the host has gone."""

import contextlib
import os
import signal
import threading

import requests

from client import wait_until
from servers import Server, free_port


def test_a_second_server_takes_over_from_the_first_without_a_gap(tmp_path, settings):
    """As the two units in docs/operating.md do. Each request uses a connection of its own."""
    port = free_port()
    settings |= {"GUNICORN_CMD_ARGS": "--reuse-port"}
    over, told = threading.Event(), []

    def ask():
        while not over.is_set():
            with contextlib.suppress(requests.ConnectionError):
                told.append(requests.get(old.url + "/health", timeout=10).status_code)
                continue
            told.append("refused")

    with contextlib.ExitStack() as stack:
        old = Server(tmp_path, port=port, **settings)
        stack.callback(old.stop)
        old.wait_until_up()
        session = old.client().create()
        asking = threading.Thread(target=ask)
        asking.start()
        new = Server(tmp_path / "..", port=port, **settings)
        stack.callback(new.stop)
        stack.callback(asking.join)
        stack.callback(over.set)
        wait_until(lambda: len(new.workers()) == 2)
        new.wait_until_up()
        old.stop()
        before = len(told)
        wait_until(lambda: len(told) > before + 20)
        assert new.client().get(f"/sessions/{session['id']}").status_code == 200
    assert set(told) == {200} and "Traceback" not in new.output()


def test_a_deleted_folder_for_temporary_files_stops_nothing(start, settings, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    server = start(**settings, TMPDIR=folder)
    folder.rmdir()
    killed, other = server.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: other in server.workers() != [other] and killed not in server.workers())
    assert server.client().create()
