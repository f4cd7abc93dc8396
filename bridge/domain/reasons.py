"""Why a callback or an attempt stands as it does, for people: what happened, and what to do next. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """`next` is "" where there is nothing to do."""

    said: str
    next: str = ""


_AGAIN_LATER = "Re-queue it to try once more, or leave it."
_BY_ITSELF = "Nothing to do: it is tried again by itself."
_LINK = "Look at the link to the PBX at the top; if it stays down, tell the administrator."

WORDS: Mapping[str, Words] = {
    # The customer's side.
    "completed": Words("They talked."),
    "busy": Words("The customer's line was busy.", _AGAIN_LATER),
    "no_answer": Words("The customer did not pick up.", _AGAIN_LATER),
    "rejected": Words("The customer declined the call.", "Ask before you call again."),
    "machine": Words("An answering machine picked up.", _AGAIN_LATER),
    "abandoned": Words("The customer hung up before an agent was there.", "Re-queue it soon: they wanted to talk."),
    "cancelled": Words("The call was given up before anyone talked.", _AGAIN_LATER),
    "agent_hung_up": Words("The agent hung up before the customer picked up.", _AGAIN_LATER),
    "not_confirmed": Words(
        "Whoever answered did not press 1 when asked.", "Perhaps somebody else gave this number: do not re-queue it."
    ),
    "wrong_number": Words("There is no such number.", "Check the number; do not re-queue it as it is."),
    "congestion": Words("The telephone network had no free line.", "Re-queue it in a few minutes."),
    "failed": Words("The call did not get through.", _AGAIN_LATER),
    "uncertain": Words("How the call ended was not seen.", "Ask the agent before you re-queue it."),
    "end_not_seen": Words("They talked; how the call ended was not seen."),
    "outcome_unknown": Words(
        "It is not known whether they talked.", "Ask the agent first: re-queued, the customer may be called twice."
    ),
    "no_news": Words("Nothing was heard of this call for a long time.", "Wait: it is being looked into."),
    "lost": Words("The link was lost during the call.", "Wait: it is being looked into."),
    # Our side.
    "agent_no_answer": Words("The agent did not pick up, and was paused.", _BY_ITSELF),
    "agent_unreachable": Words(
        "The agent's phone could not be reached, and they were paused.", "Have the phone checked."
    ),
    "agent_gone": Words("The agent was no longer there.", _BY_ITSELF),
    "trunk_unreachable": Words("The PBX had no way to this number.", "Have the trunk checked, then re-queue it."),
    "not_dialed": Words("The PBX did not dial the customer.", _BY_ITSELF),
    "never_sent": Words("The dial did not reach the PBX.", _BY_ITSELF),
    "refused": Words("The PBX refused the dial.", "Have the PBX checked: ringbridge check says what is wrong."),
    "link_down": Words("The link to the PBX was down.", _LINK),
    "unavailable": Words("The PBX was not there.", _LINK),
    "timeout": Words("The PBX did not answer in time.", _LINK),
    "stale": Words("The dial came too late, and was not made.", _BY_ITSELF),
    "not_found": Words("The dial was gone before it was made.", _BY_ITSELF),
    "dialing_stopped": Words("All dialling was stopped.", "Resume dialling on the page Today."),
    "observe": Words("Ringbridge only observes: nothing is dialled.", "An administrator changes dialing.mode."),
    # What the rules say.
    "outside_hours": Words("It waits for opening hours.", "Nothing to do: it is called when the site opens."),
    "not_reached_in_time": Words("Nobody could call before the wait was over.", "Re-queue it: they still wait."),
    "no_more_tries": Words("All tries are used up.", _AGAIN_LATER),
    "site_closed": Words("The site takes no callbacks any more.", "An administrator opens the site again."),
    "test_mode": Words("The site is in test mode: nobody was called."),
    "do_not_call": Words("The number is on the do-not-call list.", "Do not call it."),
    "number_invalid": Words("This is no number that can be called.", "Check the number."),
    "region_not_allowed": Words(
        "Numbers of this country are not called from this site.", "An administrator may allow the country."
    ),
    "number_type_not_allowed": Words("Numbers of this kind are never called.", "Ask for another number."),
    "no_price": Words("There is no price for this number, so it is not called.", "An administrator adds its price."),
    "too_dear": Words("Calls to this number cost more than may be spent.", "Call it by hand, or ask for another."),
    "budget_spent": Words(
        "Today's budget is spent.", "Nothing to do: it is called when there is a budget again, or raise the budget."
    ),
    "number_limit": Words("This number was called so often that it is not called again now.", "Wait until tomorrow."),
    "got_through": Words("They have talked with somebody of the company meanwhile."),
    "cancelled_by_visitor": Words("The customer cancelled it.", "Do not call, unless they ask again."),
    "cancelled_by_supervisor": Words("A supervisor cancelled it.", "Re-queue it if that was a mistake."),
}


def words_of(reason: str | None) -> Words:
    """Of one that has no words, its own name."""
    if reason is None:
        return Words("")
    known = WORDS.get(reason)
    if known is not None:
        return known
    plain = reason.replace("_", " ")
    return Words(f"{plain[:1].upper()}{plain[1:]}.")
