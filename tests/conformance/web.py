"""Timed HTTP/1.1 requests over kept connections: what every observer and probe of the checker fetches with."""
import collections
import gzip
import http.client
import ssl
import time
import urllib.parse

TIMEOUT_SECONDS = 30
MAX_BODY_BYTES = 64 * 1024 * 1024

# Times are time.monotonic(); `first` is when the first body byte was there. `body` is decoded, `raw` as it came.
Answer = collections.namedtuple("Answer", "url status headers raw body asked first done wall")


class Client:
    """One per thread: connections are reused, and made anew once when the server closed an idle one."""

    def __init__(self, insecure=False):
        self.context = ssl.create_default_context()
        if insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        self.connections = {}

    def get(self, url, headers=None, method="GET", timeout=TIMEOUT_SECONDS):
        parts = urllib.parse.urlsplit(url)
        place = (parts.scheme, parts.netloc)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        for attempt in (1, 2):
            fresh = place not in self.connections
            if fresh:
                self.connections[place] = self._connect(parts, timeout)
            connection = self.connections[place]
            try:
                return self._exchange(connection, url, method, target, headers or {})
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest):
                self.connections.pop(place).close()
                if fresh or attempt == 2:
                    raise
            except Exception:
                self.connections.pop(place).close()
                raise

    def _connect(self, parts, timeout):
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=self.context)
        return http.client.HTTPConnection(parts.netloc, timeout=timeout)

    def _exchange(self, connection, url, method, target, headers):
        asked = time.monotonic()
        connection.request(method, target, headers={"Accept-Encoding": "identity", **headers})
        response = connection.getresponse()
        first_byte = response.read(1)
        first = time.monotonic()
        raw = first_byte + response.read(MAX_BODY_BYTES)
        done = time.monotonic()
        fields = {}
        for name, value in response.getheaders():
            name = name.lower()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        if response.will_close:
            connection.close()
        body = gzip.decompress(raw) if fields.get("content-encoding") == "gzip" and raw else raw
        return Answer(url, response.status, fields, raw, body, asked, first, done, time.time())


def with_query(url, **directives):
    """`url` with `_HLS_msn` and the like added; values of None are left out."""
    wanted = {name: value for name, value in directives.items() if value is not None}
    if not wanted:
        return url
    return url + ("&" if "?" in url else "?") + urllib.parse.urlencode(wanted)


def cache_seconds(answer, shared=False):
    """max-age of an answer (s-maxage first, when asked as a shared cache); 0 for no-store; None when nothing is said."""
    directives = dict((part.strip().split("=", 1) + [""])[:2] for part in answer.headers.get("cache-control", "").lower().split(",") if part.strip())
    if "no-store" in directives or (shared and "private" in directives):
        return 0
    for name in ("s-maxage", "max-age") if shared else ("max-age",):
        if name in directives:
            return int(directives[name] or 0)
    return 0 if "no-cache" in directives else None
