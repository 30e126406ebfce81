//! The time of an answer as its `Date` header has it, made once a second.

use std::{cell::RefCell, time::SystemTime};

thread_local! {
    static LATEST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Gives `with` the HTTP date of now (RFC 9110 section 5.6.7).
pub(super) fn now<R>(with: impl FnOnce(&[u8]) -> R) -> R {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LATEST.with_borrow_mut(|(made, text)| {
        if *made != second || text.is_empty() {
            *text = httpdate::fmt_http_date(now);
            *made = second;
        }
        with(text.as_bytes())
    })
}
