//! AAC silence: a `raw_data_block` whose channels have no spectrum (ISO/IEC 14496-3 section 4.4.2.1). Valid for LC, for
//! HE-AAC (a decoder upsamples a core frame that carries no SBR data) and for both frame lengths. Pure.

use bytes::Bytes;

use super::bits::BitWriter;

/// Syntactic elements by their `id_syn_ele` (table 4.85).
#[derive(Debug, Clone, Copy)]
enum Element {
    Single = 0,
    Pair = 1,
    LowFrequency = 3,
}

/// `id_syn_ele` of the end.
const END: u32 = 7;

/// The elements of each channel configuration, in order (ISO/IEC 14496-3 table 1.19).
const fn layout(channels: u8) -> &'static [Element] {
    use Element::{LowFrequency, Pair, Single};
    match channels {
        1 => &[Single],
        2 => &[Pair],
        3 => &[Single, Pair],
        4 => &[Single, Pair, Single],
        5 => &[Single, Pair, Pair],
        6 => &[Single, Pair, Pair, LowFrequency],
        _ => &[Single, Pair, Pair, Pair, LowFrequency],
    }
}

/// One frame of silence for 1 to 6 or 8 channels.
pub(super) fn silence(channels: u8) -> Bytes {
    let mut bits = BitWriter::default();
    let mut tags = [0; 4];
    for element in layout(channels) {
        bits.put(*element as u32, 3);
        // element_instance_tag: tells elements of one kind apart.
        let tag = tags.get_mut(*element as usize);
        bits.put(tag.as_ref().map_or(0, |tag| **tag), 4);
        if let Some(tag) = tag {
            *tag += 1;
        }
        match element {
            Element::Single | Element::LowFrequency => {
                gain(&mut bits);
                ics_info(&mut bits);
                nothing(&mut bits);
            }
            Element::Pair => {
                bits.put(1, 1); // common_window
                ics_info(&mut bits);
                bits.put(0, 2); // ms_mask_present
                for _ in 0..2 {
                    gain(&mut bits);
                    nothing(&mut bits);
                }
            }
        }
    }
    bits.put(END, 3);
    bits.align(0);
    bits.into_bytes().into()
}

/// Of no consequence without a spectrum.
fn gain(bits: &mut BitWriter) {
    bits.put(0, 8);
}

/// One long window without a scale factor band.
fn ics_info(bits: &mut BitWriter) {
    bits.put(0, 1); // reserved
    bits.put(0, 2); // ONLY_LONG_SEQUENCE
    bits.put(0, 1); // window_shape: sine
    bits.put(0, 6); // max_sfb
    bits.put(0, 1); // predictor_data_present
}

/// Without bands there are no sections, scale factors or spectral data; and neither pulses, noise shaping nor gain control.
fn nothing(bits: &mut BitWriter) {
    bits.put(0, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_has_its_silence() {
        // What FFmpeg's own encoder ends a mono stream of zeros with, up to its gain.
        assert_eq!(&silence(1)[..], [0, 0, 0, 0x07]);
        for (channels, bytes) in [(2, 6), (3, 10), (4, 13), (5, 15), (6, 19), (8, 24)] {
            assert_eq!(silence(channels).len(), bytes, "{channels}");
        }
    }
}
