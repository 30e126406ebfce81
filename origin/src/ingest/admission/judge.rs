//! The decisions of admission, at `connect` and at `publish`. Pure: policies and claims in, a grant or a refusal out.
//!
//! Before this: `admission/claims.rs`, `admission/adobe.rs`. After this: `ingest/admission.rs`, which asks the webhook.

use weir_shared::id::StreamKey;

use crate::ingest::{
    Entrance, Refusal, Slot,
    catalog::policy::{Credential, Secrets, StreamPolicy, TokenHash},
    secret::Secret,
};

use super::{
    adobe::Answer,
    claims::{App, Claims},
};

/// What let a publish in. Better proofs are greater.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The key alone: the policy allows it.
    Key,
    Token(TokenHash),
    Password(Credential),
    /// The stream's passphrase over SRT.
    Passphrase(Secret),
}

impl Proof {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token(_) => "token",
            Self::Password(_) => "password",
            Self::Passphrase(_) => "passphrase",
        }
    }

    /// For the takeover policy `priority`: higher outranks lower.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Key => 0,
            Self::Token(_) => 1,
            Self::Password(_) | Self::Passphrase(_) => 2,
        }
    }

    /// Whether it would still open this slot.
    pub(super) fn opens(&self, policy: &StreamPolicy, slot: Slot) -> bool {
        let secrets = policy.secrets(slot);
        match self {
            Self::Key => policy.allow_key_only,
            Self::Token(token) => secrets.tokens.contains(token),
            Self::Password(credential) => secrets.credential.as_ref() == Some(credential),
            Self::Passphrase(passphrase) => policy.passphrase.as_ref() == Some(passphrase),
        }
    }
}

/// One slot of one stream that a right Adobe answer opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) key: StreamKey,
    pub(super) slot: Slot,
    pub(super) credential: Credential,
}

/// Everything a connection has shown.
#[derive(Debug, Default)]
pub(super) struct Shown<'a> {
    /// `None`: it was not challenged, or has not answered.
    pub(super) opened: Option<&'a [Opened]>,
    /// From the publish name, the application and the tcUrl.
    pub(super) claims: [Option<&'a Claims>; 3],
    /// Asked for by the publish name.
    pub(super) slot: Option<Slot>,
    /// Known by an encoder over SRT, and found right.
    pub(super) passphrase: Option<&'a Secret>,
}

/// Whether a `connect` that shows nothing has to be asked for a password: the policy of the port's own stream decides; on
/// the shared port any stream may be meant, so one that asks is enough.
pub(super) fn must_challenge(app: &App, shows_nothing: bool, own: Option<&StreamPolicy>, any_challenges: bool) -> bool {
    let wanted = own.map_or(any_challenges, StreamPolicy::challenges);
    wanted && shows_nothing && !app.quiet
}

/// What a right answer opens, out of the policies of the answering user. Every candidate is computed: the time taken does
/// not tell which one matched.
pub(super) fn opened_by<'a>(answer: &Answer<'_>, candidates: impl Iterator<Item = &'a StreamPolicy>) -> Vec<Opened> {
    let mut opened = Vec::new();
    for policy in candidates {
        for (slot, credential) in policy.credentials() {
            let right = credential.answers(answer.opaque, answer.nonce, answer.response);
            if right && credential.username() == answer.user {
                opened.push(Opened {
                    key: policy.key.clone(),
                    slot,
                    credential: credential.clone(),
                });
            }
        }
    }
    opened
}

/// The whole judgement of a publish, the webhook apart. What a stranger may learn comes last: first the credentials, then
/// the port, then the stream's state.
pub(super) fn judge(policy: &StreamPolicy, entrance: &Entrance, shown: &Shown<'_>) -> Result<(Slot, Proof), Refusal> {
    let grant = prove(policy, shown)?;
    if matches!(entrance, Entrance::Own(key) if *key != policy.key) {
        return Err(Refusal::WrongPort);
    }
    if !policy.active {
        return Err(Refusal::Disabled);
    }
    Ok(grant)
}

fn prove(policy: &StreamPolicy, shown: &Shown<'_>) -> Result<(Slot, Proof), Refusal> {
    let mut proofs = Vec::new();
    if let Some(opened) = shown.opened {
        let of_stream = opened.iter().filter(|opened| opened.key == policy.key);
        proofs.extend(of_stream.map(|opened| (opened.slot, Proof::Password(opened.credential.clone()))));
        // Rotated since the answer.
        proofs.retain(|(slot, proof)| proof.opens(policy, *slot));
        if proofs.is_empty() {
            return Err(Refusal::WrongCredentials);
        }
    }
    let claims = || {
        shown
            .claims
            .iter()
            .copied()
            .flatten()
            .filter(|claims| !claims.is_empty())
    };
    for slot in Slot::ALL {
        proofs.extend(claims().filter_map(|claims| Some((slot, proof(policy.secrets(slot), claims)?))));
    }
    let asked_for = shown
        .slot
        .and_then(|slot| proofs.iter().position(|(of, _)| *of == slot));
    if let Some(found) = proofs.into_iter().nth(asked_for.unwrap_or(0)) {
        return Ok(found);
    }
    // A wrong password is a mistake even where none is needed, unless there is nothing that it could have been for.
    if claims().next().is_some() && !policy.has_no_secrets() {
        return Err(Refusal::WrongCredentials);
    }
    if let Some(passphrase) = shown.passphrase {
        let proof = Proof::Passphrase(passphrase.clone());
        let slot = shown.slot.unwrap_or(Slot::Primary);
        // Rotated since it was looked up.
        return proof
            .opens(policy, slot)
            .then_some((slot, proof))
            .ok_or(Refusal::WrongPassphrase);
    }
    if policy.allow_key_only {
        Ok((shown.slot.unwrap_or(Slot::Primary), Proof::Key))
    } else {
        Err(Refusal::NoCredentials)
    }
}

fn proof(secrets: &Secrets, claims: &Claims) -> Option<Proof> {
    let password = || {
        let (user, password) = (claims.user.as_deref()?, claims.password.as_ref()?);
        let credential = secrets.credential.as_ref()?;
        credential
            .is(user, password.expose())
            .then(|| Proof::Password(credential.clone()))
    };
    let token = || {
        let shown = TokenHash::of(claims.token.as_ref()?.expose());
        secrets.tokens.contains(&shown).then_some(Proof::Token(shown))
    };
    password().or_else(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::catalog::policy::SaltSecret;

    fn salts() -> SaltSecret {
        SaltSecret::new([4; 32])
    }

    fn key(text: &str) -> StreamKey {
        text.parse().unwrap()
    }

    /// Primary: anna/one or token-1. Backup: anna/two or token-2.
    fn policy() -> StreamPolicy {
        let secrets = |password, token| Secrets {
            credential: Some(Credential::new("anna", password, &salts())),
            tokens: vec![TokenHash::of(token)],
        };
        StreamPolicy {
            allow_key_only: false,
            primary: secrets("one", "token-1"),
            backup: secrets("two", "token-2"),
            ..StreamPolicy::open(key("show"))
        }
    }

    fn with_query(policy: &StreamPolicy, query: &str, slot: Option<Slot>) -> Result<(Slot, &'static str), Refusal> {
        let claims = Claims::from_query(query);
        let shown = Shown {
            claims: [Some(&claims), None, None],
            slot,
            ..Shown::default()
        };
        judge(policy, &Entrance::Shared, &shown).map(|(slot, proof)| (slot, proof.as_str()))
    }

    #[test]
    fn the_credentials_that_match_choose_the_slot() {
        let policy = policy();
        assert_eq!(
            with_query(&policy, "user=anna&pass=one", None),
            Ok((Slot::Primary, "password"))
        );
        assert_eq!(
            with_query(&policy, "user=anna&pass=two", None),
            Ok((Slot::Backup, "password"))
        );
        assert_eq!(with_query(&policy, "t=token-2", None), Ok((Slot::Backup, "token")));
        // A name that asks for the other slot does not change that …
        assert_eq!(
            with_query(&policy, "t=token-2", Some(Slot::Primary)),
            Ok((Slot::Backup, "token"))
        );
        // … unless both have the same secret.
        let mut same = policy;
        same.backup = same.primary.clone();
        assert_eq!(
            with_query(&same, "t=token-1", Some(Slot::Backup)),
            Ok((Slot::Backup, "token"))
        );
        assert_eq!(with_query(&same, "t=token-1", None), Ok((Slot::Primary, "token")));
    }

    #[test]
    fn what_is_wrong_is_wrong_even_where_nothing_is_needed() {
        let mut policy = policy();
        for query in [
            "user=anna&pass=three",
            "user=bert&pass=one",
            "t=token-3",
            "t=",
            "user=anna",
        ] {
            assert_eq!(
                with_query(&policy, query, None),
                Err(Refusal::WrongCredentials),
                "{query}"
            );
        }
        assert_eq!(with_query(&policy, "", None), Err(Refusal::NoCredentials));
        policy.allow_key_only = true;
        assert_eq!(with_query(&policy, "t=token-3", None), Err(Refusal::WrongCredentials));
        assert_eq!(with_query(&policy, "", None), Ok((Slot::Primary, "key")));
        assert_eq!(with_query(&policy, "", Some(Slot::Backup)), Ok((Slot::Backup, "key")));
        // An open stream has nothing to compare with.
        let open = StreamPolicy::open(key("open"));
        assert_eq!(with_query(&open, "t=whatever", None), Ok((Slot::Primary, "key")));
    }

    #[test]
    fn strangers_learn_neither_port_nor_state() {
        let mut policy = policy();
        policy.active = false;
        let other = Entrance::Own(key("other"));
        let nothing = Shown::default();
        assert_eq!(judge(&policy, &other, &nothing), Err(Refusal::NoCredentials));
        let claims = Claims::from_query("t=token-1");
        let right = Shown {
            claims: [None, Some(&claims), None],
            ..Shown::default()
        };
        assert_eq!(judge(&policy, &other, &right), Err(Refusal::WrongPort));
        assert_eq!(
            judge(&policy, &Entrance::Own(key("show")), &right),
            Err(Refusal::Disabled)
        );
        policy.active = true;
        assert!(judge(&policy, &Entrance::Own(key("show")), &right).is_ok());
        for refusal in [Refusal::UnknownStream, Refusal::NoCredentials] {
            assert_eq!(refusal.told(), Refusal::WrongCredentials.told());
        }
    }

    #[test]
    fn an_answer_opens_the_streams_of_its_user_and_no_other() {
        let (policy, other) = (policy(), StreamPolicy::open(key("other")));
        let credential = policy.backup.credential.clone().unwrap();
        let (opaque, nonce) = ("o", "n");
        let (_, _, digest) = credential.parts();
        let response = {
            use base64::Engine as _;
            use md5::Digest as _;
            let hash = md5::Md5::digest(format!("{digest}{opaque}{nonce}").as_bytes());
            base64::engine::general_purpose::STANDARD.encode(hash)
        };
        let answer = |user| Answer {
            user,
            opaque,
            nonce,
            response: &response,
        };
        assert_eq!(opened_by(&answer("bert"), [&policy].into_iter()), []);
        let opened = opened_by(&answer("anna"), [&policy, &other].into_iter());
        assert_eq!(opened.len(), 1);
        let shown = Shown {
            opened: Some(&opened),
            ..Shown::default()
        };
        let grant = judge(&policy, &Entrance::Shared, &shown).unwrap();
        assert_eq!((grant.0, grant.1.as_str()), (Slot::Backup, "password"));
        // Another stream is not theirs, even one that needs no password.
        assert_eq!(judge(&other, &Entrance::Shared, &shown), Err(Refusal::WrongCredentials));
        // Rotated between the answer and the publish.
        let mut rotated = policy;
        rotated.backup.credential = Some(Credential::new("anna", "new", &salts()));
        assert_eq!(
            judge(&rotated, &Entrance::Shared, &shown),
            Err(Refusal::WrongCredentials)
        );
    }

    #[test]
    fn the_port_or_else_the_application_says_whether_to_ask() {
        let app = App::parse("app").unwrap();
        let quiet = App::parse("key").unwrap();
        let (asking, open) = (policy(), StreamPolicy::open(key("open")));
        assert!(must_challenge(&app, true, None, true));
        assert!(!must_challenge(&app, true, None, false));
        assert!(!must_challenge(&app, false, None, true), "a token was sent");
        assert!(!must_challenge(&quiet, true, None, true));
        assert!(must_challenge(&app, true, Some(&asking), false));
        assert!(!must_challenge(&app, true, Some(&open), true));
    }
}
