"""Asks the questions a player would never ask: directives that are wrong, late or far ahead (BL), deltas (DL), headers and ranges (HT).

Before it: observe.py keeps following the same rendition meanwhile, so that there is a newest playlist to start from.
"""
import re
import socket
import ssl
import threading
import time
import urllib.parse

import playlist as hls
from web import Client, cache_seconds, with_query

AT_ONCE_SECONDS = 0.3
# After the last segment: how long an ended playlist is watched for additions (UP-11).
ENDED_WATCH_SECONDS = 1.5


class Prober:
    def __init__(self, observer, report, insecure):
        self.observer, self.report, self.insecure = observer, report, insecure
        self.url = observer.url
        self.client = Client(insecure)

    def load(self, **directives):
        answer = self.client.get(with_query(self.url, **directives))
        return answer, hls.parse(answer.url, answer.body.decode("utf-8", "replace"))

    def run(self):
        for probe in (self.past, self.roll_over, self.whole_segment, self.refusals, self.same_bytes, self.unknown_parameter, self.unknown_names, self.deltas, self.headers, self.media_headers, self.ranges, self.transport):
            try:
                probe()
            except Exception as failure:
                self.observer.faults.append(f"probe {probe.__name__}: {type(failure).__name__}: {failure}")

    def past(self):
        _, p = self.load()
        for msn in {p.msn, max(0, p.msn - 5), 0}:
            answer, _ = self.load(_HLS_msn=msn)
            self.report.check("BL-03", answer.status == 200 and took(answer) < AT_ONCE_SECONDS, f"{answer.status} after {took(answer):.2f} s for _HLS_msn={msn}, playlist begins at {p.msn}")

    def roll_over(self):
        _, p = self.load()
        closed = [segment for segment in p.complete() if segment.parts]
        if len(closed) < 2:
            return
        segment = closed[-2]
        answer, after = self.load(_HLS_msn=segment.msn, _HLS_part=len(segment.parts))
        self.report.check("BL-04", answer.status == 200 and took(answer) < AT_ONCE_SECONDS and after.edge() > (segment.msn + 1, 0), f"{answer.status} after {took(answer):.2f} s")
        # The same of the open segment: a part it will hardly reach is the first of the next.
        _, p = self.load()
        msn = p.edge()[0]
        usual = max(len(segment.parts) for segment in closed)
        answer, after = self.load(_HLS_msn=msn, _HLS_part=usual)
        if answer.status == 200:
            self.report.check("BL-04", after.edge() > (msn, usual) , f"asked for {msn}.{usual}, answered up to {after.edge()}")

    def whole_segment(self):
        _, p = self.load()
        msn = p.edge()[0]
        answer, after = self.load(_HLS_msn=msn)
        self.report.check("BL-02", answer.status == 200 and msn in [s.msn for s in after.complete()], f"{answer.status}, asked for segment {msn}, answered up to {after.edge()}")

    def refusals(self):
        _, p = self.load()
        msn, part = p.edge()
        limit = max(3, int(3 / p.part_target) + 1) if p.part_target else 3
        cases = [("BL-05", {"_HLS_msn": msn + 4}), ("BL-05", {"_HLS_msn": msn + 10}), ("BL-05", {"_HLS_msn": msn + 10**9}), ("BL-06", {"_HLS_msn": msn, "_HLS_part": part + limit + 60}), ("BL-07", {"_HLS_part": 0}),
                 ("BL-10", {"_HLS_msn": "x"}), ("BL-10", {"_HLS_msn": -1}), ("BL-10", {"_HLS_msn": msn, "_HLS_part": "1.5"}), ("BL-10", {"_HLS_msn": "9" * 40}), ("BL-10", {"_HLS_msn": ""}), ("BL-10", {"_HLS_msn": msn, "_HLS_part": -1}), ("BL-10", {"_HLS_msn": "%00"})]
        for rule, directives in cases:
            answer, _ = self.load(**directives)
            self.report.check(rule, answer.status == 400 and took(answer) < AT_ONCE_SECONDS, f"{answer.status} after {took(answer):.2f} s for {directives}")
            self.error_headers(answer, p)

    def error_headers(self, answer, p):
        self.report.check("HT-09", "access-control-allow-origin" in answer.headers, f"{answer.status} for {answer.url}")
        kept = cache_seconds(answer)
        self.report.check("HT-14", answer.status not in (400, 404) or kept is not None and kept <= 4 * (p.target or 4), f"{answer.status}: Cache-Control {answer.headers.get('cache-control')}")

    def same_bytes(self):
        _, p = self.load()
        msn, part = p.edge()
        url = with_query(self.url, _HLS_msn=msn, _HLS_part=part + 1)
        answers = together([lambda: Client(self.insecure).get(url)] * 3)
        # Who came late may be told more; who is told the same must be told it in the same bytes.
        forms = {}
        for answer in answers:
            forms.setdefault(hls.parse(answer.url, answer.body.decode("utf-8", "replace")).edge(), set()).add(answer.body)
        differing = [edge for edge, bodies in forms.items() if len(bodies) > 1]
        self.report.check("BL-11", not differing and len(answers) == 3, f"{len(answers)} answers, different bodies at {differing} for {url}")
        for answer in answers:
            shared, own = cache_seconds(answer, shared=True), cache_seconds(answer)
            self.report.check("HT-12", shared is not None and shared >= 3 * p.target, f"blocked: Cache-Control {answer.headers.get('cache-control')}")
            self.report.check("HT-23", own is not None and own <= 1, f"blocked: Cache-Control {answer.headers.get('cache-control')}")

    def unknown_parameter(self):
        answer, p = self.load(nonsense="1")
        self.stale(answer, p)
        self.report.check("BL-13", answer.status == 200 and bool(p.segments), f"{answer.status} with an unknown parameter")
        self.report.check("HT-11", cache_seconds(answer) is not None and cache_seconds(answer) <= p.target / 2, f"Cache-Control {answer.headers.get('cache-control')}, TARGETDURATION {p.target}")

    def stale(self, answer, p):
        """A plain answer that lies behind what the observer already had when it was asked for must own up to its age."""
        known = [one.playlist.edge() for one in self.observer.seen if one.answer.done < answer.asked]
        behind = bool(known) and p.edge() < max(known)
        self.report.check("HT-22", not behind or int(answer.headers.get("age", "0")) > 0, f"{p.edge()} without Age, {max(known, default=None)} was known")

    def unknown_names(self):
        _, p = self.load()
        hint = p.part_hint()
        if not hint:
            return
        far = re.sub(r"(\d+)(\D*)$", lambda match: f"{int(match[1]) + 100_000}{match[2]}", hint["URI"])
        for uri in (far, "no-such-thing.m4s"):
            answer = self.client.get(p.absolute(uri))
            self.report.check("PH-04", answer.status == 404 and took(answer) < AT_ONCE_SECONDS, f"{answer.status} after {took(answer):.2f} s for {uri}")
            self.error_headers(answer, p)
        # Names that a careless server decodes twice, joins with a folder or finds under another stream.
        folder, _, name = self.url.rpartition("/")
        key_folder = folder.rpartition("/")[0]
        for trick in (f"{folder}/..%2f{name}", f"{folder}/%2e%2e/{name}", f"{folder}/{name}%00", f"{folder}/%252e%252e%252f{name}", f"{folder}/..%5c{name}",
                      f"{folder}/{'a' * 4000}.m4s", f"{folder}/%ff%fe.m4s", f"{key_folder}-no-such-stream/{name}", f"{folder}/%2fetc%2fpasswd"):
            answer = self.client.get(trick)
            self.report.check("PH-04", answer.status in (400, 404, 414) and took(answer) < AT_ONCE_SECONDS, f"{answer.status} after {took(answer):.2f} s for {trick[-60:]}")
            self.error_headers(answer, p)

    def deltas(self):
        _, p = self.load()
        boundary = p.control.get("CAN-SKIP-UNTIL")
        if p.duration() > 6 * p.target:
            self.report.check("DL-00", boundary is not None, f"{p.duration():.0f} s long and no CAN-SKIP-UNTIL")
        if boundary is None:
            answer, after = self.load(_HLS_skip="YES")
            self.report.check("DL-04", answer.status == 200 and after.skip is None, f"{answer.status}, skip {after.skip}")
            return
        for value in ("YES", "v2"):
            # Both at one future position, so that they are two forms of one playlist.
            _, p = self.load()
            msn, part = p.edge()
            urls = [with_query(self.url, _HLS_msn=msn, _HLS_part=part + 1), with_query(self.url, _HLS_msn=msn, _HLS_part=part + 1, _HLS_skip=value)]
            answers = together([lambda url=url: Client(self.insecure).get(url) for url in urls])
            if len(answers) == 2:
                self.merged(*(hls.parse(answer.url, answer.body.decode("utf-8", "replace")) for answer in answers), float(boundary), value)

    def merged(self, full, delta, boundary, value):
        # Further from the end than the boundary: whether the open segment's parts count is left to the server.
        surely = beyond(full, boundary + 1e-3, 0)
        possibly = beyond(full, boundary - 1e-3, full.duration() - sum(segment.extinf for segment in full.complete()))
        if delta.skip is None:
            self.report.check("DL-01", surely == 0, f"_HLS_skip={value}: nothing skipped, {surely} segments could be")
            return
        self.report.check("DL-01", True)
        skipped = int(delta.skip.get("SKIPPED-SEGMENTS", "0"))
        rest = [(s.msn, s.uri, s.extinf, s.parts) for s in full.segments[skipped:]]
        own = [(s.msn, s.uri, s.extinf, s.parts) for s in delta.segments]
        self.report.check("DL-02", surely <= skipped <= possibly and rest == own and full.hints == delta.hints and full.reports == delta.reports, f"{skipped} skipped, {surely} to {possibly} beyond the boundary, rest equal: {rest == own}")
        self.report.check("DL-05", (full.msn, full.dsn, full.version) == (delta.msn, delta.dsn, delta.version) or delta.version >= 9 and (full.msn, full.dsn) == (delta.msn, delta.dsn), f"{full.msn} {full.dsn} {full.version} and {delta.msn} {delta.dsn} {delta.version}")
        if value == "v2" and "CAN-SKIP-DATERANGES" in full.control:
            self.report.check("DL-03", "RECENTLY-REMOVED-DATERANGES" in delta.skip, delta.skip)

    def headers(self):
        packed = self.client.get(self.url, {"Accept-Encoding": "gzip"})
        self.report.check("HT-03", packed.headers.get("content-encoding") == "gzip" and packed.body.startswith(b"#EXTM3U"), f"Content-Encoding {packed.headers.get('content-encoding')}")
        for encoding in ("identity", "gzip;q=0", "br"):
            plain = self.client.get(self.url, {"Accept-Encoding": encoding})
            self.report.check("HT-04", "content-encoding" not in plain.headers or plain.headers["content-encoding"] in encoding and "q=0" not in encoding, f"Accept-Encoding {encoding}: {plain.headers.get('content-encoding')}")
        self.report.check("HT-05", "accept-encoding" in packed.headers.get("vary", "").lower() or packed.headers.get("vary") == "*", f"Vary: {packed.headers.get('vary')}")
        exposed = packed.headers.get("access-control-expose-headers", "").lower()
        self.report.check("HT-10", "age" in re.split(r"[,\s]+", exposed) or exposed == "*", f"Access-Control-Expose-Headers: {exposed}")
        asked = {"Origin": "http://player.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
        options = self.client.get(self.url, asked, method="OPTIONS")
        allowed = options.headers.get("access-control-allow-headers", "").lower()
        self.report.check("HT-10", options.status in (200, 204) and ("range" in allowed or allowed == "*"), f"OPTIONS: {options.status}, allows {allowed!r}")
        self.report.check("HT-21", "u=1" in packed.headers.get("priority", ""), f"Priority of a playlist: {packed.headers.get('priority')}")
        head = self.client.get(self.url, method="HEAD")
        self.report.check("HT-19", head.status == 200 and head.body == b"" and head.headers.get("content-type") == packed.headers.get("content-type"), f"HEAD: {head.status}, {len(head.body)} bytes")

    def media_headers(self):
        _, p = self.load()
        target = p.target or 4
        parts = list(p.part_keys().values())
        objects = [segment.uri for segment in p.complete()[-1:]] + [part.uri for part in parts[-1:]] + [s.map_uri for s in p.segments[-1:] if s.map_uri]
        for uri in objects:
            answer = self.client.get(p.absolute(uri), {"Accept-Encoding": "gzip"})
            headers = answer.headers
            self.report.check("HT-02", headers.get("content-type") in ("video/mp4", "audio/mp4", "application/mp4"), f"{headers.get('content-type')} for {uri}")
            self.report.check("HT-06", "content-encoding" not in headers, f"{headers.get('content-encoding')} for {uri}")
            self.report.check("HT-08", "access-control-allow-origin" in headers, uri)
            self.report.check("HT-13", (cache_seconds(answer) or 0) >= 6 * target, f"{headers.get('cache-control')} for {uri}")
            self.report.check("HT-16", headers.get("content-length") == str(len(answer.raw)), f"Content-Length {headers.get('content-length')} for {uri}")
            self.report.check("HT-21", re.search(r"u=[2-6]", headers.get("priority", "")), f"Priority of media: {headers.get('priority')}")
            validator = {"If-None-Match": headers["etag"]} if "etag" in headers else {"If-Modified-Since": headers["last-modified"]} if "last-modified" in headers else None
            if self.report.check("HT-17", validator is not None, f"no validator for {uri}"):
                again = self.client.get(p.absolute(uri), validator)
                self.report.check("HT-17", again.status == 304 and not again.raw, f"{again.status} to a conditional request for {uri}")
            head = self.client.get(p.absolute(uri), method="HEAD")
            self.report.check("HT-19", head.status == 200 and not head.raw and head.headers.get("content-length") == headers.get("content-length"), f"HEAD: {head.status} for {uri}")

    def ranges(self):
        _, p = self.load()
        if not p.complete():
            return
        uri = p.absolute(p.complete()[-1].uri)
        whole = self.client.get(uri).body
        size = len(whole)
        for asked, wanted in (("0-9", whole[:10]), ("10-", whole[10:]), ("-7", whole[-7:]), (f"5-{size + 100}", whole[5:])):
            answer = self.client.get(uri, {"Range": f"bytes={asked}"})
            self.report.check("HT-18", answer.status == 206 and answer.raw == wanted and answer.headers.get("content-range", "").endswith(f"/{size}"), f"bytes={asked}: {answer.status}, {len(answer.raw)} bytes, {answer.headers.get('content-range')}")
        answer = self.client.get(uri, {"Range": f"bytes={size}-"})
        self.report.check("HT-18", answer.status == 416, f"bytes={size}- of {size}: {answer.status}")

    def transport(self):
        """HT-07, HT-20: only an https address can show them."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme != "https":
            return
        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=10) as plain, context.wrap_socket(plain, server_hostname=parts.hostname) as tls:
            self.report.check("HT-07", tls.selected_alpn_protocol() == "h2", f"ALPN {tls.selected_alpn_protocol()}")
            self.report.check("HT-20", tls.version() == "TLSv1.3", tls.version())


def multivariant_headers(answer, report, insecure):
    """What holds for every playlist, of the first one a player asks for."""
    kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
    report.check("HT-01", kind == "application/vnd.apple.mpegurl", f"multivariant: {kind}")
    report.check("HT-08", "access-control-allow-origin" in answer.headers, "multivariant")
    packed = Client(insecure).get(answer.url, {"Accept-Encoding": "gzip"})
    report.check("HT-03", packed.headers.get("content-encoding") == "gzip" and packed.body.startswith(b"#EXTM3U"), f"multivariant: Content-Encoding {packed.headers.get('content-encoding')}")


def after_the_end(observer, report, insecure):
    """BL-14, UP-11: only of a broadcast that ended while it was watched."""
    last = observer.newest()
    if last is None or not last.endlist:
        return
    client = Client(insecure)
    msn, part = last.edge()
    for directives in ({"_HLS_msn": msn + 1_000}, {"_HLS_msn": msn, "_HLS_part": part + 1}, {"_HLS_part": 0}):
        answer = client.get(with_query(observer.url, **directives))
        report.check("BL-14", answer.status == 200 and b"#EXT-X-ENDLIST" in answer.body and took(answer) < AT_ONCE_SECONDS, f"{answer.status} after {took(answer):.2f} s for {directives} after the end")
    time.sleep(ENDED_WATCH_SECONDS)
    answer = client.get(observer.url)
    report.check("UP-11", answer.status == 200 and answer.body.decode("utf-8", "replace") == last.text, f"{answer.status}, changed after ENDLIST")


def beyond(full, boundary, behind):
    """How many complete segments end further than `boundary` from the end, when `behind` seconds come after the last one."""
    complete = full.complete()
    for index in range(len(complete) - 1, -1, -1):
        if behind >= boundary:
            return index + 1
        behind += complete[index].extinf
    return 0


def took(answer):
    return answer.done - answer.asked


def together(calls):
    """Runs the calls at once, each in a thread of its own; gives the results of those that did not fail."""
    results = []
    threads = [threading.Thread(target=lambda call=call: results.append(call()), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return list(results)
