use super::*;

pub(crate) fn rendition(name: &str) -> RenditionName {
    name.parse().unwrap()
}

pub(crate) fn begin() -> Line {
    Line::Begin {
        key: "show".parse().unwrap(),
        recording: "r1".parse().unwrap(),
        started_ms: 1_795_000_000_000,
    }
}

pub(crate) fn init(of: &str, epoch: u64) -> Line {
    Line::Init {
        rendition: rendition(of),
        epoch,
        index: 0,
        bytes: 700,
        sha256: "aa".to_owned(),
        target_duration_seconds: 4,
    }
}

/// A whole segment of two parts of 500 bytes and one second each.
pub(crate) fn segment(of: &str, epoch: u64, msn: u64, new_publisher: bool) -> Vec<Line> {
    let part = Line::Part {
        rendition: rendition(of),
        bytes: 500,
        duration_us: 1_000_000,
        sum: "00".to_owned(),
        key_frame_bytes: Some(120),
    };
    vec![
        Line::Open {
            rendition: rendition(of),
            epoch,
            msn,
            pdt_ms: 1_795_000_000_000 + msn * 2000,
            discontinuity: false,
            new_publisher,
            init: 0,
            independent: true,
        },
        part.clone(),
        part,
        Line::Close {
            rendition: rendition(of),
            bytes: 1000,
            duration_us: 2_000_000,
            sha256: format!("{msn:x}"),
        },
    ]
}

pub(crate) fn stored(of: &str, epoch: u64, msn: u64) -> Line {
    Line::Stored {
        rendition: rendition(of),
        epoch,
        msn,
    }
}

#[test]
fn a_ledger_is_the_sum_of_its_lines_wherever_they_come_from() {
    let mut lines = vec![begin(), init("video", 9)];
    lines.extend(segment("video", 9, 100, false));
    lines.extend(segment("video", 9, 101, false));
    let (mut ledger, good) = Ledger::replay(&lines).unwrap();
    assert_eq!(good, lines.len());
    assert_eq!(ledger.duration(), Duration::from_secs(4));
    assert_eq!((ledger.backlog_bytes(), ledger.media_bytes()), (2000, 2000));
    let names = |ledger: &Ledger| -> Vec<String> {
        let pending = ledger.pending(10, |_| false);
        pending.iter().map(|p| p.name.to_string()).collect()
    };
    assert_eq!(
        names(&ledger),
        ["9/video/init0.mp4", "9/video/100.m4s", "9/video/101.m4s"]
    );
    ledger.apply(&stored("video", 9, 100)).unwrap();
    assert_eq!(names(&ledger), ["9/video/init0.mp4", "9/video/101.m4s"]);
    assert!(!ledger.is_settled());
}

#[test]
fn a_line_that_makes_no_sense_ends_what_is_believed() {
    let part = segment("video", 9, 1, false)[1].clone();
    for (bad, why) in [
        (part, BadLine::NothingOpen),
        (stored("video", 9, 7), BadLine::Unknown),
        (stored("audio", 9, 7), BadLine::Unknown),
        (segment("video", 8, 1, false)[0].clone(), BadLine::Unknown),
        (begin(), BadLine::NoBeginning),
    ] {
        let (mut ledger, _) = Ledger::replay(&[begin(), init("video", 9)]).unwrap();
        let before = ledger.clone();
        assert_eq!(ledger.apply(&bad), Err(why), "{bad:?}");
        assert_eq!(ledger, before);
        let (_, good) = Ledger::replay(&[begin(), init("video", 9), bad, init("audio", 9)]).unwrap();
        assert_eq!(good, 2);
    }
    assert_eq!(Ledger::replay(&[]).unwrap_err(), BadLine::NoBeginning);
    assert_eq!(Ledger::replay(&[init("video", 9)]).unwrap_err(), BadLine::NoBeginning);
}

#[test]
fn no_more_renditions_than_a_recording_may_have() {
    let (mut ledger, _) = Ledger::replay(&[begin()]).unwrap();
    for n in 0..MAX_RENDITIONS {
        ledger.apply(&init(&format!("video-{n}"), 9)).unwrap();
    }
    assert_eq!(ledger.apply(&init("one-more", 9)), Err(BadLine::TooManyRenditions));
    assert_eq!(ledger.apply(&init("video-3", 10)), Ok(()));
}
