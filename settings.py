"""The settings: what the environment may say, and what holds where it is silent. `settings.toml` has the table."""

import collections
import os
import pathlib
import re
import tomllib
from urllib.parse import urlsplit


class SettingError(Exception):
    """A setting that is not understood; the text is one line that names it, and shows no secret."""

    def __init__(self, name, problem):
        super().__init__(f"{name}: {problem}")


Setting = collections.namedtuple("Setting", "parse meaning default", defaults=[None])


def _matching(pattern, problem, convert=str):
    """A parser of values that match this pattern from end to end."""

    def parse(value):
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise ValueError(problem)
        return convert(value)

    return parse


_number = _matching(r"(?=.*[1-9])[0-9]{1,9}", "give a whole number from 1 on", int)
_seconds = _matching(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?", "give a number of seconds above 0", float)
# A key goes into a header: what cannot stand there would show up in the text of an exception.
_key = _matching(r"[\x21-\x7e]+", "it has characters that no key has")
_model = _matching(r".{1,200}", "a model's id has at most 200 characters")
_log_format = _matching("text|json", "give text or json")


def _list(value):
    items = [item.strip() for item in value.split(",") if item.strip()]
    if not items:
        raise ValueError("give a list, separated by commas")
    return items


def _url(value):
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value) or not _has_place(value):
        raise ValueError("give a URL that begins with http:// or https://")
    return value


def _database(value):
    # What the library says of a bad URL would show its password. It takes several hosts, host:port,host:port.
    place, _, name = value.partition("://")[2].partition("?")[0].partition("/")
    hosts = place.rpartition("@")[2]
    has_places = all(_has_place(value.replace(hosts, host, 1)) for host in hosts.split(","))
    if not has_places or "#" in value or (value.startswith("postgres") and not name):
        raise ValueError("write it like sqlite:///path or postgresql://user:password@host/name, no #, password percent-encoded")
    return value


def _has_place(url):
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _secret(value):
    if len(value.encode()) < 32:
        raise ValueError("give at least 32 bytes")
    return value


def _models(value):
    return [_model(item) for item in _list(value)]


def _rate(value):
    match = re.fullmatch(r"([1-9][0-9]{0,5})\s*/\s*(second|minute|hour|day)", value)
    if not match:
        raise ValueError("write it like 10/minute (second, minute, hour or day)")
    return int(match[1]), {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[match[2]]


_KINDS = {"text": str, "number": _number, "seconds": _seconds, "list": _list, "url": _url, "database": _database, "key": _key}
_KINDS |= {"secret": _secret, "model": _model, "models": _models, "rate": _rate, "log_format": _log_format}
_TABLE = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))
SETTINGS = {name: Setting(_KINDS[kind], *row) for name, (kind, *row) in _TABLE.items()}


def read_settings(environment):
    """The value of every setting; an empty one counts as not set. Raises SettingError."""
    settings = {}
    for name, setting in SETTINGS.items():
        value = environment.get(name, "").strip()
        try:
            settings[name] = setting.parse(value) if value else setting.default
        except ValueError as error:
            raise SettingError(name, error) from None
    kinds = [name for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_SECRET") if settings[name]]
    if len(kinds) > 1:
        raise SettingError(kinds[1], f"set either this or {kinds[0]}")
    for provider in ("ANTHROPIC", "OPENAI"):
        settings[provider] = any(environment.get(f"{provider}_{each}", "").strip() for each in ("API_KEY", "BASE_URL"))
    return settings


def ensure_folder(folder, setting):
    """The folder in which something has its place where this setting does not say another. Raises SettingError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        raise SettingError(setting, f"it is not set, and {folder} cannot be made ({error.strerror})") from None
    return folder
