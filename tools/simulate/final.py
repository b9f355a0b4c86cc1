"""What must hold once all is at rest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulate.clients import OTHER
from simulate.eye import Row
from simulate.scripted import MOST_CALLS, ModelCall, origin
from tables.ledger import estimate

if TYPE_CHECKING:
    from simulate.world import World


def broken_at_the_end(world: "World") -> Iterator[str]:
    seen = world.eye.look()
    for row in seen.rows.values():
        if row.status == "in_progress":
            yield "S-43: a reply is in progress, and nobody writes it"
    for reader in world.person.readers:
        if not reader.is_over:
            yield "S-30: a stream has no end"
    yield from _left_over(world)
    yield from _once(world)
    if not world.fate.had_failover:
        yield from _ledger(world)
        for row in seen.rows.values():
            yield from _paid(world, row)


def _left_over(world: "World") -> Iterator[str]:
    """What a process still keeps of things that are over."""
    for process in world.processes:
        if process.is_dead:
            continue
        if process.replies.registry.known():
            yield "a process knows a reply that is over"
        if process.replies.reply_bulkhead.users:
            yield "a reply that is over has its place"
    if any(call.is_open for call in world.provider.calls):
        yield "S-37: a model talks on"


def _once(world: "World") -> Iterator[str]:
    """A message is there once, however often it was sent; and not at all if its client was told so."""
    owners = world.promises.seen.owners
    texts = [text for session, text in world.eye.messages() if owners.get(session) != OTHER]
    for sent in world.person.sent:
        wish = sent.wish
        if wish.kind != "message" or world.fate.had_failover:
            continue
        count = texts.count(wish.content or "")
        if count > 1:
            yield "S-39: a message is there twice"
        statuses = [answer.status for _, answer in sent.answers]
        # A process that is dead or paused undoes nothing before another one takes the reply over.
        undoes = all(not (each.is_dead or each.paused_at) for each, _ in sent.answers)
        if count and undoes and not wish.key and statuses == [503]:
            yield "S-39: a message is there that was told as failed"


def _ledger(world: "World") -> Iterator[str]:
    replies, *tokens = world.eye.ledger()
    if replies != world.promises.ends:
        yield f"the ledger has {replies} replies, and {world.promises.ends} have ended"
    rows = world.promises.seen.rows.values()
    has_others = world.title_model is not None or world.person.has_asked("delete")
    if "" not in world.promises.seen.owners.values() and not has_others:
        sums = [sum(row.used[place] for row in rows) for place in range(4)]
        if sums != tokens:
            yield f"the ledger has {tokens} tokens, and the replies {sums}"
    read, written, cached, estimated = tokens
    yield from _calls(world, read, "input_tokens")
    yield from _calls(world, cached, "cached_tokens")
    yield from _calls(world, written, "output_tokens")
    if not world.fate.had_step:
        yield from _estimates(world, read, written, estimated)


def digit(tokens: int, call: ModelCall) -> int:
    """How often the tokens of a call are in a sum."""
    return tokens // call.tokens % 4


def _calls(world: "World", tokens: int, name: str) -> Iterator[str]:
    for call in world.provider.calls[: MOST_CALLS + 1]:
        count = digit(tokens, call)
        if count > 1:
            yield f"{name} of call {call.number} are counted {count} times"
        if count and name not in call.told:
            yield f"{name} of call {call.number} are counted, which it did not tell"
        if not count and name in call.told and _is_heard(world, call):
            yield f"{name} of call {call.number} are not counted"


def _is_heard(world: "World", call: ModelCall) -> bool:
    """Whether nothing has kept the call's process from reporting its usage."""
    is_calm = not (call.home.is_dead or call.home.troubled_at)
    return is_calm and not world.person.continues_in_a_hurry()


def _paid(world: "World", row: Row) -> Iterator[str]:
    """All that is stored of a reply is paid for, whichever process wrote it: counted, or estimated
    by its writer or by later ones."""
    calls = [call for call in world.provider.calls if call.turn_id == row.id and call.written]
    if row.is_cancelled and row.fence:  # its writer has not reported its usage
        if any(_is_heard(world, call) for call in calls):
            yield "what a cancelled reply has used is not told"
        return
    least = 0
    for call in calls:
        is_told = call.number <= MOST_CALLS and digit(row.used[1], call)
        stored = sum(len(each.encode()) for each in row.text if origin(each)[0] == call.number)
        least += 0 if is_told else stored // 4
        if _is_heard(world, call) and "input_tokens" not in call.told:
            least += call.sent // 4
    if row.used[3] < least:
        yield f"{row.used[3]} tokens are estimated of a reply, where at least {least} are not counted"


def _estimates(world: "World", read: int, written: int, estimated: int) -> Iterator[str]:
    """No more is estimated than what was not counted."""
    # A process may die before the call for which it got a reply.
    most = 2 * sum(world.promises.grants.values())
    is_hurried = world.person.continues_in_a_hurry()
    for call in world.provider.calls:
        is_told = call.number <= MOST_CALLS
        sent = 0 if is_told and digit(read, call) else call.sent
        has_all = digit(written, call) and not call.may_have_more(is_hurried)
        said = 0 if is_told and has_all else call.written
        most += estimate(sent) + estimate(said)
    if estimated > most:
        yield f"{estimated} tokens are estimated, where at most {most} were not counted"
