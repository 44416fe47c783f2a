"""Moving pictures that play in a page: frames, flow, windows, masks and attention of one clip.

A player is HTML with its pictures inside, a slider and a few lines of JavaScript. It needs neither
a kernel nor a network, never starts by itself, and shows its first frame where scripts are off.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

STEPS_PER_SECOND = 6
STYLE = (
    ".hst-player{max-width:100%;margin:0 0 1em}"
    ".hst-player .panels{display:flex;flex-wrap:wrap;gap:8px}"
    ".hst-player .panel{flex:0 1 160px;min-width:110px}"
    ".hst-player .view{overflow:hidden;position:relative;width:100%}"
    ".hst-player .view img{position:absolute;left:0;top:0;height:100%;max-width:none;margin:0;"
    "border-radius:0;image-rendering:pixelated}"
    ".hst-player .name{font-size:.85em;text-align:center;margin:2px 0}"
    ".hst-player .controls{display:flex;align-items:center;gap:8px;margin-top:4px;max-width:530px}"
    ".hst-player .controls[hidden]{display:none}"
    ".hst-player button{min-width:5em;min-height:32px;font:inherit}"
    ".hst-player input{flex:1;min-width:80px}"
    ".hst-player output{font-size:.85em;min-width:7.5em}"
)
SCRIPT = """
document.querySelectorAll('.hst-player:not([data-ready])').forEach(function (player) {
  player.dataset.ready = '1';
  var steps = +player.dataset.steps, slider = player.querySelector('input'), timer = null;
  var button = player.querySelector('button'), output = player.querySelector('output');
  var calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  function show() {
    var step = +slider.value - 1;
    player.querySelectorAll('img').forEach(function (image) {
      var count = +image.dataset.count, index = Math.floor(step * count / steps);
      image.style.transform = 'translateX(' + (-100 * index / count) + '%)';
    });
    output.textContent = 'frame ' + slider.value + ' of ' + steps;
  }
  function stop() { clearInterval(timer); timer = null; button.textContent = 'Play'; }
  function next() {
    if (!player.isConnected || (calm && +slider.value === steps)) { return stop(); }
    slider.value = +slider.value % steps + 1;
    show();
  }
  button.onclick = function () {
    if (timer) { return stop(); }
    button.textContent = 'Pause';
    timer = setInterval(next, 1000 / +player.dataset.rate);
  };
  slider.oninput = function () { stop(); show(); };
  player.querySelector('.controls').hidden = false;
  show();
});
"""


@dataclass(frozen=True)
class Player:
    """Pictures that play together; a notebook shows them as HTML.

    Attributes:
        description: What the pictures show, for screen readers.
        panels: Pictures by title: RGB uint8, shape (N, H, W, 3). Panels of fewer pictures than the
            longest one change more slowly.
    """

    description: str
    panels: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """Check the pictures.

        Raises:
            ValueError: If there is no panel, or one has other than RGB uint8 pictures.
        """
        if not self.panels:
            raise ValueError("a player needs at least one panel of pictures")
        for title, pictures in self.panels.items():
            fits = pictures.ndim == 4 and pictures.shape[3] == 3 and len(pictures)
            if not fits or pictures.dtype != np.uint8:
                raise ValueError(
                    f"panel {title!r} has {pictures.dtype} of shape {pictures.shape}; expected "
                    "uint8 of shape (N, H, W, 3), RGB"
                )

    def html(self) -> str:
        """Return the player as a piece of HTML."""
        steps = max(len(pictures) for pictures in self.panels.values())
        panels = "".join(_panel(title, pictures) for title, pictures in self.panels.items())
        return (
            f'<div class="hst-player" role="group" aria-label="{escape(self.description)}" '
            f'data-steps="{steps}" data-rate="{STEPS_PER_SECOND}"><style>{STYLE}</style>'
            f'<div class="panels">{panels}</div>'
            '<div class="controls" hidden><button type="button">Play</button>'
            f'<input type="range" min="1" max="{steps}" value="1" aria-label="Frame">'
            f"<output></output></div></div><script>{SCRIPT}</script>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return f"Player({', '.join(self.panels)})"


def maps_to_rgb(
    maps: np.ndarray, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Convert maps to colours on one scale, dark for low and yellow for high values.

    Args:
        maps: Values, shape (N, H, W).
        low: Value of the darkest colour; None: the smallest.
        high: Value of the brightest colour; None: the largest.

    Returns:
        RGB uint8, shape (N, H, W, 3).
    """
    low = float(maps.min()) if low is None else low
    high = float(maps.max()) if high is None else high
    scaled = np.clip((maps - low) / max(high - low, 1e-12), 0, 1)
    levels = (scaled * 255).round().astype(np.uint8)
    coloured = [cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS) for level in levels]
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for picture in coloured])


def _panel(title: str, pictures: np.ndarray) -> str:
    count, height, width = pictures.shape[:3]
    return (
        f'<div class="panel"><div class="view" style="aspect-ratio:{width}/{height}">'
        f'<img src="{_strip(pictures)}" alt="{escape(title)}" data-count="{count}" '
        f'style="width:{100 * count}%"></div><div class="name">{escape(title)}</div></div>'
    )


def _strip(pictures: np.ndarray) -> str:
    """Return all pictures side by side as one PNG in a data URI."""
    strip = cv2.cvtColor(np.concatenate(list(pictures), axis=1), cv2.COLOR_RGB2BGR)
    _, png = cv2.imencode(".png", strip, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
