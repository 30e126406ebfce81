"""Runs the cases and says how they went. Exit code 1: one of them did not hold."""

import argparse
import asyncio
import inspect
import sys
import time
import traceback

import foreign
import quic
import tools
from server import Site


def outcome(case, *arguments):
    """What a case says of itself; `None`: it did not hold."""
    began = time.monotonic()
    try:
        said = case(*arguments)
        if inspect.iscoroutine(said):
            said = asyncio.run(said)
        verdict = f"ok   {time.monotonic() - began:5.1f} s"
    except tools.Missing as program:
        verdict, said = "--          ", f"left out: {program} is not installed"
    except Exception:
        traceback.print_exc()
        print(f"BAD  {case.__name__}", flush=True)
        return None
    name = case.__name__.replace("_", " ")
    print(f"{verdict}  {name}{f' ({said})' if said else ''}", flush=True)
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", required=True, help="the program weir-edge")
    parser.add_argument("--loadtest", required=True, help="the program weir-loadtest")
    parser.add_argument("--only", default="", help="only cases with this in their name")
    options = parser.parse_args()
    programs = (options.edge, options.loadtest)

    def wanted(cases):
        return [case for case in cases if options.only in case.__name__]

    verdicts = []
    shared = wanted([*quic.CASES, *tools.CASES, quic.LAST])
    if shared:
        with Site(*programs) as site:
            verdicts += [outcome(case, site) for case in shared]
    verdicts += [outcome(case, programs) for case in wanted(foreign.CASES)]
    if not verdicts:
        sys.exit(f"no case has {options.only!r} in its name")
    sys.exit(1 if None in verdicts else 0)


main()
