"""What `report.json` holds, as JSON that every program reads."""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

import dex_jax
from dex_jax.evaluation import Comparison, Result

# Deeper content is cut; Python's own reader ends at about 1,000.
_DEEPEST = 50
# Whole numbers of so many bits are the longest that JSON readers take as numbers.
_BITS = 1024


def result_record(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    """What is said of one chain."""
    record: dict[str, Any] = {
        "label": result.row.label,
        "chain": result.row.chain,
        "scales": result.row.scales,
        "seconds": round(result.seconds, 3),
        "paper_percent": dict(
            zip(("mAP", "CMC@1", "CMC@5"), result.row.paper, strict=True)
        ),
    }
    if result.scored is not None and result.interval is not None:
        interval = result.interval
        record |= {
            "mAP": result.scored.mean_ap,
            "mAP_95": [interval.low, interval.high] if interval.known else None,
            "CMC": result.scored.cmc,
            "mINP": result.scored.mean_inp,
            "mAP@100": result.scored.map_at_100,
            "queries_scored": int(result.scored.valid.sum()),
        }
    if (spread := result.spread()) is not None:
        record["random_galleries"] = {
            "mAP": [draw.mean_ap for draw in result.draws],
            "mAP_std": spread[0],
            "CMC_std": spread[1],
        }
    if comparison is not None:
        difference = comparison.difference
        record["against_baseline"] = {
            "difference": difference,
            "p_value": comparison.p_value if difference.known else None,
        }
    if result.cameras is not None:
        record["cameras"] = {
            "query": result.cameras.query_cameras,
            "gallery": result.cameras.gallery_cameras,
            "mAP": [
                [round(float(x), 6) for x in row] for row in result.cameras.mean_ap
            ],
            "queries": result.cameras.queries.tolist(),
        }
    if result.verification is not None:
        found = result.verification
        record["verification"] = {
            "suggested_threshold": found.suggested,
            "suggested_false_match_rate": found.suggested_rate,
            "pairs": {"genuine": found.genuine, "impostor": found.impostor},
            "at_false_match_rate": {
                str(rate): dict(zip(("threshold", "FNMR"), found.at(rate), strict=True))
                for rate in (0.1, 0.01, 0.001, 0.0001)
            },
        }
    return record


def as_json(value: object, *, depth: int = 0) -> Any:
    r"""Makes any value one that JSON can hold; what it cannot hold never ends a report.

    Args:
        value: whatever facts and meta hold.
        depth: of the value within another.

    Returns:
        The same of dicts, lists, text, numbers, True, False and None. NaN and infinity
        become None, halves of surrogate pairs escapes, everything else its `repr`.

    Example:
        >>> as_json({"loss": float("nan"), 3: (1, "\udc80"), "at": {4}})
        {'loss': None, '3': [1, '\\udc80'], 'at': '{4}'}
    """
    if isinstance(value, np.ndarray):
        flat = value.ravel().tolist()
        value = [round(x, 6) if isinstance(x, float) else x for x in flat]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        return value if value.bit_length() <= _BITS else f"{value:#x}"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {
            as_json(str(key)): as_json(entry, depth=depth + 1)
            for key, entry in value.items()
        }
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [as_json(entry, depth=depth + 1) for entry in value]
    if isinstance(value, Mapping | list | tuple):
        return "..."
    return as_json(repr(value))


def versions() -> dict[str, str]:
    """The programs that the figures came from."""
    names = ("jax", "jaxlib", "flax", "numpy", "matplotlib")
    return {
        "dex_jax": dex_jax.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
