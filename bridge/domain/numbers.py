"""Phone numbers: read, judged and masked. Regions decide, never prefixes: +1 alone covers 25 of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from bridge.domain.errors import Invalid

DIAL_PATTERN = re.compile(r"^\+?[0-9]{3,15}\Z")
"""What may reach a PBX as a number."""
_TYPED = re.compile(r"[0-9+() .\-/\u00a0\u2010\u2011]{3,40}")
"""What people type; letters (vanity numbers, extensions) are refused, not guessed at."""

NUMBER_DIGITS = 7
"""What has as many digits as this is a number, and no extension."""

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

BLOCKABLE = {
    "fixed_line": PhoneNumberType.FIXED_LINE,
    "mobile": PhoneNumberType.MOBILE,
    "voip": PhoneNumberType.VOIP,
    "toll_free": PhoneNumberType.TOLL_FREE,
}
"""What a site may block besides. Where mobile and fixed numbers look alike (North America), neither word meets them."""


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
    if not is_typed(text):
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


def is_typed(text: str) -> bool:
    """Whether it holds only what people write in a number: digits, and what stands between them."""
    return _TYPED.fullmatch(text.strip()) is not None


def dialable(e164: str, regions: Collection[str], blocked: Collection[str] = ()) -> None:
    """Raises an Invalid (field "number") unless the number may be dialled from a site that allows `regions`.

    `blocked` are types of numbers (of `BLOCKABLE`) that it does not call besides those that nobody calls from here.
    """
    try:
        number = phonenumbers.parse(e164, None)
    except NumberParseException:
        raise NumberInvalid(field="number") from None
    if not DIAL_PATTERN.match(e164) or not phonenumbers.is_valid_number(number):
        raise NumberInvalid(field="number")
    region = phonenumbers.region_code_for_number(number)
    kind = phonenumbers.number_type(number)
    # "001" is a country code of no country: satellite, international networks and freephone.
    if region in (None, "001") or kind not in _ALLOWED or kind in {BLOCKABLE.get(name) for name in blocked}:
        raise NumberTypeNotAllowed(field="number")
    if region not in regions:
        raise RegionNotAllowed(field="number")


def is_number(to: str) -> bool:
    """Whether what somebody would dial is a number; else it is an extension or a code of the PBX's."""
    return to.startswith("+") or sum(char.isdigit() for char in to) >= NUMBER_DIGITS


def check_target(to: str, regions: Sequence[str]) -> None:
    """Raises an Invalid (field "to") where a call must not be sent to what somebody wrote as they would dial it.

    A number must be of an allowed region (a national one is read as of the first) and
    of an allowed kind. What is shorter is an extension, unless it reaches an emergency or a dear service. A code with
    a star may change what the PBX does, such as forward calls: none is dialled.
    """
    home = regions[0] if regions else "US"
    try:
        if is_number(to):
            dialable(parse_number(to, home), regions)
        elif "*" in to or _is_emergency(to, home) or _is_dear(to, home):
            raise NumberTypeNotAllowed
    except Invalid as error:
        raise type(error)(field="to") from None


def _is_emergency(to: str, region: str) -> bool:
    """Also with a star that the PBX may ignore, and behind the 0 or 9 with which many PBXs reach outside."""
    digits = to.replace("*", "")
    tried = [digits, digits[1:]] if to[0] in "09" else [digits]
    return any(phonenumbers.is_emergency_number(each, region) for each in tried if each)


def _is_dear(digits: str, region: str) -> bool:
    number = phonenumbers.parse(digits, region)
    if phonenumbers.expected_cost_for_region(number, region) == phonenumbers.ShortNumberCost.PREMIUM_RATE:
        return True
    # Directory enquiries and the like; three and four digits are extensions almost everywhere.
    return (
        len(digits) > 4
        and phonenumbers.is_valid_short_number_for_region(number, region)
        and not phonenumbers.is_carrier_specific_for_region(number, region)
    )


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
