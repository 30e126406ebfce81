//! The challenge `authmod=adobe`: what ffmpeg, OBS and GStreamer really do with a user name and a password. Pure.
//!
//! Three connections: "need auth", then "this is your salt and opaque", then the answer. Nothing is kept between them: the
//! opaque is a MAC over its user and its time. Only opaques that have let somebody in are remembered, until they expire,
//! so that nobody without credentials can fill that memory.
//!
//! Before this: `admission/claims.rs`. After this: `admission/judge.rs`.

use std::collections::{HashSet, VecDeque};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::ingest::{
    catalog::policy::{CREDENTIAL_MAX, hmac_sha256},
    secret::same,
};

use super::claims::Pairs;

/// How long a challenge may be answered, in milliseconds.
pub const OPAQUE_LIFE_MS: u64 = 30_000;
/// Used opaques remembered. When full, answers are refused until the oldest expire.
pub const SPENT_MAX: usize = 16_384;

/// To an encoder that showed nothing: it comes back with its user name.
pub const NEED_AUTH: &str = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ";
/// Stops every encoder. "Need auth" once more would have ffmpeg connect again without end.
pub const AUTH_FAILED: &str = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=-";

const NONCE: usize = 12;
const STAMP: usize = 8;
const TAG: usize = 16;

/// What a `connect` says in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// No `authmod` at all.
    Nothing,
    /// The user's name: wants salt and opaque.
    User(&'a str),
    Answer(Answer<'a>),
    /// Another method, or pieces missing.
    Nonsense,
}

/// The answer to a challenge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    pub user: &'a str,
    pub opaque: &'a str,
    /// The client's nonce.
    pub nonce: &'a str,
    pub response: &'a str,
}

impl std::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer(***)")
    }
}

impl<'a> Said<'a> {
    pub fn read(query: &'a str) -> Self {
        let pairs = Pairs(query);
        let Some(method) = pairs.get("authmod") else {
            return Self::Nothing;
        };
        let user = pairs
            .get("user")
            .filter(|user| (1..=CREDENTIAL_MAX).contains(&user.len()));
        let (Some(user), "adobe") = (user, method) else {
            return Self::Nonsense;
        };
        match (pairs.get("response"), pairs.get("opaque"), pairs.get("challenge")) {
            (None, _, _) => Self::User(user),
            (Some(response), Some(opaque), Some(nonce)) => Self::Answer(Answer {
                user,
                opaque,
                nonce,
                response,
            }),
            _ => Self::Nonsense,
        }
    }
}

/// Makes opaques and knows its own again.
pub struct Opaques {
    secret: [u8; 32],
    spent: Spent,
}

/// Why an opaque is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpaqueFault {
    /// Not ours, or another user's.
    Foreign,
    Expired,
    /// It has let somebody in already.
    Replayed,
    /// [`SPENT_MAX`] is reached.
    Full,
}

impl Opaques {
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            spent: Spent::default(),
        }
    }

    /// The challenge for a user. `now_ms`: on any clock that only goes forward, the same in all calls.
    pub fn challenge(&self, user: &str, salt: &str, now_ms: u64, nonce: [u8; NONCE]) -> String {
        let expires = now_ms.saturating_add(OPAQUE_LIFE_MS).to_be_bytes();
        let tag = self.tag(user, &expires, &nonce);
        let opaque = URL_SAFE_NO_PAD.encode([&expires[..], &nonce, &tag[..TAG]].concat());
        let short = URL_SAFE_NO_PAD.encode(&nonce[..6]);
        format!(
            "[ AccessManager.Reject ] : [ authmod=adobe ] : \
             ?reason=needauth&user={user}&salt={salt}&challenge={short}&opaque={opaque}"
        )
    }

    /// Whether this opaque was made for this user and may still be answered.
    pub fn check(&self, opaque: &str, user: &str, now_ms: u64) -> Result<(), OpaqueFault> {
        let (expires, nonce) = self.open(opaque, user).ok_or(OpaqueFault::Foreign)?;
        if expires <= now_ms {
            return Err(OpaqueFault::Expired);
        }
        if self.spent.nonces.contains(&nonce) {
            return Err(OpaqueFault::Replayed);
        }
        Ok(())
    }

    /// Takes an opaque whose answer was right out of use.
    pub fn spend(&mut self, opaque: &str, user: &str, now_ms: u64) -> Result<(), OpaqueFault> {
        self.check(opaque, user, now_ms)?;
        let (expires, nonce) = self.open(opaque, user).ok_or(OpaqueFault::Foreign)?;
        self.spent.remember(expires, nonce, now_ms)
    }

    fn open(&self, opaque: &str, user: &str) -> Option<(u64, [u8; NONCE])> {
        let bytes = URL_SAFE_NO_PAD.decode(opaque).ok()?;
        let (expires, rest) = bytes.split_first_chunk::<STAMP>()?;
        let (nonce, tag) = rest.split_first_chunk::<NONCE>()?;
        let wanted = self.tag(user, expires, nonce);
        (same(tag, &wanted[..TAG])).then(|| (u64::from_be_bytes(*expires), *nonce))
    }

    fn tag(&self, user: &str, expires: &[u8; STAMP], nonce: &[u8; NONCE]) -> [u8; 32] {
        hmac_sha256(&self.secret, &[expires, nonce, user.as_bytes()])
    }
}

#[derive(Default)]
struct Spent {
    nonces: HashSet<[u8; NONCE]>,
    /// In the order in which they expire, near enough.
    order: VecDeque<(u64, [u8; NONCE])>,
}

impl Spent {
    fn remember(&mut self, expires: u64, nonce: [u8; NONCE], now_ms: u64) -> Result<(), OpaqueFault> {
        while let Some((_, old)) = self.order.pop_front_if(|(expires, _)| *expires <= now_ms) {
            self.nonces.remove(&old);
        }
        if self.nonces.len() >= SPENT_MAX {
            return Err(OpaqueFault::Full);
        }
        self.nonces.insert(nonce);
        self.order.push_back((expires, nonce));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opaque_of(description: &str) -> &str {
        description.rsplit_once("opaque=").unwrap().1
    }

    #[test]
    fn an_opaque_lives_thirty_seconds_for_one_user_and_one_success() {
        let mut opaques = Opaques::new([5; 32]);
        let said = opaques.challenge("anna", "salt", 1000, [1; NONCE]);
        assert!(said.contains("?reason=needauth&user=anna&salt=salt&challenge="));
        let opaque = opaque_of(&said);
        assert_eq!(opaques.check(opaque, "anna", 30_999), Ok(()));
        assert_eq!(opaques.check(opaque, "anna", 31_000), Err(OpaqueFault::Expired));
        assert_eq!(opaques.check(opaque, "bert", 2000), Err(OpaqueFault::Foreign));
        assert_eq!(opaques.spend(opaque, "anna", 2000), Ok(()));
        assert_eq!(opaques.spend(opaque, "anna", 2001), Err(OpaqueFault::Replayed));
    }

    #[test]
    fn an_opaque_that_we_did_not_make_is_foreign() {
        let opaques = Opaques::new([5; 32]);
        let others = Opaques::new([6; 32]).challenge("anna", "salt", 0, [1; NONCE]);
        let own = opaques.challenge("anna", "salt", 0, [1; NONCE]);
        let cut = &opaque_of(&own)[..20];
        for opaque in ["", "-", "====", cut, opaque_of(&others)] {
            assert_eq!(opaques.check(opaque, "anna", 1), Err(OpaqueFault::Foreign), "{opaque}");
        }
    }

    #[test]
    fn the_memory_of_used_ones_is_bounded_and_empties_itself() {
        let mut spent = Spent::default();
        for n in 0..SPENT_MAX as u32 {
            let mut nonce = [0; NONCE];
            nonce[..4].copy_from_slice(&n.to_be_bytes());
            assert_eq!(spent.remember(100, nonce, 0), Ok(()));
        }
        assert_eq!(spent.remember(100, [9; NONCE], 99), Err(OpaqueFault::Full));
        assert_eq!(spent.remember(200, [9; NONCE], 100), Ok(()));
        assert_eq!(spent.nonces.len(), 1);
    }

    #[test]
    fn every_step_of_the_dialogue_is_told_apart() {
        assert_eq!(Said::read(""), Said::Nothing);
        assert_eq!(Said::read("t=1"), Said::Nothing);
        assert_eq!(Said::read("authmod=adobe&user=anna"), Said::User("anna"));
        let answer = Said::read("authmod=adobe&user=anna&challenge=k+=&response=r/==&opaque=o");
        let Said::Answer(answer) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((answer.nonce, answer.response, answer.opaque), ("k+=", "r/==", "o"));
        for nonsense in [
            "authmod=adobe",
            "authmod=llnw&user=anna",
            "authmod=adobe&user=",
            "authmod=adobe&user=anna&response=r",
        ] {
            assert_eq!(Said::read(nonsense), Said::Nonsense, "{nonsense}");
        }
    }
}
