"""One generation of a windowed view's states."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.keys import KeyCodec
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.rolling import Roller
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.view import WindowView


@dataclass(frozen=True, kw_only=True)
class StateView:
    """One generation of the states of a windowed view, and what packs and names them."""

    view: WindowView
    generation: int
    keys: KeyCodec
    codec: TileCodec
    layout: StateLayout
    roller: Roller

    @classmethod
    def of(cls, project: str, view: WindowView, generation: int) -> StateView:
        """Return the means of a view's generation."""
        return cls(
            view=view,
            generation=generation,
            keys=KeyCodec(project, view, generation),
            codec=TileCodec(view),
            layout=StateLayout(view),
            roller=Roller(view),
        )
