"""What an application has: its parts, which requests use."""

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
    Bulkhead,
    Lines,
)
from llm import Catalog
from replies import Replies
from upkeep.sweeper import Sweeper


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
    exports: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(EXPORTS))
    documents: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(DOCUMENTS))
    strangers: Bulkhead = dataclasses.field(default_factory=lambda: Bulkhead(STRANGERS))

    def fit(self, threads: int, connections: int) -> None:
        """Take so much at a time as a server with these has room for."""
        # Of sixteen threads, ten may be held by waits, and of those who wait for an identity
        # provider, one by a token and one by a stranger: four are left for short requests.
        self.held.size = max(1, threads * 5 // 8)
        # A line waits in threads, too, of which other users have at least a quarter.
        self.lines.most_waiting = max(1, threads * 3 // 4)
        self.strangers.size = max(1, threads // 16)
        if self.tokens.published:
            self.tokens.published.waiting.size = self.strangers.size
        # Half of the files are for connections, half of which may be streams. A reply has two
        # files, and a third of all is for replies.
        self.streams.size = connections // 2
        self.replies.bulkhead.size = max(1, connections // 3)

    def begin(self) -> None:
        """Have fetched what the first page, and the first token, needs. A fork of this process
        would not go on with it."""
        if self.tokens.provider:
            self.tokens.provider.at_hand()
        if self.tokens.published:
            self.tokens.published.begin()


def services_of(app: Flask) -> Services:
    return app.extensions["parley"]


def services() -> Services:
    """Those of the application that serves this request."""
    return services_of(current_app)


def step_aside() -> None:
    """This request waits from here on: our server has others answered meanwhile."""
    request.environ.get("parley.waits", int)()
