"""A page that needs nothing beside it: words, tables and figures in one HTML file.

It can be read without JavaScript; explorer.js, which is in it, adds what moves.
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent  # of style.css and explorer.js


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, the first column being what a row is about."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
        body = "".join(
            f'<tr><th scope="row">{_cell(name)}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in cells)}</tr>\n'
            for name, *cells in self.rows
        )
        return (
            f'<div class="wide"><table><caption>{words(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Picture:
    """A figure with the words that say what it shows; the first sentence of these stands for it where it is not seen.

    A chart is drawn as lines (SVG), and what has images in it as pixels (PNG).
    """

    caption: str
    figure: Figure

    @property
    def alt(self) -> str:
        first = self.caption.split(". ")[0]
        return first if len(first) <= 160 else first[:159].rsplit(" ", 1)[0] + "…"

    def html(self) -> str:
        pixels = any(axis.images for axis in self.figure.axes)
        picture = f'<img class="{"pixels" if pixels else "chart"}" alt="{escape(self.alt)}" src="{self._uri(pixels)}">'
        return self._framed(picture)

    def _framed(self, picture: str, kind: str = "") -> str:
        its = f' class="{kind}"' if kind else ""
        return f"<figure{its}>{picture}<figcaption>{words(self.caption)}</figcaption></figure>"

    def _uri(self, pixels: bool) -> str:
        file = io.BytesIO()
        if pixels:
            self.figure.savefig(file, format="png", dpi=120)
            return _uri("image/png", file.getvalue())
        with rc_context({"svg.hashsalt": "report"}):  # else its names are other ones each time
            self.figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
        return _uri("image/svg+xml", file.getvalue())


@dataclass(frozen=True)
class Grid(Picture):
    """Images that wrap and can be enlarged: in every row an input, and by title what belongs to it.

    Attributes:
        inputs: uint8 [N, C, H, W].
        columns: By title uint8 [N, M, C, H, W].
    """

    inputs: np.ndarray
    columns: Mapping[str, np.ndarray]

    def html(self) -> str:
        rows = "".join(self._row(k) for k in range(len(self.inputs)))
        return self._framed(f'<div class="grid">{rows}</div>', "images")

    def _row(self, k: int) -> str:
        cells = [("input", self.inputs[k : k + 1]), *((title, images[k]) for title, images in self.columns.items())]
        return '<div class="row">{}</div>'.format(
            "".join(
                f'<div class="cell"><span>{escape(title)}</span><div>'
                + "".join(pixelated(image, f"{title}, image {k + 1}") for image in images)
                + "</div></div>"
                for title, images in cells
            )
        )


@dataclass(frozen=True)
class Story(Picture):
    """From the input to nothing: what is kept, as images under one another and as bars of one scale.

    Attributes:
        steps: (name, value as it is told, share of the longest bar or None, uint8 [Q, C, H, W]) from left to right.
    """

    steps: Sequence[tuple[str, str, float | None, np.ndarray]]

    def html(self) -> str:
        return self._framed(f'<div class="story">{"".join(map(self._step, self.steps))}</div>', "images")

    def _step(self, step: tuple[str, str, float | None, np.ndarray]) -> str:
        name, told, share, images = step
        bar = "" if share is None else f'<i style="width:{100 * min(max(share, 0), 1):.1f}%"></i>'
        pictures = "".join(pixelated(image, f"{name}, image {k + 1}") for k, image in enumerate(images))
        head = f'<b>{escape(name)}</b><em>{_cell(told)}</em><span class="bar">{bar}</span>'
        return f'<div class="step">{head}{pictures}</div>'


@dataclass(frozen=True)
class Explorer:
    """Data as JSON for explorer.js, which shows it, and what is shown without JavaScript and on paper."""

    data: Mapping[str, Any]
    still: Sequence[Picture]

    def html(self) -> str:
        still = "\n".join(picture.html() for picture in self.still)
        return f'<div class="explorer" hidden>{json_block(self.data)}</div>\n<div class="still">{still}</div>'


@dataclass(frozen=True)
class Lead:
    """The sentence that comes first."""

    text: str

    def html(self) -> str:
        return f'<p class="lead">{words(self.text)}</p>'


@dataclass(frozen=True)
class Folded:
    """A long text that opens on a click."""

    summary: str
    text: str

    def html(self) -> str:
        return f"<details><summary>{escape(self.summary)}</summary><pre>{escape(self.text)}</pre></details>"


@dataclass(frozen=True)
class Facts:
    """What is said of each of several things."""

    rows: Sequence[tuple[str, str]]

    def html(self) -> str:
        return "<dl>{}</dl>".format("".join(f"<dt>{words(a)}</dt><dd>{words(b)}</dd>\n" for a, b in self.rows))


@dataclass(frozen=True)
class Missing:
    """What was not measured, and the commands that do it."""

    what: str
    commands: Sequence[str] = ()

    def html(self) -> str:
        made = " Make it with:" if self.commands else ""
        return f'<p class="missing"><b>Not measured:</b> {words(self.what)}.{made}</p>' + Code(self.commands).html()


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    lines: Sequence[str]

    def html(self) -> str:
        return f"<pre>{escape(chr(10).join(self.lines))}</pre>" if self.lines else ""


Part = str | Table | Picture | Folded | Explorer | Lead | Facts | Missing | Code  # a string is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and what comes under it."""

    title: str
    parts: Sequence[Part]

    @property
    def pictures(self) -> list[Picture]:
        """All of them, those too that are shown only where nothing moves."""
        its = [part.still if isinstance(part, Explorer) else [part] for part in self.parts]
        return [part for parts in its for part in parts if isinstance(part, Picture)]

    def html(self, anchor: str = "") -> str:
        parts = [f"<p>{words(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts]
        its = f' id="{anchor}"' if anchor else ""
        return "\n".join([f"<section{its}><h2>{words(self.title)}</h2>", *parts, "</section>"])


def page(title: str, sections: Sequence[Section], results: Sequence[Mapping[str, Any]] = ()) -> str:
    """The whole file: it loads nothing, and what comes from data is escaped.

    Args:
        title: Of the page.
        sections: Those that the contents name.
        results: What can be downloaded beside the tables, as JSON.
    """
    anchors = _anchors([section.title for section in sections])
    body = "\n".join(section.html(anchor) for section, anchor in zip(sections, anchors, strict=True))
    entries = "".join(
        f'<li><a href="#{anchor}">{words(section.title)}</a></li>'
        for section, anchor in zip(sections, anchors, strict=True)
    )
    script = (HERE / "explorer.js").read_text(encoding="utf-8")
    style = (HERE / "style.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body><header><h1>{escape(title)}</h1></header>\n"
        f'<nav aria-label="Contents"><details><summary>Contents</summary><ol>{entries}</ol></details></nav>\n'
        f"<main>\n{body}\n</main>\n{json_block({'results': list(results)}, 'numbers')}\n"
        f"<script>{script}</script>\n</body></html>\n"
    )


def json_block(data: Mapping[str, Any], anchor: str = "") -> str:
    """JSON that no text in it can end: it has no character that HTML knows."""
    its = f' id="{anchor}"' if anchor else ""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f'<script type="application/json"{its}>{text}</script>'


def base64_of(array: np.ndarray) -> str:
    """Its values, of the lowest byte first, in the order of its axes."""
    return base64.b64encode(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).decode()


def pixelated(image: np.ndarray, alt: str) -> str:
    """One image uint8 [C, H, W], a pixel of the file for each of it."""
    file, (channels, _, _) = io.BytesIO(), image.shape
    Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(file, "png")
    return f'<img class="pixelated" alt="{escape(alt)}" src="{_uri("image/png", file.getvalue())}">'


def words(text: str) -> str:
    """Escaped, with the minus signs of print."""
    return re.sub(r"(?<![\w.&;/-])-(?=\.?\d)", "\N{MINUS SIGN}", escape(text))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _anchors(titles: Sequence[str]) -> list[str]:
    """One a section, by its title, each once."""
    found: list[str] = []
    for title in titles:
        plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        free = (name for k in range(len(titles) + 1) if (name := f"{plain}-{k + 1}" if k else plain) not in found)
        found.append(next(name for name in free if name != "numbers"))
    return found


def _cell(text: str) -> str:
    """Escaped; a number stays on one line with its error, and so does an interval."""
    return re.sub(r"(?<=[\d±,]) (?=[±\d\N{MINUS SIGN}])", "&nbsp;", words(text))
