"""Damage to what is stored according to a history: turns, sessions and outcomes."""

import json

from damaging import breaks, word_of

ALICE = "https://github.com/alice"


@breaks("S-11")
def a_word_is_doubled_in_a_stored_turn(life):
    turn = life.replies()[-2]
    turn["content"] = turn["content"].replace(word_of(life), word_of(life) * 2)


@breaks("S-11")
def a_word_is_lost_in_a_stored_turn(life):
    turn = life.replies()[-2]
    turn["content"] = turn["content"].replace(word_of(life), "")


@breaks("S-11")
def two_words_are_swapped_in_a_stored_turn(life):
    turn, first, second = life.replies()[-2], word_of(life, 5), word_of(life, 6)
    turn["content"] = turn["content"].replace(first + second, second + first)


@breaks("S-4")
def a_reply_shrinks(life):
    turn = life.replies()[-2]
    turn["content"] = turn["content"][:40]


@breaks("S-34")
def a_cancelled_reply_goes_on(life):
    turn = life.replies("interrupted")[0]
    turn["content"] += "and on "


@breaks("S-17")
def a_cancelled_reply_is_complete_later(life):
    life.replies("interrupted")[0].update(status="complete", stop_reason="stop")


@breaks("S-17")
def a_reply_is_under_way_again(life):
    life.replies()[-2]["status"] = "in_progress"


@breaks("S-17")
def an_end_has_another_reason_later(life):
    life.replies()[-2]["stop_reason"] = "length"


@breaks("API, A turn")
def a_reply_is_of_another_model_later(life):
    life.replies("interrupted")[0]["model"] = {"id": "m-2"}


@breaks("API, A turn")
def a_message_is_of_another_time_later(life):
    life.shown()[0]["turns"][0]["created_at"] = "2026-11-29T17:23:05Z"


@breaks("API, A turn")
def a_failed_reply_has_a_reason_to_stop(life):
    for body in life.shown() + life.shown(at_rest=False):
        for turn in body["turns"]:
            if turn.get("status") == "failed":
                turn["stop_reason"] = "stop"


@breaks("S-17")
def another_number_of_turns_was_left_out_later(life):
    life.replies()[-2]["turns_left_out"] += 2


@breaks("S-35")
def two_replies_are_under_way(life):
    body = next(
        body for body in life.shown(at_rest=False) if body["turns"][-1]["status"] == "in_progress"
    )
    body["turns"][1]["status"] = "in_progress"


@breaks("S-3")
def a_session_is_busy_at_rest(life):
    op = next(op for op in life.ops("POST", "/messages", 201) if life.user(op) == ALICE)
    life.got(op).update(status=409, body={"errors": []})
    life.got(op)["headers"] |= {"Retry-After": "1"}


@breaks("S-35")
def what_was_refused_is_there(life):
    op = life.ops("POST", "/messages", 201)[0]
    life.got(op).update(status=429, body={"errors": []})


@breaks("S-1")
def a_message_is_lost(life):
    body = life.shown()[0]
    del body["turns"][2:4]


@breaks("API, Operations")
def a_message_is_there_twice(life):
    for body in life.shown():
        body["turns"] += body["turns"][-2:]


@breaks("S-39")
def a_message_with_a_key_is_there_twice(life):
    op = life.ops("POST", "/messages", 201, **{"Idempotency-Key": "key-of-alice"})[0]
    body = life.shown()[0]
    turns = [turn for turn in body["turns"] if turn["content"] == life.sent(op)["body"]["content"]]
    body["turns"] += [turns[0], body["turns"][-1]]


@breaks("S-39")
def a_key_has_two_outcomes(life):
    first, second = life.ops("POST", "/messages", 201, **{"Idempotency-Key": "key-of-alice"})
    other = life.got(life.ops("POST", "/messages", 201)[0])["body"]
    life.got(second)["body"] = other


@breaks("S-39")
def a_key_is_taken_for_another_message(life):
    op = life.ops("POST", "/messages", 422)[0]
    first = life.ops("POST", "/messages", 201, **{"Idempotency-Key": "key-of-alice"})[0]
    life.got(op).update(life.got(first))


@breaks("API, Idempotency-Key")
def the_same_request_is_a_422(life):
    _, second = life.ops("POST", "/messages", 201, **{"Idempotency-Key": "key-of-alice"})
    life.got(second).update(life.got(life.ops("POST", "/messages", 422)[0]))


@breaks("API, A session")
def two_messages_are_swapped(life):
    turns = life.shown()[0]["turns"]
    turns[2:4], turns[4:6] = turns[4:6], turns[2:4]


@breaks("API, A session")
def a_title_is_lost(life):
    op = life.ops("GET", "/sessions", 200, at_rest=True)[0]
    life.got(op)["body"]["data"][0]["title"] = "alice-says-01 whole"


@breaks("API, A session")
def a_preview_is_of_another_turn(life):
    op = life.ops("GET", "/sessions", 200, at_rest=True)[0]
    life.got(op)["body"]["data"][0]["last_message_preview"] = "alice-says-01 whole"


@breaks("API, Operations")
def a_session_is_not_listed(life):
    op = life.ops("GET", "/sessions", 200, at_rest=True)[0]
    life.got(op)["body"]["data"].clear()


@breaks("API, Take it with you")
def a_session_is_not_exported(life):
    op = life.ops("GET", "/export", 200, at_rest=True)[0]
    life.got(op)["body"] = ""


@breaks("API, Operations")
def a_deleted_session_comes_back(life):
    deleted = life.sent(life.ops("DELETE", "", 204)[0])["path"]
    op = next(op for op in life.ops("GET", "", 404) if life.sent(op)["path"] == deleted)
    life.got(op).update(status=200, body=life.shown(at_rest=False)[0])


@breaks("S-38")
def another_users_session_is_shown(life):
    deleted = life.sent(life.ops("DELETE", "", 204)[0])["path"]
    op = next(op for op in life.ops("GET", "", 404) if life.sent(op)["path"] != deleted)
    life.got(op).update(status=200, body=life.shown()[0])


@breaks("S-38")
def another_users_session_is_listed(life):
    first, second = life.ops("GET", "/sessions", 200, at_rest=True)
    life.got(second)["body"]["data"] += life.got(first)["body"]["data"]


@breaks("API, Errors")
def a_session_is_gone(life):
    op = life.ops("GET", "", 200, at_rest=True)[1]
    life.got(op).update(status=404, body={"errors": []})


@breaks("API, Errors")
def a_503_does_not_say_when_to_come_back(life):
    life.got(life.ops("GET", "", 200)[0]).update(status=503, body={"errors": []})


@breaks("API, Errors")
def the_server_is_at_fault(life):
    life.got(life.ops("GET", "", 200)[0]).update(status=500, body={"errors": []})


@breaks("API, Take it with you")
def an_export_has_another_text(life):
    body = life.got(life.ops("GET", "/export", 200, at_rest=True)[0])
    line = json.loads(body["body"].splitlines()[0])
    line["turns"][1]["content"] += "indeed"
    body["body"] = json.dumps(line)


def shown_meanwhile(life):
    """A session with several messages, before the end."""
    return next(body for body in life.shown(at_rest=False) if len(body["turns"]) > 4)


@breaks("S-1")
def a_message_is_missing_for_a_while(life):
    del shown_meanwhile(life)["turns"][2:4]


@breaks("S-1")
def a_reply_is_missing_for_a_while(life):
    del shown_meanwhile(life)["turns"][1]


@breaks("S-1")
def a_message_is_one_that_nobody_sent(life):
    shown_meanwhile(life)["turns"][2]["content"] = "Who says this?"


@breaks("States")
def a_reply_is_interrupted_by_itself(life):
    for op in life.ops("POST", "/cancel", 200):
        life.got(op).update(status=409, body={"errors": [{"status": "409"}]})


@breaks("API, Retry, continue, cancel")
def a_cancelled_reply_is_under_way(life):
    life.got(life.ops("POST", "/cancel", 200)[0])["body"]["status"] = "in_progress"


@breaks("API, Ways to receive a reply")
def a_deferred_answer_says_not_where(life):
    del life.got(life.ops("POST", "/messages", 202)[0])["headers"]["Location"]


@breaks("API, Operations")
def an_answer_has_no_body(life):
    life.got(life.ops("POST", "/messages", 201)[0])["body"] = ""


@breaks("API, Errors")
def an_answer_has_a_status_of_another_request(life):
    life.got(life.ops("GET", "/sessions", 200, at_rest=True)[0])["status"] = 502


@breaks("API, Headers")
def an_answer_may_be_kept_by_a_proxy(life):
    life.got(life.ops("GET", "/sessions", 200, at_rest=True)[0])["headers"].pop("Cache-Control")


@breaks("S-1")
def a_message_is_lost_whose_model_was_asked(life):
    """Its client lost the answer."""
    op = life.ops("POST", "/messages", 201)[0]
    content = life.sent(op)["body"]["content"]
    line = next(line for line in life.lines if line.get("op") == op and "got" in line)
    del line["got"]
    line["lost"] = "ConnectionResetError()"
    for body in life.shown() + life.shown(at_rest=False):
        turns = body["turns"]
        for place in [p for p, turn in enumerate(turns) if turn["content"] == content]:
            del turns[place : place + 2]
