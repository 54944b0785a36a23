"""What scores each champion here: its own library alone, or a second runtime beside it, tried as a server tries it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skewless.contract.errors import SkewlessError
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.infra.packages.store import PackageStore
    from skewless.infra.runtimes.calibration import Calibration
    from skewless.infra.runtimes.candidates import ScoringTarget, Second
    from skewless.infra.runtimes.choice import RuntimeTrial

_CHAMPION = "champion"


def check_scoring(store: PackageStore, second: Second, place: ScoringTarget | None = None) -> list[CheckupFinding]:
    """Say what would score each champion; a model is opened only where there is more than its own library.

    Args:
        second: the setting ``second_runtime``.
        place: where models may be scored; None: as in a server with this setting.
    """
    from skewless.infra.packages.aliases import Aliases
    from skewless.infra.runtimes.candidates import ScoringTarget
    from skewless.infra.storage.names import list_models

    where = place or ScoringTarget(second=second)
    return list(
        _findings(store, [(name, Aliases(store.root).get(name, _CHAMPION)) for name in list_models(store.root)], where)
    )


def _findings(
    store: PackageStore, champions: Sequence[tuple[str, str | None]], place: ScoringTarget
) -> Iterator[CheckupFinding]:
    from skewless.infra.packages.package import open_package
    from skewless.infra.runtimes.candidates import find_candidates

    alone = []
    for name, version in champions:
        if version is None:
            continue
        try:
            package = open_package(store, name, version)
            others = find_candidates(package.spec.algorithm, package.spec.device, package.model_file, place)
            if not others:
                alone.append(f"{name} {version} ({package.spec.algorithm})")
            elif all(candidate.open is None for candidate in others):
                yield missed(package, "; ".join(str(candidate.problem) for candidate in others))
            else:
                yield _tried(store, package, place)
        except SkewlessError as error:
            yield from_error(f"scoring {name}", error)
    if alone:
        yield good("scoring", f"each by its own library alone: {', '.join(alone)}")


def missed(package: Package, problem: str) -> CheckupFinding:
    """Return what is to be said of a model that asks for a GPU where none can be used."""
    detail = f"version {package.version} asks for a GPU, its own library scores it meanwhile: {problem}"
    return doubt(f"scoring {package.name}", detail, "see the line `gpu`, or set ModelSpec.device='auto'")


def _tried(store: PackageStore, package: Package, place: ScoringTarget) -> CheckupFinding:
    from skewless.infra.packages.served_model import load_model

    return judge_tried(package.name, package.version, load_model(store, package.name, package.version, place).trials)


def judge_tried(name: str, version: str, tried: Sequence[RuntimeTrial]) -> CheckupFinding:
    """Return what is to be said of the runtimes that were tried for a model."""
    facts = [item.as_dict() for item in tried]
    detail = f"version {version}: {'; '.join(map(_told, tried))}"
    if all(item.role in {"own", "refused"} for item in tried):
        fix = "nothing is lost, the library scores it; ModelSpec.device='cpu' keeps others from being tried"
        return doubt(f"scoring {name}", detail, fix, facts)
    return good(f"scoring {name}", detail, facts)


def _told(item: RuntimeTrial) -> str:
    if item.role == "refused":
        return f"{item.runtime} is refused: {item.reason}"
    times = "" if item.calibration is None else f" ({_milliseconds(item.calibration)})"
    if item.from_rows is None:
        return f"{item.runtime} gets no batch, it is slower{times}"
    return f"{item.runtime} from {item.from_rows:,} row{'s' * (item.from_rows > 1)} on{times}"


def _milliseconds(calibration: Calibration) -> str:
    from skewless.infra.runtimes.calibration import SIZES

    by_size = zip(SIZES, calibration.seconds, strict=True)
    return ", ".join(f"{size:,}: {seconds * 1e3:.3g} ms" for size, seconds in by_size)
