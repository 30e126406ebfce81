//! An answer on its way out: head and body, written together without a copy. Pure.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;

use crate::serve::{
    body::{Body, Guard},
    sheets::Sheet,
};

/// Pieces handed to the system in one call.
pub(super) const SLICES: usize = 16;

pub(super) struct Outgoing {
    head: Vec<u8>,
    head_written: usize,
    pieces: Vec<Piece>,
    /// Pieces written whole, and bytes of the next one.
    pieces_written: usize,
    piece_written: usize,
    _guards: Vec<Guard>,
}

struct Piece {
    bytes: Bytes,
    /// The same in the kernel's memory.
    sheet: Option<Arc<Sheet>>,
    /// The sheet begins with the answer's head as well.
    has_head: bool,
}

/// What is to be written next.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// So many slices.
    Slices(usize),
    /// The same, and a sheet right after them.
    Ahead(usize),
    /// A sheet from here on.
    Sheet(&'a Sheet, usize),
}

impl Outgoing {
    /// Takes the body's pieces; what guards it leaves when this is dropped. `sheet` may find a sheet of a piece, given the head that goes
    /// before it.
    pub(super) fn new(
        head: Vec<u8>,
        body: &mut Body,
        sheet: impl Fn(&Bytes, Option<&[u8]>) -> Option<Arc<Sheet>>,
    ) -> Self {
        let guards = body.take_guards();
        let mut ahead = Some(&head[..]);
        let pieces = std::iter::from_fn(|| body.next_piece()).map(|bytes| {
            let head = ahead.take();
            let sheet = sheet(&bytes, head);
            Piece {
                bytes,
                has_head: sheet.as_ref().is_some_and(|sheet| head == Some(sheet.head())),
                sheet,
            }
        });
        Self {
            pieces: pieces.collect(),
            head,
            head_written: 0,
            pieces_written: 0,
            piece_written: 0,
            _guards: guards,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let body: usize = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        (self.head.len() + body) as u64
    }

    pub(super) fn is_written(&self) -> bool {
        self.head_written >= self.head.len() && self.pieces_written >= self.pieces.len()
    }

    /// No sheet is of use: everything is written as it is.
    pub(super) fn forget_sheets(&mut self) {
        for piece in &mut self.pieces {
            piece.sheet = None;
        }
    }

    /// What comes next, in order; slices are in `into`.
    pub(super) fn next<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES]) -> Next<'a> {
        let pieces = self.pieces.get(self.pieces_written..).unwrap_or(&[]);
        let head = self.head.get(self.head_written..).filter(|head| !head.is_empty());
        if let Some(Piece {
            sheet: Some(sheet),
            has_head,
            ..
        }) = pieces.first()
            && (*has_head || head.is_none())
        {
            let of_head = match has_head {
                true => self.head_written,
                false => sheet.head().len(),
            };
            return Next::Sheet(sheet, of_head + self.piece_written);
        }
        let mut skip = self.piece_written;
        let plain = pieces.iter().take_while(|piece| piece.sheet.is_none()).map(|piece| {
            let left = piece.bytes.get(std::mem::take(&mut skip)..);
            left.unwrap_or(&[])
        });
        let slices = head.into_iter().chain(plain);
        let mut used = 0usize;
        for (slot, slice) in into.iter_mut().zip(slices) {
            *slot = IoSlice::new(slice);
            used += 1;
        }
        let follows = pieces
            .get(used.saturating_sub(head.iter().len()))
            .is_some_and(|piece| piece.sheet.is_some());
        match follows {
            true => Next::Ahead(used),
            false => Next::Slices(used),
        }
    }

    /// This many bytes were written.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        let of_head = bytes.min(self.head.len().saturating_sub(self.head_written));
        self.head_written += of_head;
        bytes -= of_head;
        while let Some(piece) = self.pieces.get(self.pieces_written) {
            let left = piece.bytes.len().saturating_sub(self.piece_written);
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

    /// What leaves when `step` bytes are taken at a time, and how much of it from sheets.
    fn written(mut out: Outgoing, step: usize, forget_after: usize) -> (String, usize) {
        let (mut written, mut of_sheets) = (Vec::new(), 0);
        while !out.is_written() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let taken: Vec<u8> = match out.next(&mut slices) {
                Next::Sheet(sheet, from) => {
                    let sent = sheet.read(from, step);
                    of_sheets += sent.len();
                    sent
                }
                Next::Slices(used) | Next::Ahead(used) => {
                    let slices = slices[..used].iter().flat_map(|slice| slice.iter().copied());
                    slices.take(step).collect()
                }
            };
            assert!(!taken.is_empty());
            out.advance(taken.len());
            written.extend(taken);
            if written.len() >= forget_after {
                out.forget_sheets();
            }
        }
        (String::from_utf8(written).unwrap(), of_sheets)
    }

    #[test]
    fn however_little_is_taken_at_a_time_all_of_it_leaves_in_order() {
        let chunks: Vec<Bytes> = (0..40).map(|n| Bytes::from(format!("piece {n};"))).collect();
        let body = String::from_utf8(chunks.concat()).unwrap();
        let outgoing = |in_sheets: &dyn Fn(usize) -> bool, before: &'static str| {
            let sheet = |piece: &Bytes, head: Option<&[u8]>| {
                assert_eq!(
                    head.is_some(),
                    *piece == chunks[0],
                    "a head goes before the first piece only"
                );
                let at = chunks.iter().position(|chunk| chunk == piece).unwrap();
                in_sheets(at).then(|| Arc::new(Sheet::lone(before.as_bytes(), piece)))
            };
            Outgoing::new(b"head;".to_vec(), &mut Body::chunks(chunks.clone()), sheet)
        };
        let wanted = format!("head;{body}");
        for step in [1, 2, 7, 8, 9, 64, 10_000] {
            let all_but_few = |at: usize| at % 18 != 1;
            for (in_sheets, before) in [
                (&(|_: usize| false) as &dyn Fn(usize) -> bool, ""),
                (&|_| true, "head;"),
                (&|_| true, "another head;"),
                (&all_but_few, "head;"),
                (&|at| !all_but_few(at), ""),
            ] {
                let out = outgoing(in_sheets, before);
                assert_eq!(out.bytes(), wanted.len() as u64);
                let (got, of_sheets) = written(out, step, usize::MAX);
                assert_eq!(got, wanted, "{step} bytes at a time");
                let of_head = if before == "head;" { before.len() } else { 0 };
                let expected: usize = (0..40).filter(|at| in_sheets(*at)).map(|at| chunks[at].len()).sum();
                assert_eq!(of_sheets, expected + of_head);
                for forget_after in [1, 3, 5, 6, 100] {
                    let (got, _) = written(outgoing(in_sheets, before), step, forget_after);
                    assert_eq!(got, wanted, "sheets are forgotten after {forget_after} bytes");
                }
            }
        }
    }

    #[test]
    fn what_goes_before_a_sheet_waits_for_it() {
        let chunks: Vec<Bytes> = (0..40).map(|n| Bytes::from(format!("piece {n};"))).collect();
        for (at, slices) in [(0, 1), (14, 15), (15, 16), (16, 16)] {
            let sheet =
                |piece: &Bytes, _: Option<&[u8]>| (*piece == chunks[at]).then(|| Arc::new(Sheet::lone(b"", piece)));
            let out = Outgoing::new(b"head;".to_vec(), &mut Body::chunks(chunks.clone()), sheet);
            let mut room = [IoSlice::new(&[]); SLICES];
            match out.next(&mut room) {
                Next::Ahead(used) => assert_eq!((used, at < 16), (slices, true)),
                Next::Slices(used) => assert_eq!((used, at), (slices, 16)),
                Next::Sheet(..) => panic!("the head comes first"),
            }
        }
    }
}
