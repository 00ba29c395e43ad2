"""Tests with real workload managers and real hosts, which the tests start for themselves."""
