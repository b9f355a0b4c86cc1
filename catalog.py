"""The catalog: which models this server serves, by which provider, and which one where a client names none."""

import threading
import time

from faults import ModelError
from llm import Anthropic, Echo, OpenAI
from settings import SettingError

LIST_TTL = 300  # seconds


class UnknownModel(Exception):
    """This server does not serve the model; the text says which it serves, or what to set."""


class Catalog:
    """The models of these providers, or those of them that are allowed."""

    def __init__(self, providers, allowed=(), default=None):
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = list(allowed)
        self._default = default
        self._lists = {}  # name of the provider → (when it was asked, the ids it listed)
        self._lock = threading.Lock()
        if not self.providers or "echo" in self.allowed:
            self.providers["echo"] = Echo()

    def allow(self, model):
        """Raises UnknownModel where a client may not name this model."""
        if self.allowed and model not in self.allowed:
            raise UnknownModel(f"This server serves {', '.join(self.allowed)}. Name one of these, or none.")
        self.provider_of(model)

    def provider_of(self, model):
        """The provider that serves this model. Raises UnknownModel where none of this server's does."""
        name = self._name_of(model)
        if name not in self.providers:
            served = " and ".join(_SERVED[each] for each in self.providers)
            raise UnknownModel(f"This server serves {served}. {_TO_SERVE[name]}")
        return self.providers[name]

    @staticmethod
    def _name_of(model):
        return "echo" if model == "echo" else "anthropic" if model.startswith("claude") else "openai"

    def default(self, refresh=True):
        """The model for a session that names none. Raises ModelError where only the provider could tell, and does not.

        Where the provider listed none, `refresh` asks it again, however lately that was.
        """
        if self._default or self.allowed:
            return self._default or self.allowed[0]
        if "anthropic" in self.providers:
            return "claude-opus-4-6"
        if "openai" not in self.providers:
            return "echo"
        for model in self._listed(self.providers["openai"], refresh):
            return model
        raise ModelError(502, "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server.")

    def list(self):
        """All models that a client may name: (id, name of the provider, whether it is the default)."""
        ids = self.allowed or [model for provider in list(self.providers.values()) for model in self._listed(provider)]
        try:
            default = self.default(refresh=False)
        except ModelError:
            default = None
        return [(model, self._name_of(model), model == default) for model in ids]

    def _listed(self, provider, refresh=False):
        """Those models that a provider lists and that would be asked of it; none where it does not answer."""
        with self._lock:
            asked_at, ids = self._lists.get(provider.name, (-LIST_TTL, []))
            if time.monotonic() - asked_at > LIST_TTL or (refresh and not ids):
                try:
                    ids = [model for model in provider.list_models() if self._name_of(model) == provider.name]
                except ModelError:
                    ids = []
                self._lists[provider.name] = (time.monotonic(), ids)
            return ids


_SERVED = {
    "echo": "the model echo",
    "anthropic": "the models of Anthropic",
    "openai": "models whose id does not begin with claude",
}
# What to do about a model that would be of this provider, where the server has it not.
_TO_SERVE = {
    "echo": "Name a model that GET /models lists, or none.",
    "anthropic": "To serve this one, set ANTHROPIC_API_KEY on the server.",
    "openai": "To serve this one, set OPENAI_API_KEY or OPENAI_BASE_URL on the server.",
}


def open_catalog(settings):
    """The catalog of these settings. Raises SettingError where they name a model that is not served."""
    timeout = settings["MODEL_TIMEOUT"]
    providers = []
    if settings["ANTHROPIC"]:
        providers.append(Anthropic(settings["ANTHROPIC_BASE_URL"], settings["ANTHROPIC_API_KEY"], timeout))
    if settings["OPENAI"]:
        providers.append(OpenAI(settings["OPENAI_BASE_URL"], settings["OPENAI_API_KEY"], timeout))
    catalog = Catalog(providers, settings["MODELS"] or (), settings["DEFAULT_MODEL"])
    for model in settings["MODELS"] or ():
        _check("MODELS", model, catalog.allow)
    _check("DEFAULT_MODEL", settings["DEFAULT_MODEL"], catalog.allow)
    _check("TITLE_MODEL", settings["TITLE_MODEL"], catalog.provider_of)  # no client names it
    return catalog


def _check(setting, model, check):
    try:
        if model:
            check(model)
    except UnknownModel as error:
        raise SettingError(setting, f"{model} is not served. {error}") from None
