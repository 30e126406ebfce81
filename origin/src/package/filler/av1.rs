//! AV1 held pictures: a frame header that shows once more what a slot of the decoder holds (AV1 Bitstream Specification,
//! section 5.9.2, show_existing_frame). Three bytes. Pure.
//!
//! A shown key frame can't be shown again. So after a repeated key frame comes the temporal unit that followed it in the
//! input, if its picture stays in a slot: that one is held.

use bytes::Bytes;

use crate::codec::av1::{
    Av1Config,
    headers::{self, Header, Tools},
};

/// A frame header unit with a size.
const UNIT_HEADER: u8 = 3 << 3 | 2;

/// What a slot holds.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Which of the pictures shown; higher is later.
    place: u64,
    key: bool,
}

/// Makes held pictures for one configuration.
#[derive(Debug)]
pub(super) struct Av1Hold {
    tools: Tools,
    slots: [Option<Slot>; 8],
    shown: u64,
    /// The temporal unit after the last key frame of the input.
    second: Option<Bytes>,
    /// The next unit of the input is that one.
    awaits_second: bool,
}

impl Av1Hold {
    pub(super) fn new(config: &Av1Config) -> Self {
        Self {
            tools: config.tools,
            slots: [None; 8],
            shown: 0,
            second: None,
            awaits_second: false,
        }
    }

    /// A picture of the input was published.
    pub(super) fn shown(&mut self, data: &Bytes, key: bool) {
        if key {
            (self.second, self.awaits_second) = (None, true);
        } else if std::mem::take(&mut self.awaits_second) {
            self.second = Some(data.clone());
        }
        self.decode(data);
    }

    /// The key frame is published once more.
    pub(super) fn repeated(&mut self, key: &[u8]) {
        self.decode(key);
        self.awaits_second = false;
    }

    /// A unit that shows the last picture once more. `None`: no slot holds one that can be.
    pub(super) fn held(&mut self) -> Option<Bytes> {
        if let Some(slot) = self.newest() {
            // show_existing_frame, frame_to_show_map_idx, the stop bit.
            return Some(Bytes::from(vec![UNIT_HEADER, 1, 0x88 | slot << 4]));
        }
        let second = self.second.clone()?;
        self.decode(&second);
        // Once more the next time if it stays in no slot, and never if that does not help.
        if self.newest().is_none() {
            self.second = None;
            return None;
        }
        Some(second)
    }

    /// Of the pictures shown and held, the last. Not a key frame.
    fn newest(&self) -> Option<u8> {
        let held = self
            .slots
            .iter()
            .zip(0u8..)
            .filter_map(|(slot, index)| Some(((*slot)?, index)));
        let (newest, index) = held.max_by_key(|(slot, _)| slot.place)?;
        (!newest.key).then_some(index)
    }

    fn decode(&mut self, unit: &[u8]) {
        let Some(headers) = headers::headers(self.tools, unit) else {
            self.slots = [None; 8];
            return;
        };
        for header in headers {
            match header {
                Header::Decodes { shown, key, slots } => {
                    self.shown += 1;
                    let held = shown.then_some(Slot { place: self.shown, key });
                    for (index, slot) in self.slots.iter_mut().enumerate() {
                        if slots >> index & 1 == 1 {
                            *slot = held;
                        }
                    }
                }
                Header::Shows { slot } => {
                    self.shown += 1;
                    if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
                        *slot = Some(Slot {
                            place: self.shown,
                            key: false,
                        });
                    }
                }
            }
        }
    }
}
