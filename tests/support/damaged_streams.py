"""Damage to the streams of a history: their frames, texts, ids and ends."""

from damaging import breaks, frame_of


def delta_of(line):
    return frame_of(line)[1]["delta"]


def deltas_of(life, op):
    return life.frames(op, "content_delta")


@breaks("S-12")
def a_word_is_doubled_in_a_stream(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.put(line, data={"delta": delta_of(line) * 2})


@breaks("S-12")
def a_word_is_lost_in_a_stream(life):
    life.drop(deltas_of(life, life.whole_stream())[1])


@breaks("S-12")
def two_words_are_swapped_in_a_stream(life):
    first, second = deltas_of(life, life.whole_stream())[:2]
    before, after = delta_of(first), delta_of(second)
    life.put(first, data={"delta": after})
    life.put(second, data={"delta": before})


@breaks("S-15")
def two_streams_of_a_reply_differ(life):
    line = deltas_of(life, life.stream(*life.ops("GET", "/events", 200), deltas=1))[0]
    life.put(line, data={"delta": delta_of(line).replace("-3 ", "-2 ")})


@breaks("S-9")
def a_delta_is_sent_twice(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.behind(line, life.copy(line))


@breaks("S-9")
def two_deltas_have_one_id(life):
    first, second = deltas_of(life, life.whole_stream())[:2]
    life.put(second, id=frame_of(first)[2])


@breaks("S-14")
def an_id_means_two_places(life):
    left = next(line["op"] for line in life.lines if line.get("left"))
    known = frame_of(deltas_of(life, left)[0])[2]
    life.put(deltas_of(life, life.resumed_stream())[1], id=known)


@breaks("S-13")
def a_resumed_stream_begins_a_word_late(life):
    life.drop(deltas_of(life, life.resumed_stream())[0])


@breaks("S-13")
def a_resumed_stream_begins_a_word_early(life):
    op = life.resumed_stream()
    line = deltas_of(life, op)[0]
    number = int(delta_of(line).rpartition("-")[2])
    early = delta_of(line).replace(f"-{number} ", f"-{number - 1} ")
    life.put(line, data={"delta": early + delta_of(line)})


@breaks("S-31")
def a_continued_stream_begins_a_word_late(life):
    life.drop(deltas_of(life, life.stream(*life.ops("POST", "/continue", 200)))[0])


@breaks("S-12")
def an_end_comes_before_the_last_words(life):
    life.drop(*deltas_of(life, life.whole_stream())[-2:])


@breaks("S-19")
def words_come_behind_the_end(life):
    op = life.whole_stream()
    line = deltas_of(life, op)[-1]
    life.drop(line)
    life.behind(life.frames(op)[-1], line)


@breaks("S-19")
def the_end_comes_twice(life):
    line = life.frames(life.whole_stream())[-1]
    life.behind(line, life.copy(line))


@breaks("S-8")
def done_comes_without_the_turn(life):
    life.drop(*life.frames(life.whole_stream(), "assistant_turn"))


@breaks("S-8")
def an_error_comes_behind_the_turn(life):
    line = life.frames(life.whole_stream(), "done")[0]
    life.put(line, name="error", data={"status": 502, "message": "It broke."})


@breaks("S-20")
def a_stream_ends_without_its_end(life):
    op = life.whole_stream()
    life.drop(*life.frames(op, "assistant_turn"), *life.frames(op, "done"))


@breaks("S-20")
def a_stream_is_lost(life):
    op = life.whole_stream()
    life.drop(*life.frames(op, "assistant_turn"), *life.frames(op, "done"))
    line = next(line for line in life.lines if line.get("op") == op and "ended" in line)
    line["lost"] = line.pop("ended")


@breaks("How a stream ends")
def a_stream_ends_by_a_fault_of_the_server(life):
    op = life.whole_stream()
    life.drop(*life.frames(op, "assistant_turn"))
    life.put(life.frames(op)[-1], name="error", data={"status": 500, "message": "It broke."})


@breaks("S-20")
def a_failed_turn_ends_with_done(life):
    line = life.frames(life.whole_stream(), "assistant_turn")[0]
    life.put(line, data=frame_of(line)[1] | {"status": "failed"})


@breaks("S-21")
def an_error_is_not_that_of_the_turn(life):
    op = life.stream(*life.ops("POST", "/messages", 200), deltas=1, end="error")
    life.put(life.frames(op, "error")[0], data={"status": 502, "message": "It was another."})


@breaks("S-21")
def an_error_is_another_where_a_later_reply_may_go_on(life):
    an_error_is_not_that_of_the_turn(life)
    op = life.stream(*life.ops("POST", "/messages", 200), deltas=1, end="error")
    path = life.sent(op)["path"].replace("/messages", "/continue")
    sent = {"method": "POST", "path": path, "headers": {}, "body": None}
    rest = next(line for line in life.lines if "rest" in line)
    asked = {"at": rest["at"], "op": 9001, "user": life.user(op), "sent": sent}
    place = life.lines.index(rest)
    life.lines[place:place] = asked, {"at": rest["at"], "op": 9001, "lost": "TimeoutError()"}


@breaks("S-22")
def an_error_is_404_though_nobody_deleted(life):
    op = life.stream(*life.ops("POST", "/messages", 200), deltas=1, end="error")
    life.put(life.frames(op, "error")[0], data={"status": 404, "message": "It is gone."})


@breaks("S-24")
def all_is_said_to_be_read_behind_a_word(life):
    op = life.ops("GET", "/events", 204)[0]
    made = life.ops("POST", "/sessions", 201, Accept="text/event-stream")[0]
    id = frame_of(deltas_of(life, made)[0])[2]
    life.sent(op)["headers"]["Last-Event-ID"] = id


@breaks("S-24")
def a_stream_answers_the_id_of_an_end(life):
    op = life.ops("GET", "/events", 204)[0]
    other = life.ops("GET", "/events", 200)[0]
    life.got(op).update(life.got(other))


@breaks("S-25")
def only_the_end_comes_behind_a_word(life):
    op = life.resumed_stream()
    life.drop(*life.frames(op)[:-1])


@breaks("S-26")
def the_events_of_an_older_reply_come(life):
    """The last of the streams from a beginning shows the first reply."""
    first, *_, last = [
        op
        for op in life.ops("GET", "/events", 200)
        if "Last-Event-ID" not in life.sent(op)["headers"]
    ]
    end = life.frames(last)[-1]
    copied = [life.copy(line) | {"op": last, "at": end["at"]} for line in life.frames(first)]
    life.behind(end, *copied)
    life.drop(*life.frames(last)[: -len(copied)])


@breaks("S-6")
def the_id_comes_first(life):
    line = deltas_of(life, life.whole_stream())[0]
    event, data, id = line["frame"].split("\n")
    line["frame"] = "\n".join([id, event, data])


@breaks("S-6")
def data_has_two_lines(life):
    line = deltas_of(life, life.whole_stream())[0]
    line["frame"] = line["frame"].replace("\nid", "\ndata: {}\nid")


@breaks("S-7")
def a_session_is_in_a_stream_of_a_message(life):
    made = life.ops("POST", "/sessions", 201, Accept="text/event-stream")[0]
    session = life.frames(made, "session")[0]
    op = life.whole_stream()
    line = deltas_of(life, op)[0]
    id = frame_of(line)[2]
    new = life.copy(session) | {"op": op, "at": line["at"]}
    life.put(new, id=id)
    life.behind(line, new)


@breaks("S-7")
def a_session_comes_again(life):
    made = life.ops("POST", "/sessions", 201, Accept="text/event-stream")[0]
    line = life.frames(made, "session")[0]
    life.behind(line, life.copy(line))


def think(life, *starts):
    """A stream shows thoughts that start there, a word each time."""
    line = deltas_of(life, life.whole_stream())[1]
    told = [life.copy(line) for _ in starts]
    for start, new in zip(starts, told, strict=True):
        life.put(new, "thinking", {"characters": 512, "start": start, "delta": "Hm, "})
    life.behind(line, *told)
    return told


@breaks("S-10")
def a_thought_has_an_id_of_its_own(life):
    [line] = think(life, 0)
    life.put(line, id=frame_of(line)[2] + "9")


@breaks("S-54")
def thoughts_begin_in_the_middle(life):
    think(life, 4)


@breaks("S-54")
def a_thought_is_lost(life):
    think(life, 0, 8)


@breaks("S-54")
def a_thought_comes_twice(life):
    think(life, 0, 4, 4)


@breaks("S-6")
def a_thought_has_no_start(life):
    [line] = think(life, 0)
    life.put(line, data={"characters": 4, "delta": "Hm, "})


@breaks("S-16")
def a_delta_is_too_long(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.put(line, data={"delta": "a" * 16_385})


@breaks("S-16")
def a_delta_is_empty(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.put(line, data={"delta": ""})


@breaks("S-51")
def an_id_is_too_long(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.put(line, id=frame_of(line)[2] + "0" * 40)


@breaks("S-41")
def a_stream_is_silent(life):
    line = deltas_of(life, life.whole_stream())[1]
    for later in life.lines[life.lines.index(line) :]:
        later["at"] += 25


@breaks("S-38")
def another_users_word_comes(life):
    line = deltas_of(life, life.whole_stream())[1]
    life.put(line, data={"delta": "bob-says-06-3 "})


@breaks("Frames")
def a_stream_begins_without_a_comment(life):
    op = life.whole_stream()
    life.drop(*[line for line in life.lines if line.get("op") == op and "comment" in line])


@breaks("Requests")
def a_stream_is_of_another_type(life):
    life.got(life.whole_stream())["headers"]["Content-Type"] = "text/event-stream"


@breaks("Ids")
def an_id_is_not_its_place(life):
    line = deltas_of(life, life.whole_stream())[1]
    turn, _, place = frame_of(line)[2].partition("-")
    life.put(line, id=f"{turn}-{int(place) + 1}")


@breaks("S-13")
def a_word_is_lost_before_an_error(life):
    op = life.stream(*life.ops("POST", "/messages", 200), deltas=1, end="error")
    life.drop(deltas_of(life, op)[-1])


@breaks("S-22")
def a_stream_is_done_behind_the_deletion(life):
    """The stream of a session that was deleted while its reply was in progress."""
    whole = frame_of(life.frames(life.whole_stream(), "assistant_turn")[0])[1]
    for op in life.ops("POST", "/messages", 200):
        end = life.frames(op)[-1]
        if frame_of(end)[0] == "error" and frame_of(end)[1]["status"] == 404:
            id, text = frame_of(end)[2], "".join(map(delta_of, deltas_of(life, op)))
            turn = whole | {"id": id.partition("-")[0], "content": text}
            done = life.copy(end)
            life.put(end, "assistant_turn", turn, id.replace("-end", "-turn"))
            life.put(done, "done", {})
            life.behind(end, done)
