"""An edge in front of an origin, both programs of their own, on free ports."""

import json
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

STARTS_WITHIN = 20
ENDS_WITHIN = 5
# Nobody has signed for the edge's own certificate.
ANYBODY = ssl.create_default_context()
ANYBODY.check_hostname = False
ANYBODY.verify_mode = ssl.CERT_NONE


def free_ports(count):
    """Ports that nobody uses at this moment, neither for TCP nor for UDP."""
    held = []
    ports = []
    while len(ports) < count:
        stream = socket.socket()
        stream.bind(("127.0.0.1", 0))
        held.append(stream)
        port = stream.getsockname()[1]
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        try:
            datagrams.bind(("127.0.0.1", port))
        except OSError:
            continue
        held.append(datagrams)
        ports.append(port)
    for each in held:
        each.close()
    return ports


def fetch(url, headers=None, method="GET"):
    """Status, headers (names in lower case) and body; no answer at all is status 0."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20, context=ANYBODY) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except OSError:
        return 0, {}, b""


class Running:
    """A program that is ended with its context."""

    def __init__(self, command, log):
        self.log = pathlib.Path(log)
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def until(self, what, is_so):
        end = time.monotonic() + STARTS_WITHIN
        while not is_so():
            assert self.process.poll() is None, f"{what}: it has ended\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{what}: not within {STARTS_WITHIN} s\n{self.log.read_text()}"
            time.sleep(0.05)

    def end(self):
        """Asks it to, and gives how long it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return time.monotonic() - began


class Site:
    """A made-up origin and an edge. Use it as a context manager."""

    def __init__(self, edge, loadtest, routes=()):
        self.programs = (edge, loadtest)
        self.routes = [dict(route) for route in routes]
        self.folder = tempfile.TemporaryDirectory(prefix="weir-edge-")
        self.http, self.https, self.admin, self.origin = free_ports(4)
        self.running = []

    def start(self, name, command):
        started = Running(command, f"{self.folder.name}/{name}.log")
        self.running.append(started)
        return started

    def __enter__(self):
        try:
            return self.started()
        except BaseException:
            self.__exit__()
            raise

    def started(self):
        edge, loadtest = self.programs
        origin = self.start("origin", [loadtest, "origin", "--listen", f"127.0.0.1:{self.origin}", "--bitrate", "200000"])
        origin.until("the origin", lambda: fetch(f"http://127.0.0.1:{self.origin}/app/s0/index.m3u8")[0] == 200)
        config = {
            "http": {"listen": f"127.0.0.1:{self.http}"},
            "https": {"listen": f"127.0.0.1:{self.https}"},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "origins": [f"http://127.0.0.1:{self.origin}"],
            "routes": self.routes,
        }
        path = pathlib.Path(self.folder.name) / "edge.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(config))
        self.edge = self.start("edge", [edge, "--config", str(path)])
        self.edge.until("the edge", lambda: fetch(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200)
        return self

    def __exit__(self, *_):
        for running in reversed(self.running):
            running.end()
        self.folder.cleanup()

    def metric(self, name):
        """A metric of the edge, its label sets added up; a label may be given: `name{outcome="ok"`."""
        page = fetch(f"http://127.0.0.1:{self.admin}/metrics")[2].decode()
        name, _, labels = name.partition("{")
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE)
        return sum(float(value) for has, value in lines if labels in has)

    def newest_part(self):
        """The address of a part that there is, and of the one that comes next."""
        playlist = fetch(f"http://127.0.0.1:{self.http}{self.playlist()}")[2].decode()
        base = self.playlist().rsplit("/", 1)[0]
        listed = re.findall(r'#EXT-X-PART:.*URI="([^"]+)"', playlist)[-1]
        hinted = re.search(r'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="([^"]+)"', playlist)[1]
        return f"{base}/{listed}", f"{base}/{hinted}"

    def playlist(self):
        """The address of the only rendition's playlist."""
        entrance = "/app/s0/index.m3u8"
        text = fetch(f"http://127.0.0.1:{self.http}{entrance}")[2].decode()
        child = next(line for line in text.splitlines() if line and not line.startswith("#"))
        return f"/app/s0/{child}"

    def next_position(self):
        """The directives of a player that waits for what comes next."""
        playlist = fetch(f"http://127.0.0.1:{self.http}{self.playlist()}")[2].decode()
        first = int(re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", playlist)[1])
        segments = re.findall(r"^#EXTINF", playlist, re.MULTILINE)
        open_parts = playlist[playlist.rfind("#EXTINF") :].count("#EXT-X-PART:")
        return f"_HLS_msn={first + len(segments)}&_HLS_part={open_parts}"
