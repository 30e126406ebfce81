//! A tier of parents between edges and an origin: the origin is asked once, whoever watches where, tickets included.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use weir_edge::config::Config;

use crate::{
    directory::{FakeDirectory, signed},
    fleet::{Player, base},
    origin::{FakeOrigin, Stage},
    signed::{SECRET, an_hour, assert_refused, directory_of_children, query},
    site::{Site, until},
};

/// Edges that have this one as their parent.
async fn children(of: &Site, origin: &FakeOrigin, change: impl Fn(&mut Config)) -> [Site; 3] {
    let shield = base(of.edge.http.unwrap());
    let child = || {
        Site::configured(origin.addr, |config| {
            config.parents = vec![shield.clone()];
            change(config);
        })
    };
    [child().await, child().await, child().await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_behind_a_parent_cost_the_origin_one_request_per_object() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let parent = Site::new(origin.addr).await;
    let edges = children(&parent, &origin, |_| ()).await;
    for edge in &edges {
        edge.viewer.object("video.m3u8").await;
    }
    for _ in 0..5 {
        let (reload, number) = (origin.stage().next(), origin.stage().parts);
        let mut waiting = JoinSet::new();
        for n in 0..60 {
            let viewer = edges[n % 3].viewer.another();
            let path = match n % 2 {
                0 => format!("video.m3u8?{reload}"),
                _ => format!("aa/video/p{number}.m4s"),
            };
            waiting.spawn(async move { viewer.object(&path).await });
        }
        for edge in &edges {
            edge.until_metric("weir_edge_holding", 20).await;
        }
        origin.publish();
        for answer in waiting.join_all().await {
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
    assert_eq!(origin.asked_twice(), vec![]);
    // The parent goes: its children know the origin, too.
    parent.edge.shutdown().await;
    let mut player = Player::start(edges[0].viewer.another()).await;
    origin.publish();
    let (_, took) = player.step().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Children look at the tickets of their viewers, and are themselves known by the fleet's credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_gives_its_children_what_viewers_need_tickets_for() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let directory = FakeDirectory::start([signed("show", &[SECRET])]).await;
    let fleet = |config: &mut Config| {
        config.directory = Some(directory.config());
        // What one viewer may take would not do for an edge.
        config.limits.exempt.clear();
        config.limits.address_requests.per_second = 1.try_into().unwrap();
        config.limits.address_requests.burst = 10.try_into().unwrap();
    };
    let parent = Site::configured(origin.addr, fleet).await;
    let edges = children(&parent, &origin, |config| config.directory = Some(directory.config())).await;
    let entrance = format!("/app/show/index.m3u8?{}", query(&an_hour()));
    let mut tickets = Vec::new();
    for edge in &edges {
        let entered = edge.viewer.get(&entrance).await;
        assert_eq!(entered.status, StatusCode::OK, "{}", entered.text());
        tickets.push(format!("/app/show/{}/d", directory_of_children(&entered)));
    }
    for edge in &edges {
        let playlist = format!("{}/video.m3u8", tickets[0]);
        assert_eq!(edge.viewer.get(&playlist).await.status, StatusCode::OK);
    }
    for _ in 0..10 {
        let (reload, number) = (origin.stage().next(), origin.stage().parts);
        let mut waiting = JoinSet::new();
        for n in 0..30 {
            // Any ticket at any edge.
            let (viewer, directory) = (edges[n % 3].viewer.another(), &tickets[n / 3 % 3]);
            let path = match n % 2 {
                0 => format!("{directory}/video.m3u8?{reload}"),
                _ => format!("{directory}/aa/video/p{number}.m4s"),
            };
            waiting.spawn(async move { viewer.get(&path).await });
        }
        for edge in &edges {
            edge.until_metric("weir_edge_holding", 10).await;
        }
        origin.publish();
        for answer in waiting.join_all().await {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
    }
    // The entrance is good for a moment only.
    let twice = origin.asked_twice();
    assert!(twice.iter().all(|(path, _)| path.ends_with("index.m3u8")), "{twice:?}");
    assert_eq!(origin.asked_with("~"), 0);
    // Whoever is not of the fleet needs a ticket at the parent as well.
    let part = "/app/show/d/aa/video/p41.m4s";
    assert_refused(&parent.viewer.get(part).await, 401, "ticket_missing");
    for wrong in ["Bearer something else altogether", "Basic known to the fleet alone"] {
        let answer = parent.viewer.ask("GET", part, &[("authorization", wrong)]).await;
        assert_refused(&answer, 401, "ticket_missing");
    }
    // Backstage, a child lets in those with a preview ticket: it gets what they need.
    directory.change("show", |record| record.backstage = true);
    let look = format!("{}/aa/video/p40.m4s", tickets[0]);
    until("the children have heard of it", async || {
        edges[0].viewer.get(&look).await.status == StatusCode::FORBIDDEN
    })
    .await;
    let preview = weir_shared::playback::policy::Policy {
        preview: true,
        ..an_hour()
    };
    let entered = edges[0]
        .viewer
        .get(&format!("/app/show/index.m3u8?{}", query(&preview)))
        .await;
    let look = format!("/app/show/{}/d/aa/video/p39.m4s", directory_of_children(&entered));
    assert_eq!(edges[0].viewer.get(&look).await.body, origin.stage().part(39));
}

/// RFC 9111 section 5.1: how old something is does not begin anew at each cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_parent_has_had_for_a_while_is_that_old_at_its_children() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let parent = Site::new(origin.addr).await;
    let [child, ..] = children(&parent, &origin, |_| ()).await;
    let objects = ["video.m3u8", "aa/video/p41.m4s"];
    until("they have been at the parent for two seconds", async || {
        let mut ages = Vec::new();
        for object in objects {
            ages.push(parent.viewer.object(object).await.header("age").parse::<u64>().unwrap());
        }
        ages.iter().all(|age| *age >= 2)
    })
    .await;
    for object in objects {
        let answer = child.viewer.object(object).await;
        assert_eq!(answer.status, StatusCode::OK, "{object}");
        assert!(
            answer.header("age").parse::<u64>().unwrap() >= 2,
            "{object}: {:?}",
            answer.headers
        );
    }
    origin.publish();
    let fresh = child
        .viewer
        .object(&format!("video.m3u8?{}", "_HLS_msn=1010&_HLS_part=2"))
        .await;
    assert_eq!(fresh.header("age"), "0");
}
