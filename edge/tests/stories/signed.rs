//! Signed playback: who is let in, for how long, from where, and what it costs to turn others away.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use tokio::task::JoinSet;
use weir_edge::config::Tickets;
use weir_shared::{
    directory::PlaybackSecret,
    hls::write,
    playback::{UnixMillis, policy::Policy, ticket},
};

use crate::{
    directory::{FakeDirectory, signed},
    origin::{FakeOrigin, Stage},
    site::{Answer, Site, Viewer, until},
};

pub(crate) const SECRET: &str = "aKq#1kj";
pub(crate) const OLD_SECRET: &str = "the one before";

/// What there is of a stream: one of each kind, and some that there might be.
pub(crate) const OBJECTS: [&str; 9] = [
    "index.m3u8",
    "d/llhls.m3u8",
    "d/video.m3u8",
    "d/aa/video/init0.mp4",
    "d/aa/video/1005.m4s",
    "d/aa/video/p41.m4s",
    "thumbnail.jpg",
    "ts:hls.m3u8",
    "vod/1/index.m3u8",
];

pub(crate) fn now() -> UnixMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) fn an_hour() -> Policy {
    Policy::until(now() + 3_600_000)
}

pub(crate) fn query(policy: &Policy) -> String {
    query_by(SECRET, policy)
}

pub(crate) fn query_by(secret: &str, policy: &Policy) -> String {
    let minted = ticket::mint(&"show".parse().unwrap(), &PlaybackSecret::new(secret), policy);
    minted.unwrap().query()
}

pub(crate) struct Signed {
    pub(crate) origin: FakeOrigin,
    pub(crate) directory: FakeDirectory,
    pub(crate) site: Site,
}

impl Signed {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| ()).await
    }

    pub(crate) async fn configured(change: impl FnOnce(&mut weir_edge::config::Config)) -> Self {
        let origin = FakeOrigin::start(Stage {
            parts: 42,
            ..Stage::new("aa", 1000)
        });
        let directory = FakeDirectory::start([signed("show", &[SECRET, OLD_SECRET])]).await;
        let site = Site::configured(origin.addr, |config| {
            config.directory = Some(directory.config());
            change(config);
        })
        .await;
        Self {
            origin,
            directory,
            site,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.site.viewer.get(&format!("/app/show/{path}")).await
    }

    /// The ticketed directory that a viewer with this policy is sent to.
    pub(crate) async fn enter(&self, policy: &Policy) -> String {
        let entered = self.get(&format!("index.m3u8?{}", query(policy))).await;
        assert_eq!(entered.status, StatusCode::OK, "{}", entered.text());
        directory_of_children(&entered)
    }
}

/// `~<ticket>` out of a multivariant playlist.
pub(crate) fn directory_of_children(entered: &Answer) -> String {
    let text = entered.text();
    let child = text.lines().find(|line| line.ends_with("d/video.m3u8"));
    let directory = child.and_then(|child| child.strip_suffix("/d/video.m3u8"));
    directory.expect("a ticketed child").to_owned()
}

pub(crate) fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("cache-control"), "no-store");
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["error"]["code"], code);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_ticket_there_is_nothing_and_nobody_is_asked() {
    let signed = Signed::start().await;
    let expired = query(&Policy::until(now() - 1));
    let early = query(&Policy {
        url_activate: Some(now() + 60_000),
        ..an_hour()
    });
    let elsewhere = query(&Policy {
        allow_ip: Some("203.0.113.0/24".parse().unwrap()),
        ..an_hour()
    });
    let forged = query_by("another", &an_hour());
    for object in OBJECTS {
        for (query, code) in [
            ("", "ticket_missing"),
            ("?policy=&signature=", "ticket_malformed"),
            (&*format!("?{forged}"), "ticket_invalid"),
            (&*format!("?{expired}"), "ticket_expired"),
            (&*format!("?{early}"), "ticket_not_active"),
            (&*format!("?{elsewhere}"), "ticket_address"),
            (
                &*format!("?{}&{}", query(&an_hour()), query(&an_hour())),
                "ticket_malformed",
            ),
            ("?token=eyJhbGciOiJub25lIn0.e30.", "ticket_malformed"),
        ] {
            let answer = signed.get(&format!("{object}{query}")).await;
            assert_refused(&answer, 401, code);
        }
        assert_refused(&signed.get(&format!("~AAAA/{object}")).await, 401, "ticket_malformed");
        let made_up = "A".repeat(35);
        assert_refused(
            &signed.get(&format!("~{made_up}/{object}")).await,
            401,
            "ticket_invalid",
        );
    }
    assert_eq!(signed.origin.asked(""), 0, "no request reached the origin");
    assert_eq!(
        signed
            .site
            .metric("weir_edge_upstream_requests_total{outcome=\"ok\"}")
            .await,
        0
    );
    // Once for the first viewer, and once more if the edge has only then begun to follow the directory.
    assert!(
        (1..=2).contains(&signed.directory.asked()),
        "{}",
        signed.directory.asked()
    );
    let refused = signed
        .site
        .metric("weir_edge_auth_refused_total{reason=\"ticket_missing\"}")
        .await;
    assert_eq!(refused, OBJECTS.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_address_opens_the_stream_and_its_ticket_everything_below() {
    let signed = Signed::start().await;
    for entrance in ["index.m3u8", "llhls.m3u8", "d/llhls.m3u8"] {
        let entered = signed.get(&format!("{entrance}?{}", query(&an_hour()))).await;
        assert_eq!(entered.status, StatusCode::OK);
        assert_eq!(entered.header("cache-control"), "no-store");
        let child = entered.text().lines().last().unwrap().to_owned();
        let base = format!("http://h/app/show/{entrance}");
        let resolved = url::Url::parse(&base).unwrap().join(&child).unwrap();
        let path = resolved.path();
        assert!(
            path.starts_with("/app/show/~") && path.ends_with("/d/video.m3u8"),
            "{path}"
        );
        let playlist = signed.site.viewer.get(path).await;
        assert_eq!(playlist.text(), write::write(&signed.origin.stage().playlist()));
        let directory = path.strip_suffix("video.m3u8").unwrap();
        let part = signed.site.viewer.get(&format!("{directory}aa/video/p41.m4s")).await;
        assert_eq!(part.body, signed.origin.stage().part(41));
        let segment = signed.site.viewer.get(&format!("{directory}aa/video/1005.m4s")).await;
        assert_eq!(segment.body, signed.origin.stage().segment(1005));
        let again = signed
            .site
            .viewer
            .get(&path.replace("d/video.m3u8", "index.m3u8"))
            .await;
        assert_eq!(again.status, StatusCode::OK);
    }
    let twice: Vec<_> = signed.origin.asked_twice();
    let media: Vec<_> = twice
        .iter()
        .filter(|(path, _)| !path.ends_with("ls.m3u8") && !path.ends_with("index.m3u8"))
        .collect();
    assert!(media.is_empty(), "{media:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_viewers_get_the_same_bytes() {
    let signed = Signed::start().await;
    let (one, two) = (signed.enter(&an_hour()).await, signed.enter(&an_hour()).await);
    assert_ne!(one, two, "each viewer has a ticket of their own");
    for object in [
        "d/video.m3u8",
        "d/aa/video/init0.mp4",
        "d/aa/video/1005.m4s",
        "d/aa/video/p41.m4s",
    ] {
        let answers = [
            signed.get(&format!("{one}/{object}")).await,
            signed.get(&format!("{two}/{object}")).await,
            signed.get(&format!("{two}/{object}?utm=1&policy=x")).await,
        ];
        assert_eq!(answers[0].status, StatusCode::OK);
        for other in &answers[1..] {
            assert_eq!(other.body, answers[0].body, "{object}");
            assert_eq!(other.header("etag"), answers[0].header("etag"));
            assert_eq!(other.header("cache-control"), answers[0].header("cache-control"));
        }
        assert!(!String::from_utf8_lossy(&answers[0].body).contains('~'));
    }
    // And while they are held.
    let mut waiting = JoinSet::new();
    for directory in [&one, &two].repeat(10) {
        let path = format!("/app/show/{directory}/d/video.m3u8?{}", signed.origin.stage().next());
        let viewer = signed.site.viewer.clone();
        waiting.spawn(async move { viewer.get(&path).await.body });
    }
    signed.site.until_metric("weir_edge_holding", 20).await;
    signed.origin.publish();
    let bodies = waiting.join_all().await;
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(signed.origin.asked("_HLS_msn=1010&_HLS_part=2&_HLS_skip=YES"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_child_is_sent_to_its_ticketed_address_once() {
    let signed = Signed::start().await;
    for (object, query_before, query_after) in [
        ("d/video.m3u8", "_HLS_msn=1004&", "?_HLS_msn=1004"),
        ("d/aa/video/p41.m4s", "", ""),
    ] {
        let asked = format!("/app/show/{object}?{query_before}{}", query(&an_hour()));
        let redirect = signed.site.viewer.get(&asked).await;
        assert_eq!(redirect.status, StatusCode::FOUND);
        assert_eq!(redirect.header("cache-control"), "no-store");
        assert_eq!(redirect.header("access-control-allow-origin"), "*");
        let there = url::Url::parse(&format!("http://h{asked}")).unwrap();
        let there = there.join(redirect.header("location")).unwrap();
        assert!(there.path().starts_with("/app/show/~") && there.path().ends_with(object));
        assert_eq!(there.query().map_or(String::new(), |q| format!("?{q}")), query_after);
        let answer = signed.site.viewer.get(&there.as_str()["http://h".len()..]).await;
        assert_eq!(answer.status, StatusCode::OK, "and no further redirect");
    }
    let nothing = signed.get(&format!("d/aa/video/nothing?{}", query(&an_hour()))).await;
    assert_refused(&nothing, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_viewers_time_ends_a_hold() {
    let signed = Signed::start().await;
    let end = now() + 700;
    let brief = signed
        .enter(&Policy {
            stream_expire: Some(end),
            ..an_hour()
        })
        .await;
    let endless = signed.enter(&an_hour()).await;
    let (viewer, next) = (signed.site.viewer.clone(), signed.origin.stage().next());
    let hold = |directory: &str| {
        let (viewer, path) = (viewer.another(), format!("/app/show/{directory}/d/video.m3u8?{next}"));
        tokio::spawn(async move { viewer.get(&path).await })
    };
    let part = {
        let (viewer, path) = (viewer.another(), format!("/app/show/{brief}/d/aa/video/p42.m4s"));
        tokio::spawn(async move { viewer.get(&path).await })
    };
    let (cut, kept) = (hold(&brief), hold(&endless));
    assert_refused(&cut.await.unwrap(), 401, "stream_expired");
    assert!(now() >= end, "not before its time");
    assert!(now() < end + 2000, "nor at the hold's own end");
    assert_refused(&part.await.unwrap(), 401, "stream_expired");
    assert_refused(
        &signed.get(&format!("{brief}/d/video.m3u8")).await,
        401,
        "stream_expired",
    );
    signed.origin.publish();
    assert_eq!(kept.await.unwrap().status, StatusCode::OK, "others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_address_does_not_end_a_viewer() {
    let signed = Signed::start().await;
    let policy = Policy::until(now() + 300);
    let address = format!("index.m3u8?{}", query(&policy));
    let directory = directory_of_children(&signed.get(&address).await);
    until("the address has expired", async || {
        signed.get(&address).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(
        signed.get(&format!("{directory}/d/video.m3u8")).await.status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_is_bound_does_not_travel() {
    let signed = Signed::start().await;
    let here = Policy {
        allow_ip: Some("127.0.0.1".parse().unwrap()),
        ..an_hour()
    };
    let directory = signed.enter(&here).await;
    assert_eq!(
        signed.get(&format!("{directory}/d/video.m3u8")).await.status,
        StatusCode::OK
    );
    // The whole of 127.0.0.0/8 is this machine.
    let edge = signed.site.edge.http.unwrap();
    let elsewhere = Viewer::from("127.0.0.2".parse().unwrap(), edge);
    for object in OBJECTS {
        let replayed = elsewhere.get(&format!("/app/show/{directory}/{object}")).await;
        assert_refused(&replayed, 401, "ticket_address");
    }
    let entrance = elsewhere.get(&format!("/app/show/index.m3u8?{}", query(&here))).await;
    assert_refused(&entrance, 401, "ticket_address");
    // What nobody vouches for is not believed.
    let headers = [("x-real-ip", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1")];
    let path = format!("/app/show/{directory}/d/video.m3u8");
    assert_refused(&elsewhere.ask("GET", &path, &headers).await, 401, "ticket_address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_the_viewer_is_who_it_says() {
    let signed = Signed::configured(|config| {
        config.playback.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let real = Policy {
        real_ip: Some("203.0.113.0/24".parse().unwrap()),
        ..an_hour()
    };
    let path = format!("/app/show/index.m3u8?{}", query(&real));
    for (name, value, expected) in [
        ("x-real-ip", "203.0.113.9", 200),
        ("x-real-ip", "203.0.114.9", 401),
        ("x-forwarded-for", "203.0.113.9", 200),
        ("x-forwarded-for", "198.51.100.1, 203.0.113.9, 10.1.2.3", 200),
        ("x-forwarded-for", "203.0.113.9, 198.51.100.1", 401),
        ("x-forwarded-for", "203.0.113.9, nonsense", 401),
        ("x-other", "203.0.113.9", 401),
    ] {
        let answer = signed.site.viewer.ask("GET", &path, &[(name, value)]).await;
        assert_eq!(answer.status, expected, "{name}: {value}");
    }
    let stranger = Viewer::from("127.0.0.2".parse().unwrap(), signed.site.edge.http.unwrap());
    let answer = stranger.ask("GET", &path, &[("x-real-ip", "203.0.113.9")]).await;
    assert_refused(&answer, 401, "ticket_address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_edge_reads_a_ticket_and_a_new_secret_ends_the_oldest_ones() {
    let signed = Signed::start().await;
    let other = Site::configured(signed.origin.addr, |config| {
        config.directory = Some(signed.directory.config());
    })
    .await;
    let old = signed
        .get(&format!("index.m3u8?{}", query_by(OLD_SECRET, &an_hour())))
        .await;
    assert_eq!(old.status, StatusCode::OK, "the secret before is still valid");
    let path = format!("/app/show/{}/d/video.m3u8", directory_of_children(&old));
    assert_eq!(other.viewer.get(&path).await.status, StatusCode::OK, "another edge");

    let secrets = |secrets: &'static [&str]| {
        signed.directory.change("show", |record| {
            record.playback_secrets = secrets.iter().copied().map(PlaybackSecret::new).collect();
        });
    };
    secrets(&["new", SECRET]);
    let gone = format!("index.m3u8?{}", query_by(OLD_SECRET, &an_hour()));
    until("the oldest secret is gone", async || {
        signed.get(&gone).await.status == 401
    })
    .await;
    assert_eq!(
        signed.site.viewer.get(&path).await.status,
        StatusCode::OK,
        "sessions are the newest secret's"
    );
    secrets(&["newer", "new"]);
    for viewer in [&signed.site.viewer, &other.viewer] {
        until("its secret is gone, too", async || {
            viewer.get(&path).await.status == 401
        })
        .await;
    }
    secrets(&[]);
    let last = format!("index.m3u8?{}", query_by("newer", &an_hour()));
    until("no secret, no viewer", async || signed.get(&last).await.status == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_may_leave_tickets_to_whoever_stands_in_front() {
    let signed = Signed::configured(|config| config.http.as_mut().unwrap().tickets = Tickets::Off).await;
    for object in [
        "index.m3u8",
        "d/video.m3u8",
        "d/aa/video/p41.m4s",
        "~whatever/d/video.m3u8",
    ] {
        assert_eq!(signed.get(object).await.status, StatusCode::OK, "{object}");
    }
    signed.directory.change("show", |record| record.backstage = true);
    until("backstage stays closed", async || {
        signed.get("index.m3u8").await.status == 403
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_ticket_looks_backstage() {
    let signed = Signed::start().await;
    for signed_playback in [false, true] {
        signed.directory.change("show", |record| {
            record.backstage = true;
            record.signed_playback = signed_playback;
        });
        let (status, code) = match signed_playback {
            false => (403, "stream_backstage"),
            true => (401, "ticket_missing"),
        };
        until("the edge has heard of it", async || {
            signed.get("index.m3u8").await.status == status
        })
        .await;
        for object in ["index.m3u8", "d/video.m3u8", "d/aa/video/p41.m4s"] {
            assert_refused(&signed.get(object).await, status, code);
            let ordinary = signed.get(&format!("{object}?{}", query(&an_hour()))).await;
            assert_refused(&ordinary, 403, "stream_backstage");
        }
        let preview = Policy {
            preview: true,
            ..an_hour()
        };
        let directory = signed.enter(&preview).await;
        // Nobody waits for the end of what is not over: that would be ten seconds.
        let begun = Instant::now();
        for object in ["d/video.m3u8", "d/aa/video/p41.m4s"].repeat(5) {
            assert_eq!(
                signed.get(&format!("{directory}/{object}")).await.status,
                StatusCode::OK
            );
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
