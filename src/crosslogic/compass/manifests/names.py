"""Names and texts that are safe where they stand: DNS labels, label values, YAML scalars, engine arguments.

Pure. Invariant: two different names never become the same DNS label (but for a collision of 32 bits of SHA-256), and
no text can end the scalar, the argument or the template that it was put in.
"""

from __future__ import annotations

import hashlib
import re

MOST_NAME = 40  # KServe puts words behind it, and a service's name has at most 63
_OTHER = re.compile(r"[^a-z0-9]+")
_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_OTHER_VALUE = re.compile(r"[^A-Za-z0-9_.-]+")


def dns_label(text: str, most: int = MOST_NAME) -> str:
    """A DNS-1123 label that begins with a letter. What had to be changed gets a digest, so that names stay apart."""
    if len(text) <= most and _LABEL.match(text) and "\n" not in text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    stem = _OTHER.sub("-", text.lower()).strip("-")[: most - 11].strip("-")
    if not stem or not stem[0].isalpha():
        stem = f"m-{stem}".rstrip("-")
    return f"{stem}-{digest}"


def label_value(text: str) -> str:
    """As near to the text as a label's value may be; for people, not to find things by."""
    return _OTHER_VALUE.sub("_", text)[:63].strip("_.-")


def scalar(text: str) -> str:
    """A double-quoted YAML scalar of one line in ASCII."""
    return '"' + "".join(map(_escaped, text)) + '"'


def argument(text: str) -> str:
    """An argument of a container: the kubelet would put variables, and so secrets, in place of `$(NAME)`."""
    return text.replace("$", "$$")


def plain(text: str) -> str:
    """In an annotation or label of an alert, where Prometheus obeys `{{ … }}`."""
    return text.replace("{{", "{ {").replace("}}", "} }")


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    if 0x20 <= code < 0x7F:
        return char
    if code <= 0xFF:
        return f"\\x{code:02X}"
    if 0xD800 <= code <= 0xDFFF:  # half of a character is none
        return "\\uFFFD"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
