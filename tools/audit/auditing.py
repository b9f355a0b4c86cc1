"""An audit: all checks, over one history."""

from asked import Asked
from book import Book
from calls import Calls
from deletions import Deletions
from ends import Ends
from estimates import Estimates
from failures import Failures
from frames import Frames
from goings_on import GoingsOn
from hang_ups import HangUps
from messages import Messages
from once import Once
from owners import Owners
from reading import Reading
from sessions import Sessions
from statuses import Statuses
from stored import Stored
from texts import Texts
from thoughts import Thoughts
from under_way import UnderWay
from used import Used


def audit(lines):
    """The book of these lines: what was checked, and what is wrong."""
    book = Book()
    asked, texts = Asked(book), Texts(book)
    checks = [
        Sessions(book),
        asked,
        texts,
        Statuses(book),
        Frames(book, texts),
        Thoughts(book),
        Ends(book, texts),
        UnderWay(book, texts),
        Once(book, texts),
        Deletions(book, asked),
        HangUps(book, texts, asked),
        Messages(book, asked),
        Stored(book),
        Owners(book, texts, asked),
        Calls(book, texts, asked),
        Failures(book, asked),
        GoingsOn(book, asked),
        Used(book, texts, asked),
        Estimates(book, texts, asked),
    ]
    Reading(book, checks).read(lines)
    return book
