"""What the words of a command ask for: a protocol, a query, a report's name."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.rerank import Pipeline

# File systems take 255 bytes; a name this long is still readable in a listing.
_LONGEST = 80


def changed_protocol(protocol: Protocol, **asked: object) -> Protocol:
    """A data set's protocol with what a user asks for instead.

    Args:
        protocol: the data set's own.
        **asked: fields of `Protocol`; None leaves one as it is.

    Returns:
        The protocol itself where nothing changes, else one whose name says that it was
        changed.

    Raises:
        ValueError: what `Protocol` refuses.

    Example:
        >>> changed_protocol(Protocol("market1501"), top=10).name
        'market1501, changed by flags'
        >>> changed_protocol(Protocol("market1501"), top=None).name
        'market1501'
    """
    changed: Mapping[str, Any] = {
        name: value
        for name, value in asked.items()
        if value is not None and value != getattr(protocol, name)
    }
    if not changed:
        return protocol
    name = f"{protocol.name}, changed by flags"
    return dataclasses.replace(protocol, name=name, **changed)


def find_query(file: EmbeddingFile, word: str) -> int:
    """A query's row, by its name or by the row itself.

    Raises:
        ValueError: neither a name nor a row.

    Example:
        >>> import numpy as np
        >>> file = EmbeddingFile(np.eye(2, 4), np.eye(4), ("p", "q"), tuple("abcd"))
        >>> find_query(file, "q"), find_query(file, "0")
        (1, 0)
    """
    if word in file.query_names:
        return file.query_names.index(word)
    if word.isascii() and word.isdigit() and int(word) < len(file.query_names):
        return int(word)
    raise ValueError(
        f"--explain: expected a query's name or a row below {len(file.query_names)}, "
        f"got {word!r}"
    )


def report_name(rerank: Pipeline | str, sweep: str | None = None) -> str:
    """The folder's name of a report on one chain or table, another for each.

    Args:
        rerank: a chain, or the name of a table.
        sweep: the axes of a sweep over it.

    Returns:
        A name of letters, digits and `. = _ - +`, 80 characters at most.

    Example:
        >>> from dex_jax.rerank import parse
        >>> report_name("table6"), report_name(parse("dex(k=10), dba"))
        ('table6', 'dex-k=10+dba')
    """
    # Steps are joined by "+", the options of a step by "-".
    words = [rerank] if isinstance(rerank, str) else [str(s) for s in rerank.steps]
    text = "+".join(words) or "none"
    text = re.sub(r"\s", "", f"{text};{sweep}" if sweep else text)
    name = re.sub(r"[^A-Za-z0-9_.=+]+", "-", text).replace("-+", "+").strip("-")
    # A sweep's signs are lost in the name.
    if not sweep and len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}-{digest}"
