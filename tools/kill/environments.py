"""Where the other programs are installed, with all that they need, in the pinned versions:
`~/.cache/parley-kill`.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path.home() / ".cache" / "parley-kill"
MARK = "installed"  # the file that is copied last


def python():
    """The Python that has DBOS and Pydantic AI."""
    folder, pins = CACHE / "python", HERE / "requirements.txt"
    program = folder / "bin" / "python"
    if not is_made(folder, pins):
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(program, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", pins)
        mark(folder, pins)
    return program


def node():
    """The Node.js that has Flue; its folder has our two programs, too."""
    folder, pins = CACHE / "flue", HERE / "flue" / "package-lock.json"
    if not is_made(folder, pins):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE / "flue", folder)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
        mark(folder, pins)
    shutil.copytree(HERE / "flue", folder, dirs_exist_ok=True)  # the programs may have changed
    program = folder / "node_modules" / ".bin" / "node"
    return program if program.exists() else shutil.which("node")


def is_made(folder, pins):
    """Whether everything that is pinned there has been installed."""
    made = folder / MARK
    return made.exists() and made.read_bytes() == pins.read_bytes()


def mark(folder, pins):
    shutil.copy(pins, folder / MARK)


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
