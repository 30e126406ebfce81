//! Ways in which the made-up origin lies on purpose, so that a checker can show that it notices.

/// A seeded defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Defect {
    /// A part is missing from the playlist, now and then.
    SkipPart,
    /// Now and then a playlist is three parts old.
    StalePlaylist,
    /// Now and then a part holds the bytes of another stream (needs two streams).
    SwapStreams,
    /// The first rendition of the first stream stands still after five seconds.
    StallRendition,
    /// Now and then a blocking request is answered before its time.
    AnswerEarly,
    /// A viewer's multivariant playlist carries the ticket of the one before.
    ForeignTicket,
    /// Now and then a part's body ends in the middle.
    Truncate,
}

/// Parts between two seeded faults of a kind; prime, so that faults wander through the segments.
const EVERY: u64 = 7;

/// The defects that are switched on.
#[derive(Debug, Clone, Default)]
pub struct Defects(pub Vec<Defect>);

impl Defects {
    pub fn has(&self, defect: Defect) -> bool {
        self.0.contains(&defect)
    }

    /// Whether `defect` shows at part `number`.
    pub fn at(&self, defect: Defect, number: u64) -> bool {
        self.has(defect) && number % EVERY == 3
    }
}
