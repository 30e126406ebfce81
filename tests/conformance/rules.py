"""The rules a low-latency HLS stream is held against, and the report of what held.

Sources: section numbers of draft-pantos-hls-rfc8216bis; AUTH = Apple's HLS authoring specification; CMAF = ISO/IEC 23000-19;
14496-x = ISO base media; RFC 9110, 9218. PROJ marks rules of this project, PLAYER what real players need beyond the documents.
"""
import threading

# (rule, level, source, what holds)
RULES = [
    # The playlist as a document
    ('PL-01', 'MUST', '4.1 4.4.1.1', 'UTF-8 without BOM or control characters, #EXTM3U first'),
    ('PL-02', 'MUST', '4.4.1.2 8', 'one EXT-X-VERSION, high enough for the tags used'),
    ('PL-03', 'SHOULD', '6.2.1', 'EXT-X-VERSION not above what the tags need (players refuse unknown versions)'),
    ('PL-04', 'MUST', '4.4.3.1', 'TARGETDURATION integer >= 1 and >= every rounded EXTINF'),
    ('PL-05', 'MUST', '6.2.1', 'TARGETDURATION never changes'),
    ('PL-06', 'MUST', '4.4.2 4.4.3 4.4.6', 'single-instance tags once; no mix of media and multivariant tags'),
    ('PL-07', 'MUST', '4.2 4.4', 'attribute lists and values well formed'),
    ('PL-09', 'MUST', '3.1.2', 'EXT-X-MAP applies to every fMP4 segment and part'),
    ('PL-10', 'MUST', '4.4.3.2 4.4.3.3', 'MEDIA-SEQUENCE / DISCONTINUITY-SEQUENCE / SKIP precede the first segment'),
    ('PL-12', 'MUST', '6.2.1 6.2.2', 'EVENT never drops a segment; a sliding playlist has no PLAYLIST-TYPE'),
    ('PL-13', 'MUST', '6.2.2', 'live window at least three Target Durations'),
    ('PL-14', 'MUST', '4.4.3.7', 'PART-INF with PART-TARGET whenever parts are listed'),
    ('PL-15', 'MUST', '4.4.3.8', 'PART-HOLD-BACK present and >= 2 x PART-TARGET'),
    ('PL-16', 'SHOULD', '4.4.3.8', 'PART-HOLD-BACK >= 3 x PART-TARGET'),
    ('PL-17', 'MUST', '4.4.3.8', 'HOLD-BACK, if present, >= 3 x TARGETDURATION'),
    ('PL-18', 'MUST', '4.4.3.8', 'CAN-SKIP-UNTIL, if present, >= 6 x TARGETDURATION'),
    ('PL-19', 'MUST', '4.4.3.8', 'CAN-SKIP-DATERANGES only together with CAN-SKIP-UNTIL'),
    ('PL-20', 'MUST', 'B.1 6.2.5.2', 'CAN-BLOCK-RELOAD=YES and parts listed (low-latency profile)'),
    ('PL-21', 'MUST', '4.4.4.9', 'every part DURATION <= PART-TARGET'),
    ('PL-22', 'MUST', '4.4.4.9', 'part DURATION >= 85% of PART-TARGET unless INDEPENDENT, GAP, before a GAP or last of its segment'),
    ('PL-23', 'MUST', '3.2', 'part DURATIONs of a segment add up to its EXTINF (within 10 ms)'),
    ('PL-24', 'SHOULD', '6.2.2', 'EXT-X-PART removed once more than three Target Durations from the end'),
    ('PL-25', 'MUST', '4.4.4.9', 'DISCONTINUITY/KEY/MAP/PROGRAM-DATE-TIME precede the first part of their segment'),
    ('PL-26', 'MUST', 'B.1', 'a PRELOAD-HINT TYPE=PART in every live playlist with parts'),
    ('PL-27', 'SHOULD', '6.2.6', 'at most one PRELOAD-HINT per TYPE'),
    ('PL-28', 'MUST', '4.4.5.3', 'no PRELOAD-HINT together with ENDLIST'),
    ('PL-29', 'MUST', 'B.1', 'EXT-X-PROGRAM-DATE-TIME in every media playlist, readable, with ms and zone'),
    ('PL-30', 'MUST', '6.2.1', 'program dates continuous: less than 1 s off the EXTINF sum, no gap or full overlap'),
    ('PL-31', 'MUST', '6.2.2', 'DISCONTINUITY-SEQUENCE present when a sliding playlist has EXT-X-DISCONTINUITY'),
    ('PL-33', 'SHOULD', '4.4.2.2', 'EXT-X-START not within three Target Durations of the live end, inside the playlist'),
    ('PL-34', 'MUST', '6.2.1', 'parts of an EXT-X-GAP segment carry GAP=YES'),
    ('PL-35', 'MUST', '4.4.4.8', 'EXT-X-BITRATE within 10% of the segment bit rate'),
    ('PL-36', 'MUST', '6.2.5.1', 'no EXT-X-SKIP unless _HLS_skip was asked for'),
    # Updates
    ('UP-01', 'MUST', '6.2.1 6.2.2', 'MEDIA-SEQUENCE never decreases; a sequence number keeps its URI and EXTINF'),
    ('UP-02', 'MUST', '6.2.2', 'a segment keeps its discontinuity sequence number'),
    ('UP-03', 'MUST', '6.2.1', 'a new segment at most 1.5 Target Durations after the previous one'),
    ('UP-04', 'MUST', '6.2.1', 'a new part within one Part Target of the previous one (jitter allowance 0.15 s, 5%)'),
    ('UP-05', 'MUST', '6.2.1 6.2.2', 'listed parts do not change and are removed oldest first'),
    ('UP-06', 'MUST', '4.4.5.3', 'the hinted URI is the next part that appears'),
    ('UP-07', 'MUST', '6.2.2', 'a removed segment stays downloadable for its Availability Duration'),
    ('UP-08', 'MUST', '6.2.2', 'a part stays downloadable three Target Durations after its tag is removed'),
    ('UP-09', 'MUST', '6.2.1', 'playlists never go back in time'),
    ('UP-10', 'MUST', '6.2.1', 'SERVER-CONTROL, PART-INF and VERSION do not change mid-stream'),
    ('UP-11', 'MUST', '6.2.1', 'nothing is added after ENDLIST'),
    # Blocking reload
    ('BL-01', 'MUST', '6.2.5.2', '_HLS_msn+_HLS_part held until that part is listed, answered 200'),
    ('BL-02', 'MUST', '6.2.5.2', '_HLS_msn alone held until the whole segment is listed'),
    ('BL-03', 'MUST', '6.2.5.2', 'a past _HLS_msn (even one already removed) answered at once with 200'),
    ('BL-04', 'MUST', '6.2.5.2', 'a part index past the end of the segment means part 0 of the next one'),
    ('BL-05', 'SHOULD', '6.2.5.2', '_HLS_msn more than two ahead refused at once with 400'),
    ('BL-06', 'SHOULD', '6.2.5.2', '_HLS_part beyond the Advance Part Limit refused at once with 400'),
    ('BL-07', 'MUST', '6.2.5.2', '_HLS_part without _HLS_msn refused with 400'),
    ('BL-08', 'SHOULD', '6.2.5.2', 'a request blocked more than three Target Durations ends with 503'),
    ('BL-09', 'MUST', '6.2.5.2', 'a blocked response carries the whole playlist'),
    ('BL-10', 'SHOULD', 'PROJ', 'a malformed directive is refused with 400'),
    ('BL-11', 'SHOULD', 'B.1', 'identical blocking requests get identical bytes (cacheable, coalesced)'),
    ('BL-13', 'SHOULD', 'PROJ', 'an unknown query parameter is ignored'),
    ('BL-14', 'MUST', '6.2.5.2', 'directives are ignored once ENDLIST is there'),
    # Preload hints and availability
    ('PH-01', 'MUST', '6.2.6', 'a request for the hinted part is held and then answered 200'),
    ('PH-02', 'MUST', '6.2.6', 'no byte of a part is sent before the whole part can be'),
    ('PH-03', 'MUST', '6.2.6', 'bytes got through the hint equal those of a later request'),
    ('PH-04', 'SHOULD', '6.2.6', 'a resource neither listed nor hinted gives 404 at once'),
    ('PH-05', 'MUST', '6.2.1', 'a listed part is downloadable at once'),
    ('PH-06', 'MUST', '6.2.1', 'a listed segment is downloadable at once'),
    # Delta updates
    ('DL-00', 'SHOULD', 'B.1', 'delta updates offered (CAN-SKIP-UNTIL) when the playlist is longer than the boundary'),
    ('DL-01', 'MUST', '6.2.5.1', '_HLS_skip=YES answered with EXT-X-SKIP when there is something to skip'),
    ('DL-02', 'MUST', '6.2.5.1', 'exactly the segments beyond the Skip Boundary are skipped; merged result equals the full playlist'),
    ('DL-03', 'MUST', '4.4.5.2', '_HLS_skip=v2 adds RECENTLY-REMOVED-DATERANGES'),
    ('DL-04', 'MUST', '6.2.5.1', '_HLS_skip ignored when CAN-SKIP-UNTIL is absent'),
    ('DL-05', 'MUST', '4.4.5.2', "MEDIA-SEQUENCE, DISCONTINUITY-SEQUENCE and version of a delta equal the full playlist's"),
    # Rendition reports
    ('RR-01', 'MUST', 'B.1', 'exactly one report per other rendition, none for itself'),
    ('RR-02', 'MUST', '4.4.5.4', "report URI is relative and resolves to the rendition's playlist URL"),
    ('RR-03', 'MUST', '4.4.5.4', 'LAST-MSN / LAST-PART as fresh as the playlist (within two parts)'),
    ('RR-04', 'PLAYER', '4.4.5.4', 'LAST-MSN and LAST-PART written out (players mishandle omission)'),
    # Multivariant playlist
    ('MV-01', 'MUST', '4.4.6.2', 'BANDWIDTH on every variant'),
    ('MV-02', 'SHOULD', '4.4.6.2 AUTH', 'CODECS, AVERAGE-BANDWIDTH and, for video, RESOLUTION and FRAME-RATE present'),
    ('MV-03', 'MUST', '6.2.4', 'CODECS names every sample format, exact profile and level'),
    ('MV-04', 'SHOULD', '4.4.6.2', 'RESOLUTION equals the coded picture size'),
    ('MV-05', 'SHOULD', '4.4.6.2', 'FRAME-RATE equals the measured rate'),
    ('MV-06', 'SHOULD', '4.4.6.2 AUTH', 'BANDWIDTH not below the measured peak (10%) nor more than 2.5 times it'),
    ('MV-07', 'SHOULD', '4.4.6.2 AUTH', 'AVERAGE-BANDWIDTH within 25% of the measured average'),
    ('MV-08', 'MUST', '4.4.6.1', 'EXT-X-MEDIA attributes and group references valid'),
    ('MV-09', 'SHOULD', 'AUTH', 'CLOSED-CAPTIONS on every variant, NONE on all or on none'),
    ('MV-10', 'MUST', '6.2.4', 'the same TARGETDURATION in all renditions'),
    ('MV-11', 'MUST', '6.2.4', 'the same SERVER-CONTROL in all renditions'),
    ('MV-12', 'MUST', '6.2.4', 'the same mapping of program date to media time in all renditions (50 ms)'),
    ('MV-13', 'MUST', '6.2.4', 'matching content has matching discontinuity sequence numbers'),
    ('MV-14', 'MUST', 'B.1', 'renditions updated in sync within one Part Target'),
    ('MV-15', 'MUST', '6.2.4', 'the same PLAYLIST-TYPE in all renditions'),
    ('MV-16', 'SHOULD', 'AUTH', 'EXT-X-INDEPENDENT-SEGMENTS present (multivariant preferred)'),
    ('MV-17', 'SHOULD', '4.4.6.1', 'CHANNELS on audio renditions'),
    ('MV-18', 'MUST', '4.4.6.6', 'CONTENT-STEERING has SERVER-URI and a PATHWAY-ID some variant carries'),
    ('MV-19', 'MUST', '4.4.6', 'every rendition URI answers 200 with a media playlist'),
    ('MV-20', 'PLAYER', 'PROJ', 'no EXT-X-DEFINE QUERYPARAM (video.js does not resolve it; needs protocol version 11)'),
    # HTTP
    ('HT-01', 'MUST', '4', 'playlist Content-Type application/vnd.apple.mpegurl'),
    ('HT-02', 'SHOULD', 'AUTH', 'media Content-Type video/mp4, audio/mp4 or application/mp4'),
    ('HT-03', 'MUST', 'B.1', 'playlists gzip-encoded when the client accepts it'),
    ('HT-04', 'MUST', 'RFC 9110', 'playlists not encoded when the client does not accept it'),
    ('HT-05', 'SHOULD', 'RFC 9110', 'Vary: Accept-Encoding on playlists'),
    ('HT-06', 'SHOULD', 'PROJ', 'media not content-encoded'),
    ('HT-07', 'MUST', 'B.1', 'HTTP/2 or HTTP/3'),
    ('HT-08', 'MUST', 'PROJ', 'CORS allow-origin on playlists and media'),
    ('HT-09', 'SHOULD', 'PROJ', 'CORS allow-origin on error responses'),
    ('HT-10', 'SHOULD', 'PROJ', 'Access-Control-Expose-Headers names Age (or *); OPTIONS allows Range'),
    ('HT-11', 'SHOULD', 'B.1', 'unblocked playlist cached at most half a Target Duration'),
    ('HT-12', 'SHOULD', 'B.1', 'blocked playlist cacheable for about six Target Durations'),
    ('HT-13', 'SHOULD', 'B.1', 'parts and segments cacheable for at least six Target Durations'),
    ('HT-14', 'SHOULD', 'B.1', '404 and 400 cacheable, at most four Target Durations'),
    ('HT-16', 'SHOULD', 'PROJ', 'Content-Length on parts and segments'),
    ('HT-17', 'SHOULD', 'PROJ', 'validator (ETag or Last-Modified) on media, 304 to a conditional request'),
    ('HT-18', 'SHOULD', 'B.1', 'Range: 206 with the right bytes, 416 past the end (MUST when BYTERANGE is used)'),
    ('HT-19', 'SHOULD', 'RFC 9110', 'HEAD answered like GET without a body'),
    ('HT-20', 'SHOULD', 'B.1', 'TLS 1.3'),
    ('HT-21', 'SHOULD', 'B.1', 'RFC 9218 priority: playlists u=1, media u=2..6'),
    ('HT-22', 'MUST', 'B.1 C', 'a cached (stale) playlist says so with Age'),
    ('HT-23', 'PLAYER', 'PROJ', 'a blocked playlist is not reusable by a browser cache (max-age <= 1 s, long life only in s-maxage)'),
    # Media
    ('MD-01', 'MUST', '3.1.2', 'init section: ftyp with brand iso6 or higher (or CMAF), then moov, no media'),
    ('MD-02', 'MUST', '3.1.2', 'init section: mvex present, durations and sample counts zero'),
    ('MD-03', 'MUST', '3.1.2', 'every traf track_ID is declared in the init section'),
    ('MD-04', 'MUST', '3.1.2', 'a part is whole boxes: one or more moof+mdat pairs, no moov'),
    ('MD-05', 'MUST', '3.1.2', 'tfdt in every traf'),
    ('MD-06', 'MUST', '3.1.2', 'movie-fragment-relative addressing (no base-data-offset; default-base-is-moof or a single traf)'),
    ('MD-07', 'MUST', '14496-12', 'trun offsets and sizes cover the mdat exactly'),
    ('MD-08', 'MUST', '3', 'tfdt continues exactly from part to part and segment to segment'),
    ('MD-09', 'MUST', '4.4.4.9', 'sum of sample durations equals EXT-X-PART DURATION (5 ms)'),
    ('MD-10', 'MUST', '3', 'sum of sample durations equals EXTINF (10 ms)'),
    ('MD-11', 'MUST', '3.2', 'a segment holds exactly the samples of its parts'),
    ('MD-12', 'MUST', 'B.1', 'every segment holds an independent frame'),
    ('MD-13', 'MUST', '4.4.4.9', 'INDEPENDENT=YES only on parts that hold an independent frame'),
    ('MD-14', 'MUST', '14496-12', 'sample sync flags agree with the NAL units (IDR/IRAP)'),
    ('MD-15', 'SHOULD', '14496-12', 'mfhd sequence numbers increase'),
    ('MD-16', 'MUST', '6.2.4', 'audio and video cover the same media time (80% overlap; muxed starts within 0.25 s)'),
    ('MD-17', 'SHOULD', '6.2.1', 'program date and media time keep their distance (50 ms)'),
    ('MD-18', 'MUST', 'PROJ', 'the concatenated parts are the segment byte for byte'),
    ('MD-19', 'SHOULD', '4.4.4.9', 'every part with an independent frame says INDEPENDENT=YES'),
    ('MD-20', 'SHOULD', 'PROJ', 'prft, if present, agrees with the program date (1 s)'),
    ('MD-21', 'MUST', '14496-12', 'sample durations positive (the last one of a part included)'),
    ('MD-22', 'SHOULD', 'PROJ', 'media time advances at wall-clock speed (3%)'),
    ('MD-23', 'MUST', '4.4.2.1', 'segments start with an independent frame if INDEPENDENT-SEGMENTS is declared'),
    ('MD-24', 'MUST', '14496-15', 'NAL length prefixes stay inside their samples'),
    ('MD-25', 'SHOULD', 'CMAF', 'default-base-is-moof set in every tfhd'),
]

LEVELS = {rule: level for rule, level, _, _ in RULES}
MAX_EVIDENCE = 3
MAX_EVIDENCE_CHARACTERS = 300

PASS, FAIL, NOT_SEEN, EXCEPTED = "pass", "FAIL", "not seen", "excepted"


class Report:
    """Collects verdicts from any thread. A rule without a verdict is reported as not seen, never as passed."""

    def __init__(self, exceptions=()):
        self._lock = threading.Lock()
        self._exceptions = set(exceptions)
        self._passed = {}
        self._failed = {}
        self._evidence = {}

    def check(self, rule, holds, evidence=""):
        """Adds one verdict on `rule`; `evidence` is what was seen and is kept for the first few failures."""
        if rule not in LEVELS:
            raise KeyError(f"no such rule: {rule}")
        with self._lock:
            counts = self._passed if holds else self._failed
            counts[rule] = counts.get(rule, 0) + 1
            if not holds:
                kept = self._evidence.setdefault(rule, [])
                if len(kept) < MAX_EVIDENCE:
                    kept.append(str(evidence)[:MAX_EVIDENCE_CHARACTERS])
        return holds

    def verdict(self, rule):
        if self._failed.get(rule):
            return EXCEPTED if rule in self._exceptions else FAIL
        return PASS if self._passed.get(rule) else NOT_SEEN

    def failed(self, level=None):
        """Rules that failed and were not excepted, in the order of the catalogue."""
        return [rule for rule in LEVELS if self.verdict(rule) == FAIL and level in (None, LEVELS[rule])]

    def rows(self):
        """One dictionary per rule, in the order of the catalogue."""
        return [
            {"rule": rule, "level": level, "source": source, "holds": text, "verdict": self.verdict(rule),
             "passed": self._passed.get(rule, 0), "failed": self._failed.get(rule, 0), "evidence": self._evidence.get(rule, [])}
            for rule, level, source, text in RULES
        ]

    def print(self):
        print(f"{'rule':<6} {'level':<6} {'verdict':<8}  evidence")
        for row in self.rows():
            counted = f"{row['passed']}x" if row["passed"] else ""
            if row["failed"]:
                counted = f"{row['failed']} of {row['passed'] + row['failed']} not"
            print(f"{row['rule']:<6} {row['level']:<6} {row['verdict']:<8}  {counted:<14} {row['holds']}")
            for one in row["evidence"]:
                print(f"{'':<24}  seen: {one}")
        for level in ("MUST", "SHOULD", "PLAYER"):
            of = [row["verdict"] for row in self.rows() if row["level"] == level]
            excepted = f", {of.count(EXCEPTED)} excepted" if EXCEPTED in of else ""
            print(f"{level:<6} {of.count(PASS)} pass, {of.count(FAIL)} FAIL{excepted}, {of.count(NOT_SEEN)} not seen")
