"""Type checks that are deferred to the first call are those of typeguard."""

from __future__ import annotations

import gc
import importlib
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typeguard

from skewless.infra.compiler.type_checks import defer_type_checks

_MODULE = """
    from __future__ import annotations

    from dataclasses import dataclass

    import typeguard
    from typeguard import typechecked


    @typechecked
    class Base:
        total = 0

        def __init__(self, name: str) -> None:
            self._name = name

        @classmethod
        def of(cls, name: str) -> Base:
            return cls(name)

        @staticmethod
        def double(number: int) -> int:
            return 2 * number

        @property
        def name(self) -> str:
            \"\"\"The name.\"\"\"
            return self._name

        @name.setter
        def name(self, name: str) -> None:
            self._name = name

        def answer(self, number: int) -> str:
            return number


    @typechecked
    class Derived(Base):
        def __init__(self, name: str, *, size: int = 1) -> None:
            super().__init__(name)
            self.size = size


    @typechecked
    @dataclass
    class Point:
        x: int


    @typechecked
    def half(number: int) -> float:
        return number / 2
"""


@pytest.fixture(params=["deferred", "at once"])
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with checked classes, imported within the block and without it: both must be the same."""
    name = f"checked_{request.param.replace(' ', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(_MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    before = typeguard.typechecked
    if request.param == "deferred":
        with defer_type_checks():
            module = importlib.import_module(name)
    else:
        module = importlib.import_module(name)
    assert typeguard.typechecked is before
    yield module
    monkeypatch.delitem(sys.modules, name)


def test_calls_of_the_right_types_pass(module: ModuleType) -> None:
    derived = module.Derived("a", size=3)
    assert (derived.name, derived.size) == ("a", 3)
    derived.name = "b"
    assert derived.name == "b"
    assert module.Derived.of("c").name == "c"
    assert module.Base.double(4) == 8
    assert module.half(3) == 1.5
    assert module.Point(1) == module.Point(1)


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.Base(1),
        lambda module: module.Derived("a", size="b"),
        lambda module: module.Derived(1),
        lambda module: module.Base.of(1),
        lambda module: module.Base.double("a"),
        lambda module: setattr(module.Base("a"), "name", 1),
        lambda module: module.Base("a").answer(1),
        lambda module: module.half("a"),
    ],
)
def test_a_wrong_type_is_an_error_each_time(module: ModuleType, call: Any) -> None:  # noqa: ANN401 - any call
    for _ in range(2):
        with pytest.raises(typeguard.TypeCheckError):
            call(module)


def test_names_and_docstrings_stay(module: ModuleType) -> None:
    assert module.Base.__init__.__qualname__ == "Base.__init__"
    assert module.Base.name.__doc__ == "The name."
    assert module.Base.total == 0
    assert [key for key in vars(module.Derived) if key == "__init__"] == ["__init__"]


def test_a_check_is_compiled_once_and_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    eager: Any = typeguard.typechecked

    def check(target: Any) -> Any:  # noqa: ANN401 - the signature of typeguard
        compiled.append(target.__qualname__)
        return eager(target)

    monkeypatch.setattr(typeguard, "typechecked", check)
    with defer_type_checks():

        @typeguard.typechecked
        class TwoMethods:
            def size(self) -> int:
                return 1

            def weight(self) -> int:
                return 2

    assert compiled == []
    assert [TwoMethods().size(), TwoMethods().size()] == [1, 1]
    assert len(compiled) == 1


def test_only_constructors_are_checked_when_feast_calls_its_own_methods() -> None:
    with defer_type_checks():

        @typeguard.typechecked
        class Sized:
            def __init__(self, size: int) -> None:
                self._size = size

            @property
            def size(self) -> int:
                return self._size

            def scaled(self, factor: int) -> int:
                return self._size * factor

    feast: dict[str, Any] = {"__name__": "feast.feature_view", "Sized": Sized}
    exec("def make(size): return Sized(size)\ndef use(sized): return sized.size, sized.scaled(0.5)", feast)  # noqa: S102
    with pytest.raises(typeguard.TypeCheckError):
        feast["make"]("a")
    assert feast["use"](feast["make"](4)) == (4, 2.0)
    for call in (lambda: Sized(4).scaled(0.5), lambda: Sized("a")):  # type: ignore[arg-type]
        with pytest.raises(typeguard.TypeCheckError):
            call()


def test_methods_that_threads_call_first_are_compiled_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11 counts the depth of all trees that threads parse in one number, and fails if they change places."""
    count = 60
    methods = "".join(f"    def method_{number}(self) -> int:\n        return {number}\n" for number in range(count))
    (tmp_path / "called_by_threads.py").write_text(
        f"from typeguard import typechecked\n\n\n@typechecked\nclass Many:\n{methods}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with defer_type_checks():
        many = importlib.import_module("called_by_threads").Many()
    threshold, change_places = gc.get_threshold(), lambda *_: time.sleep(1e-5)
    gc.set_threshold(60)
    gc.callbacks.append(change_places)
    try:
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(getattr(many, f"method_{number}")) for number in range(count)]
            assert [call.result() for call in calls] == list(range(count))
    finally:
        gc.callbacks.remove(change_places)
        gc.set_threshold(*threshold)
