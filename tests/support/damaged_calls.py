"""Damage to a history: to what the model was asked and said, and to the counts of it."""

from damaging import breaks, word_of


@breaks("S-5")
def a_word_is_doubled_in_all_that_is_shown(life):
    life.everywhere(word_of(life), word_of(life) * 2)


@breaks("S-5")
def a_word_is_lost_in_all_that_is_shown(life):
    life.everywhere(word_of(life), "")


@breaks("S-5")
def two_words_are_swapped_in_all_that_is_shown(life):
    first, second = word_of(life, 5), word_of(life, 6)
    life.everywhere(first, "@@ ")
    life.everywhere(second, first)
    life.everywhere("@@ ", second)


@breaks("S-23")
def a_reply_that_was_cut_is_complete(life):
    last = word_of(life, -1)
    life.everywhere(last, "")


@breaks("S-23")
def no_answer_was_whole(life):
    tag = word_of(life).rpartition("-")[0]
    calls = [line for line in life.lines if "said" in line and tag in line["said"]["text"]]
    for line in calls:
        line["said"]["whole"] = False


@breaks("S-5")
def the_model_was_not_asked(life):
    tag = word_of(life).rpartition("-")[0]
    calls = {line["call"] for line in life.lines if "said" in line and tag in line["said"]["text"]}
    life.drop(*[line for line in life.lines if line.get("call") in calls])


@breaks("S-27")
def the_model_goes_on_with_other_words(life):
    line = next(
        line
        for line in life.lines
        if "asked" in line and line["asked"]["messages"][-1]["content"].startswith("Your answer")
    )
    line["asked"]["messages"][-2]["content"] += "indeed "


@breaks("S-5")
def the_model_goes_on_with_what_it_never_said(life):
    """As if a word had been stored wrong, and shown so, before the break."""
    cut = next(line for line in life.lines if "said" in line and not line["said"]["whole"])
    cut["said"]["text"] = cut["said"]["text"].upper()


@breaks("S-38")
def the_model_is_told_of_another_user(life):
    line = [line for line in life.lines if "asked" in line][-1]
    line["asked"]["messages"].insert(0, {"role": "user", "content": "alice-says-02 slowly"})


def usage_of(life):
    return life.got(life.ops("GET", "/usage", 200, at_rest=True)[0])["body"]


@breaks("API, Usage")
def tokens_are_counted_twice(life):
    body = usage_of(life)
    for name in "input_tokens", "output_tokens":
        body["meta"]["used"] += body["data"][0][name]
        body["data"][0][name] *= 2


@breaks("API, Usage")
def tokens_of_an_answer_are_not_counted(life):
    body = usage_of(life)
    body["meta"]["used"] -= 7
    body["data"][0]["output_tokens"] -= 7


@breaks("API, Usage")
def a_sum_is_wrong(life):
    usage_of(life)["meta"]["used"] += 1


@breaks("API, Usage")
def a_reply_is_counted_twice(life):
    usage_of(life)["data"][0]["replies"] *= 2


@breaks("API, A turn")
def a_reply_has_the_tokens_of_many(life):
    usage = life.replies()[-2]["usage"]
    usage["output_tokens"] *= 10


@breaks("API, A turn")
def a_reply_has_no_tokens(life):
    life.replies()[-2]["usage"]["output_tokens"] = None


@breaks("API, A turn")
def tokens_are_taken_back(life):
    turn = next(turn for turn in life.replies() if turn["continued"])
    turn["usage"]["input_tokens"] = 1


@breaks("API, A turn")
def thinking_of_a_reply_has_no_characters(life):
    life.replies()[-2]["thinking"] = {"seconds": 0.1}


@breaks("S-17")
def thinking_of_a_reply_comes_after_its_end(life):
    life.replies()[-2]["thinking"] = {"characters": 3, "seconds": 0.1}


def put_off(life, lines):
    """Move these lines half a minute later."""
    life.drop(*lines)
    life.lines += [line | {"at": life.lines[-1]["at"] + 30} for line in lines]


@breaks("S-42")
def a_model_talks_on_behind_a_cancel(life):
    put_off(life, [line for line in life.lines if line.get("hung_up")])


@breaks("S-42")
def a_model_talks_for_ever_behind_a_cancel(life):
    life.drop(*[line for line in life.lines if line.get("hung_up")])
    life.lines[-1]["at"] += 30


@breaks("S-35")
def a_reply_is_asked_for_while_another_is_under_way(life):
    """The model says the end of a reply long after the next one has begun."""
    tag = word_of(life).rpartition("-")[0]
    put_off(life, [each for each in life.lines if "said" in each and tag in each["said"]["text"]])


@breaks("S-37")
def two_calls_write_one_reply(life):
    """The first call goes on although the next has begun."""
    put_off(
        life, [next(line for line in life.lines if "said" in line and not line["said"]["whole"])]
    )


@breaks("API, Usage")
def tokens_are_counted_that_no_reply_has(life):
    """The model said so many."""
    line = next(line for line in life.lines if "said" in line and line["said"]["usage"])
    line["said"]["usage"]["completion_tokens"] += 1
    body = usage_of(life)
    body["meta"]["used"] += 1
    body["data"][0]["output_tokens"] += 1


@breaks("S-5")
def a_reply_failed_of_which_all_was_said(life):
    error = {"status": 502, "message": "The provider broke the connection. Ask again."}
    life.replies()[-2].update(status="failed", stop_reason=None, error=error)


@breaks("S-28")
def a_model_is_asked_again_and_again(life):
    """Each of these calls is cut, and says what the first one said."""
    said = next(line for line in life.lines if "said" in line and not line["said"]["whole"])
    asked = next(line for line in life.lines if line.get("call") == said["call"])
    for number in range(1001, 1006):
        life.behind(said, asked | {"call": number}, said | {"call": number})


@breaks("API, A turn")
def a_reply_went_on_more_often_than_its_model_was_asked(life):
    life.replies()[-2]["continued"] += 20


@breaks("S-28")
def a_reply_goes_on_beyond_the_limit(life):
    life.lines[0]["settings"]["CONTINUE_LIMIT"] = 0


def estimate_more(life, count):
    body = usage_of(life)
    body["meta"]["used"] += count
    body["data"][0]["estimated_tokens"] += count


@breaks("API, Usage")
def tokens_are_estimated_of_what_nobody_said(life):
    estimate_more(life, 100_000)


@breaks("API, Usage")
def tokens_are_estimated_twice(life):
    estimate_more(life, usage_of(life)["data"][0]["estimated_tokens"])


@breaks("API, Usage")
def a_cut_call_is_estimated_twice(life):
    cut = next(line for line in life.lines if "said" in line and not line["said"]["whole"])
    asked = next(line for line in life.lines if line.get("call") == cut["call"])["asked"]
    texts = [message["content"] for message in asked["messages"]] + [cut["said"]["text"]]
    estimate_more(life, sum(map(len, texts)) // 4)
