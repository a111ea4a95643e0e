"""Which worker of a gateway a server name means."""

import pytest

from appliance.wire.server_name import MAX_WORKERS, agent_name, worker_meant, worker_name


@pytest.mark.parametrize(
    ("name", "workers", "worker"),
    [
        ("a0of1.gateway.portway", 1, 0),
        ("a3of4.gateway.portway", 4, 3),
        ("a3of4.gateway.portway", 2, 1),
        ("a255of256.gateway.portway", 256, 255),
        ("w0.gateway.portway", 3, 0),
        ("w5.gateway.portway", 3, 2),
        ("W5.Gateway.PORTWAY", 8, 5),
    ],
)
def test_a_name_means_a_worker(name: str, workers: int, worker: int) -> None:
    """The number in the name, modulo how many workers there are; case does not count."""
    assert worker_meant(name, workers) == worker


@pytest.mark.parametrize(
    "name",
    [
        *(None, "", "gateway.portway", "a.gateway.portway", "w.gateway.portway", "example.com"),
        *(
            "a1of1.gateway.portway",
            "a0of0.gateway.portway",
            "a0of257.gateway.portway",
            "w256.gateway.portway",
        ),
        *("a00of1.gateway.portway", "w01.gateway.portway", "w-1.gateway.portway", "w1000.gateway.portway"),
        *(
            "w1.gateway.portway.",
            "w1.gateway.portway\n",
            "w1xgateway.portway",
            "x.w1.gateway.portway",
            "w\u0661.gateway.portway",
        ),
    ],
)
def test_other_names_mean_none(name: str | None) -> None:
    """Anything that no agent says is nobody's."""
    assert worker_meant(name, 4) is None


def test_what_is_made_is_read() -> None:
    """Every name that can be made means the worker it was made for; others cannot be made."""
    for workers in (1, 2, 7, MAX_WORKERS):
        for worker in range(workers):
            assert worker_meant(agent_name(worker, workers), workers) == worker
            assert worker_meant(worker_name(worker), workers) == worker
    for worker, workers in ((1, 1), (-1, 1), (0, MAX_WORKERS + 1)):
        with pytest.raises(ValueError, match="worker"):
            agent_name(worker, workers)
    for worker in (-1, MAX_WORKERS):
        with pytest.raises(ValueError, match="worker"):
            worker_name(worker)
