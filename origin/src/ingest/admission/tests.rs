//! Whole dialogues without sockets: what a connection says, and what comes of it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};

use super::*;
use crate::ingest::{
    Transport,
    catalog::{Credential, SaltSecret, Secrets, TokenHash},
};

const TC_URL: &str = "rtmp://origin:1935/app";

fn key(text: &str) -> StreamKey {
    text.parse().unwrap()
}

/// `show` (anna/one, backup anna/two, tokens), `other` (bert/three) and `open`.
fn admission() -> Admission {
    let catalog = Catalog::new(false, SaltSecret::new([8; 32]));
    let secrets = |user, password, token| Secrets {
        credential: Some(Credential::new(user, password, catalog.salts())),
        tokens: vec![TokenHash::of(token)],
    };
    let show = StreamPolicy {
        allow_key_only: false,
        primary: secrets("anna", "one", "token-1"),
        backup: secrets("anna", "two", "token-2"),
        ..StreamPolicy::open(key("show"))
    };
    let other = StreamPolicy {
        allow_key_only: false,
        primary: secrets("bert", "three", "token-3"),
        ..StreamPolicy::open(key("other"))
    };
    for policy in [show, other, StreamPolicy::open(key("open"))] {
        catalog.put(policy).unwrap();
    }
    Admission::new(Arc::new(catalog), None, Metrics::default())
}

fn line(entrance: Entrance) -> Line {
    Line {
        entrance,
        transport: Transport::Rtmp,
        peer: "192.0.2.1:5000".parse().unwrap(),
        local: "127.0.0.1:1935".parse().unwrap(),
    }
}

fn greet(admission: &Admission, entrance: &Entrance, app: &str) -> Greeting {
    admission.greet(entrance, app, TC_URL, Instant::now())
}

async fn push_at(
    admission: &Admission,
    entrance: &Entrance,
    app: &str,
    name: &str,
) -> Result<(Admitted, Tenure), Refusal> {
    match greet(admission, entrance, app) {
        Greeting::Welcome(caller) => admission.admit(&caller, name, line(entrance.clone())).await,
        Greeting::Refused(refusal) => Err(refusal),
        other => panic!("{app} {name}: {other:?}"),
    }
}

async fn push(admission: &Admission, app: &str, name: &str) -> Result<(&'static str, Slot), Refusal> {
    let (admitted, _) = push_at(admission, &Entrance::Shared, app, name).await?;
    Ok((admitted.proof().as_str(), admitted.slot()))
}

fn hash(pieces: &[&str]) -> String {
    STANDARD.encode(Md5::digest(pieces.concat().as_bytes()))
}

/// What an encoder makes of a challenge: the next `connect`'s application.
fn answer(challenge: &str, user: &str, password: &str) -> String {
    let field = |name: &str| {
        let after = challenge.split_once(name).unwrap().1;
        after.split('&').next().unwrap()
    };
    let (salt, opaque) = (field("salt="), field("opaque="));
    let response = hash(&[&hash(&[user, salt, password]), opaque, "0a0b0c0d"]);
    format!("app?authmod=adobe&user={user}&challenge=0a0b0c0d&response={response}&opaque={opaque}")
}

fn challenge(admission: &Admission, entrance: &Entrance, user: &str) -> String {
    match greet(admission, entrance, &format!("app?authmod=adobe&user={user}")) {
        Greeting::Challenge(challenge) => challenge,
        other => panic!("{other:?}"),
    }
}

fn steps(admission: &Admission, step: &str) -> u64 {
    admission.metrics.challenges.with_label_values(&[step]).get()
}

#[tokio::test]
async fn the_three_connections_of_the_adobe_dialogue() {
    let admission = admission();
    let shared = Entrance::Shared;
    let Greeting::Challenge(first) = greet(&admission, &shared, "app") else {
        panic!("an encoder that shows nothing is asked")
    };
    assert!(first.contains("code=403 need auth; authmod=adobe"));
    let second = challenge(&admission, &shared, "anna");
    assert!(second.contains("?reason=needauth&user=anna&salt="));
    let third = answer(&second, "anna", "two");
    let (admitted, _) = push_at(&admission, &shared, &third, "show").await.unwrap();
    assert_eq!((admitted.proof().as_str(), admitted.slot()), ("password", Slot::Backup));
    assert_eq!(admitted.key().as_str(), "show");

    // The same answer again is somebody who listened.
    assert!(matches!(greet(&admission, &shared, &third), Greeting::AuthFailed));
    assert_eq!((steps(&admission, "accepted"), steps(&admission, "replayed")), (1, 1));
}

#[tokio::test]
async fn wrong_late_and_foreign_answers_fail_alike() {
    let admission = admission();
    let shared = Entrance::Shared;
    let asked = Instant::now();
    let ours = challenge(&admission, &shared, "anna");
    let failed = |app: &str, at: Instant| {
        let greeting = admission.greet(&shared, app, TC_URL, at);
        assert!(matches!(greeting, Greeting::AuthFailed), "{app}: {greeting:?}");
    };
    failed(&answer(&ours, "anna", "wrong"), asked);
    failed(&answer(&ours, "anna", "one"), asked + Duration::from_secs(31));
    let others = challenge(&self::admission(), &shared, "anna");
    failed(&answer(&others, "anna", "one"), asked);
    // A user who does not exist is challenged like one who does.
    let stranger = challenge(&admission, &shared, "nobody");
    assert_eq!(stranger.len(), ours.len() + 2);
    failed(&answer(&stranger, "nobody", "one"), asked);
    // "Need auth" to any of these would have ffmpeg come back for ever.
    for nonsense in [
        "app?authmod=adobe",
        "app?authmod=llnw&user=anna",
        "app?authmod=adobe&response=x",
    ] {
        failed(nonsense, asked);
    }
    for (step, count) in [("wrong", 2), ("expired", 1), ("foreign", 1), ("nonsense", 3)] {
        assert_eq!(steps(&admission, step), count, "{step}");
    }
    // The opaque is still good for the right answer.
    assert!(matches!(
        greet(&admission, &shared, &answer(&ours, "anna", "one")),
        Greeting::Welcome(_)
    ));
}

#[tokio::test]
async fn a_user_publishes_their_own_streams_only() {
    let admission = admission();
    let shared = Entrance::Shared;
    for (name, wanted) in [
        ("other", Refusal::WrongCredentials),
        ("open", Refusal::WrongCredentials),
        ("nosuch", Refusal::UnknownStream),
    ] {
        let app = answer(&challenge(&admission, &shared, "anna"), "anna", "one");
        assert_eq!(push(&admission, &app, name).await, Err(wanted), "{name}");
    }
}

#[tokio::test]
async fn queries_userinfo_and_tokens_need_no_challenge() {
    let admission = admission();
    let primary = Ok(("password", Slot::Primary));
    assert_eq!(push(&admission, "app?user=anna&pass=one", "show").await, primary);
    assert_eq!(push(&admission, "key", "show?user=anna&pass=one").await, primary);
    assert_eq!(
        push(&admission, "app?t=token-2", "show").await,
        Ok(("token", Slot::Backup))
    );
    assert_eq!(
        push(&admission, "app/?t=token-1", "show").await,
        Ok(("token", Slot::Primary))
    );
    assert_eq!(
        push(&admission, "key", "show?t=token-1").await,
        Ok(("token", Slot::Primary))
    );
    assert_eq!(push(&admission, "key", "open").await, Ok(("key", Slot::Primary)));
    assert_eq!(push(&admission, "key", "open/backup").await, Ok(("key", Slot::Backup)));
    let userinfo = "rtmp://anna:two@origin/app";
    let Greeting::Welcome(caller) = admission.greet(&Entrance::Shared, "app", userinfo, Instant::now()) else {
        panic!("userinfo in the tcUrl is enough")
    };
    let (admitted, _) = admission.admit(&caller, "show", line(Entrance::Shared)).await.unwrap();
    assert_eq!(admitted.slot(), Slot::Backup);

    for (app, name, refusal) in [
        ("key", "show", Refusal::NoCredentials),
        ("key", "show?t=token-3", Refusal::WrongCredentials),
        ("key", "show?user=bert&pass=three", Refusal::WrongCredentials),
        ("app?user=anna&pass=on", "show", Refusal::WrongCredentials),
        ("app?t=x", "nosuch", Refusal::UnknownStream),
        ("app?t=x", "sh ow", Refusal::BadName),
        ("live", "show", Refusal::UnknownApp),
    ] {
        assert_eq!(push(&admission, app, name).await, Err(refusal), "{app} {name}");
    }
    let seen = admission.catalog.last_refusal(&key("show")).unwrap();
    assert_eq!(seen.0, Refusal::WrongCredentials);
}

#[tokio::test]
async fn a_port_knows_its_stream_before_the_first_word() {
    let admission = admission();
    let (show, open) = (Entrance::Own(key("show")), Entrance::Own(key("open")));
    // The open stream's encoder is not asked, though others on the shared port are.
    let (admitted, _) = push_at(&admission, &open, "app", "open").await.unwrap();
    assert_eq!(admitted.proof().as_str(), "key");
    assert!(matches!(greet(&admission, &show, "app"), Greeting::Challenge(_)));
    assert!(matches!(
        greet(&admission, &Entrance::Shared, "app"),
        Greeting::Challenge(_)
    ));
    // Numbers are enough where the port says the rest.
    let (admitted, _) = push_at(&admission, &open, "app", "2").await.unwrap();
    assert_eq!((admitted.key().as_str(), admitted.variant()), ("open", Some(2)));
    // Right credentials, wrong port.
    let app = answer(&challenge(&admission, &open, "anna"), "anna", "one");
    let refused = push_at(&admission, &open, &app, "show").await.err();
    assert_eq!(refused, Some(Refusal::WrongPort));
}

#[tokio::test]
async fn rotation_spares_or_ends_who_is_in_by_policy() {
    let admission = admission();
    let catalog = &admission.catalog;
    let (admitted, mut tenure) = push_at(&admission, &Entrance::Shared, "key", "show?t=token-1")
        .await
        .unwrap();
    let still_in = async |tenure: &mut Tenure| {
        tokio::select! {
            biased;
            revoked = tenure.revoked() => Err(revoked),
            () = std::future::ready(()) => Ok(()),
        }
    };
    let mut policy = (*catalog.get(&key("show")).unwrap()).clone();
    policy.primary.tokens = vec![TokenHash::of("new")];
    catalog.put(policy.clone()).unwrap();
    assert_eq!(still_in(&mut tenure).await, Ok(()));
    assert!(catalog.watch(&key("show")).unwrap().generation > admitted.generation());
    assert_eq!(
        push(&admission, "key", "show?t=token-1").await,
        Err(Refusal::WrongCredentials)
    );
    assert!(push(&admission, "key", "show?t=new").await.is_ok());

    // Kick: only whose credentials are gone.
    let (_, mut backup) = push_at(&admission, &Entrance::Shared, "key", "show?t=token-2")
        .await
        .unwrap();
    policy.on_rotate = OnRotate::Kick;
    catalog.put(policy.clone()).unwrap();
    assert_eq!(still_in(&mut tenure).await, Err(Revoked::Rotated));
    assert_eq!(still_in(&mut backup).await, Ok(()));
    policy.active = false;
    catalog.put(policy).unwrap();
    assert_eq!(still_in(&mut backup).await, Err(Revoked::Disabled));
    catalog.remove(&key("show"));
    assert_eq!(still_in(&mut backup).await, Err(Revoked::Removed));
}
