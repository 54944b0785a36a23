"""The extra ``grpc`` is imported only for its port, and a port without the extra is an error that names it."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from skewless.contract.errors import PlaceError
from skewless.contract.settings import Settings
from skewless.serving.http.sockets import reserve_grpc_port

PROGRAM = """
import sys
import skewless.serving.process
assert not {"grpc", "google.protobuf"} & sys.modules.keys()
from types import SimpleNamespace
from skewless_grpc.start import open_door
sys.modules["grpc"] = None
for port in (None, 0):
    config = SimpleNamespace(settings=SimpleNamespace(grpc_port=port))
    open_door(SimpleNamespace(config=config, serving=None, http=None))
"""


def test_without_the_extra_a_port_is_an_error_and_no_port_is_none() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    error = "DefinitionError: setting 'grpc_port': needs the package grpc, which is not installed. Fix: pip install"
    assert error in done.stderr.splitlines()[-1], done.stderr


def test_a_port_that_is_in_use_is_an_error_that_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        config: Any = SimpleNamespace(settings=Settings(grpc_port=used.getsockname()[1]))
        with (
            pytest.raises(PlaceError, match=r"cannot be used: .* Fix: choose another grpc_port"),
            reserve_grpc_port(config),
        ):
            pass
