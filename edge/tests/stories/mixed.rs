//! Viewers of every protocol, each with a ticket of their own and a habit of their own, cost what one viewer costs.

use http::StatusCode;
use tokio::task::JoinSet;

use crate::{
    line::{Doors, Line, Protocol},
    signed::{Signed, an_hour},
    tls::https,
};

/// Of each protocol.
const VIEWERS: u64 = 12;
const PARTS: u64 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mix_of_viewers_costs_one_request_per_object() {
    let signed = Signed::configured(|config| config.https = Some(https(None))).await;
    let doors = Doors::of(&signed.site);
    let mut viewers = Vec::new();
    for n in 0..VIEWERS {
        for protocol in Protocol::ALL {
            let line = Line::open(protocol, doors).await;
            let ticket = signed.enter(&an_hour()).await;
            viewers.push((n, line, format!("/app/show/{ticket}/d")));
        }
    }
    // Who asks for a hinted part before anybody has asked for its playlist is not held here, but by the origin.
    let (_, line, directory) = &mut viewers[0];
    assert_eq!(
        line.get(&format!("{directory}/video.m3u8")).await.unwrap().0,
        StatusCode::OK
    );
    for _ in 0..PARTS {
        let before = signed.origin.stage();
        let mut waiting = JoinSet::new();
        for (n, mut line, directory) in viewers {
            let part = format!("{directory}/aa/video/p{}.m4s", before.parts);
            // In turn: a full update, a delta, with what the edge need not know; and the hinted part before its news.
            let reload = match n % 4 {
                0 => format!("{directory}/video.m3u8?{}", before.next()),
                1 => format!("{directory}/video.m3u8?{}&_HLS_skip=YES", before.next()),
                2 => format!("{directory}/video.m3u8?_HLS_skip=YES&{}&cb={n}", before.next()),
                _ => part.clone(),
            };
            waiting.spawn(async move {
                let (told, news) = line.get(&reload).await.unwrap();
                assert_eq!(told, StatusCode::OK, "{reload}: {news:?}");
                let (status, body) = line.get(&part).await.unwrap();
                assert_eq!(status, StatusCode::OK, "{part}: {body:?}");
                ((n, line, directory), body)
            });
        }
        signed.site.until_metric("weir_edge_holding", 3 * VIEWERS).await;
        let number = signed.origin.publish();
        let answers = waiting.join_all().await;
        assert!(answers.iter().all(|(_, body)| *body == before.part(number)));
        viewers = answers.into_iter().map(|(viewer, _)| viewer).collect();
    }
    for (_, line, directory) in &mut viewers {
        for object in ["aa/video/init0.mp4", "aa/video/1005.m4s"] {
            assert_eq!(
                line.get(&format!("{directory}/{object}")).await.unwrap().0,
                StatusCode::OK
            );
        }
    }
    // The playlist of playlists is good for half a second only.
    let mut twice = signed.origin.asked_twice();
    twice.retain(|(path, _)| !path.ends_with("index.m3u8") && !path.ends_with("llhls.m3u8"));
    assert_eq!(twice, vec![]);
    assert_eq!(signed.origin.asked_with("~"), 0, "tickets stay here");
    for protocol in ["h1", "h2", "h3"] {
        let seen = format!(r#"weir_edge_requests_total{{object="part",outcome="ok",protocol="{protocol}"}}"#);
        assert!(signed.site.metric(&seen).await >= VIEWERS * PARTS, "{protocol}");
    }
}
