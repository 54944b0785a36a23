"""Loads the shared library of an installed package without importing the package."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from skewless.contract.errors import PackageError


@dataclass(frozen=True)
class NativeLibrary:
    """A loaded shared library with its version.

    Its functions return 0 on success; after another value, ``last_error`` returns a message.
    """

    handle: ctypes.CDLL
    version: str
    last_error: Callable[[], bytes | None]

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
    return NativeLibrary(handle, (folder / version_file).read_text().strip(), message)
