"""Judges the bytes one observer fetched: init section, parts and segments (MD), against the playlists that named them.

Before it: observe.py, boxes.py. After it: judge_together.py compares the renditions with each other.
"""
import boxes

BRANDS = {"iso6", "iso7", "iso8", "iso9", "cmfc", "cmf2", "cmfs", "cmff"}


class Media:
    """What the renditions are compared by: filled by judge()."""

    def __init__(self):
        self.track = None
        self.parts = {}  # (msn, index) → (start, end) in seconds of media time
        self.segments = {}  # msn → (start, end, bytes)
        self.shown = {}  # (msn, index) → presentation time of the first picture, seconds
        self.dates = {}  # msn → program date minus presentation time, seconds
        self.frame_seconds = []  # durations of samples


def judge(observer, report):
    media = Media()
    init = judge_init(observer, report)
    if init is None or not init.tracks:
        return media
    media.track = next(iter(init.tracks.values()))
    listed = {key: part for one in observer.seen for key, part in one.playlist.part_keys().items()}
    complete = {segment.msn: segment for one in observer.seen for segment in one.playlist.complete()}
    dates = {segment.msn: segment.date for one in observer.seen for segment in one.playlist.segments if segment.date_written and segment.date}
    ends = {}
    read = {key: fragments_of(f"part {key[0]}.{key[1]}", fetched, init, report) for key, fetched in observer.parts.items()}
    previous, sequence = None, {}
    for key in sorted(read):
        if read[key] is None:
            previous = None
            continue
        fragments = read[key]
        start, end = judge_part(key, fragments, listed.get(key), init, report)
        media.parts[key] = (start, end)
        media.shown[key] = min((first_shown(f) / init.tracks[f.track].timescale for f in fragments if f.track in init.tracks and f.samples), default=start)
        media.frame_seconds += [s.duration / media.track.timescale for f in fragments for s in f.samples if f.track == media.track.id]
        follows = previous and (previous == (key[0], key[1] - 1) or key[1] == 0 and previous[0] == key[0] - 1)
        for fragment in fragments:
            at = ends.get(fragment.track)
            if follows and at is not None and fragment.base_time is not None:
                report.check("MD-08", fragment.base_time == at, f"part {key[0]}.{key[1]}: tfdt {fragment.base_time}, {at} expected")
            if follows and fragment.track in sequence:
                report.check("MD-15", fragment.sequence > sequence[fragment.track], f"mfhd {sequence[fragment.track]}, then {fragment.sequence}")
            sequence[fragment.track] = fragment.sequence
            ends[fragment.track] = (fragment.base_time or 0) + fragment.duration()
        previous = key
    for msn in sorted(observer.segments):
        judge_segment(msn, observer, init, complete.get(msn), read, media, report)
    for msn, date in dates.items():
        if (msn, 0) in media.shown:
            media.dates[msn] = date - media.shown[msn, 0]
    for a, b in zip(sorted(media.dates), sorted(media.dates)[1:]):
        report.check("MD-17", abs(media.dates[a] - media.dates[b]) <= 0.05, f"program date against media time moved by {media.dates[b] - media.dates[a]:+.3f} s at segment {b}")
    pace(observer, media, report)
    return media


def judge_init(observer, report):
    for uri, fetched in observer.inits.items():
        try:
            init = boxes.init(fetched.answer.body)
        except boxes.Malformed as fault:
            report.check("MD-01", False, f"{uri}: {fault}")
            continue
        report.check("MD-01", bool(BRANDS & set(init.brands)) and init.kinds.index("ftyp") < init.kinds.index("moov") and not {"moof", "mdat"} & set(init.kinds), f"{init.kinds}, brands {init.brands}")
        report.check("MD-02", init.has_mvex and all(t.durations_zero and t.samples_zero for t in init.tracks.values()), f"mvex {init.has_mvex}, {init.tracks}")
        return init
    return None


def fragments_of(title, fetched, init, report):
    """The fragments of a part or segment, or None when it is no fMP4 (said in the report)."""
    if fetched.answer.status != 200:
        return None
    try:
        kinds, fragments = boxes.fragments(fetched.answer.body, init.tracks)
    except boxes.Malformed as fault:
        report.check("MD-04", False, f"{title}: {fault}")
        return None
    media = [kind for kind in kinds if kind in ("moof", "mdat", "moov")]
    report.check("MD-04", bool(media) and media == ["moof", "mdat"] * (len(media) // 2), f"{title}: {kinds}")
    for fragment in fragments:
        report.check("MD-03", fragment.track in init.tracks, f"{title}: track {fragment.track}")
        report.check("MD-05", fragment.base_time is not None, f"{title}: no tfdt")
        report.check("MD-06", not fragment.base_data_offset, f"{title}: base-data-offset")
        report.check("MD-25", fragment.default_base_is_moof, f"{title}: default-base-is-moof not set")
        report.check("MD-07", fragment.covers_mdat, f"{title}: trun does not cover mdat")
        report.check("MD-21", all(0 < s.duration < 2**31 for s in fragment.samples) and bool(fragment.samples), f"{title}: durations {[s.duration for s in fragment.samples][:8]}")
        track = init.tracks.get(fragment.track)
        if track and track.nal_length:
            report.check("MD-24", fragment.nal_fault is None, f"{title}: {fragment.nal_fault}")
            report.check("MD-14", all(s.sync == s.idr for s in fragment.samples), f"{title}: sync flags {[s.sync for s in fragment.samples]}, IDR {[s.idr for s in fragment.samples]}")
    return fragments


def first_shown(fragment):
    """Presentation time of the earliest picture, in ticks: with B-frames later than the decode time."""
    at, earliest = fragment.base_time or 0, None
    for sample in fragment.samples:
        shown = at + sample.composition
        earliest = shown if earliest is None else min(earliest, shown)
        at += sample.duration
    return earliest


def judge_part(key, fragments, listed, init, report):
    starts = [(f.base_time or 0) / init.tracks[f.track].timescale for f in fragments if f.track in init.tracks]
    duration = max((sum(f.duration() for f in fragments if f.track == track.id) / track.timescale for track in init.tracks.values()), default=0)
    independent = any(s.sync for f in fragments for s in f.samples)
    if listed:
        report.check("MD-09", abs(duration - listed.duration) <= 0.005, f"part {key[0]}.{key[1]}: samples {duration:.4f} s, DURATION {listed.duration}")
        if listed.independent:
            report.check("MD-13", independent, f"part {key[0]}.{key[1]} says INDEPENDENT without a sync sample")
        if independent:
            report.check("MD-19", listed.independent, f"part {key[0]}.{key[1]} holds a sync sample and does not say so")
    start = min(starts, default=0)
    return start, start + duration


def judge_segment(msn, observer, init, listed, parts, media, report):
    fetched = observer.segments[msn]
    fragments = fragments_of(f"segment {msn}", fetched, init, report)
    if not fragments or not listed:
        return
    duration = max(sum(f.duration() for f in fragments if f.track == track.id) / track.timescale for track in init.tracks.values())
    report.check("MD-10", abs(duration - listed.extinf) <= 0.010, f"segment {msn}: samples {duration:.4f} s, EXTINF {listed.extinf}")
    report.check("MD-12", any(s.sync for f in fragments for s in f.samples), f"segment {msn} holds no independent frame")
    if any(one.playlist.independent_segments for one in observer.seen):
        report.check("MD-23", fragments[0].samples[0].sync, f"segment {msn} does not start with a sync sample")
    if listed.bitrate:
        measured = len(fetched.answer.body) * 8 / listed.extinf / 1000
        report.check("PL-35", abs(listed.bitrate - measured) <= 0.1 * measured, f"segment {msn}: BITRATE {listed.bitrate}, measured {measured:.0f} kbit/s")
    start = fragments[0].base_time / init.tracks[fragments[0].track].timescale
    media.segments[msn] = (start, start + duration, len(fetched.answer.body))
    if listed.parts:
        own = [observer.parts.get((msn, index)) for index in range(len(listed.parts))]
        if all(own):
            together = b"".join(part.answer.body for part in own)
            report.check("MD-18", together == fetched.answer.body, f"segment {msn}: {len(fetched.answer.body)} bytes, its parts {len(together)}")
            samples = [s for index in range(len(own)) for f in parts[msn, index] or [] for s in f.samples]
            report.check("MD-11", samples == [s for f in fragments for s in f.samples], f"segment {msn} and its parts hold other samples")


def pace(observer, media, report):
    """MD-22: media time of the newest part against the clock, over all we saw."""
    times, known = [], set()
    for one in observer.seen:
        for key in one.playlist.part_keys():
            if key not in known:
                known.add(key)
                if key in media.parts and one is not observer.seen[0]:
                    times.append((one.answer.done, media.parts[key][1]))
    if len(times) > 10 and times[-1][0] - times[0][0] > 5:
        speed = (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])
        report.check("MD-22", abs(speed - 1) <= 0.03, f"media time runs at {speed:.3f} of the clock's speed")
