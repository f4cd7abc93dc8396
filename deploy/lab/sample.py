"""Sample data of the demo, made through the REST API only."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bridge.commands.rest import Rest

BRIEF_NUMBER = "+16465550180"
"""Answers, and hangs up after a second."""
CALLER = "+16465550111"
DIDS = ("+12125550101", "+12125550110", "+12125550120")
CONSENT = "Yes, call me back about my request."
PEOPLE = {
    "+16465550101": ("Ann Lee", "Lee & Daughters"),
    "+13125550102": ("Bruno Costa", "Costa Bakery"),
    "+14155550103": ("Chidi Okafor", ""),
    "+16175550104": ("Dana Weiss", "Weiss Optics"),
    CALLER: ("Ada Lovelace", "Analytical Engines"),
}
"""Customers by number; all but the last answer after a second and talk until somebody hangs up."""
AGENTS = {"agent101": "Robin Page", "agent102": "Sam Keller", "agent103": "Toni Marsh"}
"""Username -> name."""
_GREETING = "Good day, Blue Door Furniture, you are speaking with {{agent.name}}."
_SCRIPT = """\
Good day **{{customer.name}}**, this is {{agent.name}} of Blue Door Furniture. You asked us to call you back.

1. Ask what they are looking for, and for which room.
2. Delivery: **free above $400**, within five working days, also to upper floors.
3. Spring sale: 15 % off all chairs until the end of the month.

> If they want to think it over: offer to send the offer by e-mail, and ask when to call again.
"""


@dataclass(frozen=True)
class Told:
    """What the demo needs to go on."""

    admin: Rest
    site: str
    """The site's key."""
    passwords: dict[str, str]


def talking_numbers() -> Iterator[str]:
    """Numbers to ring again and again, each a known customer's."""
    return itertools.cycle([number for number in PEOPLE if number != CALLER])


def create(
    admin: Rest, admin_password: str, device: Callable[[str], str], origins: Sequence[str] = ()
) -> Told:
    """Two client companies with script, numbers, site and customers; three agents and a supervisor.

    `device` names an extension's phone as the PBX does; pages of `origins` may use the site's form too.
    """
    client = admin.post(
        "/api/v1/clients",
        {
            "name": "Blue Door Furniture",
            "timezone": "America/New_York",
            "greeting": _GREETING,
            "card": {
                "website": "www.example.com",
                "address": "12 Harbor Street, New York",
                "hours": "Monday to Saturday, 9 to 18",
                "services": "Chairs, tables and shelves, made to measure",
                "notes": "They say 'Blue Door', never 'BD'. Returns within 30 days.",
            },
        },
    )["id"]
    script = admin.post("/api/v1/scripts", {"client_id": client, "name": "Callback", "body": _SCRIPT})["id"]
    for number, label in zip(DIDS, ("Main line", "Support", "Sales"), strict=True):
        admin.post(
            "/api/v1/dids", {"client_id": client, "number": number, "label": label, "script_id": script}
        )
    site = admin.post(
        "/api/v1/sites",
        {
            "client_id": client,
            "name": "www.example.com",
            "origins": ["https://www.example.com", *origins],
            "timezone": "America/New_York",
            "regions": ["US"],
            "pbx": "company",
            "script_id": script,
            "consent_text": CONSENT,
            # A demo is tried again and again, from one address.
            "limits": {"per_ip_hour": 1000, "per_number_day": 1000, "per_site_hour": 1000},
        },
    )["key"]
    for number, (name, company) in PEOPLE.items():
        admin.post(
            "/api/v1/customers",
            {"client_id": client, "name": name, "company": company, "numbers": [number]},
        )
    return Told(admin, site, {"admin": admin_password, **_people(admin, device)})


def _people(admin: Rest, device: Callable[[str], str]) -> dict[str, str]:
    passwords = {}
    people = [(username, name, "agent", username[-3:]) for username, name in AGENTS.items()]
    for username, name, role, extension in [*people, ("supervisor", "Uma Frost", "supervisor", "105")]:
        passwords[username] = secrets.token_urlsafe(9)
        admin.post(
            "/api/v1/agents",
            {
                "username": username,
                "password": passwords[username],
                "name": name,
                "role": role,
                "devices": [device(extension)],
                "extension": extension,
            },
        )
    return passwords
