"""A model server that goes on with an answer after its client hangs up, and keeps it, as llama.cpp
does (github.com/ggml-org/llama.cpp, tools/server): a request that names its conversation can be
read again from its beginning, until it is deleted.
"""

import re
import threading
import urllib.parse

from provider import Provider, chunk, events_of, head, models, status

WHO = {"Server": "llama.cpp"}


class Generation:
    """One answer while it is generated, event by event."""

    def __init__(self, request, pieces):
        self.request = request
        self.events, self.is_over = [], False
        self.ended = threading.Event()  # nobody wants it
        self._changed = threading.Condition()
        threading.Thread(target=self._generate, args=(pieces,), daemon=True).start()

    def _generate(self, pieces):
        for part in events_of(self.request, pieces):
            if isinstance(part, threading.Event):
                while not part.wait(0.01) and not self.ended.is_set():
                    pass
            elif isinstance(part, bytes):
                with self._changed:
                    self.events.append(part)
                    self._changed.notify_all()
            elif self.ended.wait(part):
                break
            if self.ended.is_set():
                break
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def read(self):
        """The events, each as it comes; None now and then, so that the reader can look around."""
        place = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.is_over or len(self.events) > place, 0.02)
                new, is_last = self.events[place:], self.is_over
            place += len(new)
            yield from new
            if is_last and not new:
                return
            if not new:
                yield None


class Keeping(Provider):
    """`pieces` is what each request is answered with: texts, seconds and Events. The connections of
    the first answers, new or kept, break after as many events as `cuts` says. What it `lies` about
    an answer that it was asked for again: `other` (it has another text), `half` (it has only the
    first events of it), or `forgets` (404)."""

    def __init__(self):
        super().__init__()
        self.forget_all()

    def forget_all(self):
        self.reset()
        self.kept, self.pieces, self.cuts, self.lies = {}, ["The answer."], [], None
        self.is_named = True  # it says who it is
        self.has_route = True  # a router in front of it knows the path
        self.deleted = []

    @property
    def headers(self):
        return WHO if self.is_named else {}

    @property
    def busy(self):
        """How many answers are generated now."""
        return sum(not each.is_over for each in self.kept.values())

    def answer(self, request):
        url = urllib.parse.urlsplit(request.path)
        if url.path.endswith("/health"):
            return status(200, {"status": "ok"}, **self.headers)(request)
        if url.path.endswith("/stream"):
            self.requests.append(request)
            name = urllib.parse.parse_qs(url.query)["conv_id"][0]
            return self._kept(request, name)
        if url.path.endswith("/streams/lookup"):
            code = 200 if self.has_route else 404
            return status(code, [], **self.headers)(request)
        if request.method == "GET":
            return models(self.models, **self.headers)(request)
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        pieces = self.pieces(request) if callable(self.pieces) else self.pieces
        generation = Generation(request, pieces)
        name = request.headers.get("x-conversation-id")
        self.kept[name or id(request)] = generation
        return self._tell(request, generation, is_kept=bool(name))

    def _kept(self, request, name):
        generation = self.kept.get(name)
        if not self.has_route:
            return status(404, "Not here.")(request)
        if request.method == "DELETE":
            self.deleted.append(name)
            if generation:
                generation.ended.set()
                del self.kept[name]
            return status(204 if generation else 404, **self.headers)(request)
        if generation is None or self.lies == "forgets":
            error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
            return status(404, {"error": error}, **self.headers)(request)
        if self.lies == "other":
            generation = Generation(generation.request, ["Quite another text than before."])
        return self._tell(
            request, generation, is_kept=True, most=3 if self.lies == "half" else None
        )

    def _tell(self, request, generation, is_kept, most=None):
        left = self.cuts.pop(0) if self.cuts else None
        yield head(Transfer_Encoding="chunked", **self.headers)
        for data in generation.read():
            if left == 0:
                return
            if most == 0 or request.hung_up.is_set():
                break
            if data is not None:
                yield chunk(data)
                left = left and left - 1
                most = most and most - 1
        if not is_kept:
            generation.ended.set()
        yield chunk(b"")


def words(text):
    """The pieces of this text, word by word."""
    return re.findall(r"\s*\S+\s*", text)
