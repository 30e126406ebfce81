//! Credentials change while somebody publishes.

use std::time::Duration;

use tokio::time::{interval, timeout};
use weir_loadtest::{rtmp::Session, synthetic::Synthetic};
use weir_origin::{app::Origin, ingest::catalog::OnRotate};
use weir_tests::{
    push::{key, refused, with_password, with_token},
    site::{Broadcast, metric, origin_config},
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn origin() -> anyhow::Result<Origin> {
    let mut config = origin_config();
    config.any_key = false;
    Origin::start(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_rotations_cost_a_running_publish_nothing() -> anyhow::Result<()> {
    let origin = origin().await?;
    let url = format!("rtmp://{}/key", origin.rtmp);
    origin.catalog.put(with_token("show", "token-0")?)?;
    let broadcast = Broadcast::start(origin.rtmp, "show?t=token-0", &Synthetic::default()).await?;

    let mut often = interval(Duration::from_millis(20));
    for n in 1..=100 {
        often.tick().await;
        // Tokens and passwords in turn.
        let policy = match n % 2 {
            0 => with_token("show", &format!("token-{n}"))?,
            _ => with_password(&origin, "show", "anna", &format!("password-{n}"))?,
        };
        origin.catalog.put(policy)?;
    }
    for old in ["show?t=token-0", "show?t=token-98", "show?user=anna&pass=password-99"] {
        assert!(
            refused(&url, old).await?.description.contains("not authorized"),
            "{old}"
        );
    }
    let report = broadcast.end().await?;
    let frames = metric(origin.admin, "weir_origin_rtmp_frames_total", "track=\"video\"").await?;
    assert_eq!(frames as u64, report.video_frames);
    assert!(report.video_frames > 40, "{report:?}");
    for (name, labels) in [
        ("weir_origin_rtmp_frames_dropped_total", ""),
        ("weir_origin_admission_revoked_total", ""),
        ("weir_origin_rtmp_ended_total", "reason=\"io\""),
    ] {
        assert_eq!(metric(origin.admin, name, labels).await?, 0.0, "{name}");
    }
    // The next connect needs the new one.
    Session::connect(&url, "show?t=token-100").await?.close().await?;
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_policy_says_so_rotation_ends_the_publish() -> anyhow::Result<()> {
    let origin = origin().await?;
    let url = format!("rtmp://{}/app", origin.rtmp);
    let mut policy = with_token("show", "old")?;
    policy.on_rotate = OnRotate::Kick;
    origin.catalog.put(policy.clone())?;
    let mut session = Session::connect(&url, "show?t=old").await?;
    // The same credentials once more change nothing; new ones end it.
    origin.catalog.put(policy.clone())?;
    policy.primary = with_token("show", "new")?.primary;
    origin.catalog.put(policy)?;
    let told = timeout(PATIENCE, session.next_status()).await??;
    assert!(
        told.is_error() && told.description.contains("credentials were replaced"),
        "{told}"
    );
    assert!(refused(&url, "show?t=old").await.is_ok());

    // Removed streams end too, whatever they say about rotation.
    let mut session = Session::connect(&url, "show?t=new").await?;
    origin.catalog.remove(&key("show")?);
    let told = timeout(PATIENCE, session.next_status()).await??;
    assert!(told.description.contains("removed"), "{told}");
    let revoked = metric(origin.admin, "weir_origin_admission_revoked_total", "").await?;
    assert_eq!(revoked, 2.0);
    origin.shutdown().await;
    Ok(())
}
