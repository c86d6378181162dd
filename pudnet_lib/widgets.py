"""A panel of controls over one figure: the widgets only call a plain function that has its own tests.

Our choice; the paper has no counterpart. One image is updated in place, so the state saved into an executed notebook
stays small. A call that a newer one has overtaken is dropped, so that the figure always shows the controls' values.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from pudnet_lib.errors import PudNetError

#: Seconds without a further change before the figure is drawn again.
DEBOUNCE = 0.15


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """Controls above one figure.

    Args:
        draw: Plain function, keyword values of the controls → matplotlib figure.
        **controls: Name → ipywidgets control, or what ``ipywidgets.interactive`` takes: a (low, high) tuple, a list of
            options, a bool, a number, a string.
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Any) -> None:
        self.draw = draw
        self.controls = {name: _control(name, given) for name, given in controls.items()}
        self.image = ipywidgets.Image(
            format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain", align_self="flex-start")
        )
        self.message = ipywidgets.HTML()
        self._latest: asyncio.TimerHandle | None = None
        row = ipywidgets.HBox(list(self.controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.image, self.message])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.redraw()

    def redraw(self) -> None:
        """Call the function with the controls' values and show its figure, or its error."""
        try:
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
        except Exception as error:  # a widget's callback has no other place to show it
            self.message.value = f"<b>{type(error).__name__}:</b> {error}"
            return
        self.message.value = ""
        self.image.value = png_bytes(figure)

    def _changed(self, _change: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel (a plain script or test): nothing to wait for
            self.redraw()
            return
        if self._latest is not None:
            self._latest.cancel()
        self._latest = loop.call_later(DEBOUNCE, self.redraw)


def _control(name: str, given: Any) -> Any:
    control = given if isinstance(given, ipywidgets.Widget) else ipywidgets.interactive.widget_from_abbrev(given)
    if control is None:
        raise PudNetError(f"Control {name} is {given!r}; expected a widget, a (low, high) tuple, a list, a bool, …")
    if not control.description:
        control.description = name.replace("_", " ")
    control.style.description_width = "initial"
    return control


def png_bytes(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
