"""Relays that turn a good server into a bad one: each changes requests or answers in one way."""

import contextlib
import json
import re

from relaying import Plan, frames_of, is_event


class Altered(Plan):
    """A stream whose frames are altered one by one."""

    def body(self, request, pieces):
        if not request.is_stream:
            yield from pieces
            return
        for frame in frames_of(pieces):
            yield from self.altered(request, frame) if isinstance(frame, bytes) else [frame]

    def altered(self, request, frame):
        """What is sent instead of this frame."""
        return [frame]


class Rewritten(Plan):
    """An answer in which each text that matches `found` is replaced."""

    def body(self, request, pieces):
        for piece in pieces:
            yield re.sub(self.found, self.instead, piece) if isinstance(piece, bytes) else piece


def name_of(frame):
    return frame.partition(b"event: ")[2].partition(b"\n")[0].decode() if is_event(frame) else None


class DropsADelta(Altered):
    def altered(self, request, frame):
        return [] if b'"two' in frame else [frame]


class DoublesADelta(Altered):
    def altered(self, request, frame):
        return [frame] * (2 if name_of(frame) == "content_delta" else 1)


class GivesTheIdBefore(Altered):
    """A delta has the id of the beginning: a client that resumes after it gets its text again."""

    def altered(self, request, frame):
        if name_of(frame) == "content_delta":
            frame = re.sub(rb"(id: \d+)-\d+", rb"\1-0", frame)
        return [frame]


class LetsItBeStored(Plan):
    def head(self, request, status, headers):
        return status, [each for each in headers if each[0].lower() != "cache-control"]


class EndsInTheWrongOrder(Altered):
    """`done` comes first, as if the end were sent before the turn was read."""

    def body(self, request, pieces):
        held = b""
        for frame in super().body(request, pieces):
            if isinstance(frame, bytes) and name_of(frame) == "assistant_turn":
                held = frame
                continue
            yield frame
            yield held
            held = b""


class IdBeforeTheData(Altered):
    def altered(self, request, frame):
        return [re.sub(rb"(data: .*\n)(id: .*\n)", rb"\2\1", frame)]


class SessionInEveryStream(Altered):
    def altered(self, request, frame):
        if name_of(frame) != "content_delta":
            return [frame]
        return [
            re.sub(rb"event: .*\ndata: .*\n", b'event: session\ndata: {"title": ""}\n', frame),
            frame,
        ]


class DoneAgain(Plan):
    """A client that has everything gets a stream with an end, in place of 204."""

    def head(self, request, status, headers):
        if status != 204:
            return status, headers
        return 200, [("Content-Type", "text/event-stream; charset=utf-8")]

    def body(self, request, pieces):
        first = next(pieces, None)
        if first is None:
            yield b": \n\nevent: done\ndata: {}\nid: 1-1-end\n\n"
            return
        yield first
        yield from pieces


class NoWordAtFirst(Altered):
    """No comment is sent."""

    def altered(self, request, frame):
        return [frame] if is_event(frame) else []


class NoTimeToComeBack(Plan):
    def head(self, request, status, headers):
        return status, [each for each in headers if each[0].lower() != "retry-after"]


class GoesOnBehindTheEnd(Altered):
    def altered(self, request, frame):
        more = re.sub(rb"event: .*\n", b"event: later\n", frame)
        return [frame, more] if name_of(frame) in ("done", "error") else [frame]


class OtherError(Altered):
    """The error of a stream is not that of the turn."""

    def altered(self, request, frame):
        return [frame.replace(b'"message": "', b'"message": "Sorry. ')]


class ErrorsWithoutSentences(Plan):
    def body(self, request, pieces):
        for piece in pieces:
            with contextlib.suppress(TypeError, ValueError):
                errors = json.loads(piece)["errors"]
                piece = json.dumps({"errors": [{"status": errors[0]["status"]}]}).encode()
            yield piece


class TellsThoughtsTooOften(Altered):
    def altered(self, request, frame):
        return [frame] * (6 if name_of(frame) == "thinking" else 1)


class ThoughtsFromTheMiddle(Altered):
    """The first thoughts of a stream claim to follow others."""

    def altered(self, request, frame):
        return [frame.replace(b'"start": 0', b'"start": 1')]


class ThoughtsInTheText(Altered):
    def altered(self, request, frame):
        is_thought = name_of(frame) == "thinking"
        return [frame, frame.replace(b"thinking", b"content_delta")] if is_thought else [frame]


class ForgetsThoughts(Rewritten):
    """A turn is shown as if its model had not thought."""

    found, instead = rb'"thinking": ?\{[^}]*\}', b'"thinking": null'


class KeepsOtherThoughts(Plan):
    def body(self, request, pieces):
        for piece in pieces:
            if request.path.endswith("/thinking"):
                piece = piece.replace(b'"text":"', b'"text":"Sorry. ')
            yield piece


class ThoughtsForEverybody(Plan):
    def head(self, request, status, headers):
        return 200 if request.path.endswith("/thinking") else status, headers


class ShowsTheModelNoImages(Plan):
    """Messages lose their files on the way to the server."""

    def asked(self, request, body):
        if body and body.startswith(b"{"):
            body = json.dumps(json.loads(body) | {"files": []}).encode()
        return body


class TellsTheRefusal(Altered):
    """What was answered at the second attempt ends as if there had been none."""

    def altered(self, request, frame):
        if request.path.endswith("/messages") and name_of(frame) == "assistant_turn":
            return []
        return [
            re.sub(rb"event: done\ndata: .*\n", b'event: error\ndata: {"status": 502}\n', frame)
        ]


class HidesThePlace(Plan):
    """An error does not say that it is about the files."""

    def body(self, request, pieces):
        for piece in pieces:
            yield piece.replace(b'"/files"', b'"/model"') if isinstance(piece, bytes) else piece


class CountsNoTurns(Rewritten):
    found, instead = rb'("turns_left_out": ?)\d+', rb"\g<1>0"


class ForgetsFiles(Rewritten):
    """A turn is shown as if it had no files."""

    found, instead = rb'"files": ?\[[^]]*\]', b'"files": []'


class StoresEachPictureAnew(Plan):
    def head(self, request, status, headers):
        return 201 if request.path == "/files" and status == 200 else status, headers


class StoresPicturesAsTheyCome(Plan):
    """A file that is given back has a comment in it."""

    def body(self, request, pieces):
        yield from pieces
        if request.path.startswith("/files/"):
            yield b"where we live"


class FilesForEverybody(Plan):
    def head(self, request, status, headers):
        return 200 if request.path.startswith("/files/") else status, headers


# A plan → the promises that the cases find broken, among others.
DEVIATIONS = {
    DropsADelta: {"S-11", "S-12"},
    DoublesADelta: {"S-9"},
    GivesTheIdBefore: {"S-13"},
    LetsItBeStored: {"Stream"},
    EndsInTheWrongOrder: {"S-8"},
    IdBeforeTheData: {"S-6"},
    SessionInEveryStream: {"S-7"},
    DoneAgain: {"S-24"},
    NoWordAtFirst: {"S-40"},
    NoTimeToComeBack: {"S-35"},
    GoesOnBehindTheEnd: {"S-19"},
    OtherError: {"S-21"},
    ErrorsWithoutSentences: {"Errors"},
    TellsThoughtsTooOften: {"S-53"},
    ThoughtsFromTheMiddle: {"S-54"},
    ThoughtsInTheText: {"S-55"},
    ForgetsThoughts: {"S-56"},
    KeepsOtherThoughts: {"S-57"},
    ThoughtsForEverybody: {"S-58"},
    ShowsTheModelNoImages: {"S-59", "S-63"},
    TellsTheRefusal: {"S-60"},
    HidesThePlace: {"S-61"},
    CountsNoTurns: {"S-62"},
    ForgetsFiles: {"S-64"},
    StoresEachPictureAnew: {"S-65"},
    StoresPicturesAsTheyCome: {"S-66"},
    FilesForEverybody: {"S-67"},
}
