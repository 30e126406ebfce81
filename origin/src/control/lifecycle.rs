//! A stream's life as a pure state machine: commands and observations in, the next state and what to do about it out.
//!
//! ```text
//!            connect                 all left             grace over, input idle
//!   IDLE ───────────────▶ LIVE ─────────────────▶ grace ─────────────────────────▶ DISABLED
//!    ▲                     ▲  └──────── disable, delete, input idle ──────────────────▲ │
//!    │                     └──────── connect ──────┘ (grace shows as LIVE)             │
//!    └───────────────────────────────── activate ────────────────────────────────────┘
//! ```
//! `active: false` refuses publishers in every state and takes a live stream back to IDLE. A stream that is *backstage*
//! is ingested without being shown: viewers are let in by `go-live`.
//!
//! Before this: `control.rs` (calls of the API, news of the node). After this: `node.rs` and `notice.rs`.

use serde::{Deserialize, Serialize};

use super::notice::Notice;

/// Milliseconds since 1970.
pub type Millis = i64;

/// What the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting for a push.
    Idle,
    /// A publisher is connected, or may still come back.
    Live,
    /// Ended or switched off: pushes are refused until the stream is activated.
    Disabled,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Idle, Self::Live, Self::Disabled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Live => "LIVE",
            Self::Disabled => "DISABLED",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Phase {
    Idle,
    Live,
    /// Every publisher has left; until this moment one may come back into the same broadcast.
    Grace {
        until: Millis,
    },
    Disabled,
}

/// Which of a stream's two publishers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Slot {
    Primary,
    Backup,
}

impl Slot {
    pub const ALL: [Self; 2] = [Self::Primary, Self::Backup];

    /// As the store names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// How long things may take; from the project's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// How long a lost publisher is waited for.
    pub grace: Millis,
    /// How long a connected publisher may send nothing.
    pub idle: Millis,
}

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    pub phase: Phase,
    /// Whether publishers are let in at all.
    pub active: bool,
    /// Whether the next broadcast starts behind the curtain.
    pub backstage: bool,
    /// Whether viewers are shown the stream.
    pub broadcasting: bool,
    pub primary: bool,
    pub backup: bool,
    /// When the broadcast began, and when media was last seen.
    pub live_since: Option<Millis>,
    pub last_input: Option<Millis>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            active: true,
            backstage: false,
            broadcasting: false,
            primary: false,
            backup: false,
            live_since: None,
            last_input: None,
        }
    }
}

/// What happens to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A publisher was let in.
    Connected(Slot),
    /// A publisher is gone, with or without a word.
    Left(Slot),
    /// Media arrived.
    Input,
    /// Time went by.
    Tick,
    /// The node itself gave the broadcast up: its grace time ran out, its input went silent, it is shutting the stream.
    Ended,
    Activate,
    Disable,
    /// Switched off for good: DISABLED, and inactive.
    Delete,
    SetActive(bool),
    SetBackstage(bool),
    /// `go-live` and `start-broadcasting`.
    StartBroadcasting,
    StopBroadcasting,
}

impl Event {
    /// The call as people know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected(_) => "publish",
            Self::Left(_) => "unpublish",
            Self::Input => "input",
            Self::Tick => "tick",
            Self::Ended => "end",
            Self::Activate => "activate",
            Self::Disable => "disable",
            Self::Delete => "delete",
            Self::SetActive(_) => "set active",
            Self::SetBackstage(_) => "set backstage",
            Self::StartBroadcasting => "start-broadcasting",
            Self::StopBroadcasting => "stop-broadcasting",
        }
    }
}

/// What the node has to do so that the world agrees with the new state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Close the publishers' connections with an error they show.
    Kick,
    /// End the playlists, and everything that was packaged.
    EndPlaylist,
    /// End the playlists while the publishers go on sending.
    Hide,
    /// Begin new playlists, if the old ones have ended.
    Show,
    /// Forget everything but the live edge.
    ClearDvr,
}

/// A call that the stream's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} is not possible while the stream is {}{}: {remedy}", .status.as_str(), if *.active { "" } else { " and inactive" })]
pub struct IllegalMove {
    pub call: &'static str,
    pub status: Status,
    pub active: bool,
    pub remedy: &'static str,
}

/// The next state, with its consequences in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub state: State,
    pub actions: Vec<Action>,
    pub notices: Vec<Notice>,
}

impl State {
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Idle => Status::Idle,
            Phase::Live | Phase::Grace { .. } => Status::Live,
            Phase::Disabled => Status::Disabled,
        }
    }

    /// Whether a publisher would be let in now.
    pub fn accepts_publisher(&self) -> bool {
        self.active && self.phase != Phase::Disabled
    }

    /// When [`Event::Tick`] has something to do, at the latest.
    pub fn next_timeout(&self, timers: Timers) -> Option<Millis> {
        match self.phase {
            Phase::Grace { until } => Some(until),
            Phase::Live => self.last_input.map(|at| at.saturating_add(timers.idle)),
            Phase::Idle | Phase::Disabled => None,
        }
    }

    /// One step. The state itself does not change: a caller that can't store the next one keeps this one.
    pub fn step(&self, event: Event, now: Millis, timers: Timers) -> Result<Step, IllegalMove> {
        let mut step = Step {
            state: *self,
            actions: Vec::new(),
            notices: Vec::new(),
        };
        match event {
            Event::Connected(slot) => step.connected(slot, now)?,
            Event::Left(slot) => step.left(slot, now, timers),
            Event::Input => step.state.last_input = Some(now).filter(|_| self.phase == Phase::Live),
            Event::Tick => step.tick(now, timers),
            Event::Ended => step.ended(),
            Event::Activate => step.activate()?,
            Event::Disable => step.disable(),
            Event::Delete => {
                step.disable();
                step.state.active = false;
            }
            Event::SetActive(active) => step.set_active(active),
            Event::SetBackstage(backstage) => step.state.backstage = backstage,
            Event::StartBroadcasting => step.start_broadcasting()?,
            Event::StopBroadcasting => step.stop_broadcasting(),
        }
        Ok(step)
    }

    fn refuse(&self, event: Event, remedy: &'static str) -> IllegalMove {
        IllegalMove {
            call: event.as_str(),
            status: self.status(),
            active: self.active,
            remedy,
        }
    }
}

impl Step {
    fn connected(&mut self, slot: Slot, now: Millis) -> Result<(), IllegalMove> {
        let state = &mut self.state;
        if !state.active {
            return Err(state.refuse(Event::Connected(slot), "set active to true first"));
        }
        match state.phase {
            Phase::Disabled => return Err(state.refuse(Event::Connected(slot), "activate the stream first")),
            Phase::Idle => {
                state.live_since = Some(now);
                self.notices.push(Notice::Live);
                if !state.backstage {
                    state.broadcasting = true;
                    self.notices.push(Notice::BroadcastingStarted);
                }
            }
            Phase::Grace { .. } => self.notices.push(Notice::Resumed),
            Phase::Live => {}
        }
        state.phase = Phase::Live;
        state.last_input = Some(now);
        *state.slot(slot) = true;
        Ok(())
    }

    fn left(&mut self, slot: Slot, now: Millis, timers: Timers) {
        *self.state.slot(slot) = false;
        if self.state.phase == Phase::Live && !self.state.primary && !self.state.backup {
            self.state.phase = Phase::Grace {
                until: now.saturating_add(timers.grace),
            };
            self.notices.push(Notice::Interrupted);
        }
    }

    fn tick(&mut self, now: Millis, timers: Timers) {
        match self.state.phase {
            Phase::Grace { until } if now >= until => self.end(Phase::Disabled, false),
            Phase::Live if self.state.next_timeout(timers).is_some_and(|at| now >= at) => {
                self.end(Phase::Disabled, true);
            }
            _ => {}
        }
    }

    fn ended(&mut self) {
        if self.state.status() == Status::Live {
            self.end(Phase::Disabled, true);
        }
    }

    fn activate(&mut self) -> Result<(), IllegalMove> {
        match self.state.phase {
            Phase::Disabled => self.state.phase = Phase::Idle,
            Phase::Idle => {}
            Phase::Live | Phase::Grace { .. } => {
                return Err(self.state.refuse(Event::Activate, "it is in use already"));
            }
        }
        Ok(())
    }

    fn disable(&mut self) {
        match self.state.phase {
            Phase::Disabled => return,
            Phase::Idle => self.state.phase = Phase::Disabled,
            Phase::Live | Phase::Grace { .. } => self.end(Phase::Disabled, true),
        }
        self.notices.push(Notice::Disabled);
    }

    fn set_active(&mut self, active: bool) {
        self.state.active = active;
        if !active && self.state.status() == Status::Live {
            self.end(Phase::Idle, true);
        }
    }

    fn start_broadcasting(&mut self) -> Result<(), IllegalMove> {
        if self.state.status() != Status::Live {
            return Err(self.state.refuse(Event::StartBroadcasting, "push to it first"));
        }
        if !self.state.broadcasting {
            self.state.broadcasting = true;
            self.actions.push(Action::Show);
            self.notices.push(Notice::BroadcastingStarted);
        }
        Ok(())
    }

    fn stop_broadcasting(&mut self) {
        if self.state.broadcasting {
            self.state.broadcasting = false;
            self.actions.push(Action::Hide);
            self.notices.push(Notice::BroadcastingStopped);
        }
    }

    /// The broadcast is over.
    fn end(&mut self, phase: Phase, kick: bool) {
        if kick && (self.state.primary || self.state.backup) {
            self.actions.push(Action::Kick);
        }
        // Backstage, too, there is a pipeline that has to end.
        self.actions.push(Action::EndPlaylist);
        if self.state.broadcasting {
            self.state.broadcasting = false;
            self.notices.push(Notice::BroadcastingStopped);
        }
        self.state.phase = phase;
        self.state.primary = false;
        self.state.backup = false;
        self.state.live_since = None;
        self.state.last_input = None;
        self.notices.push(Notice::Ended);
    }
}

impl State {
    /// Whether this slot's publisher is connected, at whichever origin.
    pub fn has(&self, slot: Slot) -> bool {
        match slot {
            Slot::Primary => self.primary,
            Slot::Backup => self.backup,
        }
    }

    fn slot(&mut self, slot: Slot) -> &mut bool {
        match slot {
            Slot::Primary => &mut self.primary,
            Slot::Backup => &mut self.backup,
        }
    }
}

#[cfg(test)]
mod tests;
