"""What looks for a planted fault: the tests, the table of states, the simulation, a soak with its
audit.
"""

import contextlib
import pathlib
import re
import subprocess
import threading
import time
from typing import NamedTuple

STEPS = "tests/replies/test_steps.py"  # each step of a row, compared with the table of states
SELF = "tests/operate/test_plant.py"  # it checks that faults can be planted, which fails in a copy that has one
ALONE = 120  # seconds, at most, to run a failed test again without the fault
KILLED = -9  # the status of a process that was not over in time
NOTHING_FAILED = (0, 5, KILLED)  # the statuses of pytest, 5 if there were no tests, and of that
SOAK = 60  # seconds
SOAK_ENDS = 240  # seconds, at most, until what a soak has left is at rest and checked
# The lines in which pytest-xdist, or pytest alone, reports each test while it runs.
TOLD = re.compile(r"^(?:\[gw\d+\].*?(FAILED|ERROR) (tests/\S.*)|(tests/\S.*?) (FAILED|ERROR)\b)")
# The summary at the end also names a test whose log got between its name and the word FAILED.
SUMMARY = re.compile(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", re.MULTILINE)

# Errors of a badly planted fault, and not of the product.
ILL = re.compile(
    r"ERROR collecting|the server did not start|"
    r"^E +(?:ImportError|ModuleNotFoundError|NameError|SyntaxError|IndentationError)",
    re.MULTILINE,
)


class Found(NamedTuple):
    """What a finder reports of a fault."""

    by: str
    what: str  # the test, or what did not hold; or why nothing was found
    seconds: float
    is_found: bool = False
    is_ill: bool = False  # the product cannot even be imported, or started

    def told(self):
        return f"{self.by}: {self.what}, {self.seconds:.0f} s"


class Run:
    """A process in a copy, whose output is read until it ends or its time is over."""

    def __init__(self, copy, deadline, *arguments):
        self.lines, self.first = [], None  # the first test that has failed, and when
        with copy.running(*arguments) as process:
            reader = threading.Thread(target=self._read, args=[process.stdout])
            reader.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
            self.is_late = process.poll() is None  # it was killed
        # No process has the other end of the pipe any more.
        reader.join()
        process.stdout.close()
        self.status = process.returncode
        if self.first is None and (failed := SUMMARY.search(self.output)):
            self.first = time.monotonic(), failed[1]

    def _read(self, stdout):
        for line in stdout:
            self.lines.append(line.rstrip("\n"))
            told = TOLD.match(line)
            if told and self.first is None:
                self.first = time.monotonic(), (told[2] or told[3]).strip()

    @property
    def output(self):
        return "\n".join(self.lines)


def pytest(copy, deadline, workers, *arguments):
    """Run these tests until one fails, also those that otherwise run only by hand."""
    options = [
        "-m",
        "long or not long",
        "-x",
        "-v",
        "-n",
        str(workers),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--tb=short",
    ]
    return Run(copy, deadline, "-m", "pytest", *options, *arguments)


def folder_of(file):
    """The tests of the module's folder, or those of the module alone."""
    room, slash, _ = file.partition("/")
    path = f"tests/{room}" if slash else f"tests/test_{pathlib.PurePath(file).stem}.py"
    return [path]


def stages_of(copy, fault):
    """The arguments of pytest, one step after the other, and with how many workers."""
    heavy = [path for path in fault.near if path.startswith("tests/heavy/")]
    light = [path for path in fault.near if path not in heavy]
    seen = [f"--ignore={path}" for path in [*light, SELF, STEPS]]
    folder = [path for path in folder_of(fault.file) if (copy.root / path).exists()]
    if light:
        yield light, 2
    if heavy:  # tests that load a machine do not run beside others
        yield heavy, 0
    if set(folder) - set(light):
        yield [*folder, *seen], 2
    yield ["tests", *seen, *(f"--ignore={path}" for path in folder)], 2


def first_failure(copy, fault, deadline, workers, arguments, passing):
    """The run in which the first of these tests failed because of the fault, or none did. A test
    that fails without the fault, too, is left out; those that pass are added to `passing`."""
    left_out = []
    while True:
        with copy.planted(fault):
            run = pytest(copy, deadline, workers, *arguments, *left_out)
        if run.first is None or run.first[1] in passing:
            return run
        test = run.first[1]
        if pytest(copy, time.monotonic() + ALONE, 0, test).first is None:
            passing.add(test)
            return run
        left_out.append(f"--deselect={test}")


class Suite:
    """The tests, the near ones first."""

    name = "suite"

    def __init__(self, minutes, workers=None, is_near_only=False):
        self._minutes, self._workers, self._is_near_only = minutes, workers, is_near_only

    def look(self, copy, fault):
        began = time.monotonic()
        deadline = began + 60 * self._minutes
        for arguments, workers in stages_of(copy, fault):
            workers = workers if self._workers is None else self._workers
            if what := self._failure(copy, fault, deadline, workers, arguments):
                return Found(self.name, *what)
            if self._is_near_only or time.monotonic() >= deadline:
                break
        return Found(self.name, "nothing", time.monotonic() - began)

    def _failure(self, copy, fault, deadline, workers, arguments):
        """The first of these tests that fails because of the fault, when it failed, and its message;
        None if there is none."""
        began = deadline - 60 * self._minutes
        run = first_failure(copy, fault, deadline, workers, arguments, set())
        if run.first is None and run.status in NOTHING_FAILED:
            return None
        at, test = run.first or (time.monotonic(), "the tests do not run")
        if run.first and not is_ill_planted(run):
            return test, at - began, True
        return f"not well planted: {test}", at - began, False, True


def is_ill_planted(run):
    """Whether everybody who starts the product would see the fault: it is not subtle."""
    return bool(ILL.search(run.output))


class Model:
    """The table of states, with which each step of the product's rows is compared."""

    name = "model"

    def __init__(self, minutes):
        self._minutes = minutes

    def look(self, copy, fault):
        began = time.monotonic()
        if not (copy.root / STEPS).exists():
            return Found(self.name, "not there", 0)
        with copy.planted(fault):
            run = pytest(copy, began + 60 * self._minutes, 2, STEPS)
        seconds = time.monotonic() - began
        if run.first is None:
            return Found(self.name, "nothing", seconds)
        at, test = run.first
        return Found(self.name, test, at - began, is_found=True, is_ill=is_ill_planted(run))


class Simulation:
    """The code itself, under one seed after the other until a promise is broken."""

    name = "simulation"

    def __init__(self, seeds, minutes):
        self._seeds, self._minutes = seeds, minutes

    def look(self, copy, fault):
        began = time.monotonic()
        deadline = began + 60 * self._minutes
        with copy.planted(fault):
            run = Run(copy, deadline, "tools/simulate", "--seeds", str(self._seeds))
        seconds = time.monotonic() - began
        broken = [line for line in run.lines if line.startswith("seed ")]
        if run.is_late or run.status == 0:
            return Found(self.name, "nothing", seconds)
        if not broken:
            return Found(self.name, f"it has failed: {run.lines[-1:]}", seconds, is_ill=True)
        return Found(self.name, broken[0][:200], seconds, is_found=True)


class Audit:
    """A soak with faults: everything that users were shown is compared with the promises."""

    name = "audit"

    def __init__(self, seconds=SOAK):
        self._seconds = seconds

    def look(self, copy, fault):
        began = time.monotonic()
        command = ["tools/soak", "--seconds", str(self._seconds), "--database", "sqlite"]
        if fault.befalls:
            command += ["--faults", fault.befalls]
        with copy.planted(fault):
            run = Run(copy, began + self._seconds + SOAK_ENDS, *command)
        seconds = time.monotonic() - began
        if run.status == 0:
            return Found(self.name, "nothing", seconds)
        if run.is_late:
            return Found(self.name, "it has not ended in time", seconds, is_found=True)
        return Found(self.name, problem_in(run.lines), seconds, is_found=True)


def problem_in(lines):
    """The seed of a soak, and the first problem that it prints: after the line that counts them,
    and what was audited."""
    count, first = "it has failed", ""
    for number, line in enumerate(lines):
        if line.startswith("AssertionError: "):
            count = line.removeprefix("AssertionError: ")
            told = [each for each in lines[number + 1 :] if not each.startswith("history.jsonl: ")]
            first = next(iter(told), "")
    return f"{lines[0] if lines else ''}: {count} {first[:200]}".strip()
