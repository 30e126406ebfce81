//! Each way to lie is caught and named.

use std::time::Duration;

use crate::{
    content::Shape,
    moment::Moment,
    stamp::STAMP_BYTES,
    theatre::{Reply, Stage, serve},
    viewer::{Failure, Pattern},
};

fn shape() -> Shape {
    Shape {
        streams: 2,
        renditions: vec![80_000, 40_000],
        ..Shape::default()
    }
}

/// What is found in `seconds` when `meddle` changes what the server says.
fn found(seconds: u64, mut meddle: impl FnMut(&Stage0, &str, Moment, Reply) -> Reply) -> Vec<&'static str> {
    let mut stage = Stage::new(shape(), |plan| plan.pattern = Pattern::HlsJs);
    let content = stage.content.clone();
    stage.run(Duration::from_secs(seconds), |path, now, reply| {
        meddle(&Stage0 { content: &content }, path, now, reply)
    });
    stage.broken()
}

struct Stage0<'a> {
    content: &'a crate::content::Content,
}

fn on_text(path: &str, reply: Reply, change: impl FnOnce(String) -> String) -> Reply {
    match reply {
        Reply::Body(200, body) if path.contains(".m3u8") => {
            Reply::Body(200, change(String::from_utf8(body).unwrap()).into_bytes())
        }
        other => other,
    }
}

#[test]
fn an_honest_server_breaks_nothing() {
    assert_eq!(found(10, |_, _, _, reply| reply), [""; 0]);
}

#[test]
fn a_skipped_part_is_a_gap() {
    let rules = found(8, |stage, path, _, reply| {
        let skipped = stage.content.parts_at(crate::theatre::START) / 5 * 5 + 12;
        on_text(path, reply, |text| {
            let name = format!("/p{skipped}.m4s");
            let kept = |line: &&str| !(line.starts_with("#EXT-X-PART:") && line.contains(&name));
            text.lines().filter(kept).map(|line| format!("{line}\n")).collect()
        })
    });
    assert!(rules.contains(&"VW-03") && rules.contains(&"PL-23"), "{rules:?}");
}

#[test]
fn a_stale_playlist_goes_back_or_comes_early() {
    let rules = found(8, |stage, path, now, reply| match reply {
        Reply::Body(200, _) if path.contains("_HLS_part=4") => {
            let old = now.minus(Duration::from_millis(700));
            serve(stage.content, path.split('?').next().unwrap(), old)
        }
        reply => reply,
    });
    assert!(rules.contains(&"UP-09") && rules.contains(&"BL-01"), "{rules:?}");
}

#[test]
fn bytes_of_another_stream_are_foreign() {
    let rules = found(4, |stage, path, now, reply| match reply {
        Reply::Body(200, _) if path.contains("/p") => serve(stage.content, &path.replace("/s0/", "/s1/"), now),
        reply => reply,
    });
    assert_eq!(rules, ["VW-05"]);
}

#[test]
fn other_bytes_under_the_same_name_are_caught_without_any_stamp() {
    let mut ledger = super::Ledger::default();
    assert!(ledger.check("/x", 5000, Some(1)).is_none());
    assert!(ledger.check("/x", 5000, Some(2)).is_some());
}

#[test]
fn a_rendition_that_stands_still_is_named_when_others_go_on() {
    let mut stage = Stage::new(shape(), |plan| plan.pattern = Pattern::Safari);
    stage.run_plainly(Duration::from_secs(3));
    stage.run(Duration::from_secs(4), |_, _, _| Reply::Hold);
    assert_eq!(
        stage.broken(),
        [""; 0],
        "as long as nobody has news, the source may be silent"
    );
    stage.others_go_on();
    stage.run(Duration::from_millis(100), |_, _, _| Reply::Hold);
    assert_eq!(stage.broken(), ["VW-08"]);
}

#[test]
fn an_answer_before_its_time_is_early() {
    let early = Duration::from_millis(150);
    let rules = found(5, |stage, path, now, reply| match reply {
        Reply::Hold if path.contains(".m3u8") => {
            let plain = path.replace("_HLS_", "_XXX_");
            serve(stage.content, &plain, now)
        }
        reply => reply,
    });
    assert_eq!(rules, ["BL-01"]);
    let mut stage = Stage::new(shape(), |plan| plan.pattern = Pattern::Safari);
    let content = stage.content.clone();
    stage.run(Duration::from_secs(5), |path, now, reply| match reply {
        Reply::Hold if path.contains("/p") => serve(&content, path, now.plus(early)),
        reply => reply,
    });
    assert_eq!(stage.broken(), ["PH-02"]);
}

#[test]
fn a_truncated_body_is_not_whole() {
    let rules = found(4, |_, path, _, reply| match reply {
        Reply::Body(200, body) if path.ends_with("7.m4s") => {
            let announced = body.len() as u64;
            Reply::Fail(Failure::Truncated {
                got: announced / 2,
                announced,
            })
        }
        reply => reply,
    });
    assert!(rules.contains(&"VW-07"), "{rules:?}");
}

#[test]
fn a_hint_that_is_refused_or_broken_is_named() {
    let safari = |meddle: fn(&str, Reply) -> Reply| {
        let mut stage = Stage::new(shape(), |plan| plan.pattern = Pattern::Safari);
        stage.run(Duration::from_secs(4), |path, _, reply| meddle(path, reply));
        stage.broken()
    };
    let refused = safari(|path, reply| match reply {
        Reply::Hold if path.contains("/p") => Reply::Body(404, vec![]),
        reply => reply,
    });
    assert_eq!(refused, ["PH-01"]);
    let broken = safari(|path, reply| {
        on_text(path, reply, |text| {
            text.replace("TYPE=PART,URI=\"", "TYPE=PART,URI=\"x")
        })
    });
    assert_eq!(broken, ["UP-06"]);
}

#[test]
fn a_part_listed_and_not_there_is_named() {
    let rules = found(4, |_, path, _, reply| match reply {
        Reply::Body(200, _) if path.ends_with("3.m4s") => Reply::Body(404, vec![]),
        reply => reply,
    });
    assert_eq!(rules, ["PH-05"]);
}

#[test]
fn a_late_rendition_report_is_named() {
    let rules = found(4, |stage, path, _, reply| {
        let old = stage.content.edge(stage.content.parts_at(crate::theatre::START)).open.0 - 1;
        on_text(path, reply, |text| {
            let line = |line: &str| match line.split_once(",LAST-MSN=") {
                Some((head, _)) => format!("{head},LAST-MSN={old},LAST-PART=0\n"),
                None => format!("{line}\n"),
            };
            text.lines().map(line).collect()
        })
    });
    assert_eq!(rules, ["RR-03"]);
}

#[test]
fn headers_do_not_change_and_deltas_come_only_when_asked() {
    let rules = found(6, |_, path, now, reply| {
        let late = now.since(crate::theatre::START) > Duration::from_secs(3);
        on_text(path, reply, |text| {
            if late {
                text.replace("HOLD-BACK=3", "HOLD-BACK=4")
            } else {
                text
            }
        })
    });
    assert_eq!(rules, ["UP-10"]);
    let mut stage = Stage::new(shape(), |plan| plan.delta = false);
    stage.run(Duration::from_secs(3), |path, _, reply| {
        on_text(path, reply, |text| {
            text.replace("MEDIA-SEQUENCE", "SKIP:SKIPPED-SEGMENTS=2\n#EXT-X-MEDIA-SEQUENCE")
        })
    });
    assert!(stage.broken().contains(&"PL-36"), "{:?}", stage.broken());
}

#[test]
fn a_ticket_has_one_owner() {
    use super::{Common, Oracle};
    use crate::{tally::Tally, viewer::Event};
    let (mut common, mut tally) = (Common::default(), Tally::default());
    let event = |ticket: &str| Event::Multivariant {
        text: format!("#EXTM3U\n~{ticket}/d/video.m3u8\n").into(),
    };
    let now = Moment(1);
    Oracle::new(1).take(&event("aaaa"), &mut common, &mut tally, now);
    Oracle::new(2).take(&event("bbbb"), &mut common, &mut tally, now);
    assert_eq!(tally.counts.violations, 0);
    Oracle::new(3).take(&event("bbbb"), &mut common, &mut tally, now);
    let rules: Vec<_> = tally.broken.keys().map(|rule| rule.id()).collect();
    assert_eq!(rules, ["VW-06"]);
    let told = format!("{:?}", tally.broken);
    assert!(!told.contains("bbbb"), "a ticket is a secret: {told}");
}

#[test]
fn a_stamp_fits_the_head_that_is_kept() {
    const { assert!(STAMP_BYTES <= crate::stamp::HEAD_BYTES) }
}
