"""Panels: controls over one figure, and a place to drop one's own images; they only call plain functions.

One image is updated in place: a notebook's saved state stays small. A call that a newer one has overtaken is dropped.
"""

import asyncio
import base64
import html
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import anywidget
import ipywidgets
import numpy as np
import traitlets
from matplotlib.figure import Figure

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import PREFIX
from pudnet_lib.images import as_dataset, load_images
from pudnet_lib.images.decode import decode_image

LIMIT_MB = 500  # that may be dropped: more is better read from its path than sent through a browser
SIZE = 128  # pixels to which a panel's pictures are brought


class Upload(NamedTuple):
    """One file that was dropped: its name and its bytes."""

    name: str
    content: bytes


class Drop(anywidget.AnyWidget):
    """A place to drop files; ``value`` has an ``Upload`` each, and is never saved into a notebook."""

    _esm = Path(__file__).with_name("drop.js")
    description = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode().tag(sync=True)
    multiple = traitlets.Bool(False).tag(sync=True)
    limit_mb = traitlets.Int(LIMIT_MB).tag(sync=True)
    value = traitlets.Tuple()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._files: dict[int, tuple[str, bytearray]] = {}
        self.on_msg(self._receive)

    def _receive(self, _widget: Any, piece: dict[str, Any], buffers: Sequence[memoryview]) -> None:
        if piece["first"]:
            self._files = {}
        for content in buffers:  # none where what was dropped is taken away
            self._files.setdefault(piece["file"], (piece["name"], bytearray()))[1].extend(content)
            self.send({"received": len(content)})  # before anything is computed
        if piece["last"]:
            self.value = ()  # the same file again is a change, too
            self.value, self._files = tuple(Upload(name, bytes(all_)) for name, all_ in self._files.values()), {}


class _Above(ipywidgets.VBox):  # type: ignore[misc]
    """Controls, a message directly under them, and a figure in a box of fixed height, as it comes and goes."""

    def __init__(self, controls: Sequence[Any], height: str, hint: str = "") -> None:
        layout = ipywidgets.Layout(max_width="100%", object_fit="contain", align_self="flex-start")
        self.message = ipywidgets.HTML()
        self.image = ipywidgets.Image(value=BLANK, format="png", layout=layout)
        place = ipywidgets.Box([self.image], layout=ipywidgets.Layout(height=height or "auto", overflow="auto"))
        row = ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap"))
        hints = [ipywidgets.HTML(f"<small>{hint}</small>")] if hint else []
        super().__init__([row, *hints, self.message, place if height else self.image])

    def _show(self, work: Callable[[], tuple[str, Figure]]) -> None:
        try:
            text, figure = work()
            self.message.value, self.image.value = text, png_bytes(figure)
        except Exception as error:  # a widget's callback has no other place to show it
            kind = "" if isinstance(error, PudNetError) else f"{type(error).__name__}: "
            self.message.value, self.image.value = f"<b>{html.escape(kind + str(error))}</b>", BLANK


class Panel(_Above):
    """Controls above one figure."""

    def __init__(self, draw: Callable[..., Figure], height: str = "", **controls: Any) -> None:
        self.draw = draw
        self.controls = {name: _control(name, given) for name, given in controls.items()}
        self._latest: asyncio.TimerHandle | None = None
        super().__init__(list(self.controls.values()), height)
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.redraw()

    def redraw(self) -> None:
        """Call the function with the controls' values and show its figure, or its error."""
        self._show(lambda: ("", self.draw(**{name: control.value for name, control in self.controls.items()})))

    def _changed(self, _change: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel (a plain script or test): nothing to wait for
            self.redraw()
            return
        if self._latest is not None:
            self._latest.cancel()
        self._latest = loop.call_later(0.15, self.redraw)  # seconds without a further change


def _control(name: str, given: Any) -> Any:
    control = given if isinstance(given, ipywidgets.Widget) else ipywidgets.interactive.widget_from_abbrev(given)
    if control is None:
        raise PudNetError(f"Control {name} is {given!r}; expected a widget, a (low, high) tuple, a list, a bool, …")
    if not control.description:
        control.description = name.replace("_", " ")
    control.layout.max_width = "calc(100% - 4px)"  # of a phone
    if hasattr(control, "style"):
        control.style.description_width = "initial"
    return control


def png_bytes(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
BLANK = base64.b64decode(_PIXEL)  # one transparent pixel, in place of a figure


def labels_from_names(names: Sequence[str]) -> list[str]:
    """Guess a label for each picture: its file name up to the trailing number (``cat_12.jpg`` is a cat)."""
    return [re.sub(r"[\s_\-.(]*\d*[)\s]*$", "", PurePath(name).stem) or PurePath(name).stem for name in names]


def images_from_upload(files: Sequence[Upload], labels: str = "") -> ImageDataset:
    """Make a dataset of what was dropped."""
    zips = [file for file in files if file.name.lower().endswith(".zip")]
    total = sum(len(file.content) for file in files) / 2**20
    if not files:
        raise PudNetError("No file was dropped; give a zip with one folder per class, or several pictures.")
    if total > LIMIT_MB:
        raise PudNetError(f"{total:.0f} MB were dropped, at most {LIMIT_MB}; type the folder's or zip's path instead.")
    if zips and len(files) > 1:
        raise PudNetError(f"{zips[0].name} came with {len(files) - 1} other files; give one zip, or pictures only.")
    if zips:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as place:
            path = Path(place) / f"{PurePath(zips[0].name).stem[:100] or 'images'}.zip"
            path.write_bytes(zips[0].content)
            return load_images(path, "auto", SIZE, progress=False)
    given = [s.strip() for s in labels.split(",")] if labels.strip() else labels_from_names([f.name for f in files])
    if len(given) != len(files) or not all(given):
        raise PudNetError(f"There are {len(given)} labels for {len(files)} pictures; give one each, none empty.")
    single = [name for name in sorted(set(given)) if given.count(name) < 2]
    if single or len(set(given)) < 2:
        found = f"{single[0]!r} has one picture only" if single else f"all pictures are {given[0]!r}"
        raise PudNetError(f"{found}; a classifier needs two classes of two pictures. Check the labels: {given}.")
    pictures = []
    for file in files:
        try:
            pictures.append(decode_image(io.BytesIO(file.content), SIZE, 3))
        except PudNetError as error:
            raise PudNetError(str(error).replace("the picture", file.name, 1)) from error
    return as_dataset(np.stack(pictures), given, size=SIZE, name="uploaded pictures")


class Shown(NamedTuple):
    """What a panel shows for images: sentences above the figure, the figure, a network to take away."""

    lines: Sequence[str]
    figure: Figure
    network: bytes = b""


class ImagesPanel(_Above):
    """A place for one's own images: a folder's path, a name, a dropped zip or pictures; below it what came of them."""

    def __init__(self, show: Callable[[ImageDataset], Shown], images: str = "", height: str = "30em") -> None:
        self.show = show
        self.images: ImageDataset | None = None
        wide = ipywidgets.Layout(width="28em", max_width="calc(100% - 4px)")
        text = partial(ipywidgets.Text, continuous_update=False, layout=wide)
        hint = "a folder or zip with one subfolder per class, or a name"
        self.path = text(images, placeholder=hint, description="images")
        self.files = Drop(accept=".zip,image/*", multiple=True, description="drop a zip or pictures here, or click")
        hint = "labels of pictures: cat, cat, dog, dog (or name them cat_1.jpg …)"
        self.labels = text(placeholder=hint, description="labels")
        hint = f"At most {LIMIT_MB} MB through the browser; of more, type the path."
        super().__init__([self.path, self.files, self.labels], height, hint)
        self.path.observe(self._use_path, names="value")
        for control in (self.files, self.labels):
            control.observe(self._use_files, names="value")
        self._use_path()

    def _use_path(self, _change: Any = None) -> None:
        if self.path.value.strip():
            self._use(lambda: load_images(self.path.value.strip(), "auto", SIZE, progress=False))

    def _use_files(self, _change: Any) -> None:
        if self.files.value:
            self._use(lambda: images_from_upload(self.files.value, self.labels.value))

    def _use(self, read: Callable[[], ImageDataset]) -> None:
        self.message.value, self.image.value, self.images = "Reading …", BLANK, None
        with warnings.catch_warnings(action="ignore"):  # the lines say the same
            self._show(lambda: self._look(read))

    def _look(self, read: Callable[[], ImageDataset]) -> tuple[str, Figure]:
        images = read()
        shown = self.show(images)
        notes = images.report.warnings if images.report is not None else ()
        text = "".join(f"<p>{html.escape(line)}</p>" for line in (*shown.lines, *notes))
        if shown.network:
            address = f"data:application/octet-stream;base64,{base64.b64encode(shown.network).decode()}"
            text += f'<p><a download="network.safetensors" href="{address}"><u>Download the network</u></a></p>'
        self.images = images
        return text, shown.figure
