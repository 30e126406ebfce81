//! One connection's requests and answers as HTTP/2 has them (RFC 9113). Pure but for the time handed in.
//!
//! Before this: [`super::frame`], which takes the bytes apart. After this: [`super::stream`], one for each request. What
//! is to be sent gathers in `out`. An error that is returned ends the connection; what ends one request alone is its
//! result.

use std::collections::VecDeque;

use super::{
    Request,
    frame::{self, Event, flag, kind},
    hpack::{self, Decoder, MAX_LIST_BYTES},
    stream::{Head, Stream},
};
use crate::{
    http::{Done, Manners, Target},
    moment::Moment,
    viewer::Failure,
};

/// Longest header block, over all its frames.
const MAX_BLOCK_BYTES: usize = MAX_LIST_BYTES;
/// Requests at once before the server has said how many; RFC 9113 asks servers not to set fewer.
const UNTOLD_STREAMS: u32 = 100;
/// Stream numbers end here; a fresh connection follows.
const LAST_STREAM: u32 = 0x7fff_ffff;
/// Answers to pings and settings that a server may leave unread.
const MAX_OUT_BYTES: usize = 64 * 1024;

mod terms;
#[cfg(test)]
mod tests;

pub(super) use terms::Window;
use terms::{CANCEL, PROTOCOL_ERROR, reset, window_update};

/// One connection's state.
pub(super) struct Session {
    /// To be sent, not encrypted.
    pub(super) out: Vec<u8>,
    /// Requests that the server has said it did not look at (RFC 9113 section 6.8).
    pub(super) refused: Vec<Request>,
    manners: Manners,
    hpack: Decoder,
    block: Option<Block>,
    streams: Vec<Stream>,
    next_stream: u32,
    most_streams: u32,
    window: Window,
    /// Events so far.
    heard: u64,
    has_settings: bool,
    has_answered: bool,
    is_going_away: bool,
}

/// A header block that goes on in the next frame.
struct Block {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
}

impl Session {
    /// With all that a client says first in `out`.
    pub(super) fn new(manners: Manners) -> Self {
        Self {
            out: terms::greeting(),
            refused: Vec::new(),
            manners,
            hpack: Decoder::new(),
            block: None,
            streams: Vec::new(),
            next_stream: 1,
            most_streams: UNTOLD_STREAMS,
            window: Window::of_connection(),
            heard: 0,
            has_settings: false,
            has_answered: false,
            is_going_away: false,
        }
    }

    /// Whether one more request may be sent now.
    pub(super) fn has_room(&self) -> bool {
        !self.is_going_away() && self.streams.len() < self.most_streams as usize
    }

    /// Whether requests need another connection.
    pub(super) const fn is_going_away(&self) -> bool {
        self.is_going_away || self.next_stream > LAST_STREAM
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the server speaks HTTP/2 at all.
    pub(super) const fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// Whether any request came to a good end.
    pub(super) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Sends a request. There must be room for it.
    pub(super) fn open(&mut self, request: Request, target: &Target, now: Moment) {
        let mut block = Vec::with_capacity(128);
        let secure = target.tls.is_some();
        hpack::write_get(secure, &target.authority, &request.path, request.gzip, &mut block);
        let id = self.next_stream;
        self.next_stream += 2;
        frame::write(
            kind::HEADERS,
            flag::END_STREAM | flag::END_HEADERS,
            id,
            &block,
            &mut self.out,
        );
        let stream = Stream::new(id, request, self.manners.judged, now, self.heard);
        self.streams.push(stream);
    }

    /// Ends a request that is under way here.
    pub(super) fn cancel(&mut self, id: crate::viewer::RequestId) {
        if let Some(index) = self.streams.iter().position(|stream| stream.request.id == id) {
            let stream = self.streams.swap_remove(index);
            reset(stream.id, CANCEL, &mut self.out);
        }
    }

    /// All requests under way, because the connection has ended.
    pub(super) fn take_streams(&mut self) -> Vec<Stream> {
        std::mem::take(&mut self.streams)
    }

    /// Whether nothing came on the connection since this stream was opened.
    pub(super) const fn is_unheard(&self, stream: &Stream) -> bool {
        stream.heard == self.heard
    }

    /// Takes what the server sent.
    pub(super) fn take(&mut self, event: Event<'_>, now: Moment, done: &mut VecDeque<Done>) -> Result<(), Failure> {
        self.heard += 1;
        match event {
            _ if self.out.len() > MAX_OUT_BYTES => Err(Failure::Garbage("a server that asks and does not listen")),
            Event::Data { .. } if self.block.is_some() || !self.has_settings => Err(MISPLACED),
            Event::Data {
                stream,
                piece,
                weighs,
                end,
            } => {
                if let Some(back) = self.window.take(weighs)? {
                    window_update(0, back, &mut self.out);
                }
                self.take_body(stream, piece, weighs, end, now, done)
            }
            Event::Frame { head, payload } => {
                if (self.block.is_some() && head.kind != kind::CONTINUATION)
                    || (!self.has_settings && head.kind != kind::SETTINGS)
                {
                    return Err(MISPLACED);
                }
                self.take_frame(head, payload, now, done)
            }
        }
    }

    fn take_frame(
        &mut self,
        head: frame::Head,
        payload: &[u8],
        now: Moment,
        done: &mut VecDeque<Done>,
    ) -> Result<(), Failure> {
        let is_last = head.has(flag::END_HEADERS);
        match head.kind {
            kind::HEADERS => {
                let (stream, end) = (head.stream, head.has(flag::END_STREAM));
                let fragment = frame::fragment(head, payload)?;
                if is_last {
                    return self.take_block(stream, end, fragment, now, done);
                }
                let bytes = fragment.to_vec();
                self.block = Some(Block { stream, end, bytes });
            }
            kind::CONTINUATION => {
                let mut block = self
                    .block
                    .take()
                    .filter(|block| block.stream == head.stream)
                    .ok_or(MISPLACED)?;
                if block.bytes.len() + payload.len() > MAX_BLOCK_BYTES {
                    return Err(Failure::Garbage("the head of an answer has no end"));
                }
                block.bytes.extend_from_slice(payload);
                if is_last {
                    return self.take_block(block.stream, block.end, &block.bytes, now, done);
                }
                self.block = Some(block);
            }
            kind::SETTINGS => self.take_settings(head, payload)?,
            kind::PING if head.stream != 0 || payload.len() != 8 => return Err(MISPLACED),
            kind::PING if head.has(flag::ACK) => {}
            kind::PING => frame::write(kind::PING, flag::ACK, 0, payload, &mut self.out),
            kind::RST_STREAM if payload.len() == 4 => {
                if let Some(index) = self.find(head.stream)? {
                    let stream = self.streams.swap_remove(index);
                    let (id, failure) = (stream.request.id, stream.broken());
                    let result = Err(failure);
                    done.push_back(Done { id, result });
                }
            }
            kind::GOAWAY => {
                let last = payload
                    .first_chunk::<4>()
                    .filter(|_| head.stream == 0 && payload.len() >= 8)
                    .ok_or(MISPLACED)?;
                self.go_away(u32::from_be_bytes(*last) & LAST_STREAM, done);
            }
            // Nothing is ever sent that these would hold up.
            kind::WINDOW_UPDATE if payload.len() == 4 => {}
            kind::RST_STREAM | kind::WINDOW_UPDATE | kind::PUSH_PROMISE => return Err(MISPLACED),
            // PRIORITY, and what the future brings (RFC 9113 section 5.5).
            _ => {}
        }
        Ok(())
    }

    fn take_settings(&mut self, head: frame::Head, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(MISPLACED);
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        if let Some(most) = terms::most_streams(payload).ok_or(MISPLACED)? {
            self.most_streams = most;
        }
        self.has_settings = true;
        frame::write(kind::SETTINGS, flag::ACK, 0, &[], &mut self.out);
        Ok(())
    }

    fn take_body(
        &mut self,
        id: u32,
        piece: &[u8],
        weighs: u32,
        end: bool,
        now: Moment,
        done: &mut VecDeque<Done>,
    ) -> Result<(), Failure> {
        let Some(index) = self.find(id)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        if !stream.is_answered() {
            return Err(Failure::Garbage("a body without a head"));
        }
        let back = stream.window.take(weighs)?;
        if let Err(failure) = stream.take_body(piece) {
            let stream = self.streams.swap_remove(index);
            reset(id, PROTOCOL_ERROR, &mut self.out);
            let (id, result) = (stream.request.id, Err(failure));
            done.push_back(Done { id, result });
        } else if end {
            self.finish(index, now, done);
        } else if let Some(back) = back {
            window_update(id, back, &mut self.out);
        }
        Ok(())
    }

    /// Takes a whole header block: an answer's head, or trailers. A block for a request that was given up is read as
    /// well, for what it adds to the table.
    fn take_block(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        now: Moment,
        done: &mut VecDeque<Done>,
    ) -> Result<(), Failure> {
        let garbage = |hpack::Malformed(what)| Failure::Garbage(what);
        let index = self.find(id)?;
        let stream = index.and_then(|index| self.streams.get_mut(index));
        let Some((index, stream)) = index.zip(stream) else {
            return self.hpack.decode(block, false, |_| Ok(())).map_err(garbage);
        };
        if stream.is_answered() {
            self.hpack.decode(block, false, |_| Ok(())).map_err(garbage)?;
            if !end {
                return Err(Failure::Garbage("more than one answer to one request"));
            }
        } else {
            let mut head = Head::new(self.manners.headers(stream.request.gzip), now);
            let judged = self.manners.judged;
            self.hpack
                .decode(block, judged, |field| head.take(field))
                .map_err(garbage)?;
            if !stream.take_head(head)? && end {
                return Err(Failure::Garbage("an answer that ends before it begins"));
            }
        }
        if end {
            self.finish(index, now, done);
        }
        Ok(())
    }

    fn finish(&mut self, index: usize, now: Moment, done: &mut VecDeque<Done>) {
        let stream = self.streams.swap_remove(index);
        self.has_answered = true;
        done.push_back(stream.finish(now));
    }

    /// The server takes no new requests, and will not look at those above `last`.
    fn go_away(&mut self, last: u32, done: &mut VecDeque<Done>) {
        self.is_going_away = true;
        for stream in self.streams.extract_if(.., |stream| stream.id > last) {
            if stream.request.is_again {
                let (id, result) = (stream.request.id, Err(Failure::Reset));
                done.push_back(Done { id, result });
            } else {
                self.refused.push(stream.request.again());
            }
        }
    }

    /// Where a stream stands; `None`: it has ended. One that was never opened is an error.
    fn find(&self, id: u32) -> Result<Option<usize>, Failure> {
        if id.is_multiple_of(2) || id >= self.next_stream {
            return Err(Failure::Garbage("an answer to no request"));
        }
        Ok(self.streams.iter().position(|stream| stream.id == id))
    }
}

const MISPLACED: Failure = Failure::Garbage("an HTTP/2 frame where none of its kind may be");
