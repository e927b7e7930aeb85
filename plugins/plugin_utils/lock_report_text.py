"""How texts that come from hosts are shown to people."""

from __future__ import annotations

import re

# Control characters, and those that reorder or hide what stands beside them.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\U000e0000-\U000e007f]")
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text):
    """The text with all that cannot be seen written out: a path's newline is \\n, and no command has a second line when it is pasted."""
    return HIDDEN.sub(lambda match: NAMED.get(match[0]) or f"\\u{ord(match[0]):04x}", text)


def visible_all(value):
    """The same of all texts in lists and dictionaries, keys included."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): visible_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible_all(item) for item in value]
    return value
