"""Runs the cases, each by itself, several at a time, and then the rules over all that they saw."""

import concurrent.futures
import pathlib
import tomllib

import going_further  # noqa: F401
import living  # noqa: F401
import resuming  # noqa: F401
import seeing  # noqa: F401
import thinking  # noqa: F401
import using  # noqa: F401
from casebook import CASES, Place, Seen, run
from stream_rules import RULES, judge
from told_replies import told_cases

AT_A_TIME = 8
MANY_STREAMS = {"S-12", "S-13", "S-31", "Errors"}  # cases that have streams of every kind
LEFT_OUT = pathlib.Path(__file__).with_name("left_out.toml")


def all_cases():
    return [*told_cases(), *CASES]


def left_out():
    """The promises that no case here can see, each with the reason."""
    with LEFT_OUT.open("rb") as file:
        return tomllib.load(file)["left_out"]


def conform(place: Place, numbers=None, is_quick=False):
    """The results of all cases, and of all rules, in the order of their numbers; only of these
    numbers, if any are given. `is_quick` leaves out what takes more than ten seconds."""
    wanted = [each for each in all_cases() if not numbers or each.number in numbers]
    if is_quick:
        wanted = [each for each in wanted if each.needs != "time"]
    if numbers and not wanted:
        # A rule needs something to look at.
        wanted = [each for each in all_cases() if each.number in MANY_STREAMS]
    disturbing = [each for each in wanted if each.needs == "restart"]
    others = [each for each in wanted if each.needs != "restart"]
    others.sort(key=lambda each: each.needs != "time")  # the long ones first
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        seen = [*pool.map(lambda each: run(each, place), others)]
    seen += [run(each, place) for each in disturbing]
    return sorted([*seen, *judge(place, numbers)], key=in_order)


def in_order(seen: Seen):
    """S-2 comes before S-10, and both before the headings of documents."""
    kind, _, number = seen.number.partition("-")
    return not number, int(number or 0), kind


def broken(seen):
    """The numbers of all promises that were seen to be broken."""
    return {number for each in seen for number, _ in each.problems}


def numbers():
    """The numbers of all cases and rules."""
    return {each.number for each in all_cases()} | {number for number, *_ in RULES}
