"""A Python 2.7 for clients that know no other: qpid-python and the tools that are written with it.

find() looks for an interpreter on PATH and among pyenv's, and installs nothing; install() puts packages into a folder
under build/ that goes into PYTHONPATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent.parent / "build" / "interop"
QPID = ("qpid-python==1.36.0-1", "qpid-tools==1.36.0-1", "qpid-qmf==0.28")
PYENV_VERSION = "2.7.18"
INSTALL_SECONDS = 600


class NoPython27(Exception):
    """There is no Python 2.7 here; the text says where it was looked for and how to have one."""


def find() -> str:
    """The path of a Python 2.7 that runs.

    Raises NoPython27.
    """
    candidates = [shutil.which("python2.7"), shutil.which("python2")]
    pyenv = shutil.which("pyenv")
    if pyenv:
        prefix = subprocess.run([pyenv, "prefix", PYENV_VERSION], capture_output=True, text=True)
        if prefix.returncode == 0:
            candidates.insert(0, f"{prefix.stdout.strip()}/bin/python2.7")
    if os.environ.get("PYENV_ROOT"):
        candidates.append(f"{os.environ['PYENV_ROOT']}/versions/{PYENV_VERSION}/bin/python2.7")
    for each in candidates:
        if each and _is_27(each):
            return each
    raise NoPython27(f"no Python 2.7 on PATH or in pyenv; `pyenv install {PYENV_VERSION}` builds one")


def install(python: str) -> Path:
    """The folder with qpid-python and its tools for this interpreter, filled the first time.

    Raises subprocess.CalledProcessError when pip cannot fetch them.
    """
    site = BUILD / "python27" / "site"
    if not (site / "qpid").is_dir():
        part = site.with_name("part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(part),
                        *QPID], check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
        part.rename(site)
    return site


def environment(site: Path) -> dict[str, str]:
    """What a program of Python 2.7 needs to find the packages, and leaves no compiled files in our folders."""
    return {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}


def _is_27(python: str) -> bool:
    """A pyenv shim may be there and run nothing."""
    try:
        shown = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2] == (2, 7))"], capture_output=True,
                               text=True, timeout=30)
    except OSError:
        return False
    return shown.stdout.strip() == "True"
