"""A household behind nginx: a network whose people are all known as Alice, and a portal that
remembers by a cookie who has signed in; and what another site's page can do there.
"""

import contextlib

from fronts import NGINX_CONF, USER, filled, running_proxy
from portals import certificate, wait_for
from servers import free_port, running
from trusted import HEADER, Peer

# `chat.test` knows people by their network, `house.test` by a cookie. `portal.test` is the place
# for people without one.
BLOCKS = """
server {
    listen 127.0.0.1:{port} default_server;
    listen 127.0.0.1:{tls} ssl default_server;
    ssl_certificate {folder}/chat.pem;
    ssl_certificate_key {folder}/chat.key;
    return 421;
}
server {
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls} ssl;
    server_name chat.test;
    location / {
        proxy_pass http://unix:{upstream}:;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header Remote-User alice;
    }
}
server {
    listen 127.0.0.1:{port};
    server_name house.test;
    location / {
        set $to $cookie_ends;  # how a sign-in that has ended is told
        if ($cookie_user = "") {
            set $to "none $to";
        }
        if ($to = "none 401") {
            return 401 "<html>Who are you?</html>";
        }
        if ($to = "none 403") {
            return 403 "<html>Who are you?</html>";
        }
        if ($to = "none 200") {
            return 200 "<html>Who are you?</html>";
        }
        if ($to ~ "^none ") {
            return 302 http://portal.test:{port}/;
        }
        proxy_pass http://unix:{upstream}:;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header Remote-User $cookie_user;
    }
    location = /come-in {
        add_header Set-Cookie "user=$arg_as; Path=/";
        return 302 /;
    }
}
server {
    listen 127.0.0.1:{port};
    server_name portal.test;
    location / {
        default_type text/html;
        return 200 "<!doctype html><title>Portal</title><link rel=icon href=data:,><h1>Who are you?</h1>";
    }
}
"""


class Household:
    def __init__(self, server, port, tls):
        self.server, self.port = server, port
        self.plain, self.secure = f"http://chat.test:{port}", f"https://chat.test:{tls}"
        self.house = f"http://house.test:{port}"

    def come_in(self, driver, user):
        """The portal's last step: it knows the user by now, and sets the cookie."""
        driver.get(f"{self.house}/come-in?as={user}")

    def asked(self, path):
        """(method, status) of the answered requests to this path and below, without preflights."""
        found = []
        for line in self.server.output().splitlines():
            fields = dict(field.split("=", 1) for field in line.split() if "=" in field)
            if " INFO request " in line and fields["method"] != "OPTIONS":
                is_there = fields["path"].startswith(path)
                found += [(fields["method"], fields["status"])] if is_there else []
        return found


@contextlib.contextmanager
def household(folder, **settings):
    certificate(folder)
    upstream, port, tls = folder / "parley.sock", free_port(), free_port()
    blocks = filled(BLOCKS, {"port": port, "tls": tls, "folder": folder, "upstream": upstream})
    text = (NGINX_CONF % "{blocks}").format(folder=folder, user=USER, blocks=blocks)
    settings = {
        "TRUSTED_USER_HEADER": HEADER,
        "TRUSTED_PROXIES": "unix",
        "ALLOWED_ORIGINS": "*",
        "GUNICORN_CMD_ARGS": f"--bind unix:{upstream}",
    } | settings
    with (
        running(folder / "server", **settings) as server,
        running_proxy("nginx", text, folder) as process,
    ):
        wait_for(Peer(("127.0.0.1", port)), process, folder / "proxy.log")
        yield Household(server, port, tls)


# What another site's page tries, one thing after the other. Each result is "read" if the page sees
# the answer, "sent" if it only knows that there is one, or else what happened. `args` are the
# server's URL and a session's path.
RIDE = """
    const [url, path] = args, seen = {};
    const evil = JSON.stringify({ content: "By another site's page" });
    const json = { "Content-Type": "application/json" };
    const say = (response) => (response.type === "opaque" ? "sent" : "read " + response.status);
    const ask = (where, options) => fetch(url + where, options).then(say, (error) => error.name);
    for (const mode of ["no-cors", "cors"]) {
        seen[`GET ${mode}`] = await ask("/sessions", { mode });
        seen[`GET ${mode}, with cookies`] = await ask("/sessions", { mode, credentials: "include" });
        seen[`POST ${mode}`] = await ask("/sessions", { mode, method: "POST", body: evil });
        seen[`stream ${mode}`] = await ask(path + "/events", { mode });
    }
    seen.json = await ask("/sessions", { method: "POST", body: evil, headers: json });
    seen.rename = await ask(path, { method: "PATCH", body: '{"title": "Evil"}', headers: json });
    seen.delete = await ask(path, { method: "DELETE" });
    seen.source = await new Promise((resolve) => {
        const source = new EventSource(url + path + "/events");
        source.onmessage = source.onopen = () => (source.close(), resolve("read"));
        source.onerror = () => (source.close(), resolve("failed"));
    });
    const load = (name, attribute, where) => new Promise((resolve) => {
        const element = Object.assign(document.createElement(name), { onload: () => resolve("loaded"), onerror: () => resolve("failed") });
        element[attribute] = url + where;
        document.body.append(element);
    });
    seen.script = await load("script", "src", "/sessions");
    seen.image = await load("img", "src", "/sessions");
    seen.beacon = navigator.sendBeacon(url + "/sessions", evil);
    const post = (sandbox) => new Promise((resolve) => {
        const frame = Object.assign(document.createElement("iframe"), { name: "frame" + Math.random() });
        if (sandbox) frame.sandbox = sandbox;
        frame.srcdoc = `<form method=post enctype=text/plain action="${url}/sessions"><input name='{"content":"' value='"}'></form>
            <script>document.forms[0].submit()</${"script"}>`;
        document.body.append(frame);
        setTimeout(resolve, 1000);
    });
    await post("");
    await post("allow-forms allow-scripts");
    return seen;
"""
# Nothing is read. Requests that the browser was told to keep from other sites' pages fail, even if
# the answer could not be read anyhow.
NOTHING = {
    f"{what} {mode}": "TypeError"
    for mode in ("no-cors", "cors")
    for what in ("GET", "POST", "stream")
} | {f"GET {mode}, with cookies": "TypeError" for mode in ("no-cors", "cors")}
NOTHING |= dict.fromkeys(("json", "rename", "delete"), "TypeError")
NOTHING |= dict.fromkeys(("source", "script", "image"), "failed") | {"beacon": True}
