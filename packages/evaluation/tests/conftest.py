import gzip
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published():
    """Inputs and verdicts of the published evaluation code; ``origin`` says more."""
    path = Path(__file__).parent / "data" / "published_evaluation.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))
