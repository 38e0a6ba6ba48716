"""Qpid's own tests of its Python client and of a broker for 0-10, which are in the package qpid-python (Python 2.7).

A test that cannot pass is named in known.txt, with the reason; it counts as skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conformance")]

import python27  # noqa: E402 - only now it can be found

from dragoman import testing  # noqa: E402

SECONDS = 540
ANONYMOUS = "[[listeners]]\nport = 0\nanonymous = true\n"
"""Some of the tests do not log in."""


def known() -> dict[str, str]:
    """Reasons, by the patterns of tests that they are for."""
    found = {}
    for line in (HERE / "known.txt").read_text().splitlines():
        pattern, _, reason = line.partition("  ")
        found[pattern] = reason.strip()
    return found


def main() -> int:
    try:
        python = python27.find()
    except python27.NoPython27 as error:
        print(f"skipped: {error}\n0 passed, 0 failed, 1 skipped")
        return 0
    site = python27.install(python)
    reasons = known()
    for pattern, reason in reasons.items():
        print(f"skipped: {pattern}: {reason}")
    with testing.broker(ANONYMOUS) as broker:
        command = [python, str(site / "bin" / "qpid-python-test"), "-b", f"{broker.host}:{broker.port}",
                   "-m", "qpid.tests", "-m", "qpid_tests.broker_0_10"]
        for pattern in reasons:
            command += ["-i", pattern]
        try:
            ran = subprocess.run(command, env=python27.environment(site), stdin=subprocess.DEVNULL, timeout=SECONDS,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            printed = ran.stdout
        except subprocess.TimeoutExpired as stuck:
            printed = (stuck.stdout or b"").decode(errors="replace")
    print(printed)
    totals = re.search(r"Totals: \d+ tests, (\d+) passed, (\d+) skipped, (\d+) ignored, (\d+) failed", printed)
    if totals is None:
        print("0 passed, 1 failed, 0 skipped")
        return 1
    passed, skipped, ignored, failed = map(int, totals.groups())
    print(f"{passed} passed, {failed} failed, {skipped + ignored} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
