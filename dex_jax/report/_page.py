"""The HTML page: one file, readable without a network."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dex_jax._checks import plain_text
from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Comparison, Result, camera_tag, label_word
from dex_jax.report._shown import Shown, picture_of, positives, shown_lists

# All pictures together, in bytes of WebP; base64 makes a third more of them.
_BUDGET = 24 * 2**20
_SIZES = (112, 96, 80, 64, 48)
_SAMPLE = 48


def render_page(
    *,
    title: str,
    lines: Sequence[str],
    file: EmbeddingFile,
    protocol: Protocol,
    results: Sequence[Result],
    comparisons: Sequence[Comparison | None],
    figures: Mapping[str, str],
    images: Mapping[str, Images] | None,
    say: Callable[[str], object] = print,
) -> str:
    """Renders tables, figures and the gallery of queries as one HTML text.

    Args:
        title: heads the page.
        lines: what the figures rest on, a sentence each.
        file: names and labels.
        protocol: which images count.
        results: one a chain, the baseline first.
        comparisons: against the baseline, one a chain.
        figures: SVG text by caption.
        images: both sides; without them names stand in their place.
        say: where progress lines go.

    Returns:
        HTML; every name is escaped, nothing is loaded from elsewhere. An image that
        cannot be decoded is its name, and a line says how many are.
    """
    from jinja2 import Environment, PackageLoader

    shown = [shown_lists(result, file, protocol) for result in results]
    used = sorted({i for chain in shown for entry in chain for i in entry.ids})
    pictures = None if images is None else _pictures(images, used, say)
    lines = [plain_text(line) for line in lines]
    damaged = 0 if pictures is None else pictures.count("")
    if damaged:
        lines.append(f"{damaged} images cannot be decoded; their names are shown")
        say(lines[-1])
    data = _gallery(file, protocol, results, shown, used)
    environment = Environment(
        loader=PackageLoader("dex_jax.report"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=plain_text(title),
        lines=lines,
        rows=[
            _table_row(result, comparison)
            for result, comparison in zip(results, comparisons, strict=True)
        ],
        figures=figures,
        data=_script_json(data),
        pictures=_script_json(pictures),
        scored=results[0].scored is not None,
    )


def _gallery(
    file: EmbeddingFile,
    protocol: Protocol,
    results: Sequence[Result],
    shown: Sequence[Sequence[Shown]],
    used: list[int],
) -> dict[str, Any]:
    place = {row: i for i, row in enumerate(used)}
    query = _side(file, "query", np.arange(len(file.query_names)))
    gallery = _side(file, "gallery", np.array(used, np.int64))
    return {
        "chains": [plain_text(result.row.label) for result in results],
        "best": best_chain(results),
        "words": _words(file, (query, gallery)),
        "scored": results[0].scored is not None,
        "query": query,
        "gallery": gallery,
        "positives": positives(file, protocol),
        "ap": [_precisions(result) for result in results],
        "lists": [[[place[i] for i in s.ids] for s in chain] for chain in shown],
        "kinds": [[s.kinds for s in chain] for chain in shown],
        "hits": [[s.first_hit for s in chain] for chain in shown],
    }


def best_chain(results: Sequence[Result]) -> int:
    """Returns the chain beside the baseline that is worth looking at first.

    Of those whose lists differ from the baseline's, the one of the highest mAP, or the
    last where nothing is scored; the baseline, 0, where none differs.
    """
    baseline = results[0]
    others = [
        (i, result)
        for i, result in enumerate(results)
        if not np.array_equal(result.ids, baseline.ids)
    ]
    if not others:
        return 0
    if baseline.scored is None:
        return others[-1][0]
    means = [-1.0 if r.scored is None else r.scored.mean_ap for _, r in others]
    return others[int(np.argmax(means))][0]


def _words(
    file: EmbeddingFile, sides: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, str]]:
    """What identities and cameras are called, by their numbers."""

    def codes(label: str) -> list[int]:
        return sorted({code for side in sides for code in side[label] or ()})

    words = {
        label: {c: plain_text(label_word(file, label, c)) for c in codes(label)}
        for label in ("identities", "cameras")
    }
    tags = {c: plain_text(camera_tag(file, c)) for c in codes("cameras")}
    return words | {"tags": tags}


def _side(file: EmbeddingFile, side: str, rows: np.ndarray) -> dict[str, Any]:
    names = getattr(file, f"{side}_names")
    labels = {
        label: getattr(file, f"{side}_{label}")
        for label in ("identities", "cameras", "tracklets")
    }
    return {
        "names": [plain_text(names[row]) for row in rows],
        **{k: None if v is None else v[rows].tolist() for k, v in labels.items()},
    }


def _precisions(result: Result) -> list[float | None] | None:
    if result.scored is None:
        return None
    return [
        round(float(value), 4) if valid else None
        for value, valid in zip(
            result.scored.average_precision, result.scored.valid, strict=True
        )
    ]


def _pictures(
    images: Mapping[str, Images], used: list[int], say: Callable[[str], object]
) -> list[str]:
    from dex_jax.pipeline import thumbnail

    def encode(place: tuple[str, int], size: int) -> bytes:
        pixels = picture_of(images, *place)
        try:
            return b"" if pixels is None else thumbnail(pixels, size=size)
        except (OSError, ValueError):  # a side of no pixels, or of too many
            return b""

    places = [("query", i) for i in range(len(images["query"]))]
    places += [("gallery", i) for i in used]
    sample = places[:: max(1, len(places) // _SAMPLE)]
    size = _SIZES[-1]
    for size in _SIZES:
        taken = [len(encode(place, size)) for place in sample]
        if np.mean(taken) * len(places) <= _BUDGET:
            break
    say(f"embedding {len(places)} pictures of {size} pixels")
    with ThreadPoolExecutor(4) as pool:
        encoded = pool.map(lambda place: encode(place, size), places)
        return [base64.b64encode(picture).decode("ascii") for picture in encoded]


def _table_row(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": plain_text(result.row.label),
        "chain": plain_text(result.row.chain),
        "paper": result.row.paper,
        "seconds": result.seconds,
        "scored": result.scored,
        "interval": result.interval,
        "comparison": comparison,
        "verification": result.verification,
        "spread": result.spread(),
    }
    if result.verification is not None:
        found = result.verification
        row["missed"] = found.at(found.suggested_rate)[1]
    return row


def _script_json(value: object) -> str:
    """JSON that may stand inside a script element: nothing in it can close one."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
