"""Well-known model servers and services: their addresses, and the commands that start them."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}  # the default ports of schemes


class Service(NamedTuple):
    name: str
    url: str  # the base URL of its OpenAI-compatible API
    start: str = ""  # the command that starts it, if it usually runs on the same machine


SERVICES = (
    # github.com/ollama/ollama/blob/main/docs/openai.md
    Service("ollama", "http://127.0.0.1:11434/v1", "ollama serve"),
    # lmstudio.ai/docs/developer/openai-compat
    Service("lmstudio", "http://127.0.0.1:1234/v1", "lms server start"),
    # github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    Service("llamacpp", "http://127.0.0.1:8080/v1", "llama-server -m MODEL.gguf"),
    Service("cerebras", "https://api.cerebras.ai/v1"),
    Service("deepseek", "https://api.deepseek.com/v1"),
    Service("fireworks", "https://api.fireworks.ai/inference/v1"),
    Service("gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
    Service("groq", "https://api.groq.com/openai/v1"),
    Service("mistral", "https://api.mistral.ai/v1"),
    Service("nebius", "https://api.studio.nebius.com/v1"),
    Service("openrouter", "https://openrouter.ai/api/v1"),
    Service("perplexity", "https://api.perplexity.ai"),
    Service("together", "https://api.together.xyz/v1"),
    Service("xai", "https://api.x.ai/v1"),
)
LLAMA_CPP = "llama.cpp"
_SHARED_PORTS = {8080}  # many programs use them, so they do not tell which one it is
_HOSTS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
_OWNERS = {  # by the `owned_by` of their models
    "llamacpp": LLAMA_CPP,
    "vllm": "vLLM",
    "sglang": "SGLang",
    "organization_owner": "LM Studio",
}


def service_at(url: str) -> Service | None:
    """The service that probably has this base URL: the same host, or the same port on a machine
    nearby."""
    asked = urlsplit(url)
    for service in SERVICES:
        known = urlsplit(service.url)
        if known.hostname == asked.hostname and known.port == asked.port:
            return service
        if service.start and known.port == asked.port and _is_near(asked.hostname or ""):
            return service
    return None


def host_in_url(host: str) -> str:
    """The host as a URL has it: an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether this is certainly this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_near(host: str) -> bool:
    """Whether this is an address in a private network, or a local name."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))


def name_at(url: str) -> str:
    """The name of the service with this base URL, if that is certain; else host and port."""
    service, asked = service_at(url), urlsplit(url)
    if service is not None and asked.port not in _SHARED_PORTS:
        return service.name
    return _HOSTS.get(asked.hostname or "") or asked.netloc.rpartition("@")[2]


def name_of(server: str | None, owner: str = "") -> str | None:
    """The name of a model server, by its header `Server` or the `owned_by` of its models."""
    if server and server.startswith(LLAMA_CPP):
        return LLAMA_CPP
    return _OWNERS.get(owner)
