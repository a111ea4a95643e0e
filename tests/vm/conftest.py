"""Every test of this folder starts machines: it needs the image, and more time than others."""

import pytest

from tests.vm.virtual_machine import needed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give them time: a boot without hardware help takes its seconds, and each test has at most four."""
    for item in items:
        if item.path.parent.name == "vm" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(autouse=True)
def image() -> None:
    """Have it."""
    needed()
