"""The bulk paths against plain nats-py and the `nats` command line, in one run: `python -m benchmarks`.

Each module beside this one has ``async def run(lab) -> list[Row]``. Ratios within one run are what counts:
absolute numbers belong to the machine of the day.
"""
