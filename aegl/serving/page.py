"""The page on which a person tries the model: one file, no request to anyone but this server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from aegl._version import __version__
from aegl.plots.colors import band_colors, band_label, text_color
from aegl.serving.model import Model

_TEMPLATE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_SLOT = "MODEL_JSON"


def page(model: Model) -> str:
    """The page's HTML, which holds what it must know of the model as JSON."""
    meta = model.meta
    colors = band_colors(len(meta.band_names))
    content = {
        "model": model.name,
        "version": __version__,
        "lowest": meta.conf,
        "classes": meta.num_classes,
        "bands": [
            {"name": name, "label": band_label(name), "color": _css(color), "text": _css(text_color(color))}
            for name, color in zip(meta.band_names, colors, strict=True)
        ],
    }
    # A class or a file may be named anything: nothing of it may end the element it stands in.
    return _TEMPLATE.replace(_SLOT, json.dumps(content).replace("<", "\\u003c"))


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _policy() -> str:
    """Only the page's own script runs, and it can speak to this server only."""
    script = _SCRIPT.findall(_TEMPLATE)[0].encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


PAGE_HEADERS = {
    "Content-Security-Policy": _policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
