"""Controls for JupyterLab: move a parameter, switch a reading, or choose a clip, and look again.

A control needs a kernel. Where none answers a reader, as on the site, the same cell shows the
picture for the values that its controls start with.
"""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets
import numpy as np
from torch import Tensor

from hstlib.book.evidence import published_rows, study_rows
from hstlib.book.inside import look_inside
from hstlib.book.player import Player, maps_to_rgb
from hstlib.book.plots import flow_to_rgb
from hstlib.book.specification import describe_changes
from hstlib.book.study import results
from hstlib.book.tables import NOT_RUN
from hstlib.book.trained import SeenClip, turned_clip
from hstlib.model import HST, ops
from hstlib.model.readings import READINGS, apply_reading

JUPYTER_SESSION = "JPY_SESSION_NAME"
"""Environment variable that Jupyter's server sets for the kernel of an open notebook."""
FOLLOWS = {"description_width": "initial"}


@dataclass(frozen=True)
class Shown:
    """A player above lines of text; a notebook shows them as HTML.

    Attributes:
        player: Pictures.
        lines: Lines of text.
    """

    player: Player
    lines: tuple[str, ...]

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.lines)
        return f'{self.player.html()}<div class="hst-lines">{lines}</div>'

    def __repr__(self) -> str:
        return "\n".join([repr(self.player), *self.lines])


def explore(draw: Callable[..., Shown], **choices: Sequence[Any]) -> Shown | ipywidgets.VBox:
    """Show what a function draws, in JupyterLab with a control for each of its arguments.

    Args:
        draw: Function to call whenever a control changes.
        choices: Values to choose from, by argument. The first one is chosen at the start. Numbers
            get a slider, names a list.
    """
    if JUPYTER_SESSION not in os.environ:
        return draw(**{name: values[0] for name, values in choices.items()})
    controls = {name: _control(name, values) for name, values in choices.items()}
    output = ipywidgets.Output()

    def update(_change: object = None) -> None:
        _put(output, partial(draw, **{name: each.value for name, each in controls.items()}))

    for control in controls.values():
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([*controls.values(), output])


def choose_clip(draw: Callable[[Path], Shown], video: Path) -> Shown | ipywidgets.VBox:
    """Show what a function draws of a video, in JupyterLab with two ways to choose another one.

    A clip can be uploaded, to a temporary folder that is removed at once; the path of a file can be
    entered, which is better for a large one.

    Args:
        draw: Function of the path of a video file.
        video: Video to start with.
    """
    if JUPYTER_SESSION not in os.environ:
        return draw(video)
    upload = ipywidgets.FileUpload(accept="video/*", description="Your clip")
    path = ipywidgets.Text(
        str(video), description="or its path", continuous_update=False, style=FOLLOWS
    )
    output = ipywidgets.Output()

    def draw_upload(_change: object) -> None:
        for file in upload.value:
            with TemporaryDirectory() as folder:
                copy = Path(folder) / Path(file["name"]).name
                copy.write_bytes(file["content"])
                _put(output, partial(draw, copy))

    upload.observe(draw_upload, "value")
    path.observe(lambda change: _put(output, partial(draw, Path(change["new"]))), "value")
    _put(output, partial(draw, video))
    return ipywidgets.VBox([upload, path, output])


def _control(name: str, values: Sequence[Any]) -> ipywidgets.Widget:
    kind = ipywidgets.Dropdown if isinstance(values[0], str) else ipywidgets.SelectionSlider
    more = {} if kind is ipywidgets.Dropdown else {"continuous_update": False}
    ordered = list(values) if kind is ipywidgets.Dropdown else sorted(values)
    return kind(options=ordered, value=values[0], description=name, style=FOLLOWS, **more)


def _put(output: ipywidgets.Output, draw: Callable[[], Shown]) -> None:
    """Show what a function returns, or the error of a value that it cannot draw."""
    try:
        shown = draw()
        data = {"text/plain": repr(shown), "text/html": shown._repr_html_()}
    except ValueError as error:
        data = {"text/plain": str(error)}
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def draw_motion(
    model: HST, classes: Sequence[str], scene: str, direction: int, every: int, film: int
) -> Shown:
    """Show a drawn clip, its flow, and what a model sees in it.

    Args:
        model: Trained HST, in float64.
        classes: Names of its classes.
        scene: Scene to draw.
        direction: Direction of the motion in degrees, as in
            :func:`hstlib.book.trained.turned_clip`.
        every: Take every frame drawn, 1, or every second one, 2.
        film: Seed of the drawing.
    """
    clip = turned_clip(scene, direction, every, film)
    seen = look_inside(model, clip.clips, clip.flow)
    speed = np.hypot(*clip.motion)  # (16, S, S)
    panels = {
        "frames": clip.frames,
        "optical flow": _flow_pictures(clip),
        "mask (9)": maps_to_rgb(seen["mask 1"][0, :, 0].numpy(), 0, 1),
        "attention (17)": attention_map(model, seen),
    }
    lines = f"largest speed: {speed.max():.1f} pixels per frame", _chances(seen["logits"], classes)
    return Shown(Player("A drawn clip, its optical flow and two maps of a model", panels), lines)


def draw_reading(model: HST, classes: Sequence[str], clip: SeenClip, reading: str) -> Shown:
    """Show what a model computes with one step replaced, and what was published of the reading.

    Args:
        model: HST with trained weights; it is not changed.
        classes: Names of its classes.
        clip: Clip to classify.
        reading: ``paper``, or a name of :data:`hstlib.model.readings.READINGS` that keeps the
            parameters, as :func:`same_weights` lists them.
    """
    model = deepcopy(model)
    apply_reading(model, reading)
    seen = look_inside(model, clip.clips, clip.flow)
    panels = {
        "frames": clip.frames,
        "mask (9)": maps_to_rgb(seen["mask 1"][0, :, 0].numpy(), 0, 1),
        "beta (11)": maps_to_rgb(seen["beta"].mean(1).numpy()),
        "T (1)": maps_to_rgb(seen["T"].square().mean(1).sqrt().numpy()),
        "attention (17)": attention_map(model, seen),
    }
    logits, order = seen["logits"][0], seen["logits"][0].argsort(descending=True).tolist()
    sentence = READINGS[reading].sentence if reading in READINGS else "The reading of this book."
    lines = (
        f"{reading}: {sentence}",
        "logits: " + ", ".join(f"{classes[k]} {logits[k]:.1f}" for k in order),
        *published(reading),
    )
    return Shown(
        Player(f"A clip and the maps of a model with the reading {reading}", panels), lines
    )


def same_weights() -> list[str]:
    """Return the readings that keep the parameters of HST as built, and ``paper``."""
    return ["paper", *(r.name for r in READINGS.values() if r.factor and r.rebuild is None)]


def published(reading: str) -> list[str]:
    """Say what published runs show of a reading that was trained from the start, one line each."""
    rows = [row for row in study_rows() if row.config.model == "hst"]
    found = results(row for row in rows if row.config.reading == reading)
    alone = f"{found[0].accuracy} %, {found[0].runs}" if found else NOT_RUN
    if found and not found[0].fitted:
        alone = "no verdict, as it has not fitted its training videos"
    lines = [f"trained with this reading, top-1 on J-HMDB, official splits: {alone}"]
    changes = describe_changes(published_rows("readings"))
    if reading in changes:
        lines.append(f"trained in combination with others, UT-Interaction: {changes[reading]}")
    return lines


def attention_map(model: HST, seen: dict[str, Tensor]) -> np.ndarray:
    """Return the softmax of Eq. (17) in the channel where it varies most, RGB (1, h, w, 3)."""
    over_channels = model.hybrid_attention.combine is ops.block_in_attention
    share = seen["share"] if over_channels else ops.spatial_softmax(seen["mix"])
    return maps_to_rgb(share[0, [int(share.std((2, 3)).argmax())]].numpy())


def _flow_pictures(clip: SeenClip) -> np.ndarray:
    """Return the flow of a clip as RGB (16, S, S, 3), brightest where it is fastest."""
    fastest = float(np.hypot(*clip.motion).max())
    return np.stack([flow_to_rgb(field, fastest) for field in clip.motion.swapaxes(0, 1)])


def _chances(logits: Tensor, classes: Sequence[str]) -> str:
    """Name the three most probable classes of one clip."""
    chances = logits.softmax(1)[0]
    best = chances.argsort(descending=True)[:3].tolist()
    return "the model says: " + ", ".join(f"{classes[k]} {chances[k]:.2f}" for k in best)
