"""Genesis as a reader of `ringbridge bench esl`, run by a Python that has it: `python esl_genesis.py PORT EVENTS`.

It is no dependency of ours, and nothing of Ringbridge is imported here.
"""

import asyncio
import importlib
import json
import logging
import sys
import time


async def main(port: int, events: int) -> None:
    """Hear so many events, then tell the CPU time."""
    # It cannot route some of the recorded events, and would draw a picture of each: that is no part of reading.
    logging.disable(logging.CRITICAL)
    inbound = importlib.import_module("genesis").Inbound("127.0.0.1", port, "bench")
    done = asyncio.Event()
    left = events

    def heard(protocol: object, event: dict[str, str]) -> None:
        nonlocal left
        if "Event-Name" in event:
            left -= 1
            if not left:
                done.set()

    began = time.process_time()
    async with inbound:
        inbound.event_processors.append(heard)
        await inbound.send("events plain ALL")
        await done.wait()
        print(json.dumps({"cpu": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
