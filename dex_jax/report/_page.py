"""The HTML page: one file, readable without a network."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Comparison, Result
from dex_jax.report._shown import Shown, positives, shown_lists

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
        HTML; every name is escaped, nothing is loaded from elsewhere.
    """
    from jinja2 import Environment, PackageLoader

    shown = [shown_lists(result, file, protocol) for result in results]
    used = sorted({i for chain in shown for entry in chain for i in entry.ids})
    pictures = None if images is None else _pictures(images, used, say)
    data = _gallery(file, protocol, results, shown, used)
    environment = Environment(
        loader=PackageLoader("dex_jax.report"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
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
    return {
        "chains": [result.row.label for result in results],
        "best": best_chain(results),
        "scored": results[0].scored is not None,
        "query": _side(file, "query", np.arange(len(file.query_names))),
        "gallery": _side(file, "gallery", np.array(used, np.int64)),
        "positives": positives(file, protocol),
        "ap": [_precisions(result) for result in results],
        "lists": [[[place[i] for i in s.ids] for s in chain] for chain in shown],
        "kinds": [[s.kinds for s in chain] for chain in shown],
        "hits": [[s.first_hit for s in chain] for chain in shown],
    }


def best_chain(results: Sequence[Result]) -> int:
    """Returns the chain of the highest mAP beside the baseline; the last unscored."""
    if results[0].scored is None or len(results) == 1:
        return len(results) - 1
    means = [-1.0 if r.scored is None else r.scored.mean_ap for r in results[1:]]
    return 1 + int(np.argmax(means))


def _side(file: EmbeddingFile, side: str, rows: np.ndarray) -> dict[str, Any]:
    names = getattr(file, f"{side}_names")
    labels = {
        label: getattr(file, f"{side}_{label}")
        for label in ("identities", "cameras", "tracklets")
    }
    return {
        "names": [names[row] for row in rows],
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

    places = [("query", i) for i in range(len(images["query"]))]
    places += [("gallery", i) for i in used]
    sample = places[:: max(1, len(places) // _SAMPLE)]
    size = _SIZES[-1]
    for size in _SIZES:
        taken = [len(thumbnail(images[s][i], size=size)) for s, i in sample]
        if np.mean(taken) * len(places) <= _BUDGET:
            break
    say(f"embedding {len(places)} pictures of {size} pixels")

    def encode(place: tuple[str, int]) -> str:
        picture = thumbnail(images[place[0]][place[1]], size=size)
        return base64.b64encode(picture).decode("ascii")

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(encode, places))


def _table_row(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": result.row.label,
        "chain": result.row.chain,
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
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
