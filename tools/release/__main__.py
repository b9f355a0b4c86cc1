"""A release: `python tools/release 2.0.0` checks a tag, and builds what is published into `dist`.

It refuses if the version, the change log and the tag do not agree, or if something is not
committed. Wheels and source distributions of the service and of the client for Python, the client
for npm and the image are built from the tag, twice, and both builds must be the same. `SHA256SUMS` lists them. Nothing is uploaded. It needs uv,
npm (`--client none` leaves the client out), and for the image Podman or Docker (`--image none`).
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = "localhost/parley-release"


class Refused(SystemExit):
    """What is wrong with the release, in one line."""


def git(*words):
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()


def check(version):
    """The time of the tag's commit, in seconds. Raises Refused."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        raise Refused(f"{version} is no version: write it like 2.0.0 or 2.0.0rc1.")
    if changed := git("status", "--porcelain"):
        raise Refused(f"Not all is committed: {changed.splitlines()[0].strip()}")
    tag = f"v{version}"
    if tag not in git("tag", "--points-at", "HEAD").splitlines():
        raise Refused(f"HEAD does not have the tag {tag}: git tag -a {tag}")
    says = re.search(r'^__version__ = "(.+)"$', (ROOT / "app.py").read_text("utf-8"), re.MULTILINE)
    if says[1] != version:
        raise Refused(f"app.py says that this is {says[1]}.")
    first = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if not re.fullmatch(rf"{re.escape(version)}, \d{{4}}-\d\d-\d\d", first[1]):
        raise Refused(f"CHANGELOG.md begins with {first[1]!r}, not with '{version}, ' and a day.")
    return int(git("log", "-1", "--format=%ct"))


def export(tag, folder):
    """The files of the tag, and nothing else; each as old as its commit."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", tag], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def build_packages(tag, folder, seconds):
    """A wheel and a source distribution of the service, and of the client for Python."""
    source = export(tag, folder / "packages")
    made = folder / "made"
    uv = shutil.which("uv") or str(pathlib.Path(sys.executable).with_name("uv"))
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(seconds)}
    for package in (source, source / "clients" / "python"):
        command = [uv, "build", "--quiet", "--out-dir", made, package]
        subprocess.run(command, check=True, env=environment)
    return sorted(path for path in made.iterdir() if path.name.startswith("parley"))


def build_client(folder):
    """The package of npm, as a file. This folder is committed and tagged."""
    package = folder / "parley-client"
    subprocess.run([sys.executable, ROOT / "tools" / "npm.py", package], check=True)
    pack = ["npm", "pack", "--silent", "--pack-destination", folder]
    subprocess.run(pack, cwd=package, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("parley-client-*.tgz"))


def build_image(engine, base, tag, folder, seconds):
    """The image as a file, as both engines load it."""
    source, file = export(tag, folder / "image"), folder / f"parley-{tag[1:]}-image.tar"
    name, options = f"{IMAGE}:{tag[1:]}", ["--no-cache"]
    if base:
        options += ["--build-arg", f"BASE={base}"]
    if engine == "podman":  # it sets the times of all files, too; OCI's format has no health check
        options += ["--format", "docker", "--timestamp", str(seconds)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(seconds)}
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([engine, "build", *options, "--tag", name, source], env=environment, **quiet)
    subprocess.run([engine, "save", "--output", file, name], stderr=subprocess.DEVNULL, **quiet)
    return [file]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(path):
    """What must be the same each time: all of a package, and the layers of an image. Its own digest
    also depends on the host on which it was built."""
    if not path.name.endswith("-image.tar"):
        return digest(path)
    with tarfile.open(path) as archive:
        [image] = json.load(archive.extractfile("manifest.json"))
        return json.load(archive.extractfile(image["Config"]))["rootfs"]["diff_ids"]


def build_twice(build, folder):
    """What this function makes in a folder. Raises Refused if the two builds differ."""
    made = []
    for name in ("once", "again"):
        (folder / name).mkdir()
        made.append(build(folder / name))
    for first, second in zip(*made, strict=True):
        if contents(first) != contents(second):
            raise Refused(f"{first.name} is another one each time that it is built.")
    return made[0]


def make_dist(folder):
    """The folder of what is published, with nothing else in it. Raises Refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise Refused(f"{folder} cannot be made: {error.strerror}.") from None
    if others:
        raise Refused(f"{folder} has {others[0]} in it: empty it first.")


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/release", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("version", help="such as 2.0.0, whose tag is v2.0.0")
    parser.add_argument("--check", action="store_true", help="build nothing")
    parser.add_argument("--image", default="podman", choices=["podman", "docker", "none"])
    parser.add_argument("--client", default="npm", choices=["npm", "none"])
    parser.add_argument("--base", help="the base of the image, in place of the Dockerfile's")
    parser.add_argument("--dist", type=pathlib.Path, default=ROOT / "dist")
    options = parser.parse_args()
    try:
        seconds, tag = check(options.version), f"v{options.version}"
    except subprocess.CalledProcessError:
        raise Refused("This is no clone, or git does not work here.") from None
    if options.check:
        return
    make_dist(options.dist)
    builds = {"packages": lambda folder: build_packages(tag, folder, seconds)}
    if options.client != "none":
        builds["client"] = build_client
    if options.image != "none":
        builds["image"] = lambda folder: build_image(
            options.image, options.base, tag, folder, seconds
        )
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for name, build in builds.items():
            place = pathlib.Path(folder, name)
            place.mkdir()
            try:
                made += build_twice(build, place)
            except subprocess.CalledProcessError as error:  # which has said why itself
                raise Refused(f"{error.cmd[0]} {error.cmd[1]} has failed.") from None
            except FileNotFoundError as error:
                raise Refused(f"{error.filename} is not here: it builds the {name}.") from None
        for path in made:
            shutil.copy(path, options.dist)
    sums = "".join(f"{digest(options.dist / path.name)}  {path.name}\n" for path in made)
    (options.dist / "SHA256SUMS").write_text(sums)
    print(sums, end="")


if __name__ == "__main__":
    os.umask(0o022)  # the modes of files are part of what is built
    main()
