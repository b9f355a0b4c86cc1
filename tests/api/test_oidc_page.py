"""What a 401 says about OpenID Connect, and where the page may connect; also while the identity provider hangs.

Modules: `api/sign_in.py`.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from client import Client, wait_until
from issuer import CLIENT_ID
from provider import silence, status
from servers import running

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; {}; img-src 'self' data: blob:; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def ask_me(server, **headers):
    return requests.get(f"{server.url}/me", headers=headers, timeout=30)


def told(answer):
    """What a 401 says about signing in."""
    assert answer.status_code == 401
    [error] = answer.json()["errors"]
    return error["meta"]["sign_in"]["oidc"]


def policy(server):
    answer = requests.get(server.url, headers={"Accept": "text/html"}, timeout=30)
    assert answer.status_code == 200
    return answer.headers["Content-Security-Policy"]


def without_endpoints(issuer):
    names = "authorization_endpoint", "token_endpoint", "end_session_endpoint"
    told = {"issuer": issuer.url, "client_id": CLIENT_ID, "scope": "openid profile email"}
    return told | dict.fromkeys(names)


def all_of(issuer):
    told = without_endpoints(issuer)
    return told | {name: url for name, url in issuer.document.items() if name in told}


def test_a_401_says_where_to_sign_in(issuer, tmp_path):
    with running(tmp_path, **issuer.settings) as server:
        answer = ask_me(server)
        assert told(answer) == all_of(issuer)
        [error] = answer.json()["errors"]
        assert error["detail"].endswith(f"<token>. Sign in at {issuer.url}.")
        for token in (issuer.token(aud="other"), "odd"):
            assert told(ask_me(server, Authorization=f"Bearer {token}")) == all_of(issuer)
        elsewhere = requests.get(f"{server.url}/models", timeout=30)
        assert elsewhere.status_code == 401 and "meta" not in elsewhere.json()["errors"][0]


def test_a_provider_may_lack_end_session_and_have_another_scope(issuer, tmp_path):
    del issuer.document["end_session_endpoint"]
    with running(tmp_path, **issuer.settings, OIDC_SCOPE="openid offline_access") as server:
        changes = {"end_session_endpoint": None, "scope": "openid offline_access"}
        assert told(ask_me(server)) == all_of(issuer) | changes


def test_each_process_fetches_the_discovery_document_once_at_its_start(issuer, tmp_path):
    with running(tmp_path, **issuer.settings, WEB_CONCURRENCY=2) as server:
        wait_until(lambda: issuer.asked() == 2)
        with ThreadPoolExecutor(20) as pool:
            for found in pool.map(lambda _: told(ask_me(server)), range(60)):
                assert found == all_of(issuer)
        assert issuer.asked() == 2


def test_the_page_may_connect_to_the_provider(issuer, tmp_path):
    issuer.document["token_endpoint"] = "https://tokens.example.com:8443/token?a=b"
    origins = "https://tokens.example.com:8443"
    with running(tmp_path, **issuer.settings) as server:
        assert policy(server) == POLICY.format(f"connect-src 'self' {origins}")


def test_without_a_client_id_the_page_connects_only_to_its_server(server):
    assert policy(server) == POLICY.format("connect-src 'self'")


def test_without_the_discovery_document_only_the_endpoints_are_missing(issuer, tmp_path):
    issuer.discovery = status(500)
    keys = {"JWT_JWKS_URL": f"{issuer.provider.url}/keys"}
    with running(tmp_path, **issuer.settings, **keys) as server:
        assert told(ask_me(server)) == without_endpoints(issuer)
        assert policy(server) == POLICY.format(f"connect-src 'self' {issuer.provider.url}")
        user = Client(server.url, issuer.token())
        assert user.turns(user.create("Hello"))[1]["content"] == "Hello"
        issuer.discovery = None
        wait_until(lambda: told(ask_me(server)) == all_of(issuer), 20)


def test_the_page_waits_for_the_document_while_it_is_fetched(issuer, tmp_path):
    """As after the redirect back from the provider, if another process answers than before."""
    gate = threading.Event()
    issuer.discovery = lambda _: (yield from (gate, *status(200, issuer.document)(_)))
    issuer.document["token_endpoint"] = "https://tokens.example.com/"
    with running(tmp_path, **issuer.settings) as server, ThreadPoolExecutor(2) as pool:
        wait_until(lambda: issuer.asked() == 1)
        shown, asked = pool.submit(policy, server), pool.submit(ask_me, server)
        with pytest.raises(TimeoutError):
            shown.result(0.5)
        assert not asked.done()
        gate.set()
        assert "https://tokens.example.com;" in shown.result()
        assert told(asked.result()) == all_of(issuer)
        assert issuer.asked() == 1


def test_requests_without_a_token_delay_no_others_while_the_provider_hangs(issuer, tmp_path):
    """One of 32 threads waits, at most ten seconds. The others answer at once, without the endpoints."""
    issuer.discovery = silence(threading.Event())
    settings = {"JWT_JWKS_URL": f"{issuer.provider.url}/keys"}
    settings |= {"GUNICORN_CMD_ARGS": "--threads 32"}
    with (
        running(tmp_path, **issuer.settings, **settings) as server,
        ThreadPoolExecutor(60) as pool,
    ):
        user = Client(server.url, issuer.token())
        assert user.get("/me").status_code == 200
        began = time.monotonic()
        strangers = [pool.submit(ask_me, server) for _ in range(60)]
        wait_until(lambda: sum(each.done() for each in strangers) >= 59, 8)
        for _ in range(5):
            asked = time.monotonic()
            assert requests.get(f"{server.url}/health", timeout=5).status_code == 200
            assert user.get("/me").status_code == 200
            assert time.monotonic() - asked < 1
        assert all(told(each.result()) == without_endpoints(issuer) for each in strangers)
        assert time.monotonic() - began < 15
        assert issuer.asked() <= 2
        assert "Traceback" not in server.output()
