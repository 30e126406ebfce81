"""Load programs of others: every request is answered, and a crowd on one object costs the origin nothing."""

import re
import shutil
import subprocess


class Missing(Exception):
    """A program is not installed."""


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Missing(program)


def h2load_takes_parts_over_http2(site):
    """20 connections with 100 streams each, over TLS."""
    need("h2load")
    path, _ = site.newest_part()
    before = site.metric("weir_edge_upstream_requests_total")
    command = ["h2load", "-n", "20000", "-c", "20", "-m", "100", f"https://127.0.0.1:{site.https}{path}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    assert done and done.groups() == ("20000", "0", "0", "0"), told
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
    assert codes.groups() == ("20000", "0", "0", "0"), told
    spent(site, before)


def h2load_holds_a_thousand_requests(site):
    """1000 blocking requests on 10 connections."""
    need("h2load")
    address = f"https://127.0.0.1:{site.https}{site.playlist()}?{site.next_position()}"
    command = ["h2load", "-n", "1000", "-c", "10", "-m", "100", address]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    codes = re.search(r"status codes: (\d+) 2xx", told)
    assert codes and codes[1] == "1000", told


def wrk_takes_parts_over_http1(site):
    """50 connections for two seconds, without TLS."""
    need("wrk")
    path, _ = site.newest_part()
    before = site.metric("weir_edge_upstream_requests_total")
    command = ["wrk", "-t1", "-c50", "-d2s", f"http://127.0.0.1:{site.http}{path}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Socket errors" not in told and "Non-2xx" not in told, told
    requests = int(re.search(r"(\d+) requests in", told)[1])
    assert requests > 100, told
    spent(site, before)


def spent(site, before):
    """The follower goes on, at most three requests a part (playlist, part, now and then an init section); the crowd adds none."""
    asked = site.metric("weir_edge_upstream_requests_total") - before
    assert asked < 500, f"{asked:.0f} requests upstream"


CASES = [h2load_takes_parts_over_http2, h2load_holds_a_thousand_requests, wrk_takes_parts_over_http1]
