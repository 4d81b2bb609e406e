"""A small set of embeddings with images, and results on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import rows_for, run_row
from dex_jax.report import PAGE, Report, write_report
from tests.evaluation.example import make_file

EVIL = "</script><img src=x onerror=alert(1)>&'\".jpg"


def make_images(file: EmbeddingFile) -> dict[str, list[np.ndarray]]:
    """Plain pictures whose colour is the identity."""
    identities = {"query": file.query_identities, "gallery": file.gallery_identities}
    return {
        side: [np.full((24, 32, 3), 30 + 30 * int(i), np.uint8) for i in labels]
        for side, labels in identities.items()
        if labels is not None
    }


@pytest.fixture(scope="session")
def file() -> EmbeddingFile:
    return make_file()


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    return Protocol("sample", remove_same_camera=True)


@pytest.fixture(scope="session")
def report(file: EmbeddingFile, protocol: Protocol) -> Report:
    rows = rows_for("dex(k=3),tracklet").rows
    results = [run_row(file, row, protocol) for row in rows]
    return Report(
        "Sample", file, protocol, results, images=make_images(file), explained=(1,)
    )


@pytest.fixture(scope="session")
def evil_page(report: Report, tmp_path_factory) -> Path:
    """A page whose title and names try to break out of it."""
    names = (EVIL.replace("/", ""), *report.file.query_names[1:])
    file = replace(report.file, query_names=names)
    evil = replace(report, file=file, title="<b>", images=None, explained=())
    return write_report(evil, tmp_path_factory.mktemp("evil") / "out") / PAGE
