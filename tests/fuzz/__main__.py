"""Fuzz all parsers, or some, until the time is over; write down the first input of each that fails.

python -m tests.fuzz [--seconds N] [--seed N] [--only TARGET]...
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.fuzz.mutating import mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n\n")[0])
    names = [target.name for target in TARGETS]
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="the same inputs again (default: other ones each time)")
    parser.add_argument("--only", action="append", choices=names, help="fuzz only this (repeatable)")
    parser.add_argument("--out", type=Path, help="where inputs that fail are written (default: a new directory)")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    failed = 0
    for target in TARGETS:
        if options.only and target.name not in options.only:
            continue
        until = time.monotonic() + options.seconds
        failing, tried = fuzz(target, seed, partial(_in_time, until))
        print(f"{target.name}: {tried:,} inputs with seed {seed}: {'FAILED' if failing is not None else 'no failure'}")
        if failing is not None:
            failed += 1
            directory = options.out or Path(tempfile.mkdtemp(prefix="kdnsctl-fuzz-"))
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{target.name}-{seed}-{tried}"
            path.write_bytes(failing)
            print(f"  the input is in {path}", flush=True)
    return 1 if failed else 0


def _in_time(until: float, tried: int) -> bool:
    return tried == 0 or time.monotonic() < until


def fuzz(target: Target, seed: int, more: Callable[[int], bool]) -> tuple[bytes | None, int]:
    """Try inputs while `more` says so, given how many were tried. Returns the first that fails, and their number.

    Each input depends on the seed and its number alone.
    """
    tried = 0
    while more(tried):
        tried += 1
        random_ = random.Random(f"{seed}/{target.name}/{tried}")
        data = mutate(random_, target.seeds)
        try:
            target.check(data, random_)
        except Exception:  # noqa: BLE001 - whatever it is, it is told, and the input kept
            traceback.print_exc()
            return data, tried
    return None, tried


if __name__ == "__main__":
    sys.exit(main())
