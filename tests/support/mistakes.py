"""What a server says about a mistake: in its answer, and in its log."""

import json
import re
import uuid

import requests
from cryptography.hazmat.primitives.asymmetric import ed25519

from client import make_token, wait_until

KEY = ed25519.Ed25519PrivateKey.generate()


HUSH = "hush-hush-hush"  # a password or a key, which must not be shown


# Requests


class Asker:
    """Sends requests to a server, and reads its log."""

    def __init__(self, server):
        self.server = server

    def ask(self, path="/sessions", body=None, method=None, **headers):
        """(status, detail) of the answer, and the line of the request in the log."""
        name = uuid.uuid4().hex
        headers = {"Authorization": f"Bearer {make_token()}", "X-Request-ID": name} | headers
        headers |= (
            {"Content-Type": "application/json"}
            if body is not None and "Content-Type" not in headers
            else {}
        )
        data = json.dumps(body) if isinstance(body, dict) else body
        method = method or ("GET" if body is None else "POST")
        answer = requests.request(
            method, self.server.url + path, data=data, headers=headers, timeout=30
        )
        mine = re.compile(f".* request method=.* id={name}.*")  # written after the answer
        [line] = wait_until(lambda: mine.findall(self.server.output()))
        details = [error["detail"] for error in answer.json().get("errors", ())]
        return answer.status_code, " ".join(details), why(line)


def why(line):
    """The reason in this line of the log, or None."""
    found = re.search(r' why=("(?:[^"\\]|\\.)*"|\S+)', line)
    return found and (json.loads(found[1]) if found[1].startswith('"') else found[1])


def bearer(*args, **claims):
    return {"Authorization": "Bearer " + make_token(*args, **{"aud": "parley"} | claims)}


WORDS = "private words"
