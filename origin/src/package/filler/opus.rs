//! Opus silence: the CELT layer's own silence flag (RFC 6716 section 4.3), in packets as long as those around them. Pure.

use bytes::Bytes;

use crate::codec::opus::OpusConfig;

/// CELT, full band, by packet length in samples at 48 kHz: the configuration number (RFC 6716 table 2) and how many frames
/// of it make the packet.
const fn frames(samples: u32) -> (u8, u8) {
    match samples {
        120 => (28, 1),
        240 => (29, 1),
        480 => (30, 1),
        1920 => (31, 2),
        2880 => (31, 3),
        3840 => (31, 4),
        4800 => (31, 5),
        5760 => (31, 6),
        _ => (31, 1),
    }
}

/// A CELT frame that says nothing but that it is silent.
const SILENT_FRAME: [u8; 2] = [0xff, 0xfe];

/// One packet of silence of this length in samples at 48 kHz, for every stream of the layout (RFC 7845 section 5.1.1).
pub(super) fn silence(config: &OpusConfig, samples: u32) -> Bytes {
    let (streams, coupled) = match (config.mapping.first(), config.mapping.get(1)) {
        (Some(streams), Some(coupled)) => (*streams, *coupled),
        _ => (1, config.channels.saturating_sub(1)),
    };
    let (celt, count) = frames(samples);
    let mut packet = Vec::new();
    for stream in 0..streams {
        let stereo = u8::from(stream < coupled);
        let code = if count == 1 { 0 } else { 3 };
        packet.push(celt << 3 | stereo << 2 | code);
        if count > 1 {
            packet.push(count); // constant bit rate, no padding
        }
        // All streams but the last say how long their frames are (RFC 6716 appendix B).
        if stream + 1 < streams {
            packet.push(SILENT_FRAME.len() as u8);
        }
        for _ in 0..count {
            packet.extend(SILENT_FRAME);
        }
    }
    packet.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::opus::packet_samples;

    fn config(channels: u8, mapping: &[u8]) -> OpusConfig {
        let mut head = b"OpusHead\x01".to_vec();
        head.extend([channels, 0, 0, 0, 0, 0, 0, 0, 0, u8::from(!mapping.is_empty())]);
        head.extend(mapping);
        OpusConfig::parse(head.into()).unwrap()
    }

    #[test]
    fn silence_lasts_as_long_as_the_packets_around_it() {
        for samples in [120, 240, 480, 960, 1920, 2880, 3840, 4800, 5760] {
            let packet = silence(&config(2, &[]), samples);
            assert_eq!(packet_samples(&packet), Some(samples));
        }
        assert_eq!(&silence(&config(1, &[]), 960)[..], [0xf8, 0xff, 0xfe]);
    }

    #[test]
    fn every_stream_of_a_surround_layout_is_silent() {
        // 5.1: four streams, two of them coupled.
        let packet = silence(&config(6, &[4, 2, 0, 4, 1, 2, 3, 5]), 960);
        assert_eq!(
            &packet[..],
            [
                0xfc, 2, 0xff, 0xfe, 0xfc, 2, 0xff, 0xfe, 0xf8, 2, 0xff, 0xfe, 0xf8, 0xff, 0xfe
            ]
        );
    }
}
