import pytest


@pytest.fixture(scope="session")
def sevennet():
    from druse_energetics.potential import load_potential

    return load_potential("sevennet-0")
