//! Why claims do not satisfy a requirement, in words for one line of a log.

use crate::text::one_line;

/// How many different reasons one outcome names. Anybody may push claims, so the message needs a bound.
const REASONS_MAX: usize = 4;
/// The longest reason, in characters.
const REASON_MAX: usize = 300;

/// Different reasons in the order of the claims, each with the number of claims that it applies to.
#[derive(Default)]
pub(super) struct Reasons(Vec<(String, usize)>);

impl Reasons {
    pub(super) fn add(&mut self, reason: String) {
        match self.0.iter_mut().find(|(have, _)| *have == reason) {
            Some((_, count)) => *count += 1,
            None => self.0.push((reason, 1)),
        }
    }

    pub(super) fn text(&self, claims: usize) -> String {
        let found = if claims == 1 {
            "1 signature was found".to_owned()
        } else {
            format!("{claims} signatures were found")
        };
        let one = |(reason, count): &(String, usize)| match (claims, count) {
            (1, _) => reason.clone(),
            (_, count) => format!("({count} of them) {reason}"),
        };
        // Of those that are not kept no reason is known.
        let counted: usize = self.0.iter().map(|(_, count)| count).sum();
        let mut reasons: Vec<_> = self.0.iter().take(REASONS_MAX).map(one).collect();
        if self.0.len() > REASONS_MAX {
            reasons.push(format!("and {} more reasons", self.0.len() - REASONS_MAX));
        }
        if counted < claims && counted > 0 {
            reasons.push(format!("and {} more for such reasons", claims - counted));
        }
        format!("{found}, but none satisfies the requirement: {}", reasons.join("; "))
    }
}

/// Foreign text for one line of a log: short, without control characters.
pub(super) fn printable(text: &str) -> String {
    shown(&one_line(text))
}

pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
