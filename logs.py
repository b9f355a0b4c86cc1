"""What the service says about itself: one line a request and one a reply, as text or as JSON; never content or tokens."""

import json
import logging
import re
import time


class TextLine(logging.Formatter):
    """`time LEVEL message name=value …`; values that hold more than a word are quoted, on one line."""

    converter = time.gmtime
    default_msec_format = "%s.%03dZ"

    def __init__(self):
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record):
        pairs = (f"{name}={_word(value)}" for name, value in _fields(record).items())
        return " ".join([super().formatMessage(record), *pairs])


class JSONLine(logging.Formatter):
    """One JSON object a line."""

    def format(self, record):
        line = {"time": round(record.created, 3), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | _fields(record))


def set_up(format):
    """Send the lines of the logger `parley` to standard error, in this format: `text` or `json`."""
    log = logging.getLogger("parley")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLine() if format == "json" else TextLine())
    log.handlers = [handler]
    # The development server's own lines show queries, which may be what a user looks for.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


def _fields(record):
    return record.args if isinstance(record.args, dict) else {}


def _word(value):
    text = "-" if value is None else str(value)
    return text if re.fullmatch(r"[\x21\x23-\x7e]+", text) else json.dumps(text)
