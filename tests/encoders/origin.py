"""An origin with a few streams on free ports, and the two questions that the cases ask of it: what is live, what was refused."""

import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

# Streams of every case: a password, a token, the bare key.
STREAMS = """
streams:
  - { key: show, username: anna, password: sesame-1, token: tok-1, backup: { username: anna, password: sesame-2 } }
  - { key: other, username: bert, password: sesame-3 }
  - { key: open, allow_key_only: true }
"""


def free_ports(count):
    """Ports that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def self_signed(certificate, key):
    """A certificate for 127.0.0.1 that is its own authority."""
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", names, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)


class Site:
    """A running origin. Use it as a context manager."""

    def __init__(self, program):
        names = ["http", "admin", "api", "rtmp", "rtmps", "show", "other", "open", "show_tls", "other_tls", "open_tls"]
        self.port = dict(zip(names, free_ports(len(names))))
        p = self.port
        streams = STREAMS
        for key in ("show", "other", "open"):
            own = f"ports: {{ rtmp: {p[key]}, rtmps: {p[key + '_tls']} }}"
            streams = re.sub(rf"(key: {key}),", rf"\1, {own},", streams)
        self.config = f"""
http: {{ listen: "127.0.0.1:{p['http']}" }}
admin: {{ listen: "127.0.0.1:{p['admin']}" }}
api: {{ listen: "127.0.0.1:{p['api']}" }}
database: {{ url: "sqlite::memory:" }}
ingest: {{ grace: 0s }}
rtmp: {{ listen: "127.0.0.1:{p['rtmp']}" }}
rtmps: {{ listen: "127.0.0.1:{p['rtmps']}" }}
tls: {{ certificate: CERTIFICATE, key: KEY }}
packaging: {{ linger: 0s }}
{streams}"""
        self.program = program
        self.folder = tempfile.TemporaryDirectory(prefix="weir-encoders-")
        # Newer encoders check certificates: they have to be told to trust this one.
        self.certificate = f"{self.folder.name}/certificate.pem"

    def __enter__(self):
        folder = pathlib.Path(self.folder.name)
        self_signed(self.certificate, folder / "key.pem")
        config = self.config.replace("CERTIFICATE", self.certificate).replace("KEY", str(folder / "key.pem"))
        (folder / "origin.yaml").write_text(config)
        self.log_path = folder / "origin.log"
        with open(self.log_path, "w") as log:
            command = [self.program, "--config", str(folder / "origin.yaml")]
            # All that there is to log: nothing of a password may be in it.
            environment = {**os.environ, "WEIR_LOG": "trace"}
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )
        self.wait(lambda: self.ask("/livez") is not None, 10)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port['admin']}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def live(self, key):
        """Whether this stream has something to show."""
        streams = json.loads(self.ask("/streams") or "{}").get("streams", [])
        playing = [s for s in streams if s["key"] == key and s["renditions"]]
        return any(not all(r["ended"] for r in s["renditions"]) for s in playing)

    def count(self, name, label=""):
        """A counter, added up where the label text occurs."""
        lines = (self.ask("/metrics") or "").splitlines()
        found = [line for line in lines if re.match(rf"{name}[ {{]", line) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def refused(self, reason):
        return self.count("weir_origin_admission_refused_total", f'reason="{reason}"')

    def admitted(self):
        return self.count("weir_origin_admission_admitted_total")

    def log(self):
        return self.log_path.read_text()

    @staticmethod
    def wait(condition, seconds):
        """Whether it became true in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.1)
        return False
