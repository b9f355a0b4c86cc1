"""What must hold once all is at rest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulate.scripted import MOST_CALLS, ModelCall
from tables.ledger import estimate

if TYPE_CHECKING:
    from simulate.world import World


def broken_at_the_end(world: "World") -> Iterator[str]:
    seen = world.eye.look()
    for row in seen.rows.values():
        if row.status == "in_progress":
            yield "S-43: a reply is under way, and nobody writes it"
    for reader in world.person.readers:
        if not reader.is_over:
            yield "S-30: a stream has no end"
    yield from _left_over(world)
    yield from _once(world)
    if not world.fate.had_failover:
        yield from _ledger(world)


def _left_over(world: "World") -> Iterator[str]:
    """What a process still holds for what is over."""
    for process in world.processes:
        if process.is_dead:
            continue
        if process.replies.registry.known():
            yield "a process knows a reply that is over"
        if process.replies.bulkhead.users:
            yield "a reply that is over has its place"
    if any(call.is_open for call in world.provider.calls):
        yield "S-37: a model talks on"


def _once(world: "World") -> Iterator[str]:
    """A message is there once, whatever was sent again; and not at all where its client was told
    so."""
    texts = [text for _, text in world.eye.messages()]
    for sent in world.person.sent:
        wish = sent.wish
        if wish.kind != "message" or world.fate.had_failover:
            continue
        count = texts.count(wish.content or "")
        if count > 1:
            yield "S-39: a message is there twice"
        statuses = [answer.status for _, answer in sent.answers]
        # Who is dead, or stands still, undoes nothing before another one takes it over.
        undoes = all(not (each.is_dead or each.paused_at) for each, _ in sent.answers)
        if count and undoes and not wish.key and statuses == [503]:
            yield "S-39: a message is there that was told as failed"


def _ledger(world: "World") -> Iterator[str]:
    replies, *tokens = world.eye.ledger()
    if replies != world.promises.ends:
        yield f"the ledger has {replies} replies, and {world.promises.ends} have ended"
    rows = world.promises.seen.rows.values()
    if "" not in world.promises.seen.owners.values() and not world.person.has_asked("delete"):
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
        if not count and name in call.told and not world.fate.happened:
            yield f"{name} of call {call.number} are not counted"


def _estimates(world: "World", read: int, written: int, estimated: int) -> Iterator[str]:
    """No more is estimated than what was not counted."""
    # A process may die before the call that it was given a reply for.
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
