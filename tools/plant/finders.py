"""Who looks for a planted fault: the tests, the table of states, the simulation, a soak with its
audit."""

import contextlib
import pathlib
import re
import subprocess
import threading
import time
from typing import NamedTuple

STEPS = "tests/replies/test_steps.py"  # each step of a row, held against the table of states
SELF = "tests/operate/test_plant.py"  # it looks whether faults can be planted where none is
ALONE = 120  # seconds in which a test that has failed is run without the fault
KILLED = -9  # the status of what was not over in time
SOAK = 60  # seconds
SOAK_ENDS = 240  # seconds, at most, until what a soak has left is at rest and looked at
# As pytest-xdist, or pytest alone, tells of each test while it runs.
TOLD = re.compile(r"^(?:\[gw\d+\].*?(FAILED|ERROR) (tests/\S.*)|(tests/\S.*?) (FAILED|ERROR)\b)")

# Errors of who plants a fault, and not of the product.
ILL = re.compile(
    r"ERROR collecting|the server did not start|"
    r"^E +(?:ImportError|ModuleNotFoundError|NameError|SyntaxError|IndentationError)",
    re.MULTILINE,
)


class Found(NamedTuple):
    """What a finder says of a fault."""

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
        # Nothing holds the other end of the pipe any more.
        reader.join()
        process.stdout.close()
        self.status = process.returncode

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
    """Run these tests until one fails."""
    options = [
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
    """The tests of the folder in which a module stands, or those of the module alone."""
    room, slash, _ = file.partition("/")
    path = f"tests/{room}" if slash else f"tests/test_{pathlib.PurePath(file).stem}.py"
    return [path]


def stages_of(copy, fault):
    """The arguments of pytest, one step after the other, and by how many workers."""
    heavy = [path for path in fault.near if path.startswith("tests/heavy/")]
    light = [path for path in fault.near if path not in heavy]
    seen = [f"--ignore={path}" for path in [*light, SELF, STEPS]]
    folder = [path for path in folder_of(fault.file) if (copy.root / path).exists()]
    if light:
        yield light, 2
    if heavy:  # what loads a machine is not run beside other tests
        yield heavy, 0
    if set(folder) - set(light):
        yield [*folder, *seen], 2
    yield ["tests", *seen, *(f"--ignore={path}" for path in folder)], 2


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
        """The test that fails of these, when it was told, and what that says of the fault; None
        where there is none. One that fails without the fault, too, is left out."""
        began = deadline - 60 * self._minutes
        left_out = []
        while True:
            with copy.planted(fault):
                run = pytest(copy, deadline, workers, *arguments, *left_out)
            at, test = run.first or (time.monotonic(), "the tests do not run")
            if run.first is None and run.status in (0, 5, KILLED):
                return None
            if run.first and pytest(copy, time.monotonic() + ALONE, 0, test).first:
                left_out.append(f"--deselect={test}")
            elif run.first and not is_ill_planted(run):
                return test, at - began, True
            else:
                return f"not well planted: {test}", at - began, False, True


def is_ill_planted(run):
    """Whether the fault would be seen by whoever starts the product: it is not subtle."""
    return bool(ILL.search(run.output))


class Model:
    """The table of states, against which each step of the product's rows is held."""

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
    """A soak with faults, of which all that users were told is held against the promises."""

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
    """The seed of a soak, and the first problem that it tells: behind the line that counts them,
    and what was audited."""
    count, first = "it has failed", ""
    for number, line in enumerate(lines):
        if line.startswith("AssertionError: "):
            count = line.removeprefix("AssertionError: ")
            told = [each for each in lines[number + 1 :] if not each.startswith("history.jsonl: ")]
            first = next(iter(told), "")
    return f"{lines[0] if lines else ''}: {count} {first[:200]}".strip()
