"""The report on file locks as one HTML page that needs nothing else and may load nothing else."""

from __future__ import annotations

import base64
import hashlib
import json

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import STATUSES, VERDICTS, worse
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_text import visible_all

# A shape beside the word, so that colour is never all there is. By what is to be done, not by verdict.
SHAPES = {"bad": "▲", "warn": "◆", "away": "✕", "good": "●", "none": "–"}
TONES = {
    **dict.fromkeys((*VERDICTS, *STATUSES), "bad"),
    **dict.fromkeys(("unreachable", "failed", "no_result"), "away"),
    **dict.fromkeys(("drift", "stale", "held", "holder", "unknown", "look", "nolock_mount"), "warn"),
    **dict.fromkeys(("ok", "patched", "library"), "good"),
    "none": "none",
}


def page(report, template, style, script):
    """The page. Jinja escapes all that the template prints; the data for the script goes in as JSON."""
    report = visible_all(report)
    report["hosts"].sort(key=lambda host: list(STATUSES).index(host["status"]))  # what needs a hand comes first
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        matrix=matrix(report),
        statuses=STATUSES,
        tones=TONES,
        shapes=SHAPES,
        ranks={name: rank for rank, name in enumerate((*VERDICTS, "none"))},
        status_ranks={name: rank for rank, name in enumerate(STATUSES)},
        style=inline(style),
        script=inline(script),
        style_hash=csp_hash(inline(style)),
        script_hash=csp_hash(inline(script)),
        data=inline(script_json(packed({"hosts": report["hosts"], "statuses": STATUSES, "tones": TONES, "shapes": SHAPES}))),
    )


def matrix(report):
    """Each host with its cells, one for each column; None where the host has no such container."""
    named = [name for name in report["columns"] if name]
    for host in report["hosts"]:
        by_name = {row["name"]: row for row in host["containers"]}
        cells = [by_name.get(name) for name in named]
        if "" in report["columns"]:
            cells.append(together([row for row in host["containers"] if row["name"] not in named]))
        yield host, [cell and {**cell, "tone": tone(cell)} for cell in cells]


def tone(cell):
    """Refused locks are no emergency where QEMU bears them, or none is, and still no protection; but where no guest starts, QEMU is not all."""
    if cell["no_guest_starts"]:
        return "bad"
    borne = (cell["qemu"] in ("patched", "library") or cell["name"] == "host") and cell["verdict"] in ("locks_refused", "ofd_unsupported")
    return "warn" if borne else TONES[cell["verdict"]]


def together(rows):
    if not rows:
        return None
    worst = "none"
    for row in rows:
        worst = worse(worst, row["verdict"])
    return {
        "name": "", "verdict": worst, "mounts": sum(row["mounts"] for row in rows), "qemu": "", "variant": "",
        "lost": any(row["lost"] for row in rows), "no_guest_starts": any(row["no_guest_starts"] for row in rows),
    }


def packed(value):
    """The value with everything that stands in it more than once written once: hosts of a cloud say much the same.

    values has plain values as they are, a list as [-1, item, ...], and a dictionary as [keys, item, ...], where keys is a place in
    shapes and an item the place of a value before it. The last value is the whole.
    """
    values, places, shapes = [], {}, {}

    def place(item):
        if isinstance(item, dict):
            row = (shapes.setdefault(tuple(item), len(shapes)), *(place(part) for part in item.values()))
        elif isinstance(item, list):
            row = (-1, *(place(part) for part in item))
        else:
            row = item
        key = (type(item), row)  # 1, 1.0 and true are equal to Python
        if key not in places:
            places[key] = len(values)
            values.append(row)
        return places[key]

    place(value)
    return {"shapes": list(shapes), "values": values}


def script_json(value):
    """JSON in which nothing ends a script element, opens a comment, or is a line break to JavaScript alone."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def inline(text):
    """A text of ours that is not escaped."""
    if "</" in text or "<!--" in text:
        raise ValueError("cannot put this text into the page: it would end its element")
    return Markup(text)


def csp_hash(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
