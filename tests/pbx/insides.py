"""What a test does to the company's PBX from inside, and what it reads there: each PBX in its own words.

All other tests know the PBX by what the lab says of it, and by what people hear and see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ringbridge_lab.lab import Lab


@contextmanager
def without_trunk(lab: Lab) -> Iterator[None]:
    """The PBX does not know its trunk."""
    path = lab.dir / "company" / "etc" / "pjsip.conf"
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(whole.replace("[trunk](leg)", "[elsewhere](leg)"), encoding="utf-8")
        with lab.company_ami() as ami:
            ami.command("module reload res_pjsip.so")
        yield
    finally:
        path.write_text(whole, encoding="utf-8")
        with lab.company_ami() as ami:
            ami.command("module reload res_pjsip.so")


def callers_name(lab: Lab) -> str:
    """The name that the PBX took from the one call of the trunk."""
    with lab.company_ami() as ami:
        listing = ami.command("core show channels concise")
        trunk = next(line.split("!")[0] for line in listing.splitlines() if line.startswith("PJSIP/trunk"))
        return ami.action("Getvar", Channel=trunk, Variable="CALLERID(name)")["Value"].replace("\\", "")
