use proptest::prelude::*;

use super::*;

/// A full (format 0) header.
fn full(chunk_stream: u8, time: u32, length: u32, type_id: u8) -> Vec<u8> {
    let mut bytes = vec![chunk_stream];
    bytes.extend(&time.min(TIME_IS_EXTENDED).to_be_bytes()[1..]);
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.push(type_id);
    bytes.extend(1u32.to_le_bytes());
    if time >= TIME_IS_EXTENDED {
        bytes.extend(time.to_be_bytes());
    }
    bytes
}

fn bare(chunk_stream: u8) -> u8 {
    0xc0 | chunk_stream
}

/// All messages of a byte stream that is published already, fed `step` bytes at a time.
fn read_in_steps(bytes: &[u8], step: usize) -> Result<Vec<Message>, ChunkError> {
    let mut reader = ChunkReader::new();
    reader.raise_limits();
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        while let Some(message) = reader.next(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    read_in_steps(bytes, usize::MAX)
}

fn times(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(|m| m.timestamp).collect()
}

#[test]
fn audio_between_two_chunks_of_video_is_legal() {
    let mut bytes = full(6, 40, 200, 9);
    bytes.extend([7; 128]);
    bytes.extend(full(4, 23, 3, 8));
    bytes.extend([1, 2, 3]);
    bytes.push(bare(6));
    bytes.extend([8; 72]);
    for step in [1, 2, 127, 1000] {
        let messages = read_in_steps(&bytes, step).unwrap();
        assert_eq!(times(&messages), [23, 40]);
        assert_eq!(messages[0].payload, &[1u8, 2, 3][..]);
        assert_eq!(messages[1].payload.len(), 200);
        assert_eq!(messages[1].payload[127..129], [7, 8]);
    }
}

#[test]
fn compressed_headers_count_on_from_the_last_one() {
    let mut bytes = full(4, 1000, 1, 8);
    bytes.push(0xaa);
    bytes.extend([0x40 | 4, 0, 0, 20, 0, 0, 2, 8, 0xbb, 0xbb]); // format 1: delta 20, new length
    bytes.extend([0x80 | 4, 0, 0, 30, 0xcc, 0xcc]); // format 2: delta 30
    bytes.extend([bare(4), 0xdd, 0xdd]); // format 3: same delta
    assert_eq!(times(&read(&bytes).unwrap()), [1000, 1020, 1050, 1080]);
}

#[test]
fn a_bare_header_after_a_full_one_repeats_its_time_as_delta() {
    let mut bytes = full(4, 23, 1, 8);
    bytes.extend([0xaa, bare(4), 0xbb]);
    assert_eq!(times(&read(&bytes).unwrap()), [23, 46]);
}

#[test]
fn an_extended_time_is_repeated_in_later_chunks() {
    let time = 0x0100_0005u32;
    let mut bytes = full(6, time, 130, 9);
    bytes.extend([1; 128]);
    bytes.push(bare(6));
    bytes.extend(time.to_be_bytes());
    bytes.extend([2; 2]);
    bytes.extend([0x80 | 6, 0xff, 0xff, 0xff]); // format 2 with an extended delta
    bytes.extend(0x0200_0000u32.to_be_bytes());
    bytes.extend([3; 128]);
    bytes.push(bare(6));
    bytes.extend(0x0200_0000u32.to_be_bytes());
    bytes.extend([3; 2]);
    for step in [1, 5, 1000] {
        let messages = read_in_steps(&bytes, step).unwrap();
        assert_eq!(times(&messages), [time, time + 0x0200_0000]);
        assert_eq!(messages[0].payload[127..], [1, 2, 2]);
    }
}

#[test]
fn an_encoder_that_does_not_repeat_the_extended_time_is_understood() {
    let mut bytes = full(6, 0x0100_0005, 134, 9);
    bytes.extend([1; 128]);
    bytes.push(bare(6));
    bytes.extend([2; 6]);
    let messages = read(&bytes).unwrap();
    assert_eq!(messages[0].payload[126..], [1, 1, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn long_chunk_stream_ids_are_three_spellings_of_one_space() {
    // 70 in two bytes, then continued in three.
    let mut bytes = vec![0, 6];
    bytes.extend(&full(3, 5, 129, 9)[1..]);
    bytes.extend([1; 128]);
    bytes.extend([0xc1, 6, 0, 2]);
    assert_eq!(read(&bytes).unwrap()[0].payload.len(), 129);
}

#[test]
fn set_chunk_size_is_obeyed_and_bounded() {
    let mut bytes = full(2, 0, 4, 1);
    bytes.extend(4096u32.to_be_bytes());
    bytes.extend(full(6, 0, 4096, 9));
    bytes.extend([0; 4096]);
    assert_eq!(read(&bytes).unwrap().len(), 1);
    for size in [0, CHUNK_SIZE_MAX + 1, 0x7fff_ffff, u32::MAX] {
        let mut bytes = full(2, 0, 4, 1);
        bytes.extend(size.to_be_bytes());
        assert_eq!(read(&bytes), Err(ChunkError::ChunkSize(size)));
    }
    let mut bytes = full(2, 0, 2, 1);
    bytes.extend([0, 1]);
    assert_eq!(read(&bytes), Err(ChunkError::ShortControlMessage(1)));
}

#[test]
fn abort_drops_the_unfinished_message() {
    let mut bytes = full(6, 0, 200, 9);
    bytes.extend([1; 128]);
    bytes.extend(full(2, 0, 4, 2));
    bytes.extend(6u32.to_be_bytes());
    bytes.extend(full(6, 40, 2, 9));
    bytes.extend([5, 6]);
    let messages = read(&bytes).unwrap();
    assert_eq!(times(&messages), [40]);
    assert_eq!(messages[0].payload, &[5u8, 6][..]);
}

#[test]
fn a_16_mib_message_is_refused_at_its_header() {
    for (type_id, limit) in [(9, MEDIA_MESSAGE_MAX), (20, CONTROL_MESSAGE_MAX)] {
        let length = 0x00ff_ffff;
        assert_eq!(
            read(&full(6, 0, length, type_id)),
            Err(ChunkError::MessageTooLong {
                type_id,
                length: length as usize,
                limit
            })
        );
    }
}

#[test]
fn unfinished_messages_and_chunk_streams_are_bounded() {
    let mut bytes = Vec::new();
    for id in 0..=PARTIALS_MAX as u8 {
        bytes.extend(full(3 + id, 0, 200, 8));
        bytes.extend([0; 128]);
    }
    assert_eq!(read(&bytes), Err(ChunkError::TooManyPartials));

    let mut bytes = Vec::new();
    for id in 3..6 {
        bytes.extend(full(id, 0, MEDIA_MESSAGE_MAX as u32, 9));
        bytes.extend([0; 128]);
    }
    assert_eq!(read(&bytes), Err(ChunkError::TooManyPartials));

    let mut bytes = Vec::new();
    for id in 0..=CHUNK_STREAMS_MAX as u8 {
        bytes.extend([0, id]);
        bytes.extend(&full(3, 0, 0, 8)[1..]);
    }
    assert_eq!(read(&bytes), Err(ChunkError::TooManyChunkStreams));
}

#[test]
fn a_header_must_have_something_to_lean_on() {
    assert_eq!(read(&[bare(5)]), Err(ChunkError::NoPreviousHeader(5)));
    let mut bytes = full(6, 0, 200, 9);
    bytes.extend([0; 128]);
    bytes.extend(full(6, 0, 200, 9));
    assert_eq!(read(&bytes), Err(ChunkError::MessageInterrupted(6)));
}

#[test]
fn a_stranger_may_send_only_so_much() {
    let mut reader = ChunkReader::new();
    let mut input = BytesMut::new();
    let mut command = full(3, 0, 100, 20);
    command.extend([0; 100]);
    let outcome = (0..10_000).try_for_each(|_| {
        input.extend_from_slice(&command);
        reader.next(&mut input).map(drop)
    });
    assert_eq!(outcome, Err(ChunkError::BytesBeforePublish));
}

#[test]
fn it_knows_when_a_message_is_cut_off() {
    let mut reader = ChunkReader::new();
    let mut input = BytesMut::from(&full(6, 0, 200, 9)[..]);
    assert_eq!(reader.next(&mut input), Ok(None));
    assert!(reader.is_inside_message());
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_end_in_messages_or_a_typed_error(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        step in 1usize..40,
    ) {
        prop_assert_eq!(read_in_steps(&bytes, step), read(&bytes));
    }
}
