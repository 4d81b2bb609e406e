"""A small set of embeddings and how it is scored."""

import pytest

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from tests.evaluation.example import make_file


@pytest.fixture(scope="session")
def file() -> EmbeddingFile:
    return make_file()


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    return Protocol("sample", remove_same_camera=True)
