//! An answer on its way out: head and body, written together without a copy. Pure.

use std::io::IoSlice;

use bytes::Bytes;

use crate::serve::body::Body;

/// Pieces handed to the system in one call.
pub(super) const SLICES: usize = 16;

#[derive(Debug)]
pub(super) struct Outgoing {
    head: Vec<u8>,
    head_written: usize,
    pieces: Vec<Bytes>,
    /// Pieces written whole, and bytes of the next one.
    pieces_written: usize,
    piece_written: usize,
}

impl Outgoing {
    /// Takes the body's pieces; what leaves with the last of them leaves when this is dropped.
    pub(super) fn new(head: Vec<u8>, body: &mut Body) -> Self {
        Self {
            head,
            head_written: 0,
            pieces: std::iter::from_fn(|| body.next_piece()).collect(),
            pieces_written: 0,
            piece_written: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let body: usize = self.pieces.iter().map(Bytes::len).sum();
        (self.head.len() + body) as u64
    }

    pub(super) fn is_written(&self) -> bool {
        self.head_written >= self.head.len() && self.pieces_written >= self.pieces.len()
    }

    /// What comes next, in order; gives how many of `into` are used.
    pub(super) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES]) -> usize {
        let head = self.head.get(self.head_written..).filter(|head| !head.is_empty());
        let mut skip = self.piece_written;
        let rest = self
            .pieces
            .get(self.pieces_written..)
            .unwrap_or(&[])
            .iter()
            .map(|piece| {
                let left = piece.get(std::mem::take(&mut skip)..);
                left.unwrap_or(&[])
            });
        let mut used = 0;
        for (slot, slice) in into.iter_mut().zip(head.into_iter().chain(rest)) {
            *slot = IoSlice::new(slice);
            used += 1;
        }
        used
    }

    /// This many bytes were written.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        let of_head = bytes.min(self.head.len().saturating_sub(self.head_written));
        self.head_written += of_head;
        bytes -= of_head;
        while let Some(piece) = self.pieces.get(self.pieces_written) {
            let left = piece.len().saturating_sub(self.piece_written);
            if bytes < left {
                self.piece_written += bytes;
                return;
            }
            bytes -= left;
            self.pieces_written += 1;
            self.piece_written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_little_is_taken_at_a_time_all_of_it_leaves_in_order() {
        let chunks: Vec<Bytes> = (0..40).map(|n| Bytes::from(format!("piece {n};"))).collect();
        let wanted = format!(
            "head;{}",
            chunks
                .iter()
                .map(|c| std::str::from_utf8(c).unwrap())
                .collect::<String>()
        );
        for step in [1, 2, 7, 8, 9, 64, 10_000] {
            let mut out = Outgoing::new(b"head;".to_vec(), &mut Body::chunks(chunks.clone()));
            assert_eq!(out.bytes(), wanted.len() as u64);
            let mut written = Vec::new();
            while !out.is_written() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let used = out.slices(&mut slices);
                let taken: Vec<u8> = slices[..used]
                    .iter()
                    .flat_map(|s| s.iter().copied())
                    .take(step)
                    .collect();
                assert!(!taken.is_empty());
                out.advance(taken.len());
                written.extend(taken);
            }
            assert_eq!(String::from_utf8(written).unwrap(), wanted, "{step} bytes at a time");
        }
    }
}
