//! A stage for tests: a viewer, an oracle and a made-up server in virtual time, with whatever goes wrong in between.

use std::{sync::Arc, time::Duration};

use url::Url;
use weir_shared::hls::{
    address::{Address, Object},
    delta,
    name::{MediaObject, ObjectName},
    position::{PartVerdict, Verdict, answer, answer_part},
    reload::{Reload, Skip},
    write,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    content::{Content, Shape},
    listing::Shelf,
    moment::Moment,
    oracle::{Common, Oracle},
    stamp::HEAD_BYTES,
    tally::Tally,
    viewer::{Answer, Failure, MediaBody, Output, Pattern, Plan, Purpose, RequestId, Viewer},
};

pub(crate) const START: Moment = Moment(1_795_000_000_000_000);
const TICK: Duration = Duration::from_millis(10);

/// What the server of the stage says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Body(u16, Vec<u8>),
    Fail(Failure),
    Hold,
}

pub(crate) struct Stage {
    pub content: Content,
    pub now: Moment,
    pub viewer: Viewer,
    pub tally: Tally,
    pub requests: Vec<String>,
    /// Most requests under way at once.
    pub most_open: usize,
    oracle: Oracle,
    common: Common,
    shelf: Shelf,
    open: Vec<(RequestId, Arc<str>, Purpose)>,
}

pub(crate) fn entry() -> Url {
    Url::parse("http://server/app/s0/index.m3u8").unwrap()
}

impl Stage {
    pub(crate) fn new(shape: Shape, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan::new(entry(), Pattern::Safari);
        change(&mut plan);
        Self {
            content: Content::new(shape, START),
            now: START,
            viewer: Viewer::new(plan, START),
            tally: Tally::default(),
            requests: vec![],
            most_open: 0,
            oracle: Oracle::new(1),
            common: Common::default(),
            shelf: Shelf::default(),
            open: vec![],
        }
    }

    /// Lets `time` pass; `meddle` sees path, time and reply, and gives what the viewer gets.
    pub(crate) fn run(&mut self, time: Duration, mut meddle: impl FnMut(&str, Moment, Reply) -> Reply) {
        let until = self.now.plus(time);
        while self.now < until && !self.viewer.is_over() {
            self.take_outputs();
            for (id, path, purpose) in std::mem::take(&mut self.open) {
                let reply = meddle(&path, self.now, serve(&self.content, &path, self.now));
                match reply {
                    Reply::Hold => self.open.push((id, path, purpose)),
                    Reply::Fail(failure) => self.viewer.fail(id, failure, self.now),
                    Reply::Body(status, body) => {
                        let answer = describe(status, &body, self.now);
                        self.viewer.answer(id, &answer, &mut self.shelf, self.now);
                    }
                }
                self.take_outputs();
            }
            self.now = self.now.plus(TICK);
            if self.viewer.next_timeout().is_some_and(|at| at <= self.now) {
                self.viewer.timeout(self.now);
            }
        }
        self.take_outputs();
        self.oracle.finish(&self.common, &mut self.tally, self.now);
    }

    pub(crate) fn run_plainly(&mut self, time: Duration) {
        self.run(time, |_, _, reply| reply);
    }

    /// Identifiers of the broken rules.
    pub(crate) fn broken(&self) -> Vec<&'static str> {
        self.tally.broken.keys().map(|rule| rule.id()).collect()
    }

    /// Another stream on the same server has news: whoever has none stands still.
    pub(crate) fn others_go_on(&mut self) {
        self.common.hear(self.now);
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.viewer.poll() {
            match output {
                Output::Send { id, path, purpose } => {
                    self.requests.push(path.to_string());
                    self.open.push((id, path, purpose));
                    self.most_open = self.most_open.max(self.open.len());
                }
                Output::Cancel(id) => self.open.retain(|(open, ..)| *open != id),
                Output::Event(event) => self.oracle.take(&event, &mut self.common, &mut self.tally, self.now),
            }
        }
    }
}

pub(crate) fn describe(status: u16, body: &[u8], at: Moment) -> Answer<'_> {
    let mut head = [0; HEAD_BYTES];
    for (to, from) in head.iter_mut().zip(body) {
        *to = *from;
    }
    let media = MediaBody {
        bytes: body.len() as u64,
        hash: Some(xxh3_64(body)),
        head,
    };
    Answer {
        status,
        location: None,
        gzip: false,
        headers: None,
        text: body,
        media,
        first_byte: at,
        at,
    }
}

/// What an honest server answers at `now`.
pub(crate) fn serve(content: &Content, path: &str, now: Moment) -> Reply {
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    let parts = content.parts_at(now);
    let edge = content.edge(parts);
    let absent = Reply::Body(404, vec![]);
    let Some(address) = Address::parse(path) else {
        return absent;
    };
    let Some(stream) = content.stream(address.key.as_str()) else {
        return absent;
    };
    match address.object {
        Object::Index => Reply::Body(200, content.multivariant("d/").into_bytes()),
        Object::Direct(ObjectName::Multivariant) => Reply::Body(200, content.multivariant("").into_bytes()),
        Object::Direct(ObjectName::MediaPlaylist(name)) => {
            let Ok(reload) = Reload::parse(query) else {
                return Reply::Body(400, vec![]);
            };
            match answer(&edge, reload.want) {
                Verdict::Wait => Reply::Hold,
                Verdict::TooFarAhead => Reply::Body(400, vec![]),
                Verdict::Answer => {
                    let full = content.playlist(&name, parts);
                    let playlist = if reload.skip == Skip::Yes {
                        delta::delta(&full)
                    } else {
                        full
                    };
                    Reply::Body(200, write::write(&playlist).into_bytes())
                }
            }
        }
        Object::Direct(ObjectName::Media { rendition, object, .. }) => {
            let Some(index) = content.rendition(&rendition) else {
                return absent;
            };
            let part = |number| content.part(stream, index, number, content.completes(number)).concat();
            match object {
                MediaObject::Init(_) => Reply::Body(200, content.init().to_vec()),
                MediaObject::Part(number) => match answer_part(&edge, number) {
                    PartVerdict::Wait => Reply::Hold,
                    PartVerdict::Lookup if content.held(number.0, parts) => Reply::Body(200, part(number.0)),
                    _ => absent,
                },
                MediaObject::Segment(msn) => match content.segment_parts(msn, parts) {
                    Some(range) => Reply::Body(200, range.map(part).collect::<Vec<_>>().concat()),
                    None => absent,
                },
            }
        }
    }
}
