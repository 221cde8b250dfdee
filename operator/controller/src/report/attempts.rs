//! What the pass has done, as far as it is to be told.

use vnp_plan::plan::TrackKind;
use vnp_plan::step::Step;

/// The writes of one pass.
#[derive(Clone, Debug, Default)]
pub struct Attempts<'a> {
    /// Steps that the API server has taken.
    pub done: Vec<&'a Step>,
    /// Steps that it refused for good: the next pass would be refused as well. A lost race, a time-out and the loss of
    /// the lease are not among them, because nobody has to know of what the next pass repairs.
    pub refused: Vec<RefusedWrite>,
}

/// A write that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWrite {
    /// Track that ended there.
    pub track: TrackKind,
    /// What the server said and what helps.
    pub message: String,
}
