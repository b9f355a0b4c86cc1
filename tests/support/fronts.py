"""nginx, Caddy and HAProxy in front of a server."""

import contextlib
import os
import shutil
import subprocess

import pytest

from servers import end, free_port, wait_until_up

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} {user}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream parley {{ server {server}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 20m;
        location / {{ proxy_pass http://parley; {more} }}
    }}
}}
"""


KEPT = 'proxy_http_version 1.1; proxy_set_header Connection "";'


CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy {server} {{
        {more}
    }}
}}
"""


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen parley
    bind 127.0.0.1:{port}
    http-reuse always
    {more}
    server parley {server}
"""


COMMANDS = {
    "nginx": ["-c"],
    "caddy": ["run", "--adapter", "caddyfile", "--config"],
    "haproxy": ["-db", "-f"],
}


USER = "user root;" if os.getuid() == 0 else ""  # else nginx's workers would run as `nobody`


def filled(text, places):
    """The text with these values in its places. `str.format` will not do: configurations have
    braces of their own."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


@contextlib.contextmanager
def running_proxy(name, configuration, folder):
    """The process of this proxy, with this configuration; its output is in `proxy.log` there."""
    command = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not command:
        pytest.skip(f"{name} is not installed")
    (folder / "proxy.conf").write_text(configuration)
    with open(folder / "proxy.log", "wb") as log:
        process = subprocess.Popen(
            [command, *COMMANDS[name], folder / "proxy.conf"],
            env=os.environ
            | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        end(process)  # Caddy would wait for its clients without a limit


@contextlib.contextmanager
def proxy_in_front_of(server, name, template, more, folder):
    """The URL of this proxy, which runs with this configuration."""
    port = free_port()
    configuration = template.format(
        port=port, folder=folder, user=USER, more=more, server=f"127.0.0.1:{server.port}"
    )
    with running_proxy(name, configuration, folder) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(url, process)
        yield url


NGINX_CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} {user}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    %s
}}
"""


DEBIANS = (
    "defaults\n mode http\n timeout connect 5000\n timeout client 50000\n timeout server 50000\n%s"
)
