"""S-59 to S-67: what becomes of the images of messages, and of the files that they are."""

import base64
import hashlib
import json
import random
import struct
import time
import zlib
from typing import NamedTuple

from calling import Stream
from casebook import Unfit, case
from scripted_model import CUT, MODEL

BLIND = {"status": 500, "body": {"error": {"message": "image input is not supported"}}}
BROKEN = {"status": 400, "body": {"error": {"message": "Could not process image"}}}
TOO_LONG = {
    "status": 400,
    "body": {"error": {"message": "It is too long.", "code": "context_length_exceeded"}},
}
START = b"\x89PNG\r\n\x1a\n"
SIDE = 24  # pixels
IN_PLACE = "[image]"  # what a model is sent instead of an image
UPLOADS = 20  # seconds for an upload: others of the same user may be in progress


def picture(between=b"", behind=b""):
    """A PNG that no other run has. A comment may stand between its parts, and anything behind it."""
    lines = b"".join(b"\0" + random.randbytes(3 * SIDE) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    comment = part_of_png(b"tEXt", b"Comment\0" + between) if between else b""
    rest = part_of_png(b"IDAT", zlib.compress(lines)) + part_of_png(b"IEND", b"")
    return START + part_of_png(b"IHDR", header) + comment + rest + behind


def part_of_png(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class File(NamedTuple):
    """A file that the user has uploaded."""

    shown: dict  # as the server describes it
    data: bytes  # as it is stored

    @property
    def id(self):
        return self.shown["id"]

    @property
    def part(self):
        """What a model is sent for it."""
        data = base64.b64encode(self.data).decode()
        url = f"data:{self.shown['media_type']};base64,{data}"
        return {"type": "image_url", "image_url": {"url": url}}


def upload(user, data):
    """The answer to an upload, which is sent again while the server asks the user to wait."""
    until = time.monotonic() + UPLOADS
    while True:
        answer = user.call("POST", "/files", data, Content_Type="application/octet-stream")
        if answer.status != 503 or time.monotonic() > until:
            return answer
        time.sleep(0.2)


def uploaded(trial, data=None):
    """A new file, with its bytes as they are given back."""
    answer = upload(trial.user, data or picture())
    if answer.status not in (200, 201):
        raise Unfit(f"an upload is answered by {answer}")
    stored = trial.user.call("GET", answer.headers.get("location", ""))
    if stored.status != 200:
        raise Unfit(f"GET {stored.sent[1]} is answered by {stored}")
    return File(answer.json, stored.body)


def show(trial, script, *files, session=None, **fields):
    """The stream of a message with these files, read to its end."""
    path = f"{session}/messages" if session else "/sessions"
    body = {"content": script.message, "files": [file.id for file in files]} | fields
    came = trial.user.read("POST", path, body)
    if not isinstance(came, Stream):
        raise Unfit(f"POST {path} is answered by {came}")
    return came


def talk_on(trial, session, script):
    with trial.ask(session, script) as stream:
        return stream.rest()


def messages(body):
    """The contents of what a model was sent, each as a list of its parts."""
    contents = [each["content"] for each in body["messages"] if each["role"] != "system"]
    return [
        [{"type": "text", "text": content}] if isinstance(content, str) else content
        for content in contents
    ]


def message(script, *files):
    """The parts of a message, as a model must be sent them."""
    return [*(file.part for file in files), {"type": "text", "text": script.message}]


def in_place(script):
    """The parts of a message whose image is not sent."""
    return [{"type": "text", "text": f"{IN_PLACE}\n{script.message}"}]


def see_sent(trial, script, place, wanted, call=-1):
    """Check the message at this place of what a call of this script has sent."""
    if trial.see(script.calls, "the model is not asked"):
        said = messages(script.asked[call])
        found = said[place] if len(said) > place else None
        trial.see(found == wanted, f"the model is sent {told(found)}, not {told(wanted)}")


def told(parts):
    """A message in short."""
    return [part.get("text") or json.dumps(part)[-40:] for part in parts or ()]


def other_model(trial, session, model):
    """Let the session have this model."""
    trial.same(trial.user.call("PATCH", session, {"model": model}).status, 200, "the status")


@case("S-59", "a model is sent the stored bytes before the text, and the same with each message")
def sent_as_stored(trial):
    one, two = uploaded(trial), uploaded(trial)
    first, second = trial.script(["One."]), trial.script(["Two."])
    stream = show(trial, first, two, one, two)
    wanted = message(first, two, one, two)
    see_sent(trial, first, 0, wanted)
    files = trial.turns(stream.session)[0].get("files")
    trial.same(files, [two.shown, one.shown, two.shown], "what is shown of the files")
    trial.same(show(trial, second, one, session=stream.session).text, "Two.", "the next reply")
    see_sent(trial, second, 0, wanted)
    see_sent(trial, second, 2, message(second, one))


@case(
    "S-60", "a model that refuses images of earlier turns is asked without them, within the reply"
)
def refused_of_earlier_turns(trial):
    for refusal in (BLIND, BROKEN):
        file, first = uploaded(trial), trial.script(["One."])
        session = show(trial, first, file).session
        # What a model has refused may be remembered, so each has a name of its own.
        other_model(trial, session, first.mark)
        second, third = trial.script([refusal], ["Two."]), trial.script(["Three."])
        stream = talk_on(trial, session, second)
        trial.same((stream.text, stream.names[-1:]), ("Two.", ["done"]), "the reply")
        trial.same(second.calls, 2, "the number of calls")
        see_sent(trial, second, 0, message(first, file), call=0)
        see_sent(trial, second, 0, in_place(first))
        if refusal is BROKEN:
            talk_on(trial, session, third)
            see_sent(trial, third, 0, in_place(first))
        other_model(trial, session, MODEL)
        fourth = trial.script(["Four."])
        talk_on(trial, session, fourth)
        see_sent(trial, fourth, 0, message(first, file))


@case("S-61", "if the last message's images are refused, that is said, and the session goes on")
def refused_of_the_last_message(trial):
    for refusal in (BLIND, BROKEN):
        file, script = uploaded(trial), trial.script([refusal], ["I see none."])
        body = {"content": script.message, "files": [file.id], "model": script.mark}
        answer = trial.user.call("POST", "/sessions", body)
        if not trial.same((answer.status, answer.source), (400, "/files"), "the error"):
            continue
        session = f"/sessions/{answer.json['errors'][0]['meta']['session_id']}"
        shown = trial.turns(session)
        trial.same([turn.get("status") for turn in shown], [None, "failed"], "what is stored")
        trial.same(shown[0].get("files"), [file.shown], "the files of the message")
        second = trial.script(["Two."])
        trial.same(talk_on(trial, session, second).text, "Two.", "the next reply")
        if refusal is BROKEN:
            see_sent(trial, second, 0, unanswered(script, second))


def unanswered(script, following):
    """The parts of a message that got no answer, and of the one after it, without images."""
    [said] = in_place(script)
    return [said | {"text": f"{said['text']}\n\n{following.message}"}]


@case("S-61", "a stream whose message has images that are refused ends with error 400")
def refused_in_a_stream(trial):
    script = trial.script([BROKEN], ["I see none."])
    stream = show(trial, script, uploaded(trial), model=script.mark)
    trial.same(stream.kept, ["error"], "the events")
    trial.same(stream.end.data["status"], 400, "the status of the error")
    trial.same(trial.turns(stream.session)[-1]["content"], "", "what is stored")


@case("S-62", "a full window leaves out turns with their images, and sends those of the others")
def full_window(trial):
    old, new = uploaded(trial), uploaded(trial)
    session = show(trial, trial.script(["One."]), old).session
    for _ in range(3):
        talk_on(trial, session, trial.script(["More."]))
    script = trial.script([TOO_LONG], ["Two."])
    stream = show(trial, script, new, session=session)
    trial.same(stream.text, "Two.", "the reply")
    trial.same(script.calls, 2, "the number of calls")
    sent = messages(script.asked[-1])
    trial.same(sent[-1], message(script, new), "the message that is sent")
    trial.see(old.part not in [part for each in sent for part in each], "an old image is sent")
    wanted = 9 - len(sent)
    trial.same(trial.turns(session)[-1]["turns_left_out"], wanted, "the number of turns left out")
    second = trial.script(["Three."])
    talk_on(trial, session, second)
    see_sent(trial, second, len(sent) - 1, message(script, new))


@case("S-63", "a reply that goes on behind a break is asked for with the same images")
def goes_on(trial):
    file, script = uploaded(trial), trial.script(["One ", CUT], ["two."])
    stream = show(trial, script, file)
    trial.same((stream.text, script.calls), ("One two.", 2), "the reply, and the number of calls")
    for call in range(script.calls):
        see_sent(trial, script, 0, message(script, file), call)


@case("S-63", "a reply that goes on behind a kill is asked for with the same images", "restart")
def killed(trial):
    file, script = uploaded(trial), trial.script(["One ", {"gate": "never"}], ["two."])
    with trial.create(script, fields={"files": [file.id]}) as stream:
        last = stream.until("content_delta")
        trial.place.restart()
        stream.rest()
    came = trial.followed(stream.session, last.id)
    trial.same(getattr(came, "text", came), "two.", "what its last id gives")
    trial.same(script.calls, 2, "the number of calls")
    for call in range(script.calls):
        see_sent(trial, script, 0, message(script, file), call)


def when_free(trial, path, body):
    """The answer to a fork or an import, of which a server makes few at a time."""
    for _ in range(5):
        came = trial.user.call("POST", path, body)
        if came.status != 503:
            break
        time.sleep(1)
    return came


@case("S-64", "a fork has the images, and keeps them when its original is deleted")
def forked(trial):
    file, first = uploaded(trial), trial.script(["One."])
    session = show(trial, first, file).session
    fork = when_free(trial, f"{session}/fork", {})
    trial.same(fork.status, 201, "the status of a fork")
    trial.same(trial.user.call("DELETE", session).status, 204, "the status of DELETE")
    copy = fork.headers["location"]
    trial.same(trial.turns(copy)[0].get("files"), [file.shown], "the files of the fork")
    trial.same(trial.user.call("GET", f"/files/{file.id}").body, file.data, "the file")
    second = trial.script(["Two."])
    trial.same(talk_on(trial, copy, second).text, "Two.", "the next reply")
    see_sent(trial, second, 0, message(first, file))


@case("S-64", "an import has the images that its turns name, if the user has them")
def imported(trial):
    file, first = uploaded(trial), trial.script(["One."])
    shown = trial.turns(show(trial, first, file).session)
    names = "kind", "content", "files"
    turns = [{name: turn[name] for name in names if name in turn} for turn in shown]
    came = when_free(trial, "/sessions/import", {"turns": turns})
    if not trial.same(came.status, 201, "the status of an import"):
        return
    copy = came.headers["location"]
    trial.same(trial.turns(copy)[0].get("files"), [file.shown], "the files of the import")
    second = trial.script(["Two."])
    trial.same(talk_on(trial, copy, second).text, "Two.", "the next reply")
    see_sent(trial, second, 0, message(first, file))


@case("S-65", "the same picture is one file, whose id is the SHA-256 of what is stored")
def same_twice(trial):
    data = picture()
    first, again = upload(trial.user, data), upload(trial.user, data)
    trial.same((first.status, again.status), (201, 200), "the statuses")
    trial.same(again.json, first.json, "what is said of the second")
    trial.same(again.headers.get("location"), first.headers.get("location"), "the Location")
    stored = trial.user.call("GET", f"/files/{first.json['id']}")
    trial.same(hashlib.sha256(stored.body).hexdigest(), first.json["id"], "the SHA-256")
    trial.same(len(stored.body), first.json["size"], "the size")
    shape = first.json["media_type"], first.json["width"], first.json["height"]
    trial.same(shape, ("image/png", SIDE, SIDE), "what is said of the picture")


@case("S-66", "what is not the picture is not stored")
def cut_off(trial):
    secret, more = b"where we live", b"PK\3\4<script>"
    stored = uploaded(trial, picture(secret, more)).data
    trial.see(secret not in stored, "a comment is stored")
    trial.see(more not in stored, "what follows the end is stored")
    again = upload(trial.user, stored)
    trial.same(again.status, 200, "the status of an upload of what is stored")


@case("S-67", "another user's file is a 404, and no file of a message", needs="other")
def of_another_user(trial):
    data = picture()
    answer = upload(trial.user, data)
    path = answer.headers.get("location", "")
    trial.same(trial.other.call("GET", path).status, 404, "the status")
    script = trial.script(["One."])
    body = {"content": script.message, "files": [answer.json["id"]]}
    refused = trial.other.call("POST", "/sessions", body)
    trial.same((refused.status, refused.source), (400, "/files/0"), "the error")
    trial.same(script.calls, 0, "the number of calls")
    trial.same(upload(trial.other, data).status, 201, "the status of the other's own upload")
    trial.same(trial.other.call("GET", path).status, 200, "the status of the other's own file")
