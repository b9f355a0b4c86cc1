"""A site of another origin than the server's, and what its pages do, as scripts for a browser."""

import http.server
import threading

from documents import blocks_of
from product import ROOT

CLIENT = (ROOT / "static" / "parley.js").read_text("utf-8")
# Its use in docs/front-ends.md, without its import.
USE = [block.text for block in blocks_of("docs/front-ends.md") if block.language == "js"][0]
IMPORT, _, USE = USE.partition("\n")


class Site:
    """Another server on the loopback interface, with these JavaScript files, and a page."""

    def __init__(self, **files):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                script = self.files.get(handler.path.strip("/"))
                handler.send_response(200)
                handler.send_header("Content-Type", "text/javascript" if script else "text/html")
                handler.end_headers()
                handler.wfile.write(
                    (script or "<!doctype html><link rel=icon href=data:,>").encode()
                )

            def log_message(self, *arguments):
                pass

        self.files = files
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


# How a browser's driver runs a script: as the body of an asynchronous function, whose result we
# check.
ASYNCHRONOUS = "const args = [...arguments], done = args.pop(); (async () => {%s})().then(done, (error) => done(`${error}`))"

# It returns SEEN.
ALL_OF_IT = """
    const [url, token] = args, seen = {};
    const ask = (method, path, body, headers) => fetch(url + path, {
        method, body: body && JSON.stringify(body),
        headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", "X-Request-ID": "my-id", ...headers },
    });
    const created = await ask("POST", "/sessions", { content: "Hello" }, { Prefer: "respond-async", "Idempotency-Key": "a key" });
    const path = created.headers.get("Location"), [root, name, id] = path.split("/");
    seen.path = [root, name, id.length];
    seen.id = created.headers.get("X-Request-ID");
    const busy = await ask("POST", path + "/messages", { content: "Again" });
    seen.busy = [busy.status, busy.headers.get("Retry-After"), (await busy.json()).errors[0].status];
    seen.cancelled = (await ask("POST", path + "/cancel")).status;
    seen.changed = (await (await ask("PATCH", path, { title: "Mine" })).json()).title;
    seen.shown = (await (await ask("GET", path)).json()).turns.length;
    seen.missing = (await (await ask("GET", "/sessions/odd")).json()).errors[0].status;
    seen.large = (await (await ask("POST", "/sessions", { content: "x".repeat(150_000) })).json()).errors[0].status;
    seen.deleted = (await ask("DELETE", path)).status;
    const stranger = await fetch(url + "/sessions", { headers: { Authorization: "Bearer none" } });
    seen.stranger = [stranger.status, (await stranger.json()).errors[0].status];
    seen.plain = (await (await fetch(url + "/health")).json()).status;
    return seen;
"""
SEEN = {
    "path": ["", "sessions", 36],
    "id": "my-id",
    "busy": [409, "1", "409"],
    "cancelled": 200,
    "changed": "Mine",
    "shown": 2,
    "missing": "404",
    "large": "413",
    "deleted": 204,
    "stranger": [401, "401"],
    "plain": "ok",
}

# It returns the results of nine requests.
WITHOUT_LEAVE = """
    const [url, token] = args, headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const tried = [
        fetch(url + "/sessions", { method: "POST", headers, body: '{"content": "Hello"}' }),
        fetch(url + "/sessions", { method: "POST", headers: { ...headers, Accept: "text/event-stream" }, body: "{}" }),
        fetch(url + "/sessions", { headers: { Authorization: headers.Authorization } }),
        fetch(url + "/sessions/odd", { method: "PATCH", headers, body: "{}" }),
        fetch(url + "/sessions/odd", { method: "DELETE", headers }),
        fetch(url + "/sessions", { method: "POST", body: '{"content": "Hello"}' }), // as a form may: without a preflight
        fetch(url + "/health"),
        fetch(url + "/sessions"),
        fetch(url + "/openapi.json", { credentials: "include" }),
    ];
    return (await Promise.allSettled(tried)).map(({ status, reason }) => `${status} ${reason?.name}`);
"""

# Each writes into `seen` what it gets of a reply. Its arguments: a URL, a token.
READERS = {
    "the client of the server": """
        const { reply } = await import(url + "/static/parley.js");
        for await (const { id, event, data } of reply(url + "/sessions", { token, content: "Hello" })) {
            seen.ids.push(id);
            if (event === "content_delta") seen.text += data.delta;
            if (event === "done") seen.over = true;
        }
    """,
    "the eventsource package": """
        const { EventSource } = await import("/eventsource.js");
        const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", Prefer: "respond-async" };
        const created = await fetch(url + "/sessions", { method: "POST", headers, body: '{"content": "Hello"}' });
        const source = new EventSource(url + created.headers.get("Location") + "/events", {
            fetch: (input, init) => fetch(input, { ...init, headers: { ...headers, ...init.headers } }),
        });
        source.addEventListener("content_delta", ({ data, lastEventId }) => {
            seen.text += JSON.parse(data).delta;
            seen.ids.push(lastEventId);
        });
        source.addEventListener("error", ({ code }) => (seen.over = code === 204));
    """,
}

START = "[window.url, window.token] = arguments; window.seen = { text: '', ids: [] }; (async () => {%s})()"
