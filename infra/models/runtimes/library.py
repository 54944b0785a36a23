"""Loads the shared library of an installed package without importing the package."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from skewless.contract.errors import PackageError

_C_LIBRARIES = ("ld-", "libc.", "libc-", "libm.", "libm-", "libmvec", "libgomp", "libstdc++", "libgcc_s")
_PROCESSOR = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)


@dataclass(frozen=True)
class NativeLibrary:
    """A loaded shared library with its version.

    Its functions return 0 on success; after another value, ``last_error`` returns a message.
    """

    handle: ctypes.CDLL
    version: str
    last_error: Callable[[], bytes | None]
    path: Path

    @cached_property
    def identity(self) -> str | None:
        """Return a hash of all that its results depend on, except model and rows; None: not all of it is known.

        It has the bytes of the library, of the C libraries that it calls and of our code that calls it, the processor,
        the machine, and glibc's settings.
        """
        try:
            machine = Path("/etc/machine-id").read_text() or os.uname().nodename
            processor = _read_processor()
            files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files()}
        except OSError:  # not Linux
            return None
        if not processor or "LD_PRELOAD" in os.environ:
            return None
        parts = [files, processor, machine, os.environ.get("GLIBC_TUNABLES"), sys.version]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _files(self) -> list[Path]:
        """Return the library, the C libraries in this process that it may call, and the sources of the runtimes."""
        package = self.path.parents[1]
        mapped = {
            Path(line.split(maxsplit=5)[5].rstrip("\n")) for line in _read_lines("/proc/self/maps") if "/" in line
        }
        called = [path for path in mapped if path.name.startswith(_C_LIBRARIES)]
        # Another package brings copies of these libraries, which only it uses.
        own = [path for path in called if package.parent not in path.parents or str(path).startswith(str(package))]
        return sorted([self.path, *own, *Path(__file__).parent.glob("*.py")])

    def call(self, thing: str, function: str, *args: object) -> None:
        """Call a function by name; ``thing`` is the subject of an error.

        Raises:
            PackageError: the call failed; has the library's own message.
        """
        if getattr(self.handle, function)(*args) != 0:
            raise self.failure(thing)

    def declare(self, signatures: Mapping[str, Sequence[type]]) -> None:
        """Tell ctypes the widths of the arguments, by function; addresses are given as Python integers or bytes."""
        for name, types in signatures.items():
            getattr(self.handle, name).argtypes = types

    def failure(self, thing: str) -> PackageError:
        """Return the library's last error."""
        message = (self.last_error() or b"no message").decode(errors="replace").strip().splitlines()
        return PackageError(thing, f"is rejected by the library: {message[0]}", fix="train and package the model again")


@cache
def open_library(package: str, stem: str, version_file: str, last_error: str) -> NativeLibrary:
    """Load ``<package>/lib/<stem>.so`` (macOS: ``.dylib``) once; each further load would leak memory.

    Args:
        package: name of the installed Python package, which is not imported.
        stem: file name without its suffix.
        version_file: file of the package that has only its version.
        last_error: name of the function that returns the last error message.

    Raises:
        PackageError: the package or its library is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        fix = f"install {package} in skewless's environment"
        raise PackageError(f"runtime {package!r}", "is not installed", fix=fix)
    folder = Path(spec.submodule_search_locations[0])
    ending = ".dylib" if sys.platform == "darwin" else ".so"
    path = folder / "lib" / f"{stem}{ending}"
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise PackageError(
            f"runtime {package!r}", "its library cannot be loaded", value=str(error), fix=f"reinstall {package}"
        ) from error
    message = getattr(handle, last_error)
    message.restype = ctypes.c_char_p
    return NativeLibrary(handle, (folder / version_file).read_text().strip(), message, path.resolve())


def _read_processor() -> dict[str, str]:
    """Return what the kernel says about the first processor: its kind, microcode and instructions."""
    pairs = (line.partition(":") for line in _read_lines("/proc/cpuinfo"))
    found: dict[str, str] = {}
    for name, _, value in pairs:
        if name.strip() in _PROCESSOR:
            found.setdefault(name.strip(), value.strip())
    return found


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
