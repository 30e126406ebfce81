//! Nothing of a password or a token is ever logged, however a publish goes.

use std::{
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use tracing_subscriber::fmt::MakeWriter;
use weir_loadtest::rtmp::{PublishError, Session};
use weir_origin::{
    app::Origin,
    config::{Backup, Stream},
    ingest::{catalog::OnRotate, secret::Secret},
};
use weir_tests::{
    push::{Relay, key, refused},
    site::origin_config,
};

/// Everything that is logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn hash(pieces: &[&str]) -> String {
    STANDARD.encode(Md5::digest(pieces.concat().as_bytes()))
}

/// The Adobe dialogue over real sockets; what its last step came to, and the secrets that went over the line.
async fn adobe(address: &str, user: &str, password: &str) -> anyhow::Result<(Result<(), PublishError>, [String; 2])> {
    let needs_auth = refused(&format!("rtmp://{address}/app"), "show").await?;
    assert!(needs_auth.description.contains("need auth"), "{needs_auth}");
    let challenge = refused(&format!("rtmp://{address}/app?authmod=adobe&user={user}"), "show").await?;
    let field = |name: &str| {
        let after = challenge.description.split_once(name).map_or("", |(_, after)| after);
        after.split('&').next().unwrap_or_default().to_owned()
    };
    let (salt, opaque) = (field("salt="), field("opaque="));
    let digest = hash(&[user, &salt, password]);
    let response = hash(&[&digest, &opaque, "nonce"]);
    let url =
        format!("rtmp://{address}/app?authmod=adobe&user={user}&challenge=nonce&response={response}&opaque={opaque}");
    let pushed = Session::connect(&url, "show").await;
    let pushed = match pushed {
        Ok(session) => session.close().await,
        Err(error) => Err(error),
    };
    Ok((pushed, [digest, response]))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_no_token_is_in_any_log_line() -> anyhow::Result<()> {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .init();

    let mut config = origin_config();
    config.any_key = false;
    let mut show = Stream::open(key("show")?);
    show.username = Some("anna".into());
    show.password = Some(Secret::new("hush-right"));
    show.token = Some(Secret::new("hush-token"));
    show.backup = Some(Backup {
        token: Some(Secret::new("hush-backup")),
        ..Backup::default()
    });
    show.on_rotate = OnRotate::Kick;
    config.streams = vec![show];
    tracing::info!(?config, "what an operator might log");
    let origin = Origin::start(config).await?;
    let address = origin.rtmp.to_string();

    let (let_in, right) = adobe(&address, "anna", "hush-right").await?;
    assert!(let_in.is_ok(), "{let_in:?}");
    let (kept_out, wrong) = adobe(&address, "anna", "hush-wrong").await?;
    assert!(kept_out.is_err_and(|error| error.to_string().contains("authfailed")));

    let quiet = format!("rtmp://{address}/key");
    for key in [
        "show?t=hush-token",
        "show?t=hush-backup",
        "show?user=anna&pass=hush-right",
    ] {
        Session::connect(&quiet, key).await?.close().await?;
    }
    for key in [
        "show?t=hush-wrong",
        "show?user=anna&pass=hush-wrong",
        "nosuch?t=hush-token",
        "sh/ow?pass=hush-wrong",
        "?t=hush-wrong",
    ] {
        refused(&quiet, key).await?;
    }
    refused(&format!("rtmp://{address}/hush-app?t=hush-wrong"), "show").await?;
    refused(&format!("rtmp://{address}/app/show?t=hush-wrong"), "other?t=hush-token").await?;
    // Kicked while it publishes.
    let _session = Session::connect(&quiet, "show?t=hush-token").await?;
    let mut rotated = (*origin.catalog.get(&key("show")?).expect("configured")).clone();
    rotated.primary.tokens.clear();
    origin.catalog.put(rotated.clone())?;
    tracing::info!(?rotated, "what an operator might log");
    let relay = Relay::plain(origin.rtmp).await?;
    refused(&format!("rtmp://{}/key", relay.address), "show?t=hush-token").await?;
    origin.shutdown().await;

    let bytes = log.0.lock().expect("no writer panics").clone();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("publish accepted") && text.contains("publish refused"));
    for secret in ["hush-", &right[0], &right[1], &wrong[0], &wrong[1]] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
    Ok(())
}
