"""The wheel: made with and without a compiler, installed in an environment of its own, and used there.

Nothing is fetched: the build takes this environment's packages, and the new one is shown them by a path file.
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0
BUILD_WAIT = 900.0
PACKAGES = ("dragoman", "interop", "broker", "protocols", "store")
pytestmark = pytest.mark.skipif("PURE" in os.environ, reason="wheels are the same, whatever this run imports")
CONFIG = '[[listeners]]\nport = 0\n[log]\nformat = "text"\n'


def sources(folder: Path) -> Path:
    """A fresh copy of what the build reads: no compiled modules, no leftovers."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would lead Python to the checkout or tell it how to build or run."""
    ours = ("PYTHONPATH", "PURE", "DRAGOMAN_PURE", "DRAGOMAN_COMPILE", "CC", "VIRTUAL_ENV")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **more}


def wheel(folder: Path, **more: str) -> Path:
    """Build a wheel as `pip wheel .` does."""
    made = sources(folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation",
               "--disable-pip-version-check", "--wheel-dir", str(folder / "dist"), str(made)]
    done = subprocess.run(command, env=environment(**more), cwd=folder, text=True, capture_output=True,
                          timeout=BUILD_WAIT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (found,) = (folder / "dist").iterdir()
    return found


class Installed:
    """A wheel installed in a virtual environment that has this one's packages besides."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.bin = folder / "venv" / "bin"
        home = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
        (home / "others.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet",
                        "--disable-pip-version-check", "--no-deps", "--no-index", "--ignore-installed", str(made)],
                       env=environment(), cwd=folder, check=True)
        self.home = home

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command of the environment and give what it prints."""
        done = subprocess.run([str(self.bin / command[0]), *command[1:]], env=environment(), cwd=self.folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT)
        assert done.returncode == code, done.stdout
        return done.stdout

    def try_it(self) -> str:
        """Serve, send, stop, serve again, receive; give what the broker logged."""
        log = self.serve(lambda url: self.run("dragoman", "send", "--declare", url, "hello", "Hello, world"))
        log += self.serve(self.received)
        return log

    def received(self, url: str) -> None:
        assert self.run("dragoman", "receive", "--quiet", "--count", "1", url, "hello") == "Hello, world\n"

    def serve(self, use: Callable[[str], object]) -> str:
        """Run a broker while it is used; give what it logged."""
        (self.folder / "d.toml").write_text(CONFIG + f'[store]\npath = "{self.folder}/data"\n')
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self.folder / "ready"))
            ready.settimeout(WAIT)
            with subprocess.Popen([str(self.bin / "dragoman"), "serve", "--config", "d.toml"], text=True,
                                  cwd=self.folder, env=environment(NOTIFY_SOCKET=str(self.folder / "ready")),
                                  stderr=subprocess.PIPE) as process:
                try:
                    told = dict(line.split("=", 1) for line in ready.recv(65536).decode().splitlines())
                    use(told["X_DRAGOMAN_URLS"])
                    process.send_signal(signal.SIGTERM)
                    _, log = process.communicate(timeout=WAIT)
                finally:
                    process.kill()
        os.unlink(self.folder / "ready")
        assert process.returncode == 0
        return log


def cannot_compile() -> str:
    """Why nothing can be compiled here, or ""."""
    compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        return f"there is no compiler: {compiler}"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers are not installed"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(BUILD_WAIT)
@pytest.mark.skipif(bool(cannot_compile()), reason=cannot_compile() or "-")
def test_a_compiled_wheel(tmp_path: Path) -> None:
    made = wheel(tmp_path, DRAGOMAN_COMPILE="1")
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in made.name
    installed = Installed(tmp_path, made)
    assert list(installed.home.glob("broker/queue.*.so"))
    assert installed.run("dragoman", "--version").endswith(f"(compiled, Python {sys.version.split()[0]})\n")
    assert "plain Python" not in installed.try_it()


@pytest.mark.timeout(BUILD_WAIT)
@pytest.mark.parametrize("without", ["CC", "PATH"])
def test_a_wheel_made_without_a_compiler(tmp_path: Path, without: str) -> None:
    installed = Installed(tmp_path, wheel(tmp_path, **({"CC": "/bin/false"} if without == "CC" else {"PATH": ""})))
    assert not list(installed.home.glob("**/*.so"))
    assert installed.run("python", "-c", "import broker.queue; print(broker.queue.__file__)") == (
        f"{installed.home}/broker/queue.py\n")
    assert "(plain Python, Python " in installed.run("dragoman", "--version")
    assert installed.try_it().count("plain Python") == 2  # once each start
    assert list((installed.home / "broker").glob("py.typed"))


def test_insisting_on_a_compiler(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="(?i)error"):
        wheel(tmp_path, DRAGOMAN_COMPILE="1", CC="/bin/false")
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").iterdir())
