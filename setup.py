"""The build: setup.cfg says what, this file compiles the hot path.

DRAGOMAN_COMPILE=1 must compile, =0 never does; unset tries, and installs plain Python when there is no compiler.
Either all modules of HOT are compiled or none is: half a compiled program does not run.
"""

from __future__ import annotations

import glob
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as plain_build_ext

# What a message passes through on its way. A new module of these folders is hot unless named in COLD.
FOLDERS = ["store/*.py", "broker/*.py", "broker/security/access.py", "broker/security/identity.py",
           "broker/security/guard.py", "broker/security/rules.py", "protocols/*.py",
           "protocols/amqp091/*.py", "protocols/amqp010/*.py", "protocols/amqp10/*.py", "protocols/mqtt/*.py"]
COLD = {
    "store/tools.py", "store/transfer.py",  # `dragoman store ...`, at rest
    "protocols/detect.py",  # once a connection
}
HOT = sorted(path for folder in FOLDERS for path in glob.glob(folder)
             if path not in COLD and not path.endswith("__init__.py"))

MODE = os.environ.get("DRAGOMAN_COMPILE", "")
BUILDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
IN_PLACE = {"editable_wheel", "develop", "--inplace", "-i"}


class build_ext(plain_build_ext):  # noqa: N801 - the name is the command's
    """Builds all extensions or removes what it built."""

    def build_extensions(self) -> None:
        compile_in_parallel(self.compiler)
        try:
            super().build_extensions()
        except Exception as error:
            remove([self.get_ext_fullpath(extension.name) for extension in self.extensions])
            self.extensions = []
            not_compiled(error)


def compile_in_parallel(compiler: Any) -> None:
    """Have distutils' compiler work on as many files at once as there are processors."""
    def compile_all(sources: list[str], output_dir: str | None = None, macros: Any = None, include_dirs: Any = None,
                    debug: bool = False, extra_preargs: Any = None, extra_postargs: Any = None,
                    depends: Any = None) -> list[str]:
        macros, objects, extra_postargs, options, wanted = compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs)
        arguments = compiler._get_cc_args(options, debug, extra_preargs)

        def compile_one(target: str) -> None:
            source, extension = wanted[target]
            compiler._compile(target, source, extension, arguments, extra_postargs, options)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, [target for target in objects if target in wanted]))
        found: list[str] = objects
        return found
    compiler.compile = compile_all


def extensions() -> list[Extension]:
    """The compiled modules; none when this run of setup.py does not build (there are several to a `pip install`)."""
    arguments = set(sys.argv)
    if not BUILDS & arguments:
        return []
    if IN_PLACE & arguments:  # a compiled module that is left over would be imported instead of its newer source
        remove(glob.glob("broker/**/*.so", recursive=True) + glob.glob("protocols/**/*.so", recursive=True)
               + glob.glob("store/**/*.so", recursive=True))
    if MODE == "0" or not HOT:
        return []
    try:
        from mypyc.build import mypycify

        # No configuration file: the build is no type check (`make types` is), and runs without our dependencies.
        options: list[Any] = ["--config-file=", "--ignore-missing-imports", *HOT]
        # A C file for each module: as a whole they take the compiler far longer, and only one of its processes.
        modules: list[Extension] = mypycify(options, group_name="broker._compiled", debug_level="0", multi_file=True)
        for module in modules:
            module.include_dirs.append(os.path.join("build", "broker"))  # where mypyc puts the headers of that group
        return modules
    except (Exception, SystemExit) as error:  # mypycify exits when it finds a type error
        not_compiled(error)
        return []


def not_compiled(error: BaseException) -> None:
    if MODE == "1":
        raise error
    print(f"dragoman: not compiled, installing plain Python: {error!r}", file=sys.stderr)


def remove(paths: list[str]) -> None:
    for path in paths:
        if os.path.exists(path):
            os.remove(path)


if MODE not in ("", "0", "1"):
    raise SystemExit(f"DRAGOMAN_COMPILE is {MODE!r}; it can be 0 (never compile), 1 (must compile) or unset (try)")
setup(ext_modules=extensions(), cmdclass={"build_ext": build_ext})
