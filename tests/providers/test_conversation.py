"""What a prompt leaves out, and how long the answer may be: properties of any conversation."""

import random

import pytest

from files import File, column_of
from models import Turn
from providers.conversation import (
    GO_ON,
    IMAGES_MAX,
    IMAGES_SIZE_MAX,
    Continuation,
    Prompt,
    Window,
    images_start_of,
    messages_of,
    newest_half,
)

CONTENTS = ["", " ", "x", "Some words.", "世界 " * 50, "y" * 1000]


@pytest.fixture(params=range(4))
def chance(request):
    return random.Random(request.param)


def conversations(chance):
    return [conversation(chance) for _ in range(50)]


def conversation(chance):
    """Turns that a session may have: usually alternating, but a reply may be missing, empty, failed or refused."""
    turns = []
    for number in range(chance.randrange(1, 30)):
        kind = "assistant" if turns and chance.random() < 0.5 else "user"
        turn = Turn(id=number + 1, kind=kind, content=chance.choice(CONTENTS))
        if kind == "assistant":
            turn.model, turn.error_status = (
                chance.choice(["a", "b"]),
                chance.choice([None, None, 413, 502]),
            )
        turns.append(turn)
    return [*turns, Turn(id=99, kind="user", content=chance.choice(CONTENTS[2:]))]


def prompt_of(turns, model, system=None, context_start=0):
    return Prompt(
        turns[::-1],
        model,
        system,
        context_start,
        lambda turn_id: sum(turn.id < turn_id for turn in turns),
    )


def size_of(turns):
    return sum(len(turn.content) for turn in turns)


def test_messages_suit_every_provider_and_have_all_the_text(chance):
    for turns in conversations(chance):
        messages = messages_of(turns)
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
        assert roles[-1] == "user"
        assert all(message["content"].strip() for message in messages)
        first = next(
            number
            for number, turn in enumerate(turns)
            if turn.kind == "user" and turn.content.strip()
        )
        texts = [turn.content for turn in turns[first:] if turn.content.strip()]
        assert "\n\n".join(message["content"] for message in messages) == "\n\n".join(texts)


def test_the_newest_half_begins_at_a_user_turn_and_is_as_long_as_half_allows(chance):
    for turns in conversations(chance):
        half = newest_half(turns)
        assert half == turns[len(turns) - len(half) :] and len(half) < len(turns)
        assert 2 * size_of(half) <= size_of(turns)
        assert not half or half[0].kind == "user"
        longer = (
            turns[number:]
            for number in range(len(turns) - len(half))
            if turns[number].kind == "user"
        )
        assert all(2 * size_of(end) > size_of(turns) for end in longer)


def test_repeated_halving_ends_at_the_last_message(chance):
    for turns in conversations(chance):
        steps = 0
        while len(turns) > 1:
            turns, steps = newest_half(turns) or turns[-1:], steps + 1
        assert turns[0].id == 99
        assert steps <= 15  # for some 10,000 characters


def test_only_user_turns_that_this_model_refused_are_omitted_and_never_the_last(chance):
    for turns in conversations(chance):
        prompt = prompt_of(turns, "a")
        assert prompt.turns[-1] is turns[-1]
        assert prompt.turns[0].kind == "user"
        assert prompt.left_out == len(turns) - len(prompt.turns)
        refused = [
            turn.error_status == 413 and turn.model == "a" and not turn.content
            for turn in turns[1:]
        ]
        sent = [
            turn
            for turn, is_refused in zip(turns, [*refused, False], strict=True)
            if turn.kind == "assistant" or not is_refused
        ]
        assert (
            prompt.turns
            == sent[next(number for number, turn in enumerate(sent) if turn.kind == "user") :]
        )


def test_a_prompt_shortens_down_to_its_last_message_and_knows_its_first_turn(chance):
    for turns in conversations(chance):
        prompt, steps = prompt_of(turns, "none", "Be brief."), 0
        assert (prompt.left_out, prompt.context_start(100)) == (0, 0)
        while prompt.shorten():
            steps += 1
            assert prompt.left_out + len(prompt.turns) == len(turns)
            assert prompt.context_start(100) == prompt.turns[0].id == turns[prompt.left_out].id
            assert prompt.turns[0].kind == "user"
        assert prompt.turns[-1] is turns[-1] and size_of(prompt.turns) == size_of(
            turns[-1:]
        )  # empty turns do not count
        assert steps <= 15


def test_a_prompt_begins_at_the_context_start_or_with_the_last_message(chance):
    for turns in conversations(chance):
        context_start = chance.randrange(110)
        prompt = prompt_of(turns, "none", context_start=context_start)
        sent = [turn for turn in turns if turn.id >= context_start] or turns[-1:]
        assert (
            prompt.turns
            == sent[next(number for number, turn in enumerate(sent) if turn.kind == "user") :]
        )
        assert prompt.left_out == len(turns) - len(prompt.turns)
        assert prompt.context_start(100) == (prompt.turns[0].id if prompt.left_out else 0)


def test_refused_messages_do_not_displace_others(chance):
    """Nine refused messages of almost a megabyte each are more than what is read of a conversation."""
    turns = [Turn(id=number, kind="user", content="My name is Ada.") for number in (1, 2)]
    for number in range(3, 21, 2):
        turns.append(Turn(id=number, kind="user", content="x" * 950_000))
        turns.append(Turn(id=number + 1, kind="assistant", content="", model="a", error_status=413))
    turns.append(Turn(id=99, kind="user", content="What is my name?"))
    assert [turn.id for turn in prompt_of(turns, "a").turns if turn.kind == "user"] == [1, 2, 99]
    assert prompt_of(turns, "b").turns[-1].id == 99 and prompt_of(turns, "b").left_out > 9


def test_after_a_full_window_the_newest_half_of_prompt_and_reply_is_kept(chance):
    for turns in conversations(chance):
        full = chance.choice(CONTENTS)
        start = prompt_of(turns, "none").context_start(100, full)
        kept = [turn for turn in turns if turn.id >= start]
        assert len(kept) < len(turns) or size_of(turns) == 0
        assert 2 * (size_of(kept) + len(full)) <= size_of(turns) + len(full) or not kept
        assert start == 101 if not kept else kept[0].kind == "user"


def test_the_estimate_of_a_prompts_tokens_is_never_too_low(chance):
    for turns in conversations(chance):
        bytes_a_token, frame, system = (
            chance.uniform(1, 8),
            chance.randrange(32),
            chance.choice([None, "Be brief."]),
        )

        def count(texts):
            return sum(int(len(text.encode()) / bytes_a_token) for text in texts)

        for number, turn in enumerate(turns):
            if turn.kind == "assistant" and turn.model == "a":
                sent, turn.error_status = turns[:number], None
                turn.input_tokens = count(
                    [system or "", *(other.content for other in sent)]
                ) + frame * len(sent)
                turn.output_tokens = count([turn.content]) + chance.choice(
                    [0, 500]
                )  # 500, for thoughts
        prompt = prompt_of(turns, "a", system)
        real = count([system or "", *(turn.content for turn in prompt.turns)]) + frame * len(
            prompt.turns
        )
        assert prompt.left_out or prompt.tokens >= real


def test_each_prompt_that_leaves_a_quarter_of_the_window_gets_an_answer(chance):
    """The server counts tokens of one to eight bytes, may add hidden ones, and may name its window in a refusal or not."""
    for _ in range(20):
        window, most = (
            chance.choice([1000, 8192, 200_000]),
            chance.choice([100, 256, 8192, 100_000]),
        )
        hidden = chance.choice([0, 150])
        is_named, bytes_a_token, known = chance.random() < 0.5, chance.uniform(1, 8), None
        least, is_known = window // 4 if is_named else 256, False

        def ask(prompt):
            """Send a message: (refusals, limit, Window). Without a limit, the prompt is too long."""
            window_now, limit, refusals = known, known.room(prompt, most) if known else most, 0
            while hidden + prompt / bytes_a_token + limit > window:
                assert min(least, most) <= limit <= most
                window_now = Window.of_refusal(window * is_named, prompt)
                before, limit = limit, window_now.lower(prompt, limit)
                refusals += 1
                assert limit <= before
                if limit == before:
                    return refusals, None, window_now
            return refusals, limit, window_now

        for _ in range(20):
            prompt = chance.randrange(1, int(window * bytes_a_token))
            refusals, limit, known = ask(prompt)
            assert refusals <= 3
            fits = hidden + prompt / bytes_a_token + min(least, most) <= window
            assert (limit is not None) == fits
            if is_known and is_named and not hidden and fits:
                assert refusals == 0, "what was learned is not paid for again"
            is_known |= refusals > 0


# Continuing a reply

WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or 世界 x = { }".split()


def texts(chance):
    """Texts of words and lines, many of them repeated."""
    for _ in range(200):
        words = [chance.choice(WORDS) for _ in range(chance.randrange(2, 120))]
        yield "".join(word + chance.choice([" ", " ", " ", "\n", "\n    "]) for word in words)


def going_on(text, more, chance):
    """What is stored if a model continues this text with `more`, in pieces of a few characters."""
    continuation = Continuation(text)
    while more:
        size = chance.randrange(1, 12)
        text += continuation.add(more[:size])
        more = more[size:]
    return text + continuation.decide()


def test_text_that_a_model_repeats_is_removed_wherever_the_reply_broke(chance):
    for text in texts(chance):
        for _ in range(5):
            end = chance.randrange(len(text) + 1)
            begin = chance.randrange(max(0, end - 20) + 1)
            if any(map(str.isalpha, text[begin:end])) and end - begin >= 20:
                assert going_on(text[:end], text[begin:], chance) == text


def test_nothing_is_removed_from_a_plain_continuation(chance):
    for text in texts(chance):
        end = chance.randrange(len(text) + 1)
        assert going_on(text[:end], text[end:], chance) == text


@pytest.mark.parametrize(
    "text, more",
    [
        ("hel", "lo world"),
        ("100", "000 people"),
        ("ha ha ", "ha ha!"),
        ("Go on: " + "ha " * 40, "ha " * 40),
        ("if x:\n" + " " * 40, " " * 40 + "return"),
        ("Title\n" + "-" * 30, "-" * 30 + "\nText"),
        ("| --- | --- | --- | --- ", "| --- | --- | --- | --- |\n"),
        ("0123456789" * 3, "0123456789" * 3),
        ("A text of nineteen", "A text of nineteen and more"),
        ("", "A text of twenty characters"),
        ("A text of twenty characters", ""),
    ],
)
def test_text_that_only_looks_repeated_is_kept(chance, text, more):
    assert going_on(text, more, chance) == text + more


def test_only_the_rest_counts_if_a_model_starts_over(chance):
    text = "Once upon a time there was a programmer who"
    assert going_on(text, text + " never slept.", chance) == text + " never slept."
    assert going_on(text, text, chance) == text
    assert going_on(text, "I am sorry. " + text, chance) == text + "I am sorry. " + text


def test_removing_repeated_text_takes_linear_time():
    """Each piece is compared once: otherwise a million characters in small pieces would take hours."""
    text = "".join(f"{number} bottles, " for number in range(70_000))
    assert len(text) > 1_000_000
    assert going_on(text, text + "and the rest.", random.Random(0)) == text + "and the rest."


def test_a_text_that_repeats_itself_takes_no_longer(chance):
    text = "Go on: " + "ab" * 100_000 + "c"
    more = "ab" * 50_000 + "d"
    assert going_on(text, more, chance) == text + more


def test_only_text_that_may_be_a_repetition_is_held_back():
    continuation = Continuation("The quick brown fox jumps over the dog, ")
    assert continuation.add("the ") == ""
    assert continuation.add("cat") == "the cat"
    assert continuation.add("the ") == "the "
    assert continuation.decide() == ""


def test_a_model_is_asked_to_continue_only_after_words():
    turns = [Turn(id=1, kind="user", content="One")]
    asked = {"role": "user", "content": "One"}
    assert messages_of(turns, "Tw") == [
        asked,
        {"role": "assistant", "content": "Tw"},
        {"role": "user", "content": GO_ON},
    ]
    assert messages_of(turns, "") == messages_of(turns, " \n") == [asked]


# Images


def with_images(number, *sizes):
    """A user turn with images of these sizes in megabytes."""
    files = [File(f"{number}-{size}", "image/png", 64, 48, int(size * 2**20)) for size in sizes]
    return Turn(id=number, kind="user", content="Look", files=column_of(files))


def test_the_start_of_images_moves_only_when_it_must_and_then_by_half(chance):
    """A conversation grows. What is sent is never too much; and as long as it is not, nothing is left out that
    was sent before."""
    for _ in range(30):
        turns, start = [], 0
        for number in range(1, 40):
            sizes = [chance.choice([0.01, 1, 3.5]) for _ in range(chance.randrange(5))]
            turns.append(with_images(number, *sizes))
            before, prompt = start, Prompt(turns[::-1], "m", None, images_start=start)
            start = prompt.images_start
            images = prompt.images()
            assert len(images) <= IMAGES_MAX
            assert sum(image.size for image in images) <= IMAGES_SIZE_MAX
            if start == before:
                continue
            kept = Prompt(turns[::-1], "m", None, images_start=before)
            kept.images_start = before
            all_of = [image for turn in turns for image in kept.sent_images(turn)]
            assert len(all_of) > IMAGES_MAX or sum(i.size for i in all_of) > IMAGES_SIZE_MAX
            assert len(images) <= IMAGES_MAX / 2 or {t.id for t in turns if t.id >= start} == {
                start
            }


def test_of_a_message_with_too_many_bytes_the_newest_images_are_sent():
    turn = with_images(1, 3.5, 3.25, 3, 2.75, 2.5, 2.25)
    prompt = Prompt([turn], "m", None)
    assert [image.size / 2**20 for image in prompt.images()] == [3.25, 3, 2.75, 2.5, 2.25]
    [message] = prompt.messages()
    assert message["content"][-1] == {"type": "text", "text": "[image]\nLook"}


def test_images_are_left_out_of_earlier_turns_first():
    turns = [with_images(1, 1), with_images(2, 1), with_images(3, 1)]
    prompt = Prompt(turns[::-1], "m", None)
    starts = []
    while prompt.leave_out_images():
        starts.append((prompt.images_start, prompt.lacks_own_images))
    assert starts == [(3, False), (4, True)]
    assert images_start_of(turns, 4) == 4


def test_images_count_for_a_full_window():
    """At least 768 tokens each, so that leaving out text alone would not do."""
    turns = [with_images(number, *[0.01] * 5) for number in (1, 2, 3)]
    prompt = Prompt(turns[::-1], "m", None)
    assert prompt.tokens >= 15 * 768
    assert prompt.shorten() and [turn.id for turn in prompt.turns] == [3]
    assert prompt.tokens < 8 * 768


def test_turns_in_one_message_keep_their_order():
    turns = [with_images(1, 1), Turn(id=2, kind="user", content="And?"), with_images(3, 1)]
    [message] = Prompt(turns[::-1], "m", None).messages()
    shape = [part if isinstance(part, dict) else part.id for part in message["content"]]
    first, last = {"type": "text", "text": "Look\n\nAnd?"}, {"type": "text", "text": "Look"}
    assert shape == ["1-1", first, "3-1", last]
