//! Labels as enums.

use std::fmt::Debug;

/// A label and its few values.
pub trait Label: Copy + Debug + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// The exported form of a value.
    fn value(self) -> &'static str;
}

/// The labels of a family, in order.
pub trait Labels: Copy + Debug + Send + Sync + 'static {
    /// Their names.
    fn names() -> Vec<&'static str>;
    /// The values of one series.
    fn values(self) -> Vec<&'static str>;
    /// The series to export before anything is counted, so that a rate or an alert sees the first event. With one
    /// label these are all series; with two none, because most pairs never occur.
    fn known() -> Vec<Self>;
}

impl<L: Label> Labels for L {
    fn names() -> Vec<&'static str> {
        vec![L::NAME]
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.value()]
    }

    fn known() -> Vec<Self> {
        L::ALL.to_vec()
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME]
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.0.value(), self.1.value()]
    }

    fn known() -> Vec<Self> {
        Vec::new()
    }
}
