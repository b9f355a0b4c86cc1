"""`static/parley.js`, the client for browsers and Node.js: nothing is lost or doubled, whatever
breaks."""

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
import uuid

import pytest

from client import make_token, wait_until
from documents import blocks_of
from other_origin import CLIENT, IMPORT, USE
from pictures import png
from provider import reply, thought
from provider import status as answer_with
from proxy import Proxy
from raw_tables import tables_of
from servers import Host, Server, free_port

# As docs/front-ends.md uses it, in Node.js


def test_the_client_has_a_reply_exactly_whatever_breaks(new_database, provider, tmp_path):
    """The answer to the POST is lost, then a connection breaks in the middle of a letter, then
    the server dies and another starts."""
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
    imports = IMPORT.replace("https://chat.example.com/static/parley.js", "./client.mjs")
    start = f"{imports}\nconst [url, token] = process.argv.slice(2);\n"
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


@pytest.fixture
def in_node():
    """A function that returns the output of a script that uses this client."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")

    def run(script):
        told = subprocess.run(
            ["node", "--input-type=module"],
            input=f"{CLIENT}\n{script}",
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert told.stderr == ""
        return told.stdout

    return run


def called(url, code="", **options):
    """A call of `reply`. The options may be JavaScript code."""
    return f"reply({json.dumps(url)}, {{ ...{json.dumps(options)}, {code} }})"


NO = [(401, "none", "Hello"), (400, None, " "), (413, None, "x" * 200_000)]


@pytest.mark.parametrize("status, token, content", NO)
def test_the_client_throws_the_servers_error(in_node, server_with, status, token, content):
    server = server_with(MAX_CONTENT_LENGTH="100000")
    asked = called(server.url + "/sessions", token=token or make_token(), content=content)
    told = in_node(f"""
try {{ for await (const _ of {asked}); }}
catch (error) {{ console.log(JSON.stringify([error instanceof Error, error.status, error.message, error.faults])); }}""")
    is_error, code, message, [fault] = json.loads(told)
    assert (is_error, code, fault["status"]) == (True, status, str(status))
    assert message == fault["detail"] and message.endswith(".")


def test_the_client_says_in_a_sentence_that_there_is_no_answer(in_node):
    told = in_node(f"""
const parley = new Parley("http://127.0.0.1:{free_port()}");
try {{ await parley.me(); }}
catch (error) {{ console.log(JSON.stringify([error.name, error.message, error.status ?? null, error instanceof ParleyError])); }}
const over = AbortSignal.abort();
try {{ await new Parley("http://127.0.0.1:{free_port()}", {{ signal: over }}).me(); }}
catch (error) {{ console.log(error.name); }}
try {{ await new Parley("http://127.0.0.1", {{ token: "ключ" }}).me(); }}
catch (error) {{ console.log(error.name); }}""")
    problem, aborted, wrong = told.splitlines()
    assert json.loads(problem) == ["ParleyError", "The server cannot be reached.", None, True]
    assert (aborted, wrong) == ("AbortError", "TypeError")  # a mistake is not an outage


def test_the_client_sends_a_further_message(in_node, server_with, provider):
    server = server_with(MAX_CONTENT_LENGTH="100000")
    session = server.client().create("Hello")
    provider.script = [reply("Fine.")]
    use = USE.replace(
        '"https://chat.example.com/sessions"',
        json.dumps(f"{server.url}/sessions/{session['id']}/messages"),
    )
    told = in_node(f"const token = {json.dumps(make_token())};\n{use}\nconsole.log(text)")
    assert told == "Fine.\n"
    assert [turn["content"] for turn in server.client().turns(session)] == [
        "Hello",
        "The answer.",
        "Hello!",
        "Fine.",
    ]


def test_the_client_follows_a_reply_in_progress(in_node, server_with, provider):
    """By the URL of the session or of its events, and after an id if it has one."""
    server, gate = server_with(MAX_CONTENT_LENGTH="100000"), threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    user = server.client()
    session = user.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    wait_until(lambda: user.turns(session)[1]["content"] == "One ")
    gate.set()
    url, turn = f"{server.url}/sessions/{session['id']}", user.turns(session)[1]["id"]
    ways = [(url, {}), (url + "/", {}), (url + "/events", {}), (url, {"lastId": f"{turn}-4"})]
    calls = ", ".join(called(url, token=user.token, **options) for url, options in ways)
    told = in_node(f"""
for (const events of [{calls}]) {{
  let text = "";
  for await (const {{ event, data }} of events) if (event === "content_delta") text += data.delta;
  console.log(text);
}}""")
    assert told == "One two.\n" * 3 + "two.\n"


@pytest.mark.parametrize("end", ["in the middle", "behind the end"])
def test_the_client_resumes_after_a_reload_as_documented(in_node, server_with, provider, end):
    """The page kept the id of the last event that it saw. The reply is still in progress, or has
    ended."""
    server, gate = server_with(MAX_CONTENT_LENGTH="100000"), threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    user = server.client(f"https://github.com/reload-{end.replace(' ', '-')}")
    [use] = [block.text for block in blocks_of("docs/front-ends.md") if "newKey()" in block.text]
    use = use.replace('"https://chat.example.com/sessions"', json.dumps(server.url + "/sessions"))

    def load(kept, leaves):
        """What the page keeps, and the text that it has read. It may leave after the first word."""
        told = in_node(f"""
class Left extends Error {{}}
const token = {json.dumps(user.token)};
let kept = {json.dumps(kept)}, text = "";
const show = (event, data) => (text += event === "content_delta" ? data.delta : "");
const keep = (value) => {{
  kept = value;
  if (text && {json.dumps(leaves)}) throw new Left();
}};
try {{ {use} }} catch (error) {{ if (!(error instanceof Left)) throw error; }}
console.log(JSON.stringify([kept, text]));""")
        return json.loads(told)

    kept, text = load(None, leaves=True)
    assert text == "One " and "key" not in kept  # the server has it
    gate.set()
    if end == "behind the end":
        [session] = user.get("/sessions").json()["data"]
        wait_until(lambda: user.turns(session)[1]["status"] == "complete")
    kept, text = load(kept, leaves=False)
    assert text == "two."
    assert kept["lastId"].endswith("-end")
    assert load(kept, leaves=False)[1] == ""  # all of it has been read
    assert len(provider.posts) == 1
    [session] = user.get("/sessions").json()["data"]
    assert len(user.turns(session)) == 2


def test_the_client_asks_for_another_token_if_one_is_refused(in_node, server_with, provider):
    """Also in the middle of a reply, if the token that it began with has expired meanwhile."""
    server, gate = server_with(MAX_CONTENT_LENGTH="100000"), threading.Event()
    proxy = Proxy(server.port)
    provider.script = [reply("One ", gate, "two.")]
    proxy.cut_behind = b"-4\n\n"
    threading.Thread(target=lambda: (wait_until(lambda: not proxy.cut_behind), gate.set())).start()
    user = server.client("https://github.com/renewed")
    tokens = f"""
const good = {json.dumps(user.token)}, given = [good, "expired", good], asked = [];
const token = async (refused) => (asked.push(refused === "expired"), given.shift());"""
    told = in_node(f"""{tokens}
let text = "";
for await (const {{ event, data }} of {called(proxy.url + "/sessions", "token", content="Hello")})
  if (event === "content_delta") text += data.delta;
console.log(JSON.stringify([text, asked]));""")
    proxy.close()
    assert json.loads(told) == ["One two.", [False, False, True]]


def test_the_client_ends_when_its_signal_aborts(in_node, server_with, provider):
    gate = threading.Event()
    provider.default = reply("One ", gate, "two.")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    asked = called(
        server.url + "/sessions", "signal: over.signal", token=make_token(), content="Hello"
    )
    told = in_node(f"""
const over = new AbortController();
try {{ for await (const {{ event }} of {asked}) if (event === "content_delta") over.abort(); }}
catch (error) {{ console.log(error.name); }}""")
    gate.set()
    assert told == "AbortError\n"


def test_the_client_has_the_other_operations(in_node, server_with, provider):
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user = server.client("https://github.com/operations")
    provider.script = [reply(thought(reasoning="Hm."), "One."), reply("Two."), reply("Three.")]
    provider.script.append(reply("Four."))
    told = in_node(f"""
const parley = new Parley({json.dumps(server.url + "/")}, {{ token: {json.dumps(user.token)} }});
const last = async (events) => {{
  let found;
  for await (const event of events) if (event.event !== "done") found = event.data;
  return found.content;
}};
const seen = {{ created: await last(parley.create("Hello", {{ body: {{ model: "m-2" }} }})) }};
const [{{ id, model }}] = (await parley.sessions({{ limit: 1 }})).data;
seen.model = model.id;
const [, answer] = (await parley.session(id)).turns;
seen.thought = (await parley.thinking(id, answer.id)).text;
seen.sent = await last(parley.send(id, "More"));
seen.retried = await last(parley.retry(id, {{ content: "Much more" }}));
await last(parley.retry(id));
const [, , , third] = (await parley.session(id)).turns;
seen.versions = (await parley.versions(id, third.id)).data.map(({{ content }}) => content);
seen.followed = await last(parley.follow(id));
seen.changed = (await parley.change(id, {{ title: "Mine" }})).title;
seen.turns = (await parley.session(id, {{ limit: 2 }})).turns.map(({{ content }}) => content);
const fork = await parley.fork(id);
seen.deleted = (await parley.delete(id)) === undefined;
const lines = [];
for await (const line of parley.export()) lines.push(line);
seen.exported = lines.map(({{ title }}) => title);
seen.imported = (await parley.import(lines[0])).title;
seen.found = (await parley.sessions({{ query: "much" }})).data.length;
seen.models = (await parley.models()).data.map(({{ id }}) => id);
seen.used = (await parley.usage()).data.reduce((sum, {{ replies }}) => sum + replies, 0);
seen.me = (await parley.me()).name;
const refused = ({{ status, message }}) => [status, message.endsWith(".")];
seen.cancelled = await parley.cancel(fork.id).catch(refused);
seen.continued = await last(parley.continue(fork.id)).catch(refused);
console.log(JSON.stringify(seen));""")
    assert json.loads(told) == {
        "created": "One.",
        "model": "m-2",
        "thought": "Hm.",
        "sent": "Two.",
        "retried": "Three.",
        "versions": ["Three."],
        "followed": "Four.",
        "changed": "Mine",
        "turns": ["Much more", "Four."],
        "deleted": True,
        "exported": ["Mine"],
        "imported": "Mine",
        "found": 2,
        "models": ["m-1", "m-2"],
        "used": 4,
        "me": "operations",
        "cancelled": [409, True],
        "continued": [409, True],
    }


def test_another_program_waits_for_a_reply_as_documented(tmp_path, new_database, provider):
    """The server is killed meanwhile."""
    url, gate = new_database(), threading.Event()
    provider.script = [reply("One ", gate), reply("two.")]
    host = Host(
        tmp_path,
        DATABASE_URL=url,
        OPENAI_BASE_URL=provider.url + "/v1",
        DEFAULT_MODEL="m-1",
        WEB_CONCURRENCY=1,
    )
    user = host.server.client()
    session = user.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    [use] = [
        block.text for block in blocks_of("docs/front-ends.md") if "def wait_for" in block.text
    ]
    place = f"{host.server.url}/sessions/{session['id']}"
    code = f"{use}\nprint(wait_for_reply({place!r}, {user.token!r})['content'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as waiting:
        wait_until(lambda: "One " in user.turns(session)[-1]["content"])
        host.server.kill()
        host.start()
        assert waiting.communicate(timeout=60)[0] == "One two.\n"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert again.stdout == "One two.\n", again.stderr
    lost = code.replace(session["id"], str(uuid.uuid4()))
    refused = subprocess.run(
        [sys.executable, "-c", lost], capture_output=True, text=True, timeout=60
    )
    assert "404 Client Error" in refused.stderr
    host.end()


# A picture, and what makes a Blob of it.
SMALL = png(64, 48)
BLOB = f'new Blob([Buffer.from("{base64.b64encode(SMALL).decode()}", "base64")])'


def test_the_client_sends_images_and_has_their_bytes(in_node, server_with, provider):
    user = server_with(MAX_CONTENT_LENGTH="100000").client("https://github.com/painter")
    told = in_node(f"""
const parley = new Parley({json.dumps(user.url)}, {{ token: {json.dumps(user.token)} }});
const all = async (events) => {{ for await (const _ of events); }};
const {{ id, ...others }} = await parley.upload({BLOB});
await all(parley.create("", {{ files: [id] }}));
const session = (await parley.sessions()).data[0].id;
const files = async () => (await parley.session(session)).turns.map((turn) => (turn.files ?? []).map(({{ id }}) => id));
const seen = {{ id, others, created: await files() }};
await all(parley.retry(session, {{ content: "Hello" }}));
seen.removed = await files();
await all(parley.retry(session, {{ files: [id] }}));
await all(parley.send(session, "More", {{ files: [id], body: {{ files: ["another"] }} }}));
seen.sent = await files();
const blob = await parley.file(id);
seen.blob = [blob.type, Buffer.from(await blob.arrayBuffer()).toString("base64")];
console.log(JSON.stringify(seen));""")
    seen = json.loads(told)
    picture = [seen["id"]]
    assert seen == {
        "id": user.uploaded(SMALL),
        "others": {"media_type": "image/png", "width": 64, "height": 48, "size": len(SMALL)},
        "created": [picture, []],
        "removed": [[], []],
        "sent": [picture, [], picture, []],
        "blob": ["image/png", base64.b64encode(SMALL).decode()],
    }


def test_the_client_uploads_again_until_it_has_an_answer(in_node, server_with):
    """The answer to the first upload is lost; the second is asked to wait for a second."""
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user, proxy = server.client("https://github.com/uploads"), Proxy(server.port)
    proxy.cut_behind = b"HTTP/1.1 201"
    told = in_node(f"""
const busy = [503];
const own = async (url, init) => {{
  const answer = await fetch(url, init);
  const status = busy.pop();
  return status ? new Response("{{}}", {{ status, headers: {{ "Retry-After": "1" }} }}) : answer;
}};
const breaks = [], began = performance.now();
const onBreak = ({{ message, status }}) => breaks.push(status ?? message);
const parley = new Parley({json.dumps(proxy.url)}, {{ token: {json.dumps(user.token)}, fetch: own }});
const {{ id }} = await parley.upload({BLOB}, {{ onBreak }});
console.log(JSON.stringify([id, breaks, performance.now() - began > 1000]));
const refused = await parley.upload(new Blob(["x"])).catch(({{ status, message }}) => [status, message]);
console.log(JSON.stringify(refused));
const away = new Parley("http://127.0.0.1:{free_port()}");
console.log(await away.upload({BLOB}, {{ tries: 2 }}).catch(({{ message }}) => message));
console.log(await away.upload({BLOB}, {{ signal: AbortSignal.abort() }}).catch(({{ name }}) => name));""")
    proxy.close()
    uploaded, refused, *others = told.splitlines()
    assert json.loads(uploaded) == [
        user.uploaded(SMALL),
        ["The server cannot be reached.", 503],
        True,
    ]
    assert json.loads(refused) == [400, "This is neither a JPEG nor a PNG."]
    assert others == ["The server cannot be reached.", "AbortError"]
    assert proxy.sent.count(b"POST /files ") == 4


def test_the_client_hangs_up_when_its_loop_is_left(in_node, server_with, provider):
    """Otherwise a page would run out of connections after six such loops."""
    gate = threading.Event()
    provider.default = reply("One ", gate, "two.")
    server = server_with(MAX_CONTENT_LENGTH="100000")
    asked = called(server.url + "/sessions", token=make_token(), content="Hello")
    use = f"for await (const {{ event }} of {asked})"
    left = in_node(f"""
import {{ setTimeout as sleep }} from "node:timers/promises";
const open = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
for (let number = 0; number < 3; number++) {{ {use} if (event === "content_delta") break; }}
while (open()) await sleep(10);
console.log("none");""")
    gate.set()
    assert left == "none\n"


def test_the_client_does_not_mix_two_replies(in_node, server_with, provider):
    """If another reply began while the client was away, it says so, because `/events` then
    starts with that one."""
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
        proxy.target = free_port()  # nothing listens there
        gate.set()
        [session] = user.get("/sessions").json()["data"]
        wait_until(lambda: user.turns(session)[-1]["status"] == "complete")
        user.post(f"/sessions/{session['id']}/messages", {"content": "More"})
        proxy.target = server.port

    threading.Thread(target=answer_meanwhile).start()
    asked = called(proxy.url + "/sessions", token=user.token, content="Hello")
    told = in_node(f"""
let text = "";
try {{ for await (const {{ event, data }} of {asked}) if (event === "content_delta") text += data.delta; }}
catch (error) {{ text += `${{error.status}} ${{error.message}}`; }}
console.log(text);""")
    proxy.close()
    assert told == "One 409 Another reply followed: get the session.\n"


def test_the_client_says_when_a_continued_reply_starts_again_from_its_beginning(
    in_node, server_with, provider
):
    """The connection breaks before the first event, so only the whole text can be had."""
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user, proxy = server.client("https://github.com/anew"), Proxy(server.port)
    provider.script = [reply("Half", stop="length"), reply(" and ", 0.5, "whole.")]
    session = user.create("Hello")
    proxy.cut_behind = b"\r\n\r\n"
    asked = called(
        f"{proxy.url}/sessions/{session['id']}/continue", "onStart", token=user.token, body={}
    )
    told = in_node(f"""
let text = "Half";
const onStart = () => (text = "");
for await (const {{ event, data }} of {asked}) if (event === "content_delta") text += data.delta;
console.log(text);""")
    proxy.close()
    assert told == "Half and whole.\n"
    assert proxy.cut_behind is None and len(provider.posts) == 2


def test_the_client_reports_each_break_and_gives_up_when_told_to(in_node, server_with):
    url = f"http://127.0.0.1:{free_port()}/sessions"
    stopped = called(
        url, "onBreak: () => { throw new Error('enough'); }", token="none", content="Hello"
    )
    tried = called(
        url, "onBreak: (problem) => breaks.push(problem.message)", content="Hello", tries=3
    )
    told = in_node(f"""
const breaks = [];
try {{ for await (const _ of {stopped}); }} catch (error) {{ console.log(error.message); }}
try {{ for await (const _ of {tried}); }} catch (error) {{ console.log(error.message, breaks.length); }}
console.log(breaks[0]);""")
    away = "The server cannot be reached."
    assert told.splitlines() == ["enough", f"{away} 2", away]


def test_the_client_can_use_the_callers_own_fetch(in_node, server_with, provider):
    """An error with a status that it throws counts as the server's refusal."""
    server = server_with(MAX_CONTENT_LENGTH="100000")
    own = f"""
const seen = [];
const own = (url, init) => {{
  seen.push(`${{init.method}} ${{new URL(url).pathname}}`);
  const headers = {{ ...init.headers, Authorization: "Bearer {make_token()}" }};
  return fetch(url, {{ ...init, headers }});
}};
const refuse = async () => {{ throw new ParleyError("Not today.", 403); }};"""
    mine = called(server.url + "/sessions", "fetch: own", content="Hello")
    refused = called(server.url + "/sessions", "fetch: refuse", content="Hello")
    told = in_node(f"""{own}
let text = "";
for await (const {{ event, data }} of {mine}) if (event === "content_delta") text += data.delta;
console.log(text);
const {{ name }} = await new Parley({json.dumps(server.url)}, {{ fetch: own }}).me();
console.log(Boolean(name), seen.join(", "));
try {{ for await (const _ of {refused}); }} catch (error) {{ console.log(error.message); }}""")
    assert told.splitlines() == ["The answer.", "true POST /sessions, GET /me", "Not today."]


def test_the_client_says_when_the_server_has_a_message_before_the_reply_is_read(
    in_node, server_with, provider
):
    """If the signal aborts meanwhile, the message still counts as sent: it could not be
    cancelled then."""
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two."), reply("Another ", gate)]
    server = server_with(MAX_CONTENT_LENGTH="100000")
    user = server.client("https://github.com/started")
    told = in_node(f"""
import {{ setTimeout as sleep }} from "node:timers/promises";
const parley = new Parley({json.dumps(server.url)}, {{ token: {json.dumps(user.token)} }});
const begin = async (url, signal) => {{
  const following = new Following({json.dumps(server.url)} + url, {{ token: {json.dumps(user.token)}, content: "Hello" }});
  await following.start(signal);
  return following;
}};
const over = new AbortController();
const starting = begin("/sessions", over.signal);
over.abort();
const following = await starting;
const [id] = following.place.pathname.split("/").slice(-2);
console.log(following.body === undefined, (await parley.session(id)).turns[1].status);
await parley.cancel(id);
const events = [];
for await (const {{ event }} of following.events()) events.push(event);
console.log(events.at(0), events.at(-1));
const left = await begin("/sessions");
left.hangUp();
const open = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
while (open()) await sleep(10);
const away = new Following("http://127.0.0.1:{free_port()}/sessions", {{ content: "Hello" }});
try {{ await away.start(AbortSignal.abort()); }} catch (error) {{ console.log(error.name); }}""")
    gate.set()
    assert told.splitlines() == ["true in_progress", "session done", "AbortError"]


def test_the_client_gives_up_on_a_server_that_is_no_parley(in_node, provider):
    provider.default = answer_with(200, "<html>")
    asked = called(provider.url + "/sessions", token="token", content="Hello")
    told = in_node(
        f"try {{ for await (const _ of {asked}); }} catch (error) {{ console.log(error.status); }}"
    )
    assert (told, len(provider.posts)) == ("200\n", 1)
