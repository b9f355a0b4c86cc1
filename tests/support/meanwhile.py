"""What happens again and again while something else is tested."""

import contextlib
import threading


@contextlib.contextmanager
def all_the_while(act):
    """Call this again and again, in a thread, until the context is left. It gets the event that
    says so."""
    over = threading.Event()

    def run():
        while not over.is_set():
            act(over)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
