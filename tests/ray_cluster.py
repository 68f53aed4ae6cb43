"""A Ray cluster of local processes for the tests: nodes that a test can kill, on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
# a dead node is noticed within a second or two, not after half a minute
ALERT = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def local_cluster(nodes: int = 1) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of a head and further nodes, one processor each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_DEDUP_LOGS", "0")
        from ray._private import services
        from ray.cluster_utils import Cluster

        # it would listen on the machine's own address and look for a loopback one there
        patch.setattr(services, "get_node_ip_address", lambda *_: "127.0.0.1")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": ALERT})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()
