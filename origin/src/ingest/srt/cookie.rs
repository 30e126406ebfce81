//! Handshake cookies: a caller has to show one that only its own address could have got, before anything of it is kept
//! (draft-sharabayko-srt-01, section 4.3.1.1). Pure; nothing is remembered, a cookie is computed again to be checked.
//!
//! Before this: `srt/hello.rs`. After this: `srt/handshake.rs`.

use core::net::SocketAddr;
use std::time::Duration;

use crate::ingest::catalog::policy::hmac_sha256;

/// A cookie is good in the period it was made in and in the one after.
const PERIOD: Duration = Duration::from_secs(60);

/// Makes and checks cookies.
#[derive(Clone)]
pub struct Cookies {
    secret: [u8; 32],
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(***)")
    }
}

impl Cookies {
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// For the caller at this address with this socket, `uptime` after any fixed moment.
    pub fn bake(&self, peer: SocketAddr, socket: u32, uptime: Duration) -> u32 {
        self.of_period(peer, socket, period(uptime))
    }

    pub fn is_good(&self, cookie: u32, peer: SocketAddr, socket: u32, uptime: Duration) -> bool {
        let now = period(uptime);
        let previous = now.checked_sub(1);
        [Some(now), previous]
            .into_iter()
            .flatten()
            .any(|period| self.of_period(peer, socket, period) == cookie)
    }

    fn of_period(&self, peer: SocketAddr, socket: u32, period: u64) -> u32 {
        let address = match peer.ip() {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        let [a, b, c, d, ..] = hmac_sha256(
            &self.secret,
            &[
                &address,
                &peer.port().to_be_bytes(),
                &socket.to_be_bytes(),
                &period.to_be_bytes(),
            ],
        );
        // Never 0, which stands for no cookie.
        u32::from_be_bytes([a, b, c, d]).max(1)
    }
}

fn period(uptime: Duration) -> u64 {
    uptime.as_secs() / PERIOD.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_caller_and_for_a_while() {
        let cookies = Cookies::new([7; 32]);
        let peer: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let made_at = Duration::from_secs(59);
        let cookie = cookies.bake(peer, 42, made_at);
        assert!(cookies.is_good(cookie, peer, 42, made_at));
        assert!(cookies.is_good(cookie, peer, 42, made_at + PERIOD));
        assert!(!cookies.is_good(cookie, peer, 42, made_at + PERIOD * 2));
        assert!(!cookies.is_good(cookie, peer, 43, made_at));
        assert!(!cookies.is_good(cookie, "192.0.2.1:5001".parse().unwrap(), 42, made_at));
        assert!(!cookies.is_good(cookie, "192.0.2.2:5000".parse().unwrap(), 42, made_at));
        assert!(!Cookies::new([8; 32]).is_good(cookie, peer, 42, made_at));
    }
}
