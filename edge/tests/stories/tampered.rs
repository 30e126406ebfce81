//! Tickets that somebody has changed, and where the text of genuine ones goes.

use http::StatusCode;
use tokio::task::JoinSet;
use weir_shared::playback::{policy::Policy, session};

use crate::signed::{OBJECTS, Signed, an_hour, now, query};

/// Every byte of signed addresses and session tickets flipped once, over the wire; the pure checks try far more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tampered_tickets_open_nothing() {
    let signed = Signed::start().await;
    let bound = Policy {
        stream_expire: Some(now() + 3_600_000),
        allow_ip: Some("127.0.0.0/8".parse().unwrap()),
        real_ip: Some("127.0.0.0/8".parse().unwrap()),
        ..an_hour()
    };
    let mut good = Vec::new();
    for _ in 0..30 {
        good.push((format!("/app/show/{}/", signed.enter(&bound).await), "d/video.m3u8", 11));
    }
    good.push((format!("/app/show/index.m3u8?{}", query(&bound)), "", 28));
    let mut tampered = Vec::new();
    for (ticket, rest, first) in &good {
        assert_eq!(
            signed.site.viewer.get(&format!("{ticket}{rest}")).await.status,
            StatusCode::OK
        );
        let end = ticket.len() - usize::from(!rest.is_empty());
        for at in *first..end {
            for flip in [1u8, 2, 4, 8, 16, 32, 64] {
                let mut bytes = ticket.clone().into_bytes();
                bytes[at] ^= flip;
                // Others can't be sent in a request line, or end the path.
                let sendable = bytes[at].is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%|".contains(&bytes[at]);
                if sendable {
                    tampered.push(format!("{}{rest}", String::from_utf8(bytes).unwrap()));
                }
            }
        }
    }
    assert!(tampered.len() >= 10_000, "{}", tampered.len());
    // The edge itself goes on following the playlist and its next part.
    let origin = &signed.origin;
    let asked = || origin.asked("") - origin.asked_with("/video.m3u8") - origin.asked("/p42.m4s");
    let upstream = asked();
    let mut workers = JoinSet::new();
    for chunk in tampered.chunks(tampered.len().div_ceil(8)) {
        let (viewer, chunk) = (signed.site.viewer.another(), chunk.to_vec());
        workers.spawn(async move {
            for path in chunk {
                let answer = viewer.get(&path).await;
                // A broken mark makes it a name that there is not, which needs a ticket as well.
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            }
        });
    }
    workers.join_all().await;
    assert_eq!(asked(), upstream, "not one of them reached the origin");
}

/// A ticket's text never leaves the edge: not to the origin, not into a cache key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origin_never_sees_a_ticket() {
    let signed = Signed::start().await;
    let directory = signed.enter(&an_hour()).await;
    assert!(directory.starts_with(session::MARK));
    for object in OBJECTS {
        signed
            .get(&format!("{directory}/{object}?x=1&{}", query(&an_hour())))
            .await;
    }
    assert_eq!(
        signed.origin.asked_with("~") + signed.origin.asked_with("policy") + signed.origin.asked_with("x=1"),
        0
    );
    assert!(signed.origin.asked("") > 0);
}
