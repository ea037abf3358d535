"""A page that needs nothing beside it: words, tables and figures in one HTML file."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 Georgia, serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1, h2 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; } h2 { margin-top: 3rem; }
table { border-collapse: collapse; overflow-wrap: normal; font: 13px/1.4 Helvetica, Arial, sans-serif; }
.wide { overflow-x: auto; margin: 1.5rem 0; }
caption { text-align: left; padding-bottom: .4rem; color: #555; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child { text-align: left; } tbody th { font-weight: normal; }
figure { margin: 1.5rem 0; } figcaption { color: #555; font: 14px/1.4 Helvetica, Arial, sans-serif; }
img { max-width: 100%; height: auto; } pre { font-size: 12px; overflow-x: auto; } summary { cursor: pointer; }
@media print { h2 { break-after: avoid; } figure, table { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 10px; } th, td { padding: .2rem; } img { max-height: 19cm; width: auto; } }
"""


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
            f'<div class="wide"><table><caption>{escape(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Picture:
    """A figure with the words that say what it shows."""

    caption: str
    figure: Figure

    def html(self) -> str:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=120)
        image = base64.b64encode(file.getvalue()).decode()
        words = escape(self.caption)
        picture = f'<img alt="{words}" src="data:image/png;base64,{image}">'
        return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


@dataclass(frozen=True)
class Folded:
    """A long text that opens on a click."""

    summary: str
    text: str

    def html(self) -> str:
        return f"<details><summary>{escape(self.summary)}</summary><pre>{escape(self.text)}</pre></details>"


Part = str | Table | Picture | Folded  # a string is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and what comes under it."""

    title: str
    parts: Sequence[Part]

    def html(self) -> str:
        parts = [f"<p>{escape(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts]
        return "\n".join([f"<section><h2>{escape(self.title)}</h2>", *parts, "</section>"])


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole file: it loads nothing, and what comes from data is escaped."""
    body = "\n".join(section.html() for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _cell(text: str) -> str:
    """Escaped; a number stays on one line with its error, and so does an interval."""
    return re.sub(r"(?<=[\d±,]) (?=[±\d-])", "&nbsp;", escape(text))
