//! A real H.264 decoder configuration for pictures that do not exist (ITU-T H.264 section 7.3.2, ISO/IEC 14496-15
//! section 5.3.3).

/// An `AVCDecoderConfigurationRecord`: High profile, level 3.1, 4-byte lengths, the frame rate in the VUI. Width and
/// height are multiples of 16.
pub(super) fn decoder_configuration(size: (u32, u32), fps: (u32, u32), b_frames: bool) -> Vec<u8> {
    // pic_parameter_set_id 0, sequence_parameter_set_id 0, CABAC, weighted_bipred off, transform_8x8_mode.
    const PPS: [u8; 5] = [0x68, 0xEE, 0x3C, 0xB0, 0x80];
    let sps = sequence_parameter_set(size, fps, b_frames);
    let mut record = vec![1, sps[1], sps[2], sps[3], 0xFF, 0xE1];
    record.extend((sps.len() as u16).to_be_bytes());
    record.extend(&sps);
    record.push(1);
    record.extend((PPS.len() as u16).to_be_bytes());
    record.extend(PPS);
    // High profile: chroma format 4:2:0, 8 bits, no SPS extensions.
    record.extend([0xFD, 0xF8, 0xF8, 0x00]);
    record
}

fn sequence_parameter_set((width, height): (u32, u32), fps: (u32, u32), b_frames: bool) -> Vec<u8> {
    const HIGH: u32 = 100;
    const LEVEL_3_1: u32 = 31;
    let mut bits = BitWriter::default();
    for (value, count) in [(0x67, 8), (HIGH, 8), (0, 8), (LEVEL_3_1, 8)] {
        bits.put(value, count);
    }
    bits.exp_golomb(0); // seq_parameter_set_id
    bits.exp_golomb(1); // chroma_format_idc 4:2:0
    bits.exp_golomb(0); // bit_depth_luma - 8
    bits.exp_golomb(0); // bit_depth_chroma - 8
    bits.put(0, 2); // no lossless bypass, no scaling matrix
    bits.exp_golomb(0); // log2_max_frame_num - 4
    bits.exp_golomb(0); // pic_order_cnt_type
    bits.exp_golomb(2); // log2_max_pic_order_cnt_lsb - 4
    bits.exp_golomb(2); // max_num_ref_frames
    bits.put(0, 1); // gaps_in_frame_num_value_allowed
    bits.exp_golomb(width / 16 - 1);
    bits.exp_golomb(height / 16 - 1);
    bits.put(0b11, 2); // frame_mbs_only, direct_8x8_inference
    bits.put(0, 1); // no cropping
    bits.put(1, 1); // VUI
    bits.put(0, 4); // no aspect ratio, overscan, video signal, chroma location
    bits.put(1, 1); // timing: num_units_in_tick ÷ time_scale is the time of a field
    bits.put(fps.1, 32);
    bits.put(fps.0.saturating_mul(2), 32);
    bits.put(1, 1); // fixed_frame_rate
    bits.put(0, 3); // no HRD twice, no pic_struct
    bits.put(1, 1); // bitstream_restriction
    bits.put(1, 1); // motion_vectors_over_pic_boundaries
    for value in [0, 0, 10, 10, u32::from(b_frames), 2] {
        bits.exp_golomb(value); // …, max_num_reorder_frames, max_dec_frame_buffering
    }
    bits.finish()
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// ue(v)
    fn exp_golomb(&mut self, value: u32) {
        let bits = (value + 1).ilog2();
        self.put(0, bits);
        self.put(value + 1, bits + 1);
    }

    /// rbsp_trailing_bits and emulation prevention (section 7.4.1).
    fn finish(mut self) -> Vec<u8> {
        self.put(1, 1);
        let mut out = Vec::with_capacity(self.bytes.len() + 4);
        let mut zeros = 0;
        for byte in self.bytes {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }
}
