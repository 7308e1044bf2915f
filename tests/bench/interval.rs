//! The median of paired ratios, with an interval that assumes nothing about how they are distributed.

use serde::Serialize;

/// The probability that the interval is meant to hold the true median with.
const CONFIDENCE: f64 = 0.95;

/// A median and the order statistics around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// What the interval really reaches: below 0.95 if there are fewer than six values.
    pub(crate) confidence: f64,
}

impl Median {
    /// The k-th smallest and the k-th largest value enclose the true median unless fewer than k values fall on one of
    /// its sides, which is a matter of tossing coins. The largest k is taken that is safe enough.
    pub(crate) fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a median of nothing");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let median = f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]);
        let k = (1..=n.div_ceil(2)).take_while(|k| confidence(n, *k) >= CONFIDENCE).last().unwrap_or(1);
        Self { median, low: sorted[k - 1], high: sorted[n - k], confidence: confidence(n, k) }
    }
}

/// The probability that the true median lies between the k-th smallest and the k-th largest of n values.
fn confidence(n: usize, k: usize) -> f64 {
    let mut ways = 1.0;
    let mut fewer = 0.0;
    for heads in 0..k {
        fewer += ways;
        ways *= (n - heads) as f64 / (heads + 1) as f64;
    }
    1.0 - 2.0 * fewer / 2_f64.powi(i32::try_from(n).unwrap_or(i32::MAX))
}
