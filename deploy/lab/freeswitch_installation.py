"""Which FreeSWITCH the lab runs: the machine's own. No package registry carries one that could be fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ringbridge_lab.errors import LabError
from ringbridge_lab.installation import Installation

MODULES = (
    "mod_callcenter",
    "mod_cdr_csv",
    "mod_commands",
    "mod_conference",
    "mod_db",
    "mod_dialplan_xml",
    "mod_dptools",
    "mod_event_socket",
    "mod_expr",
    "mod_hash",
    "mod_logfile",
    "mod_loopback",
    "mod_sndfile",
    "mod_sofia",
    "mod_tone_stream",
    "mod_valet_parking",
)
"""What the company's configuration loads."""
USUAL_PREFIX = Path("/usr/local/freeswitch")
HOW_TO_GET_ONE = (
    "install it (Debian packages of SignalWire, which ask for a free token, or the source: "
    "github.com/signalwire/freeswitch) and name its prefix with --freeswitch or $RINGBRIDGE_LAB_FREESWITCH"
)


def find(freeswitch: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Installation:
    """The FreeSWITCH to use: the one named, `$RINGBRIDGE_LAB_FREESWITCH`, the PATH's, else the usual prefix's.

    `freeswitch` may be a prefix such as `/usr/local/freeswitch`, or the binary. Raises LabError.
    """
    variable = environ.get("RINGBRIDGE_LAB_FREESWITCH")
    named = freeswitch or (Path(variable) if variable else None)
    if named is None:
        on_path = shutil.which("freeswitch", path=environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
        named = Path(on_path) if on_path else USUAL_PREFIX
        if not named.exists():
            raise LabError(f"this machine has no FreeSWITCH; {HOW_TO_GET_ONE}")
    binary = named / "bin" / "freeswitch" if named.is_dir() else named
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        raise LabError(f"{named} holds no FreeSWITCH that can be run; {HOW_TO_GET_ONE}")
    return _at(binary)


def _at(binary: Path) -> Installation:
    prefix = binary.resolve().parent.parent
    homes = [prefix / "lib/freeswitch/mod", prefix / "lib64/freeswitch/mod", prefix / "mod"]
    homes += sorted(prefix.glob("lib/*/freeswitch/mod"))
    modules = next((home for home in homes if home.is_dir()), None)
    if modules is None:
        raise LabError(f"the modules of {binary} were not found below {prefix}")
    missing = [name for name in MODULES if not (modules / f"{name}.so").is_file()]
    if missing:
        raise LabError(f"{binary} lacks {', '.join(missing)}; install these modules for it")
    argv: tuple[str, ...] = (str(binary),)
    version = _version(argv)
    if version is None and (prefix / "lib" / "libfreeswitch.so.1").exists():
        # Moved since it was built: it no longer finds its own library.
        argv = (shutil.which("env") or "/usr/bin/env", f"LD_LIBRARY_PATH={prefix / 'lib'}", str(binary))
        version = _version(argv)
    if version is None:
        raise LabError(f"{binary} does not run; try `{binary} -version`")
    return Installation(argv, modules, prefix / "share" / "freeswitch", version)


def _version(argv: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run([*argv, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"FreeSWITCH version: (\d+\.\d+(?:\.\d+)?)", done.stdout)
    return found[1] if found else None
