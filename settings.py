"""The settings, from the environment, `.env` and the defaults in `settings.toml`."""

import collections
import contextlib
import difflib
import io
import ipaddress
import json
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from well_known import PORTS, SERVICES, host_in_url, is_loopback


class SettingError(SystemExit):
    """A setting is invalid. Stops the start; the message is one line that names the setting, says
    what to do, and shows no secret."""

    def __init__(self, name: str, problem: object) -> None:
        super().__init__(f"{name}: {problem}")


# From this similarity on (`difflib`), a name is a misspelt setting: OPENAI_APIKEY, DATABASE_URI.
LIKENESS = 0.8
Setting = collections.namedtuple("Setting", "kind meaning default", defaults=[None])
UNIX = "unix"  # a proxy that connects through a socket in the file system
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxy = Network | str  # the trusted proxies of a network, or UNIX


def _list(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _url(value: str) -> str:
    hosts = value.partition("://")[2].partition("/")[0].rpartition("@")[2]
    for host in hosts.split(","):  # libpq accepts several: host:port,host:port
        # `port` raises ValueError for any bad port but 0.
        if urlsplit(value.replace(hosts, host, 1)).port == 0:
            raise ValueError
    return value


def _providers(value: str) -> list[tuple[str, str, str]]:
    """(name, protocol, URL) of each."""
    found = {}
    for item in _list(value):
        match = re.fullmatch(f"([a-z][a-z0-9_]*)=(?:(anthropic)[+])?({_KINDS['url'][0]})", item)
        if match is None or ";" in item or match[1] in (*found, "anthropic", "openai", "echo"):
            raise ValueError
        found[match[1]] = match[1], match[2] or "openai", _url(match[3])
    return [*found.values()]


def _origins(value: str) -> list[str]:
    """Origins as browsers send them: in lower case, without the default port of the scheme."""
    return [
        re.sub("^(http://.+):80$|^(https://.+):443$", r"\1\2", _url(origin))
        for origin in _list(value.lower())
    ]


def _proxies(value: str) -> list[Proxy]:
    return [UNIX if item == UNIX else _network(item) for item in _list(value)]


def _network(value: str) -> Network:
    """The network. An IPv4-mapped one, `::ffff:10.0.0.0/104`, becomes IPv4: `10.0.0.0/8`."""
    if "%" in value:
        raise ValueError  # ipaddress ignores a zone id when it compares addresses
    network = ipaddress.ip_network(value)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")


def _secret(value: str) -> str:
    if len(value.encode()) < 32:
        raise ValueError
    return value


def _body(value: str) -> dict[str, Any]:
    try:
        return json.loads(value, parse_constant=int)  # which refuses NaN, as JSON does
    except RecursionError:
        raise ValueError from None


def _rate(value: str) -> tuple[int, int]:
    replies, period = value.split("/")
    return int(replies), {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[period.strip()]


def _token_limit(value: str) -> tuple[int, str]:
    tokens, period = value.split("/")
    return int(tokens), period.strip()


# Functions that make the value from a text that matches the pattern of its kind; they raise
# ValueError. For other kinds, the text is the value.
_READERS = {
    "number": int,
    "count": int,
    "bytes": int,
    "connections": int,
    "days": int,
    "seconds": float,
    "users": _list,
    "models": _list,
    "url": _url,
    "database": _url,
    "origins": _origins,
    "proxies": _proxies,
    "providers": _providers,
    "secret": _secret,
    "body": _body,
    "rate": _rate,
    "token_limit": _token_limit,
}
_TABLE = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))
_KINDS = _TABLE.pop("kinds")
SETTINGS = {name: Setting(*row) for name, row in _TABLE.items()}
# The variables in which other programs have the address of a model server.
_SERVER_VARIABLES = ("OLLAMA_HOST", "OLLAMA_BASE_URL", "OLLAMA_API_BASE", "OPENAI_API_BASE")
_PLAIN_URL = re.compile(r"https?://[\w.:\[\]-]+(/[\w.-]{1,9}){0,2}/?")
# The host has no characters that would end a source in a Content-Security-Policy.
_SECURE_URL = re.compile(
    r"(?ai)(?:(https)|http)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?]((?!#)[!-~])*)?"
)
_SECOND_SETTING = re.compile(rf"\s({'|'.join(SETTINGS)}|[A-Z][A-Z0-9_]*_API_KEY)=")
# Other programs' names for DEFAULT_MODEL.
_MODEL_VARIABLES = ("MODEL", "OPENAI_MODEL", "OLLAMA_MODEL")
_OTHER_PROGRAMS = (*_SERVER_VARIABLES, *_MODEL_VARIABLES)  # not misspelt
_CURLY_QUOTES = "“”„‟‘’‚‛«»"


def home() -> str | None:
    """The folder of the database, the key and `.env`, if `PARLEY_HOME` names one; the installed
    command sets it. In a clone, `.env` is next to the code, and the rest in `instance`."""
    named = os.environ.get("PARLEY_HOME")
    return os.path.abspath(os.path.expanduser(named)) if named else None


def command() -> str:
    """How to call Parley here: `parley` if it is installed, or a clone's `.venv/bin/flask`."""
    return os.environ.get("PARLEY_COMMAND", ".venv/bin/flask")


def read_environment(folder: str) -> dict[str, str | None]:
    """The environment, with values from `.env` for names that it does not have. `.env` is in
    `home`, or else in this folder of the code. Raises SettingError if the file cannot be read."""
    path = os.path.join(home() or folder, ".env")
    if os.path.isdir(path):
        problem = "it is a folder (Docker makes one if the file is missing). Delete it, and write"
        raise SettingError(path, f"{problem} a file with this name and lines such as MODELS=a,b")
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise SettingError(path, "it is not in UTF-8. Save it in UTF-8") from None
    except OSError as error:
        problem = f"it cannot be read ({error.strerror}). {whose(path)}"
        raise SettingError(path, problem) from None
    _check_lines(path, text)
    return dotenv_values(stream=io.StringIO(text)) | os.environ


def _check_lines(path: str, text: str) -> None:
    """Raises SettingError if a line of `.env` is invalid: dotenv would only skip it. Shows names,
    but no values."""
    for each in parse_stream(io.StringIO(text)):
        written = each.original.string.lstrip()
        if advice := _advice_on_line(each, written):
            number = each.original.line + each.original.string.removesuffix(written).count("\n")
            raise SettingError(f"{path}, line {number}", advice)


def _advice_on_line(binding: Binding, written: str) -> str | None:
    """What to write instead of this line, if it is invalid."""
    name = re.match(r"(?:export\s+)?([A-Za-z_]\w*)\s*(?P<sign>[:=]?)\s*(?P<quote>['\"]?)", written)
    if name and name["sign"] == ":":
        return f"this is YAML. Write {name[1]}=value, with = instead of the colon"
    value = binding.value or ""
    if name and name["quote"]:
        is_open = binding.error and written.partition("\n")[0].count(name["quote"]) == 1
        if is_open or _SECOND_SETTING.search(value):
            return f"its quote is not closed. Write {name[1]}=value on one line, without quotes"
        if binding.error:
            return f"there is text after its quotes. Write {name[1]}=value, without quotes"
    if name and value.strip(_CURLY_QUOTES) != value:
        return f"its quotes are curly. Write {name[1]}=value, without quotes"
    return "write it like NAME=value, or begin it with #" if binding.error else None


def unknown_settings(environment: dict[str, str | None], settings: dict) -> Iterator[str]:
    """A sentence for each name in the environment that is not a setting, but was probably meant to
    be one. Shows no values, except the address of a model server."""
    for name, value in environment.items():
        if name in settings or not value:
            continue
        near = difflib.get_close_matches(name.upper(), settings, 1, LIKENESS)
        if advice := _advice_on_name(name, value, settings):
            yield f"{name} is not a setting, and is ignored. {advice}"
        # Another program may have a database, too.
        elif near and name not in _OTHER_PROGRAMS and not name.endswith("_DATABASE_URL"):
            yield f"{name} is not a setting, and is ignored. Do you mean {near[0]}?"


def _advice_on_name(name: str, value: str, settings: dict) -> str | None:
    """Which setting to write instead of another program's variable, unless that setting is set."""
    if name in _SERVER_VARIABLES:
        return _advice_on_server(name, value, settings)
    if name.endswith("_API_KEY"):
        return _advice_on_key(name, settings)
    if name in _MODEL_VARIABLES and not (settings["DEFAULT_MODEL"] or settings["MODELS"]):
        return "Write DEFAULT_MODEL"
    if name == "OIDC_CLIENT_SECRET":
        return (
            "The page is a public client, which has no secret: remove it, and register a public "
            "client at the identity provider."
        )
    return None


def _advice_on_server(name: str, value: str, settings: dict) -> str | None:
    default = SETTINGS["OPENAI_BASE_URL"].default
    if settings["OPENAI_BASE_URL"] != default or value.rstrip("/") == default:
        return None
    url = value
    if name.startswith("OLLAMA"):
        if any(settings[kind] for kind in ("openai", "anthropic", "PROVIDERS")):
            return None  # Ollama itself reads OLLAMA_HOST
        url = _ollama_url(value)
    is_shown = url and _PLAIN_URL.fullmatch(url)  # any other URL may contain a secret
    return f"Write OPENAI_BASE_URL={url if is_shown else 'http://…/v1'}"


def _advice_on_key(name: str, settings: dict) -> str | None:
    prefix = name.removesuffix("_API_KEY").lower()
    url = next((service.url for service in SERVICES if service.name == prefix), None)
    providers = settings["PROVIDERS"] or []
    if url == settings["OPENAI_BASE_URL"]:
        return None if settings["OPENAI_API_KEY"] else "Write OPENAI_API_KEY"
    if url is None or url in [each for _, _, each in providers]:
        return None
    return f"Keep it, and also write PROVIDERS={'…,' if providers else ''}{prefix}={url}"


def _ollama_url(value: str) -> str | None:
    """The base URL of an Ollama with this OLLAMA_HOST, such as `0.0.0.0` or `http://host:11434/`.
    The default port is 11434, or that of the scheme if there is one (ollama/envconfig/config.go).
    """
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port or (PORTS.get(url.scheme) if "://" in value else 11434)
    except ValueError:
        return None
    host = url.hostname or "127.0.0.1"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host_in_url(host)
    return f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}/v1"


def read_settings(environment: Mapping[str, str | None]) -> dict[str, Any]:
    """The value of each setting. Empty text counts as not set. Raises SettingError."""
    stripped = {name: (text or "").strip() for name, text in environment.items()}
    texts = {name: text for name, text in stripped.items() if text}

    def read(name: str, kind: str, default: Any = None) -> Any:
        return _read_value(name, kind, texts[name]) if name in texts else default

    settings = {name: read(name, row.kind, row.default) for name, row in SETTINGS.items()}
    for provider, *_ in settings["PROVIDERS"] or ():
        for ending, kind in (("API_KEY", "key"), ("BODY", "body")):
            name = f"{provider.upper()}_{ending}"
            settings[name] = read(name, kind)
    _check_together(settings, "GRACE" in texts)
    for name in ("anthropic", "openai"):  # whether this provider is set up
        own = {f"{name.upper()}_API_KEY", f"{name.upper()}_BASE_URL"}
        settings[name] = not own.isdisjoint(texts)
    return settings


def _check_together(settings: dict[str, Any], has_grace: bool) -> None:
    """Raises SettingError if settings contradict each other."""
    if has_grace and settings["GRACE"] > settings["MODEL_TIMEOUT"]:
        limit = f"{settings['MODEL_TIMEOUT']:g}"
        raise SettingError(
            "GRACE", f"give at most {limit}, the MODEL_TIMEOUT: no reply waits longer"
        )
    keys = [name for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_SECRET") if settings[name]]
    if len(keys) > 1:
        raise SettingError(keys[1], f"set only one of this and {keys[0]}")
    _check_sign_in(settings)
    header, proxies = "TRUSTED_USER_HEADER", "TRUSTED_PROXIES"
    if settings[header] and not settings[proxies]:
        raise SettingError(proxies, f"{header} is set: say which proxies may send it")
    if settings[proxies] and not settings[header]:
        raise SettingError(header, f"{proxies} is set: say in which header they name the user")


def _check_sign_in(settings: dict[str, Any]) -> None:
    """Raises SettingError if other settings contradict `OIDC_CLIENT_ID`."""
    if not settings["OIDC_CLIENT_ID"]:
        return
    for name in ("JWT_PUBLIC_KEY", "JWT_SECRET"):
        if settings[name]:
            raise SettingError("OIDC_CLIENT_ID", f"set only one of this and {name}")
    issuer = settings["JWT_ISSUER"]
    if not is_secure_url(issuer) or "?" in issuer:
        problem = "OIDC_CLIENT_ID is set: give the identity provider's issuer, an https:// URL"
        raise SettingError(
            "JWT_ISSUER", f"{problem} (http:// only on this machine) without ? and #"
        )


def is_secure_url(url: str) -> bool:
    """Whether this is an https URL, or an http one on this machine, without user or fragment."""
    found = _SECURE_URL.fullmatch(url)
    try:
        host = urlsplit(url).hostname or ""
        return bool(found and urlsplit(url).port != 0 and (found[1] or is_loopback(host)))
    except ValueError:  # not a port, or not an address
        return False


def _read_value(name: str, kind: str, value: str) -> Any:
    """The value of this setting, whose text is not empty. Raises SettingError, which does not quote
    the text: it may be a secret."""
    pattern, problem = _KINDS[kind]
    if second := _SECOND_SETTING.search(value):
        raise SettingError(name, f"{second[1]} is on the same line. Give it a line of its own")
    try:
        if re.fullmatch(pattern, value, re.DOTALL):
            return _READERS.get(kind, str)(value)
    except ValueError:
        pass
    raise SettingError(name, problem)


def ensure_folder(folder: str, setting: str) -> str:
    """This folder, which is created if needed. `setting` would name another place, and is in the
    error. Raises SettingError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        problem = f"it is not set, and {folder} cannot be created ({error.strerror})"
        raise SettingError(setting, f"{problem}. Create it, writable for this user") from None
    return folder


def make_private(folder: str) -> None:
    """Take the permissions of all other users from the folder and its files, which older releases
    left readable. Group permissions stay if others had none, since somebody has chosen them. A
    folder that `PARLEY_HOME` names stays as it is: it may have other uses."""
    names = ["parley.db", "parley.db-wal", "parley.db-shm", "jwt_key.pem"]
    for name in names if home() else ["", *names]:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # it does not exist, or is not ours
            mode = os.stat(path).st_mode
            if mode & 0o007:
                # A group that may write was given that on purpose.
                os.chmod(path, mode & (0o7770 if mode & 0o020 else 0o7700))


def whose(path: str) -> str:
    """A sentence: the owners of this file and its folder, if they exist, and the server's user."""
    import pwd  # only POSIX has it

    names = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    found = {
        each: os.stat(each)
        for each in (path, os.path.dirname(os.path.abspath(path)))
        if os.path.exists(each)
    }
    owners = [
        f"{each} belongs to {names.get(at.st_uid, at.st_uid)} (mode {at.st_mode & 0o777:o})"
        for each, at in found.items()
    ]
    return f"{', '.join(owners)}, and this server runs as {names.get(os.getuid(), os.getuid())}"
