//! The statistics of the benchmark, which as a program of its own has no tests.

#[path = "../bench/interval.rs"]
mod statistics;

use statistics::Median;

#[test]
fn the_interval_is_that_of_the_tables_of_order_statistics() {
    let of = |n: i32| Median::of(&(1..=n).rev().map(f64::from).collect::<Vec<_>>());
    for (n, low, high, confidence) in
        [(6, 1.0, 6.0, 0.969), (10, 2.0, 9.0, 0.979), (15, 4.0, 12.0, 0.965), (20, 6.0, 15.0, 0.959)]
    {
        let found = of(n);
        assert_eq!((found.low, found.high), (low, high), "{n}");
        assert!((found.confidence - confidence).abs() < 0.001, "{n}: {}", found.confidence);
    }
    assert_eq!(of(15).median, 8.0);
    assert_eq!(of(4).median, 2.5);
    assert_eq!((of(3).low, of(3).high, of(3).confidence), (1.0, 3.0, 0.75));
    assert_eq!(of(1).median, 1.0);
}
