"""Phone numbers: read, judged and masked. Regions decide, never prefixes: +1 alone covers 25 of them."""

from __future__ import annotations

import re
from collections.abc import Collection

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from bridge.domain.errors import Invalid

DIAL_PATTERN = re.compile(r"^\+?[0-9]{3,15}\Z")
"""What may reach a PBX as a number."""
_TYPED = re.compile(r"[0-9+() .\-/\u00a0\u2010\u2011]{3,40}")
"""What people type; letters (vanity numbers, extensions) are refused, not guessed at."""

_ALLOWED = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.VOIP,
        PhoneNumberType.TOLL_FREE,
    }
)
"""All other types (premium rate, shared cost, personal, pager, voicemail, UAN) are dear or reach nobody."""


class NumberInvalid(Invalid):
    """This is no phone number; write it with its country code, such as +1 212 555 0123."""

    code = "number_invalid"


class RegionNotAllowed(Invalid):
    """Numbers of this country are not called from here."""

    code = "region_not_allowed"


class NumberTypeNotAllowed(Invalid):
    """Numbers of this kind (premium rate, shared cost, satellite, short, emergency) are never called."""

    code = "number_type_not_allowed"


def parse_number(text: str, region: str) -> str:
    """The number as E.164; a national one is read as of `region`. Raises NumberInvalid.

    Short and emergency numbers raise NumberTypeNotAllowed. It may still be one that must not be
    dialled: ask `dialable`.
    """
    text = text.strip()
    if not _TYPED.fullmatch(text):
        raise NumberInvalid(field="number")
    try:
        number = phonenumbers.parse(text, region)
    except NumberParseException:
        raise NumberInvalid(field="number") from None
    if _is_short(text, number, region):
        raise NumberTypeNotAllowed(field="number")
    if not phonenumbers.is_valid_number(number):
        raise NumberInvalid(field="number")
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def dialable(e164: str, regions: Collection[str]) -> None:
    """Raises an Invalid (field "number") unless the number may be dialled from a site that allows `regions`."""
    try:
        number = phonenumbers.parse(e164, None)
    except NumberParseException:
        raise NumberInvalid(field="number") from None
    if not DIAL_PATTERN.match(e164) or not phonenumbers.is_valid_number(number):
        raise NumberInvalid(field="number")
    region = phonenumbers.region_code_for_number(number)
    kind = phonenumbers.number_type(number)
    # "001" is a country code of no country: satellite, international networks and freephone.
    if region in (None, "001") or kind not in _ALLOWED:
        raise NumberTypeNotAllowed(field="number")
    if region not in regions:
        raise RegionNotAllowed(field="number")


def mask(e164: str) -> str:
    """The number for a log line: its last two digits only."""
    return f"***{e164[-2:]}"


def _is_short(text: str, number: PhoneNumber, region: str) -> bool:
    digits = re.sub(r"[^0-9+]", "", text)
    if digits.startswith("+"):
        return False
    return bool(
        phonenumbers.connects_to_emergency_number(digits, region)
        or phonenumbers.is_valid_short_number_for_region(number, region)
    )
