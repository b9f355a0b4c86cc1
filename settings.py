"""The settings: what the environment may say, and what holds where it is silent. `settings.toml` has the tables."""

import collections
import contextlib
import difflib
import os
import pathlib
import re
import tomllib
from urllib.parse import urlsplit

from dotenv import dotenv_values


class SettingError(SystemExit):
    """A setting that is not understood: it stops the start with its text, one line that names it, and shows no secret."""

    def __init__(self, name, problem):
        super().__init__(f"{name}: {problem}")


LIKENESS = 0.8  # from which on a name may be a setting's, misspelt: OPENAI_APIKEY, DATABASE_URI, MODEL
Setting = collections.namedtuple("Setting", "kind meaning default", defaults=[None])


def _list(value):
    return [item.strip() for item in value.split(",") if item.strip()]


def _url(value):
    hosts = value.partition("://")[2].partition("/")[0].rpartition("@")[2]
    for host in hosts.split(","):  # PostgreSQL's library takes several: host:port,host:port
        if urlsplit(value.replace(hosts, host, 1)).port == 0:  # of other bad ports and hosts, it raises ValueError itself
            raise ValueError
    return value


def _providers(value):
    """(name, protocol, URL) of each."""
    found = {}
    for item in _list(value):
        match = re.fullmatch(f"([a-z][a-z0-9_]*)=(?:(anthropic)[+])?({_KINDS['url'][0]})", item)
        if match is None or ";" in item or match[1] in (*found, "anthropic", "openai", "echo"):
            raise ValueError
        found[match[1]] = match[1], match[2] or "openai", _url(match[3])
    return [*found.values()]


def _origins(value):
    """As browsers send them: in lower case, without the port that is the scheme's own."""
    return [re.sub("^(http://.+):80$|^(https://.+):443$", r"\1\2", _url(origin)) for origin in _list(value.lower())]


def _secret(value):
    if len(value.encode()) < 32:
        raise ValueError
    return value


def _rate(value):
    replies, period = value.split("/")
    return int(replies), {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[period.strip()]


def _token_limit(value):
    tokens, period = value.split("/")
    return int(tokens), period.strip()


# What makes a value of a text that matches its kind's pattern, or raises ValueError; the value of another kind is the text.
_READERS = {"number": int, "count": int, "days": int, "seconds": float, "users": _list, "models": _list}
_READERS |= {"url": _url, "database": _url, "origins": _origins, "providers": _providers, "secret": _secret, "rate": _rate}
_READERS |= {"token_limit": _token_limit}
_TABLE = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))
_KINDS = _TABLE.pop("kinds")
SETTINGS = {name: Setting(*row) for name, row in _TABLE.items()}
MISTAKES = tomllib.loads(pathlib.Path(__file__).with_name("mistakes.toml").read_text("utf-8"))


def read_environment(folder):
    """What the environment says, and `.env` in this folder where it says nothing."""
    return dotenv_values(os.path.join(folder, ".env")) | os.environ


def misspelt(environment, settings):
    """A sentence for each name in the environment that none of the settings has, and that is close to one's."""
    for name in environment:
        near = difflib.get_close_matches(name.upper(), settings, 2, LIKENESS)
        if near and name not in settings and not name.endswith("_DATABASE_URL"):  # which is a further database
            yield f"{name} is no setting, and not read. Is it {' or '.join(near)}?"


def read_settings(environment):
    """The value of every setting; an empty one counts as not set. Raises SettingError."""
    given = {name: text.strip() for name, text in environment.items() if text and text.strip()}
    settings = {name: _read(name, row.kind, given[name]) if name in given else row.default for name, row in SETTINGS.items()}
    for name in (f"{name.upper()}_API_KEY" for name, *_ in settings["PROVIDERS"] or ()):
        settings[name] = _read(name, "key", given[name]) if name in given else None
    kinds = [name for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_SECRET") if settings[name]]
    if len(kinds) > 1:
        raise SettingError(kinds[1], f"set either this or {kinds[0]}")
    for name in ("anthropic", "openai"):  # whether they are set up
        settings[name] = not given.keys().isdisjoint((f"{name.upper()}_API_KEY", f"{name.upper()}_BASE_URL"))
    return settings


def _read(name, kind, value):
    """The value of this setting, which is not empty. Raises SettingError, which says nothing of it: it may be a secret."""
    pattern, problem = _KINDS[kind]
    if re.fullmatch(pattern, value, re.DOTALL):
        with contextlib.suppress(ValueError):
            return _READERS.get(kind, str)(value)
    raise SettingError(name, problem)


def ensure_folder(folder, setting):
    """The folder in which something has its place where this setting does not say another. Raises SettingError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        raise SettingError(setting, f"it is not set, and {folder} cannot be made ({error.strerror})") from None
    return folder


def mistake(kind, text, **values):
    """What to do about a mistake: the sentence of `mistakes.toml` whose pattern is the first that this text matches."""
    matches = ((re.search(pattern, text), sentence) for pattern, sentence in MISTAKES[kind])
    return next(sentence.format(*match.groups(), **values) for match, sentence in matches if match)


def whose(path):
    """To whom a file and its folder belong, as far as they are there, and who would use them."""
    import pwd  # POSIX's own: without it, local work goes on all the same

    names = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    found = {each: os.stat(each) for each in (path, os.path.dirname(os.path.abspath(path))) if os.path.exists(each)}
    owners = [f"{each} belongs to {names.get(at.st_uid, at.st_uid)} (mode {at.st_mode & 0o777:o})" for each, at in found.items()]
    return f"{', '.join(owners)}, and this server runs as {names.get(os.getuid(), os.getuid())}"
