//! The promotion rule and its thresholds, and nothing else.

use super::user::{Points, Status};

/// The status that points have earned.
pub fn earned_by(points: Points) -> Status {
    match points.get() {
        101.. => Status::Gold,
        51..=100 => Status::Silver,
        ..=50 => Status::Bronze,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_has_to_be_passed_not_reached() {
        let earned = |points: i64| earned_by(Points::try_from(points).unwrap());
        assert_eq!([0, 50].map(earned), [Status::Bronze; 2]);
        assert_eq!([51, 100].map(earned), [Status::Silver; 2]);
        assert_eq!([101, (1 << 53) - 1].map(earned), [Status::Gold; 2]);
    }
}
