//! What to do next for one request: a pure decision from the request's terms and the facts known so far.
//!
//! [`next`] does no I/O. The executor ([`super::execute`]) carries out one [`Step`], notes its [`Answer`] in
//! [`Facts`] and asks again. Invariants, which `plan/tests.rs` holds against every history of answers:
//! * An image that is here is given only if the access rule grants it, or if the registry that all of its bytes came
//!   from has just confirmed it to the caller. What another registry says proves nothing.
//! * Nobody learns what others have: unless the image is granted by what is on record, the registry is asked first,
//!   by the same request that an image causes that is not here.
//! * What the policy refuses whatever the image is asks nobody and reads nothing.
//! * A caller that is judged gets no image, and causes no fetch, before the policy has admitted the image.
//! * A caller that mounts gets no image that gives more than the node or the policy allows ([`form`]).
//! * A grant and a name are recorded only after the registry has answered this caller.
//! * The plan asks for no fact that it has, and ends within a bounded number of steps.

mod facts;
mod form;
mod locate;
mod provide;
mod step;

pub(super) use facts::{Answer, Facts, StoredVerdict};
use locate::{Located, locate};
use provide::{provide_fetched, provide_stored};
pub(super) use step::{Case, Lookup, NewRecord, Obstacle, Provided, Question, Reading, Step, Terms};

/// The next step for a request with these terms.
pub(super) fn next(terms: &Terms, facts: &Facts) -> Step {
    decide(terms, facts).unwrap_or_else(|missing| missing)
}

/// The last step, or as an error the step that must come before it.
fn decide(terms: &Terms, facts: &Facts) -> Result<Step, Step> {
    if terms.heeds_policy
        && let Some(refusal) = facts.outright.clone().ok_or(Step::Judge(Case::Outright))?
    {
        return Err(Step::Refuse(Obstacle::Refused(refusal)));
    }
    match locate(terms, facts)? {
        Located::Stored(record) => provide_stored(terms, facts, record),
        Located::Remote(path) => provide_fetched(terms, facts, path),
    }
}

#[cfg(test)]
mod tests;
