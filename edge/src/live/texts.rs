//! A playlist's bytes at one moment: full or delta, gzip-encoded or not, each made once, for whoever asks first.
//!
//! Before this: a view (`live/view.rs`, `route/view.rs`), which knows how it is written. After this: `answer.rs`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use weir_shared::{hls::reload::Skip, serve::gzip::gzip};

use super::Moment;

/// Full, full gzip-encoded, delta, delta gzip-encoded.
const FORMS: usize = 4;
const FULL: usize = 0;
const DELTA: usize = 2;

/// The texts of one view. All viewers share them.
#[derive(Debug, Default)]
pub struct Texts {
    made: [OnceLock<Bytes>; FORMS],
    /// Bit `n`: somebody asked for `made[n]`.
    asked: AtomicU8,
}

impl Texts {
    pub(super) fn get(&self, of: &(impl Moment + ?Sized), skip: Skip, compressed: bool) -> Bytes {
        let form = if skip == Skip::Yes { DELTA } else { FULL } + usize::from(compressed);
        let bit = 1u8 << form;
        if self.asked.load(Ordering::Relaxed) & bit == 0 {
            self.asked.fetch_or(bit, Ordering::Relaxed);
        }
        self.make(of, form)
    }

    /// Makes what was asked for of the moment before.
    pub(super) fn make_like(&self, of: &(impl Moment + ?Sized), previous: &Self) {
        let asked = previous.asked.load(Ordering::Relaxed);
        for form in 0..FORMS {
            if asked & (1 << form) != 0 {
                self.make(of, form);
            }
        }
    }

    fn make(&self, of: &(impl Moment + ?Sized), form: usize) -> Bytes {
        let Some(slot) = self.made.get(form) else {
            return Bytes::new();
        };
        slot.get_or_init(|| match form {
            FULL => of.write().into(),
            DELTA => of.write_delta().map_or_else(|| self.make(of, FULL), Bytes::from),
            compressed => gzip(&self.make(of, compressed - 1)),
        })
        .clone()
    }
}
