"""Proxies from the environment, and wrong addresses in the settings."""

import contextlib
import re
import time

import pytest

from hell_answers import refusal, resolve
from hellish import Hell
from protocols import CLAUDE, GPT
from provider import Provider, certificate
from servers import running


def test_loopback_is_never_proxied(trap, tmp_path):
    """And a title is requested only once."""
    proxies = {name: trap.url for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}
    hell = Hell()
    hell.answers["m-title"] = [list(resolve(refusal(429), GPT))]
    urls = {
        "OPENAI_BASE_URL": hell.url + "/v1",
        "ANTHROPIC_BASE_URL": hell.url.replace("127.0.0.1", "localhost"),
    }
    with (
        contextlib.closing(hell),
        running(tmp_path, TITLE_MODEL="m-title", **urls, **proxies) as server,
    ):
        for model in (CLAUDE, GPT):
            assert (
                server.client().turns(server.client().create(model=model))[-1]["content"]
                == "The answer."
            )
        assert len(server.client().get("/models").json()["data"]) == 2
        hell.wait_for_request(4)
        for _ in range(3):
            server.client().create()
        hell.wait_for_request(10)
    assert hell.asked["m-title"] == 5
    assert not trap.connections


WRONG = {  # Anthropic's setting, OpenAI's setting, and other settings
    "certificates": (
        "https://self-signed",
        "https://expired/v1",
        {"REQUESTS_CA_BUNDLE": "expired"},
    ),
    "another's certificate, and a host that is none": (
        "https://another",
        "http://a..b/v1",
        {"REQUESTS_CA_BUNDLE": "another"},
    ),
    "no certificates, and a host that is none": (
        "http://*",
        "https://self-signed/v1",
        {"REQUESTS_CA_BUNDLE": "/nowhere/at/all.pem"},
    ),
    "proxies that are none": (
        "http://a.invalid",
        "http://b.invalid/v1",
        {"HTTP_PROXY": "http://:bad", "http_proxy": "http://:bad"},
    ),
}


@pytest.mark.parametrize("anthropic, openai, others", WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_reported_as_one(anthropic, openai, others, tmp_path):
    """The request is not retried, and the log tells the operator."""
    made = {"self-signed": {}, "expired": {"days": -1}, "another": {"address": "127.0.0.9"}}
    providers, paths = {}, {}
    for name, options in made.items():
        (tmp_path / name).mkdir()
        paths[name], context = certificate(tmp_path / name, **options)
        providers[name] = Provider(context)
    others = {name: paths.get(value, value) for name, value in others.items()}
    urls = {"ANTHROPIC_BASE_URL": anthropic, "OPENAI_BASE_URL": openai}
    for name, provider in providers.items():
        urls = {
            setting: url.replace(f"//{name}", f"//127.0.0.1:{provider.port}")
            for setting, url in urls.items()
        }
    with running(tmp_path / "server", DEFAULT_MODEL=GPT, **urls, **others) as server:
        for number, model in enumerate((CLAUDE, GPT), 1):
            for provider in providers.values():
                provider.connections.clear()
            took = []
            for _ in range(3):
                began = time.monotonic()
                response = server.client().post("/sessions", {"content": "Hello", "model": model})
                took.append(time.monotonic() - began)
                assert response.status_code == 502, response.text
                assert (
                    "Tell the person who runs this server" in response.json()["errors"][0]["detail"]
                )
            assert sum(len(provider.connections) for provider in providers.values()) <= 3
            assert min(took) < 1  # two more tries would have taken longer
            assert re.search(
                "(WARNING|ERROR) .*The provider",
                server.wait_for_output("outcome=failed", 3 * number),
            ), server.output()
    for provider in providers.values():
        provider.close()
