"""The settings: what the environment may say, and what holds where it is silent. `settings.toml`
has the tables."""

import collections
import contextlib
import difflib
import io
import ipaddress
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from well_known import PORTS, SERVICES, is_loopback


class SettingError(SystemExit):
    """A setting that is not understood: it stops the start with its text, one line that names it,
    and shows no secret."""

    def __init__(self, name: str, problem: object) -> None:
        super().__init__(f"{name}: {problem}")


LIKENESS = (
    0.8  # from which on a name may be a setting's, misspelt: OPENAI_APIKEY, DATABASE_URI, MODEL
)
Setting = collections.namedtuple("Setting", "kind meaning default", defaults=[None])
UNIX = "unix"  # who connects by a socket of the file system
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxy = Network | str  # whose word is taken: those of a network, or UNIX


def _list(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _url(value: str) -> str:
    hosts = value.partition("://")[2].partition("/")[0].rpartition("@")[2]
    for host in hosts.split(","):  # PostgreSQL's library takes several: host:port,host:port
        if urlsplit(value.replace(hosts, host, 1)).port == 0:
            # Of other bad ports and hosts, it raises ValueError itself.
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
    """As browsers send them: in lower case, without the port that is the scheme's own."""
    return [
        re.sub("^(http://.+):80$|^(https://.+):443$", r"\1\2", _url(origin))
        for origin in _list(value.lower())
    ]


def _proxies(value: str) -> list[Proxy]:
    return [UNIX if item == UNIX else _network(item) for item in _list(value)]


def _network(value: str) -> Network:
    """An IPv4-mapped network, `::ffff:10.0.0.0/104`, is that of IPv4: `10.0.0.0/8`."""
    if "%" in value:
        raise ValueError  # a zone, of which ipaddress takes no notice
    network = ipaddress.ip_network(value)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")


def _secret(value: str) -> str:
    if len(value.encode()) < 32:
        raise ValueError
    return value


def _rate(value: str) -> tuple[int, int]:
    replies, period = value.split("/")
    return int(replies), {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[period.strip()]


def _token_limit(value: str) -> tuple[int, str]:
    tokens, period = value.split("/")
    return int(tokens), period.strip()


# What makes a value of a text that matches its kind's pattern, or raises ValueError; the value of
# another kind is the text.
_READERS = {
    "number": int,
    "count": int,
    "bytes": int,
    "connections": int,
    "days": int,
    "seconds": float,
    "users": _list,
    "models": _list,
}
_READERS |= {
    "url": _url,
    "database": _url,
    "origins": _origins,
    "proxies": _proxies,
    "providers": _providers,
    "secret": _secret,
    "rate": _rate,
}
_READERS |= {"token_limit": _token_limit}
_TABLE = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))
_KINDS = _TABLE.pop("kinds")
SETTINGS = {name: Setting(*row) for name, row in _TABLE.items()}
# Names under which other programs are told where a model server is.
_MEANT = ("OLLAMA_HOST", "OLLAMA_BASE_URL", "OLLAMA_API_BASE", "OPENAI_API_BASE")
_PLAIN_URL = re.compile(r"https?://[\w.:\[\]-]+(/[\w.-]{1,9}){0,2}/?")
# Its host has nothing that would end a source of a Content-Security-Policy.
_SECURE_URL = re.compile(
    r"(?ai)(?:(https)|http)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?]((?!#)[!-~])*)?"
)
_SECOND = re.compile(rf"\s({'|'.join(SETTINGS)}|[A-Z][A-Z0-9_]*_API_KEY)=")
_MODEL_NAMES = ("MODEL", "OPENAI_MODEL", "OLLAMA_MODEL")  # of DEFAULT_MODEL, in other programs
_KNOWN = (*_MEANT, *_MODEL_NAMES)  # which are not misspelt
_CURLY_QUOTES = "“”„‟‘’‚‛«»"


def home() -> str | None:
    """The folder of the database, the key and `.env`, where `PARLEY_HOME` names one, as it does for
    the installed command. In a clone, `.env` is beside the code, and the rest in `instance`."""
    named = os.environ.get("PARLEY_HOME")
    return os.path.abspath(os.path.expanduser(named)) if named else None


def command() -> str:
    """How Parley is called here: `parley`, as that says itself, or a clone's `.venv/bin/flask`."""
    return os.environ.get("PARLEY_COMMAND", ".venv/bin/flask")


def read_environment(folder: str) -> dict[str, str | None]:
    """What the environment says, and `.env` where it says nothing: in `home`, or else in this
    folder of the code. Raises SettingError where the file cannot be read."""
    path = os.path.join(home() or folder, ".env")
    if os.path.isdir(path):
        problem = "it is a folder, as Docker makes one if the file is missing. Delete it, and write"
        raise SettingError(path, f"{problem} a file of this name, with lines such as MODELS=a,b")
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise SettingError(path, "it is not in UTF-8. Write it anew") from None
    except OSError as error:
        problem = f"it cannot be read ({error.strerror}). {whose(path)}"
        raise SettingError(path, problem) from None
    _check_lines(path, text)
    return dotenv_values(stream=io.StringIO(text)) | os.environ


def _check_lines(path: str, text: str) -> None:
    """Raises SettingError if a line of `.env` is not understood: dotenv leaves it out. Nothing is
    shown but names."""
    for each in parse_stream(io.StringIO(text)):
        written = each.original.string.lstrip()
        if advice := _advice_on_line(each, written):
            number = each.original.line + each.original.string.removesuffix(written).count("\n")
            raise SettingError(f"{path}, line {number}", advice)


def _advice_on_line(binding: Binding, written: str) -> str | None:
    """What to write in the place of this line, if it is not understood."""
    name = re.match(r"(?:export\s+)?([A-Za-z_]\w*)\s*(?P<sign>[:=]?)\s*(?P<quote>['\"]?)", written)
    if name and name["sign"] == ":":
        return f"this is YAML. Write {name[1]}=value, with = in the place of the colon"
    value = binding.value or ""
    if name and name["quote"]:
        is_open = binding.error and written.partition("\n")[0].count(name["quote"]) == 1
        if is_open or _SECOND.search(value):
            return f"its quote is not closed. Write {name[1]}=value on one line, without quotes"
        if binding.error:
            return f"something stands after its quotes. Write {name[1]}=value, without quotes"
    if name and value.strip(_CURLY_QUOTES) != value:
        return f"its quotes are curly. Write {name[1]}=value, without quotes"
    return "write it like NAME=value, or begin it with #" if binding.error else None


def unread(environment: dict[str, str | None], settings: dict) -> Iterator[str]:
    """A sentence for each name in the environment that is no setting, where it was probably meant
    as one. It shows no value but the address of a model server."""
    for name, value in environment.items():
        if name in settings or not value:
            continue
        near = difflib.get_close_matches(name.upper(), settings, 2, LIKENESS)
        if advice := _advice(name, value, settings):
            yield f"{name} is no setting, and not read. {advice}"
        # Another program may have a database, too.
        elif near and name not in _KNOWN and not name.endswith("_DATABASE_URL"):
            yield f"{name} is no setting, and not read. Is it {' or '.join(near)}?"


def _advice(name: str, value: str, settings: dict) -> str | None:
    """What to write in the place of a name that other programs have, where nothing does so yet."""
    if name in _MEANT:
        return _advice_on_server(name, value, settings)
    if name.endswith("_API_KEY"):
        return _advice_on_key(name, settings)
    if name in _MODEL_NAMES and not (settings["DEFAULT_MODEL"] or settings["MODELS"]):
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
        return None  # it is set
    url = value
    if name.startswith("OLLAMA"):
        if any(settings[kind] for kind in ("openai", "anthropic", "PROVIDERS")):
            return None  # Ollama itself reads OLLAMA_HOST
        url = _ollama_url(value)
    is_shown = url and _PLAIN_URL.fullmatch(url)  # another one may have a secret in it
    return f"Write OPENAI_BASE_URL={url if is_shown else 'http://…/v1'}"


def _advice_on_key(name: str, settings: dict) -> str | None:
    prefix = name.removesuffix("_API_KEY").lower()
    url = next((service.url for service in SERVICES if service.name == prefix), None)
    given = settings["PROVIDERS"] or []
    if url == settings["OPENAI_BASE_URL"]:
        return None if settings["OPENAI_API_KEY"] else "Write OPENAI_API_KEY"
    if url is None or url in [each for _, _, each in given]:
        return None
    return f"Write PROVIDERS={'…,' if given else ''}{prefix}={url} beside it"


def _ollama_url(value: str) -> str | None:
    """The base URL of the Ollama that listens there, such as at `0.0.0.0` or `http://host:11434/`.
    Its port is 11434, or where a scheme is given, that of the scheme
    (ollama/envconfig/config.go)."""
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port or (PORTS.get(url.scheme) if "://" in value else 11434)
    except ValueError:
        return None
    host = "127.0.0.1" if url.hostname in (None, "0.0.0.0", "::") else url.hostname
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}{url.path.rstrip('/')}/v1"


def read_settings(environment: Mapping[str, str | None]) -> dict[str, Any]:
    """The value of every setting; an empty one counts as not set. Raises SettingError."""
    stripped = {name: (text or "").strip() for name, text in environment.items()}
    given = {name: text for name, text in stripped.items() if text}

    def read(name: str, kind: str, default: Any = None) -> Any:
        return _read(name, kind, given[name]) if name in given else default

    settings = {name: read(name, row.kind, row.default) for name, row in SETTINGS.items()}
    for provider, *_ in settings["PROVIDERS"] or ():
        name = f"{provider.upper()}_API_KEY"
        settings[name] = read(name, "key")
    _check_together(settings, "GRACE" in given)
    for name in ("anthropic", "openai"):  # whether they are set up
        own = {f"{name.upper()}_API_KEY", f"{name.upper()}_BASE_URL"}
        settings[name] = not own.isdisjoint(given)
    return settings


def _check_together(settings: dict[str, Any], has_grace: bool) -> None:
    """Raises SettingError where one does not fit another."""
    if has_grace and settings["GRACE"] > settings["MODEL_TIMEOUT"]:
        limit = f"{settings['MODEL_TIMEOUT']:g}"
        raise SettingError(
            "GRACE", f"give at most {limit}, what MODEL_TIMEOUT is: no reply waits longer"
        )
    keys = [name for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_SECRET") if settings[name]]
    if len(keys) > 1:
        raise SettingError(keys[1], f"set either this or {keys[0]}")
    _check_sign_in(settings)
    header, proxies = "TRUSTED_USER_HEADER", "TRUSTED_PROXIES"
    if settings[header] and not settings[proxies]:
        raise SettingError(proxies, f"say whose word is taken, beside {header}")
    if settings[proxies] and not settings[header]:
        raise SettingError(header, f"say in which header they name the user, beside {proxies}")


def _check_sign_in(settings: dict[str, Any]) -> None:
    """Raises SettingError where people cannot sign in as `OIDC_CLIENT_ID` has it."""
    if not settings["OIDC_CLIENT_ID"]:
        return
    for name in ("JWT_PUBLIC_KEY", "JWT_SECRET"):
        if settings[name]:
            raise SettingError("OIDC_CLIENT_ID", f"set either this or {name}")
    issuer = settings["JWT_ISSUER"]
    if not is_secure_url(issuer) or "?" in issuer:
        problem = "beside OIDC_CLIENT_ID, give the identity provider's issuer: an https:// URL"
        raise SettingError("JWT_ISSUER", f"{problem} (http:// on this machine only), no ? and #")


def is_secure_url(url: str) -> bool:
    """Whether this is an https URL, or an http one on this machine, without a user and a
    fragment."""
    found = _SECURE_URL.fullmatch(url)
    try:
        host = urlsplit(url).hostname or ""
        return bool(found and urlsplit(url).port != 0 and (found[1] or is_loopback(host)))
    except ValueError:  # it is no port, or no address
        return False


def _read(name: str, kind: str, value: str) -> Any:
    """The value of this setting, which is not empty. Raises SettingError, which says nothing of it:
    it may be a secret."""
    pattern, problem = _KINDS[kind]
    if second := _SECOND.search(value):
        raise SettingError(name, f"{second[1]} stands on the same line. Give it a line of its own")
    try:
        if re.fullmatch(pattern, value, re.DOTALL):
            return _READERS.get(kind, str)(value)
    except ValueError:
        pass
    raise SettingError(name, problem)


def ensure_folder(folder: str, setting: str) -> str:
    """The folder in which something has its place where this setting does not say another. Raises
    SettingError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        problem = f"it is not set, and {folder} cannot be made ({error.strerror})"
        raise SettingError(setting, f"{problem}. Make it, for this user to write into") from None
    return folder


def make_private(folder: str) -> None:
    """Make what everybody may read, as an older release left it, the owner's: the folder, and what
    it made there. What only a group may read is left as it was chosen, and a folder that
    `PARLEY_HOME` names as it is: it may be anybody's."""
    names = ["parley.db", "parley.db-wal", "parley.db-shm", "jwt_key.pem"]
    for name in names if home() else ["", *names]:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # it is not there, or not ours
            mode = os.stat(path).st_mode
            if mode & 0o007:
                # Where a group may write, it was given that on purpose.
                os.chmod(path, mode & (0o7770 if mode & 0o020 else 0o7700))


def whose(path: str) -> str:
    """To whom a file and its folder belong, as far as they are there, and who would use them."""
    import pwd  # POSIX's own: without it, local work goes on all the same

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
