"""The catalog: which models this server serves, from which provider, and which is the default."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from providers.faults import ModelError
from providers.protocols import PROTOCOLS, Echo, Provider
from settings import SettingError
from wire import UNSTORABLE, SingleFlight

LIST_TTL = 300  # seconds
RETRY_TTL = 2  # seconds until a list is fetched again if that failed, or it was empty
LIST_TIMEOUT = 2  # seconds that `known` waits for lists
ID_MAX = 200  # characters
# The default model of a provider; of others, it is the first that they list.
_DEFAULTS = {
    "anthropic": "claude-opus-4-6",
    "echo": "echo",
}
_SWITCHES = {
    "echo": "MODELS",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY or OPENAI_BASE_URL",
}


class UnknownModel(Exception):
    """This server does not serve the model; the message says which it serves, or what to set."""


class ListedModel(NamedTuple):
    """A model that a client may name."""

    id: str
    provider: str  # its name
    default: bool
    images: bool | None  # whether it sees them; None if the provider does not say


class Catalog:
    """The models of these providers; only the `allowed` ones, if that is not empty."""

    def __init__(
        self, providers: list[Provider], allowed: Sequence[str], default: str | None
    ) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = allowed
        if not providers or "echo" in allowed:
            self.providers["echo"] = Echo()
        # The default model, or None if a provider has to be asked for it.
        self.known_default = (
            default or next(iter(allowed), None) or _DEFAULTS.get(next(iter(self.providers)))
        )
        fetches = {
            name: functools.partial(self.fetch, provider)
            for name, provider in self.providers.items()
        }
        self._model_lists = [
            SingleFlight(
                f"The models of {self.providers[name].known_as}",
                fetch,
                LIST_TTL,
                RETRY_TTL,
                cooldown=1,
            )
            for name, fetch in fetches.items()
        ]

    def allow(self, model: str, provider: str | None = None) -> Provider:
        """The provider of a model that a client names. Raises UnknownModel if clients may not use
        it; also if `provider`, the name of the provider that had this id before, is another one: a
        conversation with one provider is not sent to another."""
        if self.allowed and model not in self.allowed:
            raise UnknownModel(
                f"This server serves {', '.join(self.allowed)}. Name one of these, or none."
            )
        found = self.provider_of(model)
        if provider not in (None, found.name):
            raise UnknownModel(
                f"{model} was a model of the provider {provider}, which is not set up any more."
            )
        return found

    def provider_of(self, model: str) -> Provider:
        """The provider that serves this model. Raises UnknownModel if none does."""
        name = self._name_of(model)
        if name not in self.providers:
            prefixes = [provider.prefix for provider in self.providers.values()]
            further = " or ".join(f"{prefix}…" for prefix in prefixes if prefix)
            such_as = f", such as {further}" if further else ""
            switch = _SWITCHES[name]
            if "/" in model:
                switch += ", or name its provider in PROVIDERS,"
            raise UnknownModel(
                f"GET /models lists what this server serves{such_as}. "
                f"To serve this one, set {switch} on it."
            )
        return self.providers[name]

    def _name_of(self, model: str) -> str:
        name, _, rest = model.partition("/")
        if rest and name in self.providers and self.providers[name].prefix:
            return name
        if model == "echo":
            return "echo"
        return "anthropic" if model.startswith("claude") else "openai"

    def default(self) -> str:
        """The model for a session that names none: the one that is set, else the first model of the
        first provider that lists one. Raises ModelError."""
        if self.known_default:
            return self.known_default
        failure: ModelError | None = None
        for wanting in (False, True):  # if no list has any, fetch them again
            for fetched in self._fetch_all(wanting):
                try:
                    for model in fetched.get(wanting):
                        return model
                except ModelError as error:
                    failure = failure or error
        first = next(iter(self.providers.values()))
        lacks = f"The provider {first.known_as} lists no model. Name one, or set `DEFAULT_MODEL`."
        raise failure or ModelError(502, self.lacks_models() or lacks, is_answer=True)

    def lacks_models(self) -> str:
        """A sentence on why a provider lists no model, if we know; else an empty text."""
        found = (provider.lacks_models for provider in self.providers.values())
        return next(filter(None, found), "")

    def failures(self) -> Sequence[ModelError]:
        """Why providers could not be asked for their models, as far as that matters: some services
        have no list, which is no fault if a default is set."""
        found = [] if self.allowed else [fetched.failure for fetched in self._model_lists]
        return [
            each
            for each in found
            if isinstance(each, ModelError) and not (each.lists_nothing and self.known_default)
        ]

    def list(self, user: str) -> list[ListedModel]:
        """All models that a client may name. This user's refusals may have told more about them
        than the providers' lists."""
        images: dict[str, bool | None] = {
            model: True if model == "echo" else None for model in self.allowed
        }
        for fetched in () if self.allowed else self._fetch_all():
            try:
                found = fetched.get()
            except ModelError:
                continue  # list the models of the others
            images |= found
            if not found:  # a model may have been added by the next time
                fetched.begin(wanting=True)
        defaults = spellings(self.known_default) if self.known_default else [*images][:1]
        listed = []
        for model, said in images.items():
            provider = self.providers[self._name_of(model)]
            sees = False if provider.sees_nothing(user, model) else said
            listed.append(ListedModel(model, provider.name, model in defaults, sees))
        return listed

    def known(self) -> Sequence[str]:
        """The ids of all models that a client may name, as far as the lists arrive soon."""
        ids, until = [*self.allowed], time.monotonic() + LIST_TIMEOUT
        for fetched in () if self.allowed else self._fetch_all():
            ids += fetched.soon(until) or ()
        return ids

    def _fetch_all(self, wanting: bool = False) -> Sequence[SingleFlight]:
        """The lists of all providers; fetches those that are due at the same time."""
        for fetched in self._model_lists:
            fetched.begin(wanting)
        return self._model_lists

    def fetch(self, provider: Provider) -> dict[str, bool | None]:
        """The models that a provider lists now, and whether they see images, without ids that mean
        another provider here, or that a session cannot store. Raises ModelError."""
        return {
            each: images
            for each, images in provider.list_models().items()
            if len(each) <= ID_MAX
            and not UNSTORABLE.search(each)
            and self._name_of(each) == provider.name
        }


def spellings(model: str) -> tuple[str, str]:
    """The names under which a model may be listed: Ollama lists `llama3.2` as `llama3.2:latest`."""
    return model, f"{model}:latest"


def open_catalog(settings: dict[str, Any]) -> Catalog:
    """The catalog of these settings. Raises SettingError if they name a model that is not
    served."""
    allowed = settings["MODELS"] or ()
    catalog = Catalog(list(_providers(settings)), allowed, settings["DEFAULT_MODEL"])
    named = [("MODELS", model, catalog.allow) for model in allowed]
    named.append(("DEFAULT_MODEL", settings["DEFAULT_MODEL"], catalog.allow))
    # Clients need not be allowed to use it.
    named.append(("TITLE_MODEL", settings["TITLE_MODEL"], catalog.provider_of))
    for setting, model, check in named:
        try:
            if model:
                check(model)
        except UnknownModel as error:
            raise SettingError(setting, f"{model} is not served. {error}") from None
    return catalog


def _providers(settings: dict[str, Any]) -> Iterator[Provider]:
    """The providers that are set up, in the order of the settings."""
    rows = []
    for name in PROTOCOLS:
        if settings[name]:
            rows.append((name, name, settings[f"{name.upper()}_BASE_URL"], ""))
    for name, protocol, url in settings["PROVIDERS"] or ():
        rows.append((name, protocol, url, f"{name}/"))
    for name, protocol, url, prefix in rows:
        key, extra = settings[f"{name.upper()}_API_KEY"], settings[f"{name.upper()}_BODY"] or {}
        if taken := PROTOCOLS[protocol].own.intersection(extra):
            problem = f"leave out {', '.join(sorted(taken))}, which Parley or an option sets"
            raise SettingError(f"{name.upper()}_BODY", problem)
        yield PROTOCOLS[protocol](name, url, key, settings["MODEL_TIMEOUT"], prefix, extra)
