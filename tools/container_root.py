"""Fills an empty root folder with a Python environment and all that it needs, as the only files of an image.

Run by infra/deploy/image/Containerfile: ``python -m tools.container_root ENVIRONMENT ROOT REQUIREMENTS``.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from skewless.version import __version__
from tools.sbom import make_bill, read_pins

UID = 10001  # the user of the image; a manifest that says runAsNonRoot wants a number
# Parts of packages that no program of skewless loads; the tests run the trimmed image.
_UNUSED = (
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.pxi",
    "**/*.h",
    "**/*.a",
    "confluent_kafka/schema_registry/rules",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/*flight*",
    "pygments/lexers/[!_p]*.py",  # of other languages than Python
    "pygments/lexers/_*_builtins.py",
)
# Feast imports the file systems of pyarrow, SciPy imports f2py.
_UNUSED_WITHOUT_FEAST = (
    "numpy/_core/_*_tests.*",
    "numpy/_core/_simd.*",
    "numpy/f2py",
    "pyarrow/libarrow_s3*",
    "pyarrow/_s3fs*",
)
_UNUSED_STDLIB = (
    "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "lib2to3", "site-packages", "dist-packages",
    "config-*", "lib-dynload/_curses*", "lib-dynload/_dbm*", "lib-dynload/_test*", "lib-dynload/readline*",
)  # fmt: skip
_SYSTEM_FILES = (
    "/etc/ld.so.cache",  # where the loader looks for libraries outside of its own folders
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/os-release",
    "/usr/share/zoneinfo",
)
_LINKS = ("/lib", "/lib64", "/usr/lib/ssl", "/etc/os-release")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_ELF = b"\x7fELF"


def trim(packages: Path) -> None:
    """Delete the unused files of installed packages, and the symbols of their libraries; compile the modules."""
    delete(packages, _UNUSED if (packages / "feast").is_dir() else (*_UNUSED, *_UNUSED_WITHOUT_FEAST))
    _link_twins(packages / "pyarrow")
    libraries = [str(path) for path in find_binaries([packages])]
    for start in range(0, len(libraries), 50):
        subprocess.run(["strip", "--strip-unneeded", *libraries[start : start + 50]], check=True)
    # Without times of files, which layers round. Some packages hold modules for other releases of Python.
    options = ["-qq", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([sys.executable, "-m", "compileall", *options, str(packages)], check=False)


def delete(folder: Path, patterns: Iterable[str]) -> None:
    """Delete the files and folders under a folder that match a pattern."""
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _link_twins(folder: Path) -> None:
    """Replace copies of a library under shorter names by links: a wheel cannot hold links."""
    for library in sorted(folder.glob("*.so.*.*.*")):
        for name in (library.name.rsplit(".", 2)[0], library.name.split(".so.")[0] + ".so"):
            if (twin := folder / name).is_file():
                twin.unlink()
                twin.symlink_to(library.name)


def find_binaries(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the programs and shared libraries under some folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and (".so" in path.name or "bin" in path.parts):
                with path.open("rb") as file:
                    if file.read(4) == _ELF:
                        yield path


def libraries_of(binaries: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that the loader maps for some binaries, with their loader.

    Raises:
        RuntimeError: one of them is not installed here.
    """
    libraries: set[Path] = set()
    for binary in binaries:
        listing = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        if "not found" in listing:
            raise RuntimeError(f"{binary} misses a library:\n{listing}")
        libraries.update(Path(match) for match in _LIBRARY.findall(listing))
    return libraries


def copy(path: Path, root: Path) -> None:
    """Copy a file, folder or link to the same place under the root; what a link points to is copied, too."""
    target = root / path.parent.resolve().relative_to("/") / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not target.is_symlink():
            target.symlink_to(path.readlink())
        copy(path.parent / path.readlink(), root)
    elif path.is_dir():
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
    elif path.is_file():
        shutil.copy2(path, target)


def copy_python(environment: Path, root: Path) -> set[Path]:
    """Copy an environment, its interpreter, the standard library, and the shared libraries that they need.

    Returns:
        the shared libraries of the system.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    delete(stdlib, _UNUSED_STDLIB)
    for path in (environment, environment / "bin" / "python", stdlib):
        copy(path, root)
    needed = libraries_of([Path(sys.executable), *find_binaries([environment, stdlib])])
    libraries = {library for library in needed if environment not in library.parents}
    for library in libraries:
        copy(library, root)
    return libraries


def describe_system(files: Iterable[Path]) -> list[dict[str, str]]:
    """Return Python and the Debian packages of some files as components of a bill of materials."""
    paths = sorted(str(path.resolve()) for path in files)
    # A file of no package, such as a Python that was built from source, is reported on stderr.
    search = subprocess.run(["dpkg-query", "--search", *paths], capture_output=True, text=True, check=False)
    names = sorted({name for line in search.stdout.splitlines() for name in line.partition(": ")[0].split(", ")})
    show = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *names]
    versions = [("generic", "python", platform.python_version())]
    if names:
        listing = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        versions += [("deb/debian", name, version) for name, version in map(str.split, listing.splitlines())]
    return [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        for kind, name, version in versions
        for purl in [f"pkg:{kind}/{name}@{quote(version)}"]
    ]


def write_system_files(root: Path) -> None:
    """Write what a program without a distribution still looks for: users, certificates, time zones, folders."""
    for link in map(Path, _LINKS):
        if link.is_symlink():
            target = root / link.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(link.readlink())
    for path in map(Path, _SYSTEM_FILES):
        copy(path, root)
    etc = root / "etc"
    (etc / "passwd").write_text(f"root:x:0:0::/:/sbin/nologin\nskewless:x:{UID}:{UID}::/tmp:/sbin/nologin\n")
    (etc / "group").write_text(f"root:x:0:\nskewless:x:{UID}:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    (root / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    project = root / "srv" / "project" / ".skewless"
    project.mkdir(parents=True)
    for folder in (project.parent, project):
        shutil.chown(folder, UID, UID)


def main(environment: Path, root: Path, requirements: Path) -> None:
    """Trim an environment and copy it to the root, with a bill of materials."""
    trim(next(environment.glob("lib/python3*/site-packages")))
    root.mkdir()
    write_system_files(root)
    libraries = copy_python(environment, root)
    bill = make_bill(read_pins(requirements.read_text(encoding="utf-8")), "skewless", __version__)
    bill["components"].extend(describe_system([*libraries, Path(sys.executable)]))
    target = root / "usr" / "share" / "sbom" / "skewless.cdx.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
