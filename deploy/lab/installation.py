"""Which Asterisk the lab runs: the machine's own, else one in a root folder made with debootstrap.

The root folder is never entered: its Asterisk is started through its own dynamic loader, with paths that point
into it, so that nothing but debootstrap itself needs any privilege and the machine's own packages stay as they are.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringbridge_lab.errors import LabError

Progress = Callable[[str], None]

SUITES = ("forky", "sid", "bullseye")
"""Debian suites that carry Asterisk, the one to be preferred first (22, the newest, 16)."""
PACKAGES = "asterisk,asterisk-modules"
FEWEST_MODULES = 20


@dataclass(frozen=True, slots=True)
class Installation:
    """An Asterisk that can be started: `argv` and its options go before ours."""

    argv: tuple[str, ...]
    modules: Path
    data: Path
    version: str
    """Such as `22.10.1`."""

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find(
    asterisk: Path | None = None,
    *,
    progress: Progress,
    environ: Mapping[str, str] = os.environ,
) -> Installation:
    """The Asterisk to use: the one named, `$RINGBRIDGE_LAB_ASTERISK`, the PATH's, else a root folder's.

    `asterisk` may be a binary or a root folder. Raises LabError.
    """
    variable = environ.get("RINGBRIDGE_LAB_ASTERISK")
    named = asterisk or (Path(variable) if variable else None)
    if named is not None:
        if named.is_dir():
            return _in_root(named)
        return _native(named)
    on_path = shutil.which("asterisk", path=environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if on_path is not None:
        return _native(Path(on_path))
    root = root_folder(environ)
    with _held(root.with_name(root.name + ".lock")):
        if not _whole(root):
            make_root(root, progress=progress)
    return _in_root(root)


def root_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the root folder is kept between runs: `$RINGBRIDGE_LAB_ROOT`, else the user's cache."""
    if environ.get("RINGBRIDGE_LAB_ROOT"):
        return Path(environ["RINGBRIDGE_LAB_ROOT"])
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ringbridge" / "lab-root"


def make_root(root: Path, *, progress: Progress) -> None:
    """Make the root folder with debootstrap from the first suite that works. Raises LabError.

    Built beside its place and renamed when whole: an interrupted run leaves nothing that looks done.
    """
    debootstrap = shutil.which("debootstrap", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if debootstrap is None:
        raise LabError(
            "this machine has no asterisk and no debootstrap to fetch one; "
            "install either (Debian, Ubuntu: apt install debootstrap) and run this again"
        )
    if os.geteuid() != 0:
        raise LabError(
            "this machine has no asterisk, and fetching one with debootstrap needs root once: run this once "
            "with sudo, or name an asterisk with --asterisk"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    for leftover in root.parent.glob(f"{root.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    mirror = apt_mirror()
    failures = []
    for suite in SUITES:
        part = Path(tempfile.mkdtemp(prefix=f"{root.name}.part-", dir=root.parent))
        # debootstrap leaves device files' parents and caches readable; the folder itself must be too.
        part.chmod(0o755)
        progress(f"Fetching Asterisk from Debian {suite} with debootstrap; this takes a few minutes, once.")
        argv = [debootstrap, "--variant=minbase", f"--include={PACKAGES}", suite, str(part)]
        # The script named last is that of sid: older debootstraps do not know newer suites. It follows the mirror.
        if mirror is not None:
            argv += [mirror, "sid"]
        failure = _run_debootstrap(argv, progress)
        if failure is None:
            failure = _fault(part)
        if failure is None:
            shutil.rmtree(part / "var/cache/apt/archives", ignore_errors=True)
            if root.exists():
                shutil.rmtree(root)
            part.rename(root)
            progress(f"Asterisk {_in_root(root).version} is ready in {root}.")
            return
        failures.append(f"{suite}: {failure}")
        shutil.rmtree(part, ignore_errors=True)
    raise LabError("debootstrap could not fetch an Asterisk: " + "; ".join(failures))


def apt_mirror(etc: Path = Path("/etc/apt")) -> str | None:
    """The Debian mirror that this machine's own apt uses, None where it names none."""
    sources = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in sources:
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.match(r"(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(https?://\S+/debian)/?(?=\s|$)", line)
            if found:
                return found[1]
    return None


def _run_debootstrap(argv: list[str], progress: Progress) -> str | None:
    """None where it went well, else its last words."""
    last = "no output"
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            if last.startswith("I: "):
                progress(last.removeprefix("I: "))
    return None if process.returncode == 0 else last


def _fault(root: Path) -> str | None:
    """Why the root folder's Asterisk cannot be used; None where it can."""
    if not _whole(root):
        return "it holds no asterisk"
    try:
        _in_root(root)
    except LabError as error:
        return str(error)
    return None


def _whole(root: Path) -> bool:
    return (root / "usr/sbin/asterisk").is_file() and not (root / "debootstrap").exists()


def _in_root(root: Path) -> Installation:
    root = root.resolve()
    binary = root / "usr/sbin/asterisk"
    loaders = [
        _inside(root, path) for folder in ("lib64", "lib") for path in root.glob(f"{folder}/ld-linux*.so.*")
    ]
    # Since 18, Debian keeps the modules with the libraries of the architecture.
    modules = [*root.glob("usr/lib/*/asterisk/modules"), *root.glob("usr/lib/asterisk/modules")]
    if not binary.is_file() or not loaders or not modules:
        raise LabError(
            f"{root} is no root folder with an Asterisk; delete it, and the next run makes a new one"
        )
    loader = loaders[0]
    searched = [modules[0].parent]
    for folder in (
        loader.parent,
        *root.glob("usr/lib/*-linux-gnu*"),
        *root.glob("lib/*-linux-gnu*"),
        root / "usr/lib",
    ):
        if folder.is_dir() and folder not in searched:
            searched.append(folder)
    argv = (str(loader), "--library-path", ":".join(map(str, searched)), str(binary))
    return Installation(argv, modules[0], root / "usr/share/asterisk", _version(argv))


def _inside(root: Path, path: Path) -> Path:
    """What a link means within the root folder, where an absolute target begins at the root."""
    while path.is_symlink():
        target = path.readlink()
        path = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    return path.parent.resolve() / path.name


def _native(binary: Path) -> Installation:
    if not os.access(binary, os.X_OK):
        raise LabError(f"{binary} is no program that can be run; name an asterisk with --asterisk")
    places = sorted(Path("/usr/lib").glob("*/asterisk/modules"))
    prefix = binary.resolve().parent.parent
    places += [
        prefix / "lib/asterisk/modules",
        prefix / "lib64/asterisk/modules",
        Path("/usr/lib/asterisk/modules"),
    ]
    modules = next((path for path in places if len(list(path.glob("*.so"))) >= FEWEST_MODULES), None)
    if modules is None:
        raise LabError(f"the modules of {binary} were not found; install them (Debian: asterisk-modules)")
    homes = (Path("/usr/share/asterisk"), Path("/var/lib/asterisk"))
    data = next((path for path in homes if (path / "documentation").is_dir()), homes[-1])
    return Installation((str(binary),), modules, data, _version((str(binary),)))


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([*argv, "-V"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{argv[-1]} does not run: {error}") from None
    found = re.search(r"Asterisk (?:certified/)?(\d+\.\d+(?:\.\d+)?)", done.stdout)
    if found is None:
        raise LabError(f"{argv[-1]} does not run: {(done.stderr or done.stdout).strip()[:200]}")
    return found[1]


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Only one process makes the root folder at a time; the others wait and then find it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
