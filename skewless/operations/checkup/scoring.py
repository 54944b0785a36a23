"""The runtimes that score each champion here, tried as a server tries them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skewless.contract.errors import SkewlessError
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.infra.packages.store import PackageStore
    from skewless.infra.runtimes.candidates import ScoringTarget, Second
    from skewless.infra.runtimes.choice import RuntimeTrial
    from skewless.infra.runtimes.shared import Calibration

_CHAMPION = "champion"


def check_scoring(store: PackageStore, second: Second, target: ScoringTarget | None = None) -> list[CheckupFinding]:
    """Return the runtimes of each champion; a model is loaded only if it has a second runtime.

    Args:
        second: the setting ``second_runtime``.
        target: runtimes and devices that may score; None: those of a server with this setting.
    """
    from skewless.infra.runtimes.candidates import ScoringTarget

    target = target or ScoringTarget(second=second)
    try:
        champions = [(name, store.aliases.get(name, _CHAMPION)) for name in store.packages.list_models()]
    except SkewlessError:
        return []  # the database is down: the check of the plan reports it
    return list(_findings(store, champions, target))


def _findings(
    store: PackageStore, champions: Sequence[tuple[str, str | None]], target: ScoringTarget
) -> Iterator[CheckupFinding]:
    from skewless.infra.packages.package import open_package
    from skewless.infra.runtimes.candidates import find_candidates

    single = []
    for name, version in champions:
        if version is None:
            continue
        try:
            package = open_package(store, name, version)
            others = find_candidates(package.spec.algorithm, package.spec.device, package.model_file, target)
            if not others:
                single.append(f"{name} {version} ({package.spec.algorithm})")
            elif all(candidate.open is None for candidate in others):
                yield judge_missing_gpu(package, "; ".join(str(candidate.problem) for candidate in others))
            else:
                yield _try_runtimes(store, package, target)
        except SkewlessError as error:
            yield from_error(f"scoring {name}", error)
    if single:
        yield good("scoring", f"only by its own library: {', '.join(single)}")


def judge_missing_gpu(package: Package, problem: str) -> CheckupFinding:
    """Return the finding for a model that requests a GPU that is not available."""
    detail = f"version {package.version} requests a GPU that is not available, so its own library scores it: {problem}"
    return doubt(f"scoring {package.name}", detail, "fix the finding `gpu`, or set ModelSpec.device='auto'")


def _try_runtimes(store: PackageStore, package: Package, target: ScoringTarget) -> CheckupFinding:
    from skewless.infra.packages.served_model import load_model

    return judge_trials(package.name, package.version, load_model(store, package.name, package.version, target).trials)


def judge_trials(name: str, version: str, tried: Sequence[RuntimeTrial]) -> CheckupFinding:
    """Return the finding for the runtimes that were tried for a model."""
    facts = [item.as_dict() for item in tried]
    detail = f"version {version}: {'; '.join(map(_trial_text, tried))}"
    if all(item.role in {"own", "refused"} for item in tried):
        fix = "do nothing, its own library scores it; ModelSpec.device='cpu' skips the trial"
        return doubt(f"scoring {name}", detail, fix, facts)
    return good(f"scoring {name}", detail, facts)


def _trial_text(item: RuntimeTrial) -> str:
    if item.role == "refused":
        return f"{item.runtime} is rejected: {item.reason}"
    times = "" if item.calibration is None else f" ({_milliseconds(item.calibration)})"
    if item.from_rows is None:
        return f"{item.runtime} gets no batch, because it is slower{times}"
    return f"{item.runtime} from {item.from_rows:,} row{'s' * (item.from_rows > 1)} on{times}"


def _milliseconds(calibration: Calibration) -> str:
    from skewless.infra.runtimes.shared import SIZES

    by_size = zip(SIZES, calibration.seconds, strict=True)
    return ", ".join(f"{size:,}: {seconds * 1e3:.3g} ms" for size, seconds in by_size)
