"""Judges the multivariant playlist and the renditions against each other (MV, MD-16), once all observers are done.

Before it: judge_media.py made a Media of each rendition.
"""
import re
import urllib.parse

import playlist as hls


def judge(answer, observers, medias, report):
    text = answer.body.decode("utf-8", "replace")
    malformed = []
    streams, media_tags = hls.variants(text, malformed)
    report.check("PL-07", not malformed, malformed)
    report.check("MV-20", "QUERYPARAM" not in text, "EXT-X-DEFINE QUERYPARAM")
    steering = re.search(r"#EXT-X-CONTENT-STEERING:(.*)", text)
    if steering:
        report.check("MV-18", "SERVER-URI" in steering[1], steering[0])
    by_url = {observer.url: (observer, media) for observer, media in zip(observers, medias)}
    for attributes, uri in streams:
        judge_variant(attributes, by_url.get(urllib.parse.urljoin(answer.url, uri)), media_tags, answer.url, by_url, report)
    captions = ["CLOSED-CAPTIONS" in attributes for attributes, _ in streams]
    none = [attributes.get("CLOSED-CAPTIONS") == "NONE" for attributes, _ in streams]
    report.check("MV-09", all(captions) and len(set(none)) == 1, f"CLOSED-CAPTIONS on {sum(captions)} of {len(streams)} variants")
    names = set()
    for tag in media_tags:
        key = (tag.get("TYPE"), tag.get("GROUP-ID"), tag.get("NAME"))
        report.check("MV-08", None not in key and key not in names and (tag.get("TYPE") != "CLOSED-CAPTIONS") == ("INSTREAM-ID" not in tag), tag)
        names.add(key)
        if tag.get("TYPE") == "AUDIO":
            report.check("MV-17", "CHANNELS" in tag, tag)
            found = by_url.get(urllib.parse.urljoin(answer.url, tag.get("URI", "")))
            if found and found[1].track and "CHANNELS" in tag:
                report.check("MV-17", tag["CHANNELS"].split("/")[0] == str(found[1].track.channels), f"CHANNELS {tag['CHANNELS']}, coded {found[1].track.channels}")
    everywhere = all(any(one.playlist.independent_segments for one in observer.seen) for observer in observers)
    report.check("MV-16", "#EXT-X-INDEPENDENT-SEGMENTS" in text or everywhere, "EXT-X-INDEPENDENT-SEGMENTS nowhere")
    if "#EXT-X-INDEPENDENT-SEGMENTS" in text:
        for observer, media in zip(observers, medias):
            for msn in media.segments:
                first = observer.parts.get((msn, 0))
                listed = next((p.playlist.part_keys()[msn, 0] for p in observer.seen if (msn, 0) in p.playlist.part_keys()), None)
                if first and listed:
                    report.check("MD-23", listed.independent, f"segment {msn} of {observer.name} does not start with an independent part")
    together(observers, medias, report)


def judge_variant(attributes, found, media_tags, base, by_url, report):
    report.check("MV-01", attributes.get("BANDWIDTH", "").isdigit(), attributes)
    wanted = {"CODECS", "AVERAGE-BANDWIDTH"}
    groups = {kind: attributes[kind] for kind in ("AUDIO", "VIDEO", "SUBTITLES") if kind in attributes}
    for kind, group in groups.items():
        report.check("MV-08", any(tag.get("TYPE") == kind and tag.get("GROUP-ID") == group for tag in media_tags), f"no EXT-X-MEDIA for {kind}={group}")
    tracks, medias = [], []
    if found:
        medias.append(found[1])
    for tag in media_tags:
        url = urllib.parse.urljoin(base, tag.get("URI", ""))
        if tag.get("GROUP-ID") in groups.values() and url in by_url:
            medias.append(by_url[url][1])
            break
    tracks = [media.track for media in medias if media.track]
    video = next(((media, media.track) for media in medias if media.track and media.track.handler == "vide"), None)
    if video:
        wanted |= {"RESOLUTION", "FRAME-RATE"}
    report.check("MV-02", wanted <= set(attributes), f"missing: {wanted - set(attributes)}")
    codecs = [codec.strip().lower() for codec in attributes.get("CODECS", "").split(",")]
    report.check("MV-03", sorted(codecs) == sorted(track.codec.lower() for track in tracks), f"CODECS {codecs}, coded {[track.codec for track in tracks]}")
    if video:
        media, track = video
        report.check("MV-04", attributes.get("RESOLUTION") == f"{track.width}x{track.height}", f"RESOLUTION {attributes.get('RESOLUTION')}, coded {track.width}x{track.height}")
        if media.frame_seconds and "FRAME-RATE" in attributes:
            rate = len(media.frame_seconds) / sum(media.frame_seconds)
            report.check("MV-05", abs(rate - float(attributes["FRAME-RATE"])) <= 0.02 * rate, f"FRAME-RATE {attributes['FRAME-RATE']}, measured {rate:.3f}")
    judge_bandwidth(attributes, medias, report)


def judge_bandwidth(attributes, medias, report):
    common = set.intersection(*(set(media.segments) for media in medias)) if medias else set()
    if len(common) < 3 or not attributes.get("BANDWIDTH", "").isdigit():
        return
    rates = [sum(media.segments[msn][2] * 8 / (media.segments[msn][1] - media.segments[msn][0]) for media in medias) for msn in common]
    peak, average = max(rates), sum(rates) / len(rates)
    said = int(attributes["BANDWIDTH"])
    report.check("MV-06", 0.9 * peak <= said <= 2.5 * peak, f"BANDWIDTH {said}, measured peak {peak:.0f}")
    if attributes.get("AVERAGE-BANDWIDTH", "").isdigit():
        said = int(attributes["AVERAGE-BANDWIDTH"])
        report.check("MV-07", abs(said - average) <= 0.25 * average, f"AVERAGE-BANDWIDTH {said}, measured {average:.0f}")


def together(observers, medias, report):
    newest = [observer.newest() for observer in observers if observer.newest()]
    if not newest:
        return
    first = newest[0]
    for p in newest:
        report.check("MV-10", p.target == first.target, f"TARGETDURATION {first.target} and {p.target}")
        report.check("MV-15", p.type == first.type, f"PLAYLIST-TYPE {first.type} and {p.type}")
        # PART-HOLD-BACK follows each rendition's own PART-TARGET, and may differ with it.
        own, others = ({k: v for k, v in q.control.items() if q.part_target == first.part_target or k != "PART-HOLD-BACK"} for q in (p, first))
        others = {k: v for k, v in others.items() if k in own or p.part_target == first.part_target}
        report.check("MV-11", own == others, f"{first.control} and {p.control}")
    for media in medias[1:]:
        for msn in set(media.dates) & set(medias[0].dates):
            report.check("MV-12", abs(media.dates[msn] - medias[0].dates[msn]) <= 0.05, f"segment {msn}: program date minus media time {medias[0].dates[msn]:.3f} and {media.dates[msn]:.3f}")
        common = set(media.segments) & set(medias[0].segments)
        for msn in common:
            (a, b, _), (c, d, _) = medias[0].segments[msn], media.segments[msn]
            report.check("MD-16", min(b, d) - max(a, c) >= 0.8 * max(b - a, d - c), f"segment {msn}: {a:.3f}–{b:.3f} and {c:.3f}–{d:.3f}")
    dsn = [{s.msn: s.dsn for one in observer.seen for s in one.playlist.segments} for observer in observers]
    for other in dsn[1:]:
        for msn in set(other) & set(dsn[0]):
            report.check("MV-13", other[msn] == dsn[0][msn], f"segment {msn}: discontinuity sequence {dsn[0][msn]} and {other[msn]}")
    in_sync(observers, medias, report)


def in_sync(observers, medias, report):
    """MV-14: how far the ends of two renditions are apart in media time whenever one of them has just been renewed."""
    ends = []
    for observer, media in zip(observers, medias):
        reached = [(one.answer.done, max((media.parts[key][1] for key in one.playlist.part_keys() if key in media.parts), default=None)) for one in observer.seen]
        ends.append([(at, end) for at, end in reached if end is not None])
    if len(ends) < 2 or not all(ends):
        return
    limit = max(observer.newest().part_target or 0 for observer in observers)
    for other in ends[1:]:
        for at, end in ends[0]:
            # Where the other one was between a moment before and a moment after: the fairest of these counts.
            near = [e for t, e in other if at - limit - 0.2 <= t <= at + limit + 0.2]
            if near:
                report.check("MV-14", min(abs(e - end) for e in near) <= limit + 0.05, f"ends {min(abs(e - end) for e in near):.3f} s apart, Part Target {limit}")
