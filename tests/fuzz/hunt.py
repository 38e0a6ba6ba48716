"""Look for inputs that break a parser, guided by coverage: `make fuzz`.

    python -m tests.fuzz.hunt [--seconds 300] [--jobs 2] [TARGET ...]

The time is for all targets together, split by their shares. Each runs in a process of its own, under libFuzzer by way
of atheris; its corpus stays in build/fuzz/corpus/TARGET. What breaks it (an exception that is none of its own, too high
a cost, a crash) is written to tests/fuzz/findings/TARGET-NUMBER, where tests/fuzz/test_findings.py plays it from then
on. Without atheris (`make fuzz` installs it where it can), inputs are mutated at random, blindly.

Without targets, a fourth of the time goes to the random sessions of tests/fuzz/test_connection.py.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import random
import re
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
FINDINGS = HOME / "tests" / "fuzz" / "findings"
CORPUS = HOME / "build" / "fuzz" / "corpus"
PACKAGES = ["broker", "protocols", "store", "interop", "dragoman"]
LARGEST = 4096
"""Bytes of an input: enough for every construct, and small enough for many a second."""
SLOW = 0.05
"""Seconds of CPU time above which an input's cost is counted exactly."""
MOST = 5
"""Findings of a target in one hunt."""


class Hunt:
    """One target's, in this process."""

    def __init__(self, name: str, target: Any) -> None:
        self.name = name
        self.target = target
        self.runs = 0
        self.known: set[str] = set()

    def try_one(self, data: bytes) -> None:
        """Run an input and keep it if it breaks something in a new way."""
        self.runs += 1
        begun = time.process_time()
        try:
            self.target(data)
        except Exception as error:
            self.keep(data, _signature(error))
            return
        if time.process_time() - begun > SLOW:
            from tests.fuzz.cost import bomb
            problem = bomb(self.target, data)
            if problem:
                self.keep(data, "bomb", problem)

    def keep(self, data: bytes, signature: str, problem: str = "") -> None:
        if signature in self.known or len(self.known) >= MOST:
            return
        self.known.add(signature)
        path = FINDINGS / f"{self.name}-{hashlib.sha256(data).hexdigest()[:8]}"
        path.write_bytes(data)
        print(f"FOUND {path.relative_to(HOME)}: {problem or signature}", flush=True)


def _signature(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}"


def one(name: str, seconds: int) -> None:
    """Hunt for one target, in this process, which it ends."""
    logging.disable(logging.WARNING)
    sys.setrecursionlimit(1000)
    if importlib.util.find_spec("atheris") is None:
        from tests.fuzz.targets import TARGETS
        _blindly(Hunt(name, TARGETS[name]), seconds)
        return
    import atheris
    with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    hunt = Hunt(name, TARGETS[name])
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in hunt.target.seeds():
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed[:LARGEST])
    atheris.Setup([sys.argv[0], str(folder), f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=60",
                   "-rss_limit_mb=1500", "-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={FINDINGS}/{name}-",
                   ], hunt.try_one)
    atheris.Fuzz()


def _blindly(hunt: Hunt, seconds: int) -> None:
    chance = random.Random()
    seeds = [*hunt.target.seeds()] or [b""]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data) + 1)
            stop = at + chance.choice((0, 0, 1, 4, 30))
            data[at:stop] = chance.choice((chance.randbytes(chance.randint(0, 4)), bytes(data[stop:stop + 9])))
        hunt.try_one(bytes(data[:LARGEST]))
    print(f"stat::number_of_executed_units: {hunt.runs}", flush=True)


def _spawn(name: str, seconds: int) -> tuple[str, int, str, list[str]]:
    """Hunt for one target in a process; give its name, how many inputs it ran, how much it covered, what it found."""
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.hunt", "--one", name, "--seconds", str(seconds)], cwd=HOME,
                          env={**os.environ, "DRAGOMAN_PURE": "1"}, capture_output=True, text=True, errors="replace")
    output = done.stdout + done.stderr
    runs = re.findall(r"number_of_executed_units: *(\d+)", output)
    covered = re.findall(r"cov: (\d+)", output)
    found = re.findall(r"FOUND (.*)", output)
    if done.returncode:
        found.append(f"{name}: the process ended with {done.returncode}: {output[-600:]}")
    return name, int(runs[-1]) if runs else 0, covered[-1] if covered else "?", found


def split(shares: dict[str, float], seconds: int, jobs: int) -> list[int]:
    """How many seconds each target has, so many at a time, for all of them to take `seconds`."""
    whole = seconds * min(jobs, len(shares))
    return [max(1, int(whole * share / sum(shares.values()))) for share in shares.values()]


def main() -> int:
    options = argparse.ArgumentParser(description="Fuzz the parsers.")
    options.add_argument("targets", nargs="*", help="their names; all without any")
    options.add_argument("--seconds", type=int, default=300, help="for all of them together")
    options.add_argument("--jobs", type=int, default=2, help="how many at a time")
    options.add_argument("--one", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        one(given.one, given.seconds)
        return 0
    from tests.fuzz.targets import TARGETS
    if unknown := [name for name in given.targets if name not in TARGETS]:
        options.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = given.targets or list(TARGETS)
    failed = False
    if not given.targets:
        given.seconds = given.seconds * 3 // 4
        failed = bool(subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/fuzz/test_connection.py", "-n",
                                      str(given.jobs), "-k", "brings_down"], cwd=HOME, env={
            **os.environ, "FUZZ_SECONDS": str(given.seconds * given.jobs / 3 / 4)}).returncode)
    with ThreadPoolExecutor(given.jobs) as pool:
        times = split({name: TARGETS[name].share for name in names}, given.seconds, given.jobs)
        for name, runs, covered, found in pool.map(_spawn, names, times):
            print(f"{name:18} {runs:>10,} inputs, coverage {covered:>6}, {len(found)} findings", flush=True)
            for each in found:
                print(f"    {each}", flush=True)
            failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
