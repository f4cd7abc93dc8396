"""Chaos: callbacks run while everything is killed, cut, frozen, flushed and restarted at instants that a seed decides.

    python -m tests.faults.chaos --rounds 200 --seed 7 --json

`plan` draws what happens in a round, `harm` does it, `people` ask for callbacks and take calls, `judge` compares the
world's own record with what was promised, `rounds` runs it all and keeps the state that lets a run be resumed.
"""
