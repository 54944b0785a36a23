"""A runtime in a process of its own: what holds the GIL there, or breaks, does not hold up or break this one."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.child_port import (
    ASK,
    READY,
    REPLY,
    ChildLostError,
    Kind,
    ResultKind,
    answer,
    needed_bytes,
    question,
    receive,
)
from skewless.infra.runtimes.nvforest import ScoringTarget
from skewless.infra.runtimes.port import Matrix, Scores, by_output, check_matrix

_START_SECONDS = 120.0  # to import it all and to wake a GPU up
_MANY_ROWS = 4_096
_ROOT = Path(__file__).parents[3]


class ChildRuntime:
    """A model scored in a child process, by nvForest or by XGBoost on a GPU; see Runtime for the contract.

    Rows and results lie in memory that both see. One question at a time. The child ends when this process does.

    Args:
        algorithm: the library that trained the model: ``lightgbm`` or ``xgboost``.
        path: of its model file.
        place: where the trees are walked.
        kind: what walks them; XGBoost's own code works on a GPU alone.
        answer_s: seconds that an answer for up to 4,096 rows may take, for more rows more in proportion; then the
            child is taken for lost.
        environment: variables that it gets besides.

    Raises:
        PackageError: it cannot be opened there, with the child's reason.
    """

    def __init__(
        self,
        algorithm: str,
        path: Path,
        place: ScoringTarget,
        *,
        kind: Kind = "nvforest",
        answer_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = f"model file {path.name!r}"
        self.answer_s = answer_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: mmap.mmap | None = None
        self._memory = os.memfd_create("skewless")
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._seen = self._resized(mmap.PAGESIZE)
                arguments = (kind, algorithm, str(path.resolve()), place)
                self._process = _start((theirs.fileno(), self._memory), arguments, environment or {})
            self._connection.settimeout(_START_SECONDS)
            ready = self._reply()
        except (ChildLostError, OSError) as error:
            self.close()
            raise PackageError(
                self._name,
                f"cannot be opened in a child process: {error}",
                fix="see `skewless doctor`, or leave it to its own library",
            ) from error
        sizes: tuple[int, int] = READY.unpack(ready[: READY.size])
        self.n_outputs, self.n_features = sizes
        self.runtime_id = ready[READY.size :].decode()

    @property
    def process_id(self) -> int | None:
        """Return the child's process id; None when it is gone."""
        return None if self._process is None else self._process.pid

    def margin(self, matrix: Matrix) -> Scores:
        """Return the child's margins.

        Raises:
            ChildLostError: the child failed, is gone, or took too long; it is gone then.
        """
        return self._ask(matrix, ResultKind.MARGIN)

    def score(self, matrix: Matrix) -> Scores:
        """Return the child's scores; see ``margin``."""
        return self._ask(matrix, ResultKind.SCORE)

    def contributions(self, matrix: Matrix) -> Scores:
        """Refuse: the library's own runtime has them."""
        check_matrix(matrix, self.n_features)
        raise RequestError(self._name, "has no contributions in a child process", fix="ask the library's own runtime")

    def close(self) -> None:
        """End the child, once it has answered; a second call does nothing."""
        with self._turn:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        self._connection.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
            self._seen = None
        if process is not None:
            process.kill()
            _bury(process)

    def _ask(self, matrix: Matrix, wanted: ResultKind) -> Scores:
        rows = check_matrix(matrix, self.n_features)
        if rows == 0:
            return by_output(np.empty(0), 0, self.n_outputs)
        with self._turn:
            if self._process is None:
                raise ChildLostError("closed")
            try:
                return self._answer(matrix, rows, wanted)
            except ChildLostError:
                self._end()
                raise

    def _answer(self, matrix: Matrix, rows: int, wanted: ResultKind) -> Scores:
        needed = needed_bytes(rows, self.n_features, self.n_outputs)
        if self._seen is None or len(self._seen) < needed:
            self._seen = self._resized(1 << (needed - 1).bit_length())
        question(self._seen, rows, self.n_features)[:] = matrix
        self._connection.settimeout(self.answer_s * max(1.0, rows / _MANY_ROWS))
        try:
            self._connection.sendall(ASK.pack(wanted, rows, len(self._seen)))
        except OSError as error:
            raise ChildLostError(str(error)) from error
        self._reply()
        found = answer(self._seen, rows, self.n_features, self.n_outputs).copy()
        return by_output(found, rows, self.n_outputs)

    def _resized(self, size: int) -> mmap.mmap:
        os.ftruncate(self._memory, size)
        return mmap.mmap(self._memory, size)

    def _reply(self) -> bytes:
        failed, length = REPLY.unpack(receive(self._connection, REPLY.size))
        said = receive(self._connection, length)
        if failed:
            raise ChildLostError(said.decode(errors="replace"))
        return said


def _start(shared: tuple[int, int], arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # -P: what lies in the working directory is not taken for a module.
    command = [sys.executable, "-P", "-m", "skewless.infra.runtimes.child_main", *map(str, shared), *arguments]
    return subprocess.Popen(  # noqa: S603 - our own program
        command, pass_fds=shared, env=_environment(more), stdin=subprocess.DEVNULL
    )


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Let a thread wait for the end of a killed process: a driver takes its time, and the loop may be who asks."""
    with suppress(RuntimeError):  # the interpreter itself is ending
        threading.Thread(target=process.wait, name="runtime-end", daemon=True).start()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment, in which the child finds this code wherever it was started."""
    paths = [str(_ROOT), more.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
