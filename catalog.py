"""The catalog: which models this server serves, by which provider, and which one where a client names none."""

import contextlib
import re

from faults import ModelError
from fetched import Fetched
from llm import Anthropic, Echo, OpenAI
from settings import SettingError

LIST_TTL = 300  # seconds
LONGEST_ID = 200  # characters


class UnknownModel(Exception):
    """This server does not serve the model; the text says which it serves, or what to set."""


class Catalog:
    """The models of these providers, or those of them that are allowed."""

    def __init__(self, providers, allowed=(), default=None):
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = list(allowed)
        self._default = default
        if not self.providers or "echo" in self.allowed:
            self.providers["echo"] = Echo()
        self._lists = {
            name: Fetched(provider.list_models, ModelError, LIST_TTL, failure_ttl=LIST_TTL)
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
            raise UnknownModel(f"This server has no provider for it. {_TO_SERVE[name]}")
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
        for model in self._listed("openai", refresh):
            return model
        raise ModelError(502, "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server.")

    def list(self):
        """All models that a client may name: (id, name of the provider, whether it is the default)."""
        if not self.allowed:
            for models in self._lists.values():  # all are asked at the same time
                models.begin()
        ids = self.allowed or [model for name in self.providers for model in self._listed(name)]
        try:
            default = self.default(refresh=False)
        except ModelError:
            default = None
        return [(model, self._name_of(model), model == default) for model in ids]

    def _listed(self, name, refresh=False):
        """Those models that a provider lists and that would be asked of it; none where it does not answer."""
        for wanting in (False, True) if refresh else (False,):
            with contextlib.suppress(ModelError):
                ids = self._ids(name, self._lists[name].get(wanting))
                if ids:
                    return ids
        return []

    def _ids(self, name, models):
        """Each model is looked at by itself: one that no session could name does not hide the others."""
        ids = (model.get("id") for model in models if isinstance(model, dict))
        return [each for each in ids if isinstance(each, str) and _is_id(each) and self._name_of(each) == name]


def _is_id(text):
    return text.strip() != "" and len(text) <= LONGEST_ID and not re.search("[\0\ud800-\udfff]", text)


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
