//! Statistics of many measurements.

/// The middle one; of an even number, the lower of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The smallest value that at least `percent` of all do not exceed (nearest rank); 0 of none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The smallest and the largest.
pub fn range(values: &[f64]) -> (f64, f64) {
    (percentile(values, 0.0), percentile(values, 100.0))
}
