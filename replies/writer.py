"""Making a reply: the provider is read to the end of its answer."""

from collections.abc import Iterator
from typing import Any

from database import Unavailable, connected
from limits import BUSY
from llm import Catalog, UnknownModel
from models import COMPLETE, FAILED, INTERRUPTED, Missing, outcome_of
from providers.base import RETRY_PAUSES, pause
from providers.conversation import Prompt, messages_of
from providers.faults import ModelError
from providers.protocols import Provider
from replies.commits import count_restart
from replies.prompts import read_prompt
from replies.reply import BROKEN, Reply
from wire import HungUp


class Writer:
    """Writes one reply, a step at a time. Each step reads the next text of the answer, and may take
    as long as the provider does."""

    def __init__(
        self,
        reply: Reply,
        catalog: Catalog,
        max_tokens: int,
        continue_limit: int,
        first: str | None = None,
    ) -> None:
        """`first` is the message of a new session."""
        self.reply = reply
        self._catalog, self._first = catalog, first
        self._max_tokens, self._continue_limit = max_tokens, continue_limit
        self._texts = self._answer()

    def step(self) -> bool:
        """Returns whether there was a text. If there was none, the reply is finished."""
        try:
            text = next(self._texts, None)
            if text is not None:
                self.reply.arrive(text)
                return True
            outcome = outcome_of(COMPLETE, stop_reason=self.reply.exchange.stop_reason)
        except BaseException as error:
            self.reply.finish(self._outcome_of(error))
            if not isinstance(error, _EXPECTED):
                raise
            return False
        self.reply.finish(outcome)
        return False

    def _outcome_of(self, error: BaseException) -> dict[str, Any]:
        """How the reply ends by this error. The error itself is not kept: it would hold all frames
        that it came through."""
        if isinstance(error, HungUp | Missing):
            # Missing: its session was deleted, as the keeper will see.
            return outcome_of(INTERRUPTED)
        if isinstance(error, UnknownModel):
            self.reply.error = str(error)
            return outcome_of(FAILED, 400, str(error), pointer="/model")
        if isinstance(error, ModelError):
            self.reply.error = str(error)
            return outcome_of(FAILED, *error.told(self.reply.tells_reasons))
        if isinstance(error, Unavailable):
            return outcome_of(FAILED, 503, "The database did not answer. Ask again.")
        if isinstance(error, MemoryError):
            return outcome_of(FAILED, 503, BUSY)
        return BROKEN

    def _answer(self) -> Iterator[str]:
        """The texts of the answer to the conversation. Where the model's window does not hold it,
        its newest half is sent, again and again, until that fits or only the last turn is left.
        Behind a break the answer goes on, if it may."""
        reply = self.reply
        provider = self._provider()
        prompt = reply.prompt = read_prompt(reply, self._first)
        broken = None  # by this error, the last time
        try:
            while True:
                has_begun = False
                try:
                    for text in self._ask(provider, prompt):
                        has_begun = True
                        yield text
                    return
                except ModelError as error:
                    if has_begun:
                        if not self._goes_on(error):
                            raise
                        broken = error
                    elif error.status != 413 or not prompt.shorten():
                        raise broken or error from None
        finally:
            del broken  # it holds the frames that it came through, and this is one of them

    def _provider(self) -> Provider:
        """Raises UnknownModel where the reply's model is not served."""
        session, model = self.reply.session, self.reply.draft.model
        return self._catalog.allow(model, session.provider if model == session.model else None)

    def _ask(self, provider: Provider, prompt: Prompt) -> Iterator[str]:
        """Ask the provider once for what follows the text so far."""
        reply, session = self.reply, self.reply.session
        so_far = reply.so_far()
        return provider.stream(
            reply.exchange,
            reply.draft.model,
            session.system,
            messages_of(prompt.turns, so_far),
            int(min(self._max_tokens, session.options.get("max_tokens", self._max_tokens))),
            session.options,
            prompt=prompt.tokens + len(so_far.encode()) // 4,
        )

    def _goes_on(self, error: ModelError) -> bool:
        """Have the reply go on behind this error of its provider, once that is stored; returns
        whether it does."""
        reply = self.reply
        while reply.draft.turn.restarts < self._continue_limit:
            if not pause(reply.exchange, error, RETRY_PAUSES[0]):
                return False
            try:
                with connected():
                    is_ours = count_restart(reply.draft.turn)
            except Unavailable:
                continue
            if not is_ours:
                raise HungUp  # another process has taken it over, or it was cancelled
            reply.go_on()
            return True
        return False


_EXPECTED = (HungUp, Missing, UnknownModel, ModelError, Unavailable)
