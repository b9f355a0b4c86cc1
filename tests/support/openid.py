"""A certified OpenID provider from npm, and how people sign in there."""

import contextlib
import json
import subprocess
import time

import requests

from servers import free_port, npm_folder

CLIENT = "parley"


class OpenID:
    """The provider, which sends browsers back to these pages. Its ID tokens are valid for so many
    seconds. With `refreshes`, it gives refresh tokens, and accepts each once. Its clock is so many
    seconds `ahead`."""

    def __init__(self, *pages, seconds=600, refreshes=True, ahead=0, port=None):
        self.port = port or free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        config = {"port": self.port, "pages": pages, "seconds": seconds}
        config |= {"refreshes": refreshes, "ahead": ahead}
        self._process = subprocess.Popen(
            ["node", "provider.mjs", json.dumps(config)],
            cwd=npm_folder("oidc"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_up()

    def _wait_until_up(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                self.control()
                return
            assert self._process.poll() is None
            time.sleep(0.05)
        raise AssertionError("the provider did not start")

    def control(self, **changes):
        """Change its behaviour: `cors`, `nonce`, `revoke`, `end`, `refusals`. Returns what its
        token endpoint was `asked` for, and the `codes` that it gave."""
        return requests.post(f"{self.issuer}/control", json=changes, timeout=10).json()

    def close(self):
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def openid(*pages, **options):
    provider = OpenID(*pages, **options)
    try:
        yield provider
    finally:
        provider.close()


def settings_of(issuer):
    """The settings of a server whose users sign in there."""
    return {"JWT_SECRET": "", "JWT_ISSUER": issuer, "OIDC_CLIENT_ID": CLIENT}


def come_in(page, name):
    """Sign in with this name, once the page has come to the provider's form."""
    page.wait(lambda: page.run("Boolean(document.querySelector('[name=login]'))"))
    page.find("[name=login]").send_keys(name)
    page.find("[name=password]").send_keys("any")
    page.find("[type=submit]").click()
