"""Tests of the judge itself: a good stream must pass and each spoilt one must fail exactly the rule it breaks.

run: python3 -m unittest discover tests/conformance
"""
import struct
import unittest

import boxes
import judge_media
import judge_playlists
import playlist as hls
import probe
from metronome import Metronome
from observe import Fetched, Seen
from rules import LEVELS, RULES, Report
from web import Answer, cache_seconds

URL = "http://server.example/app/show/d/video.m3u8"
PART_TICKS, TIMESCALE = 15_000, 90_000  # a sixth of a second

GOOD = """#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.0,PART-HOLD-BACK=1.0
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:100
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
#EXT-X-PART:DURATION=0.2,URI="100.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.2,URI="100.1.m4s"
#EXTINF:0.4,
100.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.400Z
#EXT-X-PART:DURATION=0.2,URI="101.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.1.m4s"
#EXT-X-RENDITION-REPORT:URI="audio.m3u8",LAST-MSN=101,LAST-PART=0
"""
NEXT = GOOD.replace('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.1.m4s"', '#EXT-X-PART:DURATION=0.2,URI="101.1.m4s"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.2.m4s"')


def answer(body=b"", status=200, url=URL, asked=0.0, took=0.01, **headers):
    fields = {"content-type": "application/vnd.apple.mpegurl", "access-control-allow-origin": "*", **headers}
    return Answer(url, status, fields, body, body, asked, asked + took, asked + took, asked)


def seen(text, at=0.0, **directives):
    return Seen(hls.parse(URL, text), answer(text.encode(), asked=at), directives)


class Record:
    """What observe.Observer leaves to the judges, filled by hand."""

    def __init__(self, *all_seen):
        self.url, self.name = URL, "video.m3u8"
        self.seen = list(all_seen)
        self.parts, self.hinted, self.segments, self.inits = {}, {}, {}, {}
        self.gone_later, self.given_up, self.faults = [], [], []
        self.metronome = Metronome()  # never started: this machine is never late, unless a test says so

    def newest(self):
        return self.seen[-1].playlist


def verdict_on(*texts):
    report = Report()
    directives = [{}] + [{"_HLS_msn": 101, "_HLS_part": 1}] * (len(texts) - 1)
    judge_playlists.judge(Record(*(seen(text, at * 0.2, **asked) for at, (text, asked) in enumerate(zip(texts, directives)))), report)
    return report


class Playlists(unittest.TestCase):
    def test_a_good_pair_of_playlists_fails_nothing(self):
        report = verdict_on(GOOD, NEXT)
        self.assertEqual(report.failed(), [], report.rows())
        self.assertEqual(report.verdict("BL-01"), "pass")
        self.assertEqual(report.verdict("UP-06"), "pass")

    def test_each_fault_of_a_document_fails_its_rule(self):
        spoilt = {
            "PL-01": GOOD.replace("#EXTM3U", "\ufeff#EXTM3U", 1),
            "PL-02": GOOD.replace("#EXT-X-VERSION:9", "#EXT-X-VERSION:3"),
            "PL-03": GOOD.replace("#EXT-X-VERSION:9", "#EXT-X-VERSION:12"),
            "PL-04": GOOD.replace("TARGETDURATION:4", "TARGETDURATION:0"),
            "PL-06": GOOD.replace("#EXT-X-PART-INF", "#EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-PART-INF"),
            "PL-07": GOOD.replace('URI="100.0.m4s"', "URI=100 0.m4s"),
            "PL-09": GOOD.replace('#EXT-X-MAP:URI="init.mp4"\n', ""),
            "PL-10": GOOD.replace("#EXT-X-MEDIA-SEQUENCE:100\n", "").replace("100.m4s\n#EXT-X-PROG", "100.m4s\n#EXT-X-MEDIA-SEQUENCE:100\n#EXT-X-PROG"),
            "PL-12": GOOD.replace("#EXT-X-MEDIA-SEQUENCE", "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MEDIA-SEQUENCE"),
            "PL-15": GOOD.replace("PART-HOLD-BACK=1.0", "PART-HOLD-BACK=0.3"),
            "PL-16": GOOD.replace("PART-HOLD-BACK=1.0", "PART-HOLD-BACK=0.5"),
            "PL-17": GOOD.replace("PART-HOLD-BACK", "HOLD-BACK=8,PART-HOLD-BACK"),
            "PL-18": GOOD.replace("CAN-SKIP-UNTIL=24.0", "CAN-SKIP-UNTIL=12.0"),
            "PL-19": GOOD.replace("CAN-SKIP-UNTIL=24.0", "CAN-SKIP-DATERANGES=YES"),
            "PL-20": GOOD.replace("CAN-BLOCK-RELOAD=YES,", ""),
            "PL-21": GOOD.replace('DURATION=0.2,URI="101.0.m4s"', 'DURATION=0.21,URI="101.0.m4s"'),
            "PL-22": GOOD.replace('DURATION=0.2,URI="100.0.m4s",INDEPENDENT=YES', 'DURATION=0.15,URI="100.0.m4s"'),
            "PL-23": GOOD.replace("#EXTINF:0.4", "#EXTINF:0.5"),
            "PL-25": GOOD.replace('#EXT-X-PART:DURATION=0.2,URI="100.1', '#EXT-X-DISCONTINUITY\n#EXT-X-PART:DURATION=0.2,URI="100.1'),
            "PL-26": GOOD.replace('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.1.m4s"\n', ""),
            "PL-27": GOOD.replace("#EXT-X-PRELOAD", '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.1.m4s"\n#EXT-X-PRELOAD'),
            "PL-28": GOOD + "#EXT-X-ENDLIST\n",
            "PL-29": GOOD.replace("00:00.400Z", "00:00.400"),
            "PL-30": GOOD.replace("00:00.400Z", "00:02.400Z"),
            "PL-31": GOOD.replace("#EXT-X-DISCONTINUITY-SEQUENCE:0\n", "").replace("#EXT-X-MAP", "#EXT-X-DISCONTINUITY\n#EXT-X-MAP"),
            "PL-33": GOOD.replace("#EXT-X-MAP", "#EXT-X-START:TIME-OFFSET=-1.0\n#EXT-X-MAP"),
            "PL-34": GOOD.replace("#EXTINF:0.4", "#EXT-X-GAP\n#EXTINF:0.4").replace("#EXT-X-PART:DURATION=0.2,URI=\"100.0", "#EXT-X-GAP\n#EXT-X-PART:DURATION=0.2,URI=\"100.0"),
            "PL-36": GOOD.replace("#EXT-X-MAP", "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXT-X-MAP"),
        }
        for rule, text in spoilt.items():
            with self.subTest(rule):
                self.assertNotEqual(text, GOOD, "the fault is not in the text")
                self.assertIn(rule, verdict_on(text).failed())

    def test_each_fault_of_a_succession_fails_its_rule(self):
        spoilt = {
            "PL-05": NEXT.replace("TARGETDURATION:4", "TARGETDURATION:5"),
            "UP-01": NEXT.replace("\n100.m4s", "\nother.m4s"),
            "UP-05": NEXT.replace('URI="101.0.m4s"', 'URI="other.m4s"'),
            "UP-06": NEXT.replace('URI="101.1.m4s"', 'URI="other.m4s"'),
            "UP-09": GOOD[: GOOD.index("#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.400Z")],
            "UP-10": NEXT.replace("PART-HOLD-BACK=1.0", "PART-HOLD-BACK=1.2"),
            "BL-01": GOOD,
            "UP-02": NEXT.replace("DISCONTINUITY-SEQUENCE:0", "DISCONTINUITY-SEQUENCE:1"),
        }
        for rule, text in spoilt.items():
            with self.subTest(rule):
                self.assertIn(rule, verdict_on(GOOD, text).failed())

    def test_a_part_that_comes_late_fails_its_rule(self):
        report = Report()
        later = NEXT.replace('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.2.m4s"', '#EXT-X-PART:DURATION=0.2,URI="101.2.m4s"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="101.3.m4s"')
        record = Record(seen(GOOD), seen(NEXT, 0.2), seen(later, 0.9))
        judge_playlists.judge(record, report)
        self.assertEqual(report.failed("MUST"), ["UP-04"])
        report = Report()
        record.metronome.note(0.8, 0.5)
        judge_playlists.judge(record, report)
        self.assertEqual(report.failed("MUST"), [], "the machine stood still meanwhile")

    def test_a_hold_must_end_in_503_within_three_target_durations(self):
        for status, held, wanted in ((503, 12.2, "pass"), (503, 20.0, "FAIL"), (504, 12.2, "FAIL")):
            with self.subTest(status=status, held=held):
                record, report = Record(seen(GOOD)), Report()
                record.given_up.append((held, 4, answer(status=status, **{"retry-after": "1"})))
                judge_playlists.judge(record, report)
                self.assertEqual(report.verdict("BL-08"), wanted)

    def test_a_delta_skips_what_is_beyond_the_boundary_and_nothing_else(self):
        head, segments = GOOD[: GOOD.index("#EXT-X-MAP")], [f"#EXTINF:4.0,\n{n}.m4s\n" for n in range(100, 110)]
        full = hls.parse(URL, head + '#EXT-X-MAP:URI="init.mp4"\n' + "".join(segments))
        self.assertEqual(probe.beyond(full, 24.001, 0), 3)
        for skipped, wanted in ((3, "pass"), (5, "FAIL"), (1, "FAIL")):
            with self.subTest(skipped=skipped):
                report = Report()
                prober = probe.Prober(Record(seen(GOOD)), report, False)
                delta = hls.parse(URL, head + f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n" + "".join(segments[skipped:]))
                prober.merged(full, delta, 24.0, "YES")
                self.assertEqual(report.verdict("DL-02"), wanted)


class Reports(unittest.TestCase):
    def test_a_rule_that_was_not_seen_has_not_passed(self):
        self.assertEqual({row["verdict"] for row in Report().rows()}, {"not seen"})

    def test_an_exception_is_told_and_does_not_fail(self):
        report = Report(exceptions={"MD-12"})
        report.check("MD-12", False, "no key frame")
        self.assertEqual((report.verdict("MD-12"), report.failed()), ("excepted", []))

    def test_the_catalogue_names_each_rule_once(self):
        self.assertEqual(len(LEVELS), len(RULES))
        self.assertEqual(set(LEVELS.values()), {"MUST", "SHOULD", "PLAYER"})

    def test_lifetimes_are_read_as_browsers_and_shared_caches_do(self):
        blocked = answer(**{"cache-control": "public, max-age=1, s-maxage=24"})
        self.assertEqual((cache_seconds(blocked), cache_seconds(blocked, shared=True)), (1, 24))
        self.assertEqual(cache_seconds(answer(**{"cache-control": "no-store"})), 0)
        self.assertIsNone(cache_seconds(answer()))


def box(kind, *bodies):
    body = b"".join(bodies)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind, flags, *bodies, version=0):
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def init_section(samples=0, brand=b"cmfc"):
    entry = box(b"avc1", bytes(24), struct.pack(">HH", 640, 360), bytes(50), box(b"avcC", bytes([1, 0x64, 0, 0x1F, 0xFF, 0xE0, 0])))
    table = box(b"stbl", full_box(b"stsd", 0, struct.pack(">I", 1), entry), full_box(b"stts", 0, struct.pack(">I", samples)))
    mdia = box(b"mdia", full_box(b"mdhd", 0, struct.pack(">IIIII", 0, 0, TIMESCALE, 0, 0)), full_box(b"hdlr", 0, bytes(4), b"vide", bytes(13)), box(b"minf", table))
    tkhd = full_box(b"tkhd", 3, struct.pack(">IIIII", 0, 0, 1, 0, 0), bytes(60))
    mvex = box(b"mvex", full_box(b"trex", 0, struct.pack(">IIIII", 1, 1, 0, 0, 0)))
    mvhd = full_box(b"mvhd", 0, struct.pack(">IIII", 0, 0, 1000, 0), bytes(80))
    return box(b"ftyp", brand, bytes(4), brand) + box(b"moov", mvhd, box(b"trak", tkhd, mdia), mvex)


def fragment(start, sync=True, nal_type=5, duration=PART_TICKS, sequence=1, spoil=0):
    sample = struct.pack(">I", 3) + bytes([nal_type, 1, 2])
    flags = 0x02000000 if sync else 0x01010000

    def moof(offset):
        run = struct.pack(">IiIII", 1, offset, duration, len(sample) + spoil, flags)
        traf = box(b"traf", full_box(b"tfhd", 0x20000, struct.pack(">I", 1)), full_box(b"tfdt", 0, struct.pack(">Q", start), version=1), full_box(b"trun", 0x701, run))
        return box(b"moof", full_box(b"mfhd", 0, struct.pack(">I", sequence)), traf)

    return moof(len(moof(0)) + 8) + box(b"mdat", sample)


def media_verdict(first, second, segment=None, init=None):
    """Two parts that are segment 100, each of PART_TICKS as listed, against the rules of the bytes."""
    text = GOOD.replace("DURATION=0.2", f"DURATION={PART_TICKS / TIMESCALE:.5f}").replace("EXTINF:0.4", f"EXTINF:{2 * PART_TICKS / TIMESCALE:.5f}")
    record, report = Record(seen(text)), Report()
    record.inits["init.mp4"] = Fetched("init", "init.mp4", answer(init or init_section()), False)
    for index, body in enumerate((first, second)):
        record.parts[100, index] = Fetched((100, index), f"100.{index}.m4s", answer(body), False)
    record.segments[100] = Fetched(100, "100.m4s", answer(first + second if segment is None else segment), False)
    judge_media.judge(record, report)
    return report


class Bytes(unittest.TestCase):
    def setUp(self):
        self.first, self.second = fragment(0), fragment(PART_TICKS, sync=False, nal_type=1, sequence=2)

    def test_good_bytes_fail_nothing(self):
        report = media_verdict(self.first, self.second)
        self.assertEqual(report.failed(), [], [row for row in report.rows() if row["verdict"] == "FAIL"])
        for rule in ("MD-01", "MD-08", "MD-09", "MD-10", "MD-14", "MD-18", "MD-24"):
            self.assertEqual(report.verdict(rule), "pass", rule)

    def test_each_fault_of_the_bytes_fails_its_rule(self):
        late = fragment(PART_TICKS + 1, sync=False, nal_type=1, sequence=2)
        spoilt = {
            "MD-01": media_verdict(self.first, self.second, init=init_section(brand=b"mp41")),
            "MD-02": media_verdict(self.first, self.second, init=init_section(samples=7)),
            "MD-04": media_verdict(self.first, self.second[:-1]),
            "MD-07": media_verdict(self.first, fragment(PART_TICKS, spoil=1)),
            "MD-08": media_verdict(self.first, late),
            "MD-09": media_verdict(self.first, fragment(PART_TICKS, duration=PART_TICKS - 900)),
            "MD-11": media_verdict(self.first, self.second, segment=self.first + fragment(PART_TICKS)),
            "MD-12": media_verdict(fragment(0, sync=False, nal_type=1), self.second),
            "MD-13": media_verdict(fragment(0, sync=False, nal_type=1), self.second),
            "MD-14": media_verdict(self.first, fragment(PART_TICKS, sync=True, nal_type=1)),
            "MD-15": media_verdict(self.first, fragment(PART_TICKS, sync=False, nal_type=1, sequence=1)),
            "MD-18": media_verdict(self.first, self.second, segment=self.first + late),
            "MD-19": media_verdict(self.first, fragment(PART_TICKS, sequence=2)),
            "MD-21": media_verdict(self.first, fragment(PART_TICKS, duration=0)),
        }
        for rule, report in spoilt.items():
            with self.subTest(rule):
                self.assertIn(rule, report.failed())

    def test_program_dates_follow_presentation_not_decoding(self):
        reordered = boxes.Fragment(1, 1, 90_000, True, False, [boxes.Sample(3000, 1, True, 6000), boxes.Sample(3000, 1, False, 9000), boxes.Sample(3000, 1, False, 0)], True)
        self.assertEqual(judge_media.first_shown(reordered), 96_000)

    def test_cut_off_bytes_are_malformed_and_never_an_error_of_the_checker(self):
        for whole, read in ((init_section(), boxes.init), (self.first, lambda data: boxes.fragments(data, boxes.init(init_section()).tracks))):
            for end in range(len(whole)):
                try:
                    read(whole[:end])
                except boxes.Malformed:
                    pass


if __name__ == "__main__":
    unittest.main()
