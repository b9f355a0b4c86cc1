"""The parts of an application, which requests use."""

import dataclasses

from flask import Flask, current_app, request

from api.static_files import StaticFiles
from auth import Tokens
from limits import (
    DOCUMENTS,
    EXPORTS,
    HELD,
    IMPORTS,
    IN_LINE,
    SEARCHES,
    STRANGERS,
    STREAMS,
    UPLOADS,
    Bulkhead,
    Lines,
)
from llm import Catalog
from maintenance.sweeper import Sweeper
from replies import Replies


@dataclasses.dataclass
class Services:
    tokens: Tokens
    catalog: Catalog
    replies: Replies
    static_files: StaticFiles
    sweeper: Sweeper
    held: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(HELD))  # requests that wait
    lines: Lines = dataclasses.field(default_factory=lambda: Lines(IN_LINE))
    streams: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(STREAMS))
    searches: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(SEARCHES))
    imports: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(IMPORTS))  # and forks
    uploads: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(UPLOADS))
    exports: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(EXPORTS))
    documents: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(DOCUMENTS))
    strangers: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(STRANGERS))

    def fit(self, threads: int, connections: int) -> None:
        """Set the limits for a server with so many threads and client connections."""
        # Of sixteen threads, ten may be held by requests that wait, and two by requests that wait
        # for an identity provider, one with a token and one without: four are left for short ones.
        self.held.size = max(1, threads * 5 // 8)
        # Requests in a line hold threads, too. A quarter of the threads is left to other users.
        self.lines.most_waiting = max(1, threads * 3 // 4)
        self.strangers.size = max(1, threads // 16)
        if self.tokens.published:
            self.tokens.published.waiting.size = self.strangers.size
        # Half of the process's open files are for connections, and half of these may be streams.
        # A reply takes two files, and a third of all files is for replies.
        self.streams.size = connections // 2
        self.replies.reply_bulkhead.size = max(1, connections // 3)

    def prefetch(self) -> None:
        """Start to fetch what the first page and the first token need from the identity provider.
        Threads do it, and a fork of this process would not have them."""
        if self.tokens.provider:
            self.tokens.provider.at_hand()
        if self.tokens.published:
            self.tokens.published.prefetch()


def services_of(app: Flask) -> Services:
    return app.extensions["parley"]


def services() -> Services:
    """The services of the application that handles this request."""
    return services_of(current_app)


def release_slot() -> None:
    """Give up this request's worker slot, since it is about to block: our server runs another
    request meanwhile."""
    request.environ.get("parley.release_slot", int)()
