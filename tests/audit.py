"""`make audit`: are vulnerabilities known of the packages that are installed here? pip-audit asks PyPI.

Exit codes: 0 none, or there is nobody to ask, which is said; 1 some, which are listed.
"""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format", "json", "--progress-spinner",
           "off", "--timeout", "30"]


def main() -> int:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        found = []
    audited = [each for each in found if "skip_reason" not in each]
    if not audited:
        why = done.stderr.strip().splitlines()[-1] if done.returncode else "the index here has none"
        print(f"not audited: no database of vulnerabilities can be reached ({why})")
        return 0
    bad = [each for each in audited if each["vulns"]]
    for each in bad:
        for one in each["vulns"]:
            mended = ", ".join(one["fix_versions"]) or "none"
            print(f"{each['name']} {each['version']}: {one['id']}, mended in {mended}")
    print(f"{len(audited)} packages audited, {len(found) - len(audited)} not known there, {len(bad)} vulnerable")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
