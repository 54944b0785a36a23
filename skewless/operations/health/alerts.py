"""Alerts of a project: listed, or resolved by hand."""

from __future__ import annotations

from skewless.contract.errors import RequestError
from skewless.infra.platform.alerts.alerts import AlertRecord, Alerts
from skewless.operations.audited import audited
from skewless.workspace import Workspace


@audited(changing=("resolve",))
def alerts(project: Workspace, *, show_all: bool = False, resolve: int | None = None) -> list[AlertRecord]:
    """Return open alerts, oldest first.

    Args:
        show_all: return resolved alerts too.
        resolve: number of an alert to resolve first; it opens again if its cause returns.

    Raises:
        RequestError: no open alert has that number.
        StoreError: the disk failed, or the stored alerts are corrupt.
    """
    with Alerts(project.state, project.settings.alert_webhook) as store:
        if resolve is not None:
            alert = _open_alert(store.records(), resolve).alert
            store.resolve(alert.name, alert.subject, project.clock.now_us())
        return [item for item in store.records() if show_all or item.is_open]


def _open_alert(records: list[AlertRecord], number: int) -> AlertRecord:
    alerts_by_number = {item.number: item for item in records if item.is_open}
    if number not in alerts_by_number:
        fix = f"use one of: {', '.join(map(str, alerts_by_number)) or 'none is open'}"
        raise RequestError("alert", "is not open", value=number, fix=fix)
    return alerts_by_number[number]
