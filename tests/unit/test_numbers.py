"""Which numbers are numbers, and which may be dialled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.errors import Invalid
from bridge.domain.numbers import DIAL_PATTERN, dialable, mask, parse_number


@pytest.mark.parametrize(
    ("text", "region", "e164"),
    [
        ("+1 646 555 0101", "US", "+16465550101"),
        ("(212) 555-0123", "US", "+12125550123"),
        ("1-312-555-0199", "US", "+13125550199"),
        ("020 7946 0018", "GB", "+442079460018"),
        ("030 901820", "DE", "+4930901820"),
    ],
)
def test_numbers_are_read(text: str, region: str, e164: str) -> None:
    assert parse_number(text, region) == e164
    dialable(e164, ("US", "GB", "DE"))


@pytest.mark.parametrize("npa", ["646", "312", "415", "212", "305"])
def test_every_number_of_the_lab_is_valid(npa: str) -> None:
    for line in range(100, 200):
        dialable(parse_number(f"+1{npa}5550{line}", "US"), ("US",))


@pytest.mark.parametrize(
    "text",
    ["", "abc", "12", "+1 800 FLOWERS", "646 555 0101 ext 5", "+16465550101\r\nAction: Originate", "+1646555010",
     "+999123456789", "１６４６５５５０１０１", "6465550101;x=1", "\x00+16465550101", "+" * 30, "5" * 41],
)  # fmt: skip
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_number(text, "US")
    assert (caught.value.code, caught.value.field) == ("number_invalid", "number")
    assert "6465" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "region"), [("911", "US"), ("112", "DE"), ("999", "GB"), ("211", "US"), ("110", "DE")]
)
def test_short_and_emergency_numbers_are_never_read_as_ours(text: str, region: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_number(text, region)
    assert caught.value.code == "number_type_not_allowed"


@pytest.mark.parametrize(
    ("e164", "what"),
    [
        ("+19005550123", "premium rate"),
        ("+449098790123", "premium rate"),
        ("+448450123456", "shared cost"),
        ("+447012345678", "personal, dear"),
        ("+447640123456", "pager"),
        ("+445512345678", "UAN"),
        ("+881612345678", "satellite"),
        ("+870773111632", "satellite"),
        ("+882162345678", "international network"),
        ("+80012345678", "international freephone"),
    ],
)
def test_dear_and_dead_kinds_are_never_dialled(e164: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        dialable(e164, ("US", "GB", "001"))
    assert caught.value.code in {"number_type_not_allowed", "number_invalid"}, what


@pytest.mark.parametrize("e164", ["+18765550123", "+12423591234", "+16045550123", "+18095550123"])
def test_a_region_is_no_prefix(e164: str) -> None:
    """+1 is 25 regions; only those named are called."""
    with pytest.raises(Invalid) as caught:
        dialable(e164, ("US",))
    assert caught.value.code == "region_not_allowed"


@given(st.text(max_size=60))
def test_anything_typed_is_a_number_or_a_clear_no(text: str) -> None:
    try:
        number = parse_number(text, "US")
        dialable(number, ("US",))
    except Invalid as error:
        assert error.field == "number"
    else:
        assert DIAL_PATTERN.match(number)


def test_a_mask_keeps_two_digits() -> None:
    assert mask("+16465550101") == "***01"
