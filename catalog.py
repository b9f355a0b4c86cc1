"""The catalog: which models this server serves, by which provider, and which one where a client names none."""

import contextlib
import functools

from faults import ModelError
from fetched import Fetched
from protocols import Anthropic, Echo, OpenAI
from settings import SettingError
from wire import UNSTORABLE

LIST_TTL = 300  # seconds
LONGEST_LIST, LONGEST_ID = 10_000, 200  # models; characters
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
        self._lists = {
            name: Fetched(f"The models of {name}", functools.partial(self.fetch, provider), LIST_TTL, failure_ttl=LIST_TTL)
            for name, provider in self.providers.items()
        }

    def allow(self, model):
        """Raises UnknownModel where a client may not name this model."""
        if self.allowed and model not in self.allowed:
            raise UnknownModel(f"This server serves {', '.join(self.allowed)}. Name one of these, or none.")
        self.provider_of(model)

    def provider_of(self, model):
        """The provider that serves this model. Raises UnknownModel where none of this server's does."""
        name = self._name_of(model)
        if name not in self.providers:
            raise UnknownModel(f"GET /models lists what this server serves. To serve this one, set {_SWITCHES[name]} on it.")
        return self.providers[name]

    @staticmethod
    def _name_of(model):
        return "echo" if model == "echo" else "anthropic" if model.startswith("claude") else "openai"

    def default(self):
        """The model for a session that names none. Raises ModelError where only the provider could tell, and does not."""
        if self.known_default:
            return self.known_default
        for model in self._listed("openai") or self._lists["openai"].get(wanting=True):  # asked again, however lately that was
            return model
        raise ModelError(502, "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server.")

    def list(self):
        """All models that a client may name: (id, name of the provider, whether it is the default)."""
        if not self.allowed:
            for models in self._lists.values():  # all are asked at the same time
                models.begin()
        ids = self.allowed or [model for name in self.providers for model in self._listed(name)]
        defaults = spellings(self.known_default) if self.known_default else ids[:1]
        return [(model, self._name_of(model), model in defaults) for model in ids]

    def _listed(self, name):
        """What this provider has listed; none where it does not answer."""
        with contextlib.suppress(ModelError):
            return self._lists[name].get()
        return []

    def fetch(self, provider):
        """Those models that a provider lists now and that would be asked of it. Each is looked at by itself: one that no session
        could name does not hide the others. Raises ModelError."""
        ids = (model.get("id") for model in provider.list_models()[:LONGEST_LIST] if isinstance(model, dict))
        ids = (each for each in ids if isinstance(each, str) and each.strip() and len(each) <= LONGEST_ID)
        return [each for each in ids if self._name_of(each) == provider.name and not UNSTORABLE.search(each)]


def spellings(model):
    """The names under which a model may be listed: Ollama lists `llama3.2` as `llama3.2:latest`."""
    return model, f"{model}:latest"


def open_catalog(settings):
    """The catalog of these settings. Raises SettingError where they name a model that is not served."""
    providers = [
        kind(settings[f"{name}_BASE_URL"], settings[f"{name}_API_KEY"], settings["MODEL_TIMEOUT"])
        for name, kind in (("ANTHROPIC", Anthropic), ("OPENAI", OpenAI))
        if settings[name]
    ]
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
