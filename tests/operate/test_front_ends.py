"""The client that docs/front-ends.md has for browsers and Node.js: nothing is lost or doubled, whatever breaks."""

import json
import re
import shutil
import subprocess
import threading

import pytest

from client import make_token, wait_until
from other_origin import CLIENT, USE
from provider import reply
from provider import status as answer_with
from proxy import Proxy
from raw_tables import tables_of
from servers import Server, free_port

# The client of docs/front-ends.md, in Node.js


def test_the_client_of_the_documents_has_a_reply_exactly_whatever_breaks(
    new_database, provider, tmp_path
):
    """The answer to the POST is lost, then a connection in the middle of a letter; then the server dies, and another starts."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    settings = {
        "DATABASE_URL": new_database(),
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "twö ", gates[1], "drëi ", gates[2]), reply("🎉🎉.")]
    server = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
    alice, proxy = server.client(), Proxy(server.port)
    proxy.splits, proxy.cut_behind = True, b"HTTP/1.1 201"
    (tmp_path / "client.mjs").write_text(CLIENT, "utf-8")
    use = USE.replace('"https://chat.example.com/sessions"', "url")
    start = 'import { reply } from "./client.mjs";\nconst [url, token] = process.argv.slice(2);\n'
    (tmp_path / "use.mjs").write_text(f"{start}{use}\nconsole.log(JSON.stringify(text));", "utf-8")
    command = ["node", "use.mjs", f"{proxy.url}/sessions", alice.token]
    node = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: proxy.cut_behind is None and b"GET /sessions/" in proxy.sent)
        proxy.cut_behind = "ö".encode()[:1]
        gates[0].set()
        wait_until(lambda: proxy.sent.count(b"GET /sessions/") == 2)
        gates[1].set()
        [session] = alice.get("/sessions").json()["data"]
        wait_until(lambda: alice.turns(session)[1]["content"] == "One twö drëi ")
        server.kill()
        with tables_of(
            settings["DATABASE_URL"]
        ) as tables:  # its lease would lapse by itself, but later
            tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
        server.stop()
        server = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
        proxy.target = server.port
        told, problem = node.communicate(timeout=30)
    finally:
        node.kill()
        node.communicate()
        proxy.close()
        server.kill()
        server.stop()
    assert (problem, json.loads(told or "null")) == ("", "One twö drëi 🎉🎉.")
    assert len(provider.posts) == 2  # the second one by the process that took the reply over
    keys = re.findall(rb"^idempotency-key: (.+)$", proxy.sent, re.MULTILINE | re.IGNORECASE)
    assert proxy.sent.count(b"POST /sessions ") == 2 and len(set(keys)) == 1
    assert b"last-event-id: " in proxy.sent.lower()


NO = [(401, "none", "Hello"), (400, None, " "), (413, None, "x" * 200_000)]


@pytest.mark.parametrize("status, token, content", NO)
def test_the_client_of_the_documents_throws_what_it_is_refused(
    server_with, tmp_path, status, token, content
):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    arguments = ", ".join(
        map(json.dumps, [server.url + "/sessions", token or make_token(), content])
    )
    use = f"try {{ for await (const _ of reply({arguments})); }} catch (error) {{ console.log(error.status, error.message); }}"
    script = f"{CLIENT}\n{use}"
    told = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, timeout=30
    )
    code, _, document = told.stdout.partition(" ")
    assert (int(code), json.loads(document)["errors"][0]["status"]) == (status, str(status))


def test_the_client_of_the_documents_sends_a_further_message(server_with, provider):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    session = server.client().create("Hello")
    provider.script = [reply("Fine.")]
    use = USE.replace(
        '"https://chat.example.com/sessions"',
        json.dumps(f"{server.url}/sessions/{session['id']}/messages"),
    )
    script = f"{CLIENT}\nconst token = {json.dumps(make_token())};\n{use}\nconsole.log(text)"
    told = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, timeout=30
    )
    assert (told.stdout, told.stderr) == ("Fine.\n", "")
    assert [turn["content"] for turn in server.client().turns(session)] == [
        "Hello",
        "The answer.",
        "Hello!",
        "Fine.",
    ]


def in_node(client):
    """What a script that has this client prints."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    told = subprocess.run(
        ["node", "--input-type=module"],
        input=CLIENT + client,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert told.stderr == ""
    return told.stdout


def test_the_client_of_the_documents_hangs_up_where_its_loop_is_left(server_with, provider):
    """Else a page would have no connection left behind six of them."""
    gate = threading.Event()
    provider.default = reply("One ", gate, "two.")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    use = f"for await (const {{ event }} of reply({json.dumps(server.url + '/sessions')}, {json.dumps(make_token())}, 'Hello'))"
    left = in_node(f"""
import {{ setTimeout as pause }} from "node:timers/promises";
const open = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
for (let number = 0; number < 3; number++) {{ {use} if (event === "content_delta") break; }}
while (open()) await pause(10);
console.log("none");""")
    gate.set()
    assert left == "none\n"


def test_the_client_of_the_documents_mixes_no_two_replies(server_with, provider):
    """Where another reply has followed while it was away, it says so: `/events` begins that one."""
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user, proxy, gate = (
        server.client("https://github.com/away"),
        Proxy(server.port),
        threading.Event(),
    )
    provider.script = [reply("One ", gate, "two."), reply("Another.")]
    proxy.cut_behind = b"-4\n\n"  # the end of the first word's frame

    def answer_meanwhile():
        wait_until(lambda: proxy.cut_behind is None)
        proxy.target = free_port()  # nothing is there
        gate.set()
        [session] = user.get("/sessions").json()["data"]
        wait_until(lambda: user.turns(session)[-1]["status"] == "complete")
        user.post(f"/sessions/{session['id']}/messages", {"content": "More"})
        proxy.target = server.port

    threading.Thread(target=answer_meanwhile).start()
    arguments = ", ".join(map(json.dumps, [proxy.url + "/sessions", user.token, "Hello"]))
    told = in_node(f"""
let text = "";
try {{ for await (const {{ event, data }} of reply({arguments})) if (event === "content_delta") text += data.delta; }}
catch (error) {{ text += `${{error.status}} ${{error.message}}`; }}
console.log(text);""")
    proxy.close()
    assert told == "One 409 Another reply followed: get the session.\n"


def test_the_client_of_the_documents_gives_up_on_what_is_no_parley(provider):
    provider.default = answer_with(200, "<html>")
    arguments = ", ".join(map(json.dumps, [provider.url + "/sessions", "token", "Hello"]))
    told = in_node(
        f"try {{ for await (const _ of reply({arguments})); }} catch (error) {{ console.log(error.status); }}"
    )
    assert (told, len(provider.posts)) == ("200\n", 1)
