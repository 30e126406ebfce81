//! One request on a connection, and what has come of its answer. Pure but for the time handed in.

use super::{
    Request,
    hpack::{Field, Known, Malformed},
    session::Window,
};
use crate::{
    headers::Headers,
    http::{Done, Response, Sink},
    moment::Moment,
    viewer::Failure,
};

/// A request under way.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) request: Request,
    pub(super) opened: Moment,
    /// How much had come on the connection when it was opened.
    pub(super) heard: u64,
    pub(super) window: Window,
    sink: Sink,
    head: Option<Head>,
    got: u64,
}

/// What the head of an answer says.
#[derive(Default)]
pub(super) struct Head {
    status: u16,
    location: Option<String>,
    gzip: bool,
    announced: Option<u64>,
    /// Noted where they are judged.
    headers: Option<Headers>,
    first_byte: Moment,
}

impl Head {
    pub(super) fn new(headers: Option<Headers>, now: Moment) -> Self {
        Self {
            headers,
            first_byte: now,
            ..Self::default()
        }
    }

    pub(super) fn take(&mut self, field: Field<'_>) -> Result<(), Malformed> {
        let value = std::str::from_utf8(field.value).unwrap_or("");
        match field.known {
            Known::Status => {
                let status = value.parse().ok().filter(|status| (100..1000).contains(status));
                self.status = status.ok_or(Malformed("a :status that is none"))?;
            }
            Known::ContentLength => {
                let length = value.parse().ok();
                self.announced = Some(length.ok_or(Malformed("a content-length that is no number"))?);
            }
            Known::ContentEncoding => self.gzip = value.eq_ignore_ascii_case("gzip"),
            Known::Location => self.location = Some(value.to_owned()),
            Known::Other => {}
        }
        if let Some(headers) = &mut self.headers {
            headers.take(std::str::from_utf8(field.name).unwrap_or(""), value);
        }
        Ok(())
    }
}

impl Stream {
    pub(super) fn new(id: u32, request: Request, hash: bool, opened: Moment, heard: u64) -> Self {
        let sink = Sink::new(request.is_text, hash);
        Self {
            id,
            request,
            opened,
            heard,
            window: Window::of_stream(),
            sink,
            head: None,
            got: 0,
        }
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.head.is_some()
    }

    /// Takes a head; `false`: one that only announces the answer's own (RFC 9110 section 15.2).
    pub(super) fn take_head(&mut self, head: Head) -> Result<bool, Failure> {
        match head.status {
            0 => Err(Failure::Garbage("an answer without :status")),
            100..200 => Ok(false),
            _ => {
                self.head = Some(head);
                Ok(true)
            }
        }
    }

    /// Takes a piece of the body; an error ends this stream alone.
    pub(super) fn take_body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let announced = self.head.as_ref().and_then(|head| head.announced);
        self.got += piece.len() as u64;
        if announced.is_some_and(|announced| announced < self.got) {
            return Err(self.broken());
        }
        self.sink.take(piece, announced == Some(self.got))
    }

    /// The stream ended as it should, or the body did not.
    pub(super) fn finish(self, now: Moment) -> Done {
        let id = self.request.id;
        let failure = self.broken();
        let Some(head) = self.head else {
            return Done {
                id,
                result: Err(failure),
            };
        };
        // These tell the length of what they leave out (RFC 9110 section 8.6).
        let is_bodiless = matches!(head.status, 204 | 304) && self.got == 0;
        if !is_bodiless && head.announced.is_some_and(|announced| announced != self.got) {
            return Done {
                id,
                result: Err(failure),
            };
        }
        let (text, media) = self.sink.finish();
        let response = Box::new(Response {
            status: head.status,
            location: head.location,
            gzip: head.gzip,
            headers: head.headers,
            text,
            media,
            first_byte: head.first_byte,
            at: now,
        });
        Done {
            id,
            result: Ok(response),
        }
    }

    /// What it means that no more will come.
    pub(super) fn broken(&self) -> Failure {
        let got = self.got;
        match &self.head {
            None => Failure::Reset,
            Some(head) => Failure::Truncated {
                got,
                announced: head.announced.unwrap_or(got + 1),
            },
        }
    }
}
