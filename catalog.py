"""The catalog: which models this server serves, by which provider, and which one where a client names none."""

import contextlib
import functools

from faults import ModelError
from fetched import Fetched
from protocols import PROTOCOLS, Echo
from settings import SettingError
from wire import UNSTORABLE

LIST_TTL = 300  # seconds
LONGEST_ID = 200  # characters
_DEFAULTS = {"anthropic": "claude-opus-4-6", "echo": "echo"}  # of a provider; another's is the first that it lists
_SWITCHES = {"echo": "MODELS", "anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY or OPENAI_BASE_URL"}


class UnknownModel(Exception):
    """This server does not serve the model; the text says which it serves, or what to set."""


class Catalog:
    """The models of these providers, or those of them that are allowed."""

    def __init__(self, providers, allowed, default):
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = allowed
        if not providers or "echo" in allowed:
            self.providers["echo"] = Echo()
        # The default, as far as no provider has to be asked for it; else None.
        self.known_default = default or next(iter(allowed), None) or _DEFAULTS.get(next(iter(self.providers)))
        fetches = {name: functools.partial(self.fetch, provider) for name, provider in self.providers.items()}
        self._lists = [Fetched(f"The models of {name}", fetch, LIST_TTL, LIST_TTL, cooldown=1) for name, fetch in fetches.items()]

    def allow(self, model, provider=None):
        """The provider of a model that a client may name. Raises UnknownModel where it may not, or where the model was that of
        another `provider`, by its name: what was told to one is not sent to another that an id has come to mean."""
        if self.allowed and model not in self.allowed:
            raise UnknownModel(f"This server serves {', '.join(self.allowed)}. Name one of these, or none.")
        found = self.provider_of(model)
        if provider not in (None, found.name):
            raise UnknownModel(f"{model} was a model of the provider {provider}, which is not set up any more.")
        return found

    def provider_of(self, model):
        """The provider that serves this model. Raises UnknownModel where none of this server's does."""
        name = self._name_of(model)
        if name not in self.providers:
            further = " or ".join(f"{provider.prefix}…" for provider in self.providers.values() if provider.prefix)
            served = f"GET /models lists what this server serves{', such as ' if further else ''}{further}."
            switch = _SWITCHES[name] + (", or name its provider in PROVIDERS," if "/" in model else "")
            raise UnknownModel(f"{served} To serve this one, set {switch} on it.")
        return self.providers[name]

    def _name_of(self, model):
        name, _, rest = model.partition("/")
        if rest and name in self.providers and self.providers[name].prefix:
            return name
        return "echo" if model == "echo" else "anthropic" if model.startswith("claude") else "openai"

    def default(self):
        """The model for a session that names none: else the first of the first provider that lists one. Raises ModelError."""
        if self.known_default:
            return self.known_default
        failure = None
        for wanting in (False, True):  # asked again, however lately that was
            for fetched in self._fetch_all(wanting):
                try:
                    for model in fetched.get(wanting):
                        return model
                except ModelError as error:
                    failure = failure or error
        name = next(iter(self.providers))
        raise failure or ModelError(502, f"The provider {name} lists no model. Name one, or set DEFAULT_MODEL on the server.")

    def list(self):
        """All models that a client may name: (id, name of the provider, whether it is the default)."""
        ids = list(self.allowed)
        for fetched in () if self.allowed else self._fetch_all():
            with contextlib.suppress(ModelError):
                ids += fetched.get()
        defaults = spellings(self.known_default) if self.known_default else ids[:1]
        return [(model, self._name_of(model), model in defaults) for model in ids]

    def _fetch_all(self, wanting=False):
        """The lists of all providers, which are asked for at the same time."""
        for fetched in self._lists:
            fetched.begin(wanting)
        return self._lists

    def fetch(self, provider):
        """Those models that a provider lists now, that would be asked of it, and that a session can name. Raises ModelError."""
        ids = [each for each in provider.list_models() if len(each) <= LONGEST_ID and not UNSTORABLE.search(each)]
        return [each for each in ids if self._name_of(each) == provider.name]


def spellings(model):
    """The names under which a model may be listed: Ollama lists `llama3.2` as `llama3.2:latest`."""
    return model, f"{model}:latest"


def open_catalog(settings):
    """The catalog of these settings. Raises SettingError where they name a model that is not served."""
    rows = [(name, name, settings[f"{name.upper()}_BASE_URL"], "") for name in PROTOCOLS if settings[name]]
    rows += [(name, protocol, url, f"{name}/") for name, protocol, url in settings["PROVIDERS"] or ()]
    providers, timeout = [], settings["MODEL_TIMEOUT"]
    for name, protocol, url, prefix in rows:
        providers.append(PROTOCOLS[protocol](name, url, settings[f"{name.upper()}_API_KEY"], timeout, prefix))
    catalog = Catalog(providers, settings["MODELS"] or (), settings["DEFAULT_MODEL"])
    named = [("MODELS", model, catalog.allow) for model in settings["MODELS"] or ()]
    named.append(("DEFAULT_MODEL", settings["DEFAULT_MODEL"], catalog.allow))
    named.append(("TITLE_MODEL", settings["TITLE_MODEL"], catalog.provider_of))  # no client names it
    for setting, model, check in named:
        try:
            if model:
                check(model)
        except UnknownModel as error:
            raise SettingError(setting, f"{model} is not served. {error}") from None
    return catalog
