"""The writing of a reply: it reads the conversation, asks the provider, and reads the answer."""

import contextlib
import functools
import itertools
import math
import secrets
import sys
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from database import Unavailable, connected
from files import File
from limits import BUSY, COPIES, SMALL, memory_of
from llm import Catalog, UnknownModel
from models import COMPLETE, FAILED, INTERRUPTED, Missing, Turn, outcome_of
from providers.base import RETRY_PAUSES, HTTPProvider, pause
from providers.conversation import Prompt
from providers.faults import ModelError
from providers.protocols import Provider
from providers.reread import AnotherAnswer
from replies.commits import count_restart, count_takeover, store_images_start, store_stream
from replies.reply import BROKEN, Reply
from tables.files import FilePart, StoredFile
from turns import ShownTurn, count_before, pages_before
from wire import HungUp

ROOM_WAIT = 1  # seconds of waiting for room until we check whether the reply is still wanted
# Bytes of memory for each byte of an image while a request is made: the image in base64, and once
# more in what is sent.
MEMORY_PER_BYTE = 3
SEES_NOTHING = "This model does not see images. Choose another one, or send a message without them."
REFUSED_BEFORE = (
    "The images of this message were refused for this model. Choose another one, or change the "
    "message."
)
LEAVE_OUT = "Choose another model, or send the message without its images."


class _OwnImagesRefused(Exception):
    """The model does not take the images of the last message; the text tells the client why."""


class Writer:
    """Writes one reply, step by step. Each step reads the next text of the answer, and may take as
    long as the provider does."""

    def __init__(
        self,
        reply: Reply,
        catalog: Catalog,
        max_tokens: int,
        continue_limit: int,
        first_message: Turn | None = None,
    ) -> None:
        """`first_message` is the message of a new session."""
        self.reply = reply
        self._catalog, self._first_message = catalog, first_message
        self._max_tokens, self._continue_limit = max_tokens, continue_limit
        self._provider: Provider | None = None
        self._is_at_end = False  # the answer came to its end
        self._texts = self._answer()

    def step(self) -> bool:
        """Add the next text to the reply, or finish it. Returns whether there was more text. An
        unexpected error is raised again once the reply is finished."""
        try:
            text = next(self._texts, None)
            if text is not None:
                self.reply.receive(text)
                return True
            self._is_at_end = True
            outcome = outcome_of(COMPLETE, stop_reason=self.reply.exchange.stop_reason)
        except BaseException as error:
            self.reply.finish(self._outcome_of(error))
            if not isinstance(error, _EXPECTED):
                raise
            return False
        self.reply.finish(outcome)
        return False

    def close(self) -> None:
        """End the answer if it goes on at the model's server although nobody wants it."""
        if not (self._is_at_end or self.reply.goes_on_elsewhere):
            self._end_stream()

    def _end_stream(self) -> None:
        stream_id = self.reply.exchange.stream_id
        if stream_id is not None and isinstance(self._provider, HTTPProvider):
            self._provider.end_stream(stream_id)

    def _outcome_of(self, error: BaseException) -> dict[str, Any]:
        """The columns of a reply that ends with this error. The error itself is not kept: its
        traceback would keep all frames alive."""
        if isinstance(error, HungUp | Missing):
            # Missing: the session was deleted, which the keeper will find out.
            return outcome_of(INTERRUPTED)
        if isinstance(error, UnknownModel):
            self.reply.error = str(error)
            return outcome_of(FAILED, 400, str(error), pointer="/model")
        if isinstance(error, _OwnImagesRefused):
            return outcome_of(FAILED, 400, str(error), pointer="/files")
        if isinstance(error, ModelError):
            self.reply.error = str(error)
            return outcome_of(FAILED, *error.told(self.reply.shows_provider_errors))
        if isinstance(error, Unavailable):
            return outcome_of(FAILED, 503, "The database did not answer. Ask again.")
        if isinstance(error, MemoryError):
            return outcome_of(FAILED, 503, BUSY)
        return BROKEN

    def _answer(self) -> Iterator[str]:
        """Yield the texts of the answer. If the conversation does not fit the model's window, only
        its newest half is sent, then the newest half of that, and so on, until what is left fits
        or is only the last turn. If the answer breaks off, the provider is asked to continue it, as
        often as the limit allows. After one break more, the reply fails with the status of that
        break, and keeps all its text."""
        reply = self.reply
        provider = self._provider = self._find_provider()
        prompt = reply.prompt = read_prompt(reply, self._first_message)
        if reply.exchange.stream_id is not None and (yield from self._come_back(provider)):
            return
        self._check_images(provider, prompt)
        broken = None  # the latest error that broke off the answer
        refusal = None  # the first error that may be about the images
        try:
            while True:
                has_begun = False
                try:
                    for text in self._ask(provider, prompt, refusal):
                        has_begun = True
                        yield text
                    return
                except ModelError as error:
                    if has_begun:
                        if not self._restart_after(error):
                            raise
                        broken, refusal = error, None  # what was refused is settled
                    elif error.suspects_images and prompt.leave_out_images():
                        refusal = refusal or error
                    elif error.status != 413 or not prompt.shorten():
                        raise broken or (error.suspects_images and refusal) or error from None
        finally:
            del broken, refusal  # their tracebacks refer to this frame: a reference cycle

    def _find_provider(self) -> Provider:
        """The provider of the reply's model. Raises UnknownModel if there is none."""
        session, model = self.reply.session, self.reply.draft.model
        return self._catalog.allow(model, session.provider if model == session.model else None)

    def _come_back(self, provider: Provider) -> Generator[str, None, bool]:
        """Yield the rest of the answer that an earlier writer has begun to read. Returns whether
        that was possible; if not, the provider is to be asked to continue it."""
        reply = self.reply
        try:
            if not isinstance(provider, HTTPProvider) or not reply.has_all_before_call:
                raise AnotherAnswer
            yield from provider.attach(reply.exchange, self._most_tokens(), *reply.attach())
            return True
        except AnotherAnswer:
            self._count_takeover()
        except ModelError as error:
            if not self._restart_after(error):
                raise
        return False

    def _count_takeover(self) -> None:
        """Commit that the reply was taken over, and expect another call. Raises HungUp if this
        process has lost the reply."""
        reply = self.reply
        self._end_stream()
        is_ours = None
        while is_ours is None:
            try:
                with connected():
                    is_ours = count_takeover(reply.draft)
            except Unavailable:
                reply.call.pause(RETRY_PAUSES[0])
        if not is_ours:
            raise HungUp
        reply.expect_next_call()

    def _most_tokens(self) -> int:
        """The longest answer that is asked for."""
        return int(min(self._max_tokens, self.reply.session.options.get("max_tokens", math.inf)))

    def _name_stream(self, provider: Provider, start: int) -> None:
        """Give the next answer, which begins after `start` characters of the text, a name by which
        another process can read it again, if its server keeps answers. Raises HungUp if this
        process has lost the reply."""
        exchange, turn = self.reply.exchange, self.reply.draft.turn
        keeps = isinstance(provider, HTTPProvider) and provider.keeps_answers
        if not keeps and exchange.stream_id is None:
            return
        exchange.stream_id = None
        stream_id = f"parley-{turn.id}-{secrets.token_hex(8)}" if keeps else None
        with contextlib.suppress(Unavailable):  # then nobody can read it again
            with connected():
                is_ours = store_stream(turn, stream_id, start if keeps else None)
            if not is_ours:
                raise HungUp
            exchange.stream_id = stream_id

    def _ask(self, provider: Provider, prompt: Prompt, refusal: ModelError | None) -> Iterator[str]:
        """Ask the provider for the text that follows the text so far. If there was a `refusal`, the
        first text, thought or end shows that it was about the images."""
        reply, session = self.reply, self.reply.session
        so_far = reply.so_far()
        if images := prompt.images():
            texts = memory_of(_texts_of(reply, prompt))
            _take_room(reply, texts + MEMORY_PER_BYTE * sum(image.size for image in images))
            reply.exchange.on_accepted = functools.partial(reply.memory.take, texts)
        if refusal and prompt.lacks_own_images:
            take_refusal = functools.partial(self._take_refusal, prompt, refusal)
            reply.exchange.on_thinking = take_refusal
        self._name_stream(provider, len(so_far))
        answer = provider.stream(
            reply.exchange,
            reply.draft.model,
            session.system,
            prompt.messages(so_far),
            self._most_tokens(),
            session.options,
            prompt=prompt.tokens + len(so_far.encode()) // 4,
            read=self._read_file,
        )
        first = next(answer, None)
        if refusal:
            self._take_refusal(prompt, refusal)
        if first is not None:
            yield first
            yield from answer

    # Images

    def _check_images(self, provider: Provider, prompt: Prompt) -> None:
        """Leave out the images of the prompt if its model is known to see none. Raises
        _OwnImagesRefused if it is known not to take those of the last message."""
        session, model = self.reply.session, self.reply.draft.model
        if provider.sees_nothing(session.owner, model):
            while prompt.leave_out_images():
                pass
            if prompt.lacks_own_images:
                raise _OwnImagesRefused(SEES_NOTHING)
        elif prompt.lacks_own_images:
            raise _OwnImagesRefused(REFUSED_BEFORE)
        elif prompt.images_start > session.images_start.get(model, 0):
            self._store_images_start(prompt)

    def _take_refusal(self, prompt: Prompt, refusal: ModelError, _thoughts: str = "") -> None:
        """A request that this error refused was answered without some images, so these were the
        reason. Remember that; the provider itself remembers which models see nothing. Raises
        _OwnImagesRefused if they are those of the last message."""
        if not refusal.sees_nothing:
            self._store_images_start(prompt)
        if prompt.lacks_own_images:
            self.reply.error = str(refusal)
            if refusal.sees_nothing:
                raise _OwnImagesRefused(SEES_NOTHING)
            told = refusal.told(self.reply.shows_provider_errors)[1]
            raise _OwnImagesRefused(f"{told} {LEAVE_OUT}")

    def _store_images_start(self, prompt: Prompt) -> None:
        turn = self.reply.draft.turn
        with connected():
            store_images_start(turn, prompt.images_start)

    def _read_file(self, file: File) -> bytes:
        """The bytes of an image. Raises Missing if the session was deleted, and its files too."""
        with connected():
            stored = StoredFile.get_owned(self.reply.session.owner, file.id)
            if stored is None:
                raise Missing
            return FilePart.read(stored.id)

    def _restart_after(self, error: ModelError) -> bool:
        """Wait, and commit a restart of the reply after this error of its provider. Returns False
        if it may not be restarted. Raises HungUp if this process has lost the reply."""
        reply = self.reply
        reply.on_call_broken()
        self._end_stream()
        while reply.draft.turn.restarts < self._continue_limit:
            # Each restart waits equally long: the provider had begun to answer.
            if not pause(reply.exchange, error, RETRY_PAUSES[0]):
                return False
            try:
                with connected():
                    is_ours = count_restart(reply.draft.turn)
            except Unavailable:
                continue
            if not is_ours:
                raise HungUp  # another process has taken it over, or it was cancelled
            reply.expect_next_call()
            return True
        return False


_EXPECTED = (HungUp, Missing, UnknownModel, ModelError, Unavailable, _OwnImagesRefused)


class _NoRoom(Exception):
    """There is no room for a prompt."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size  # bytes needed for what has been read so far


def read_prompt(reply: Reply, first_message: Turn | None) -> Prompt:
    """Wait until this process has room for the prompt, and read it. For a new session,
    `first_message` is the message, and room for it is reserved already. While the reply waits, it
    holds neither a connection nor room. Raises HungUp if the reply is not wanted any more, Missing
    if its session was deleted."""
    session = reply.session
    if first_message is not None:
        return Prompt([first_message], reply.draft.model, session.system)
    size = COPIES * session.system_size if session.lacks_system else 0
    while True:
        _take_room(reply, size)
        try:
            return _read(reply, size)
        except _NoRoom as no_room:
            size = no_room.size
        session.system = None  # freed while we wait, and read again


def _take_room(reply: Reply, size: int) -> None:
    """Wait until the reply has so many bytes of memory reserved. Raises HungUp if it is not wanted
    any more."""
    while size and not reply.memory.take(size, seconds=ROOM_WAIT):
        reply.call.pause(0)  # raises HungUp


def _texts_of(reply: Reply, prompt: Prompt) -> list[str | None]:
    """The texts that are in memory while the reply is written."""
    return [reply.session.system, reply.text, *(turn.content for turn in prompt.turns)]


def _read(reply: Reply, size: int) -> Prompt:
    """Read the prompt of a reply that has `size` bytes reserved. Raises _NoRoom if there is no
    room for the whole prompt, and then nothing is reserved."""
    session = reply.session
    with connected():
        session.read_system()
        pages = _with_room(reply, size, pages_before(session.key, reply.id))
        turns = itertools.chain.from_iterable(pages)
        prompt = Prompt(
            turns,
            reply.draft.model,
            session.system,
            session.context_start or 0,
            functools.partial(count_before, session.key),
            session.images_start.get(reply.draft.model, 0),
        )
    if not prompt.turns:
        raise Missing  # the session was deleted meanwhile
    # Possibly not all turns that were read will be sent.
    reply.memory.take(memory_of(_texts_of(reply, prompt)))
    return prompt


def _with_room(
    reply: Reply, size: int, pages: Iterable[list[ShownTurn]]
) -> Iterator[list[ShownTurn]]:
    """Yield these pages of turns, and reserve memory for them, for the system prompt and for the
    reply's own text. The reply has `size` bytes reserved already. Raises _NoRoom."""
    held = sys.getsizeof(reply.session.system) + sys.getsizeof(reply.text)
    for page in itertools.chain([[]], pages):
        held += sum(sys.getsizeof(turn.content) for turn in page)
        if held > SMALL and COPIES * held > size:
            size = COPIES * held
            if not reply.memory.take(size):
                raise _NoRoom(size)
        yield page
