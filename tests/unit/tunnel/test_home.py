"""Homes: between an agent's workers and a gateway's, nobody is left out."""

import pytest

from appliance.tunnel.home import served

MOST = 16


@pytest.mark.parametrize("workers", range(1, MOST + 1))
def test_every_worker_of_a_gateway_is_served(workers: int) -> None:
    """Each of a gateway's workers is served, and each of the agent's serves, over as few links as can be."""
    for gateway_workers in range(1, MOST + 1):
        links = [
            (worker, there) for worker in range(workers) for there in served(worker, workers, gateway_workers)
        ]
        assert {worker for worker, _ in links} == set(range(workers))
        assert {there for _, there in links} == set(range(gateway_workers))
        assert len(links) == max(workers, gateway_workers)
        first = {worker: worker % gateway_workers for worker in range(workers)}
        assert all((worker, there) in links for worker, there in first.items()), "the first one dialled"
