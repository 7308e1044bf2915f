//! Faults on purpose, for the tests: moments at which a worker can be made to die, stop or fail, and mutants, which are
//! planted mistakes that the tests have to find.
//!
//! Only with the cargo feature `failpoints`; without it [`failpoint!`] expands to nothing and [`mutant!`] to `false`.
//! `RABBITRY_FAILPOINTS` says what happens at which moment (`spec.rs` tells how), `RABBITRY_MUTANT` names one mistake; a worker
//! reads both when it starts and warns that they are set. `RABBITRY_CLOCK_SHIFT` names a file that holds by how many seconds
//! its wall clock is wrong.
//!
//! Not the crate `fail`: it can neither kill nor stop a process, nor choose by what is in hand, and it panics at a
//! mistake in its variable.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
mod clock;
#[cfg(feature = "failpoints")]
mod message;
mod names;
#[cfg(feature = "failpoints")]
mod spec;

pub use names::{MOMENTS, MUTANTS, Moment, Mutant};
#[cfg(feature = "failpoints")]
pub use {
    armed::{arm, is_active, reach, reach_with},
    clock::clock_shift_ms,
    message::Planted,
};

/// Whether this build has them.
pub const COMPILED_IN: bool = cfg!(feature = "failpoints");

/// A moment that may have been armed, with the messages that are in hand. The words at the end say what it may do to
/// the function it stands in: `?` return an error, `await` wait without blocking the thread.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($moment:ident, ?) => {
        $crate::failpoints::reach($crate::failpoints::Moment::$moment).now()?
    };
    ($moment:ident, $messages:expr) => {
        $crate::failpoints::reach_with($crate::failpoints::Moment::$moment, $messages).now_for_sure()
    };
    ($moment:ident, $messages:expr, ?) => {
        $crate::failpoints::reach_with($crate::failpoints::Moment::$moment, $messages).now()?
    };
    ($moment:ident, $messages:expr, await) => {
        $crate::failpoints::reach_with($crate::failpoints::Moment::$moment, $messages)
            .in_time_for_sure()
            .await
    };
    ($moment:ident, $messages:expr, await ?) => {
        $crate::failpoints::reach_with($crate::failpoints::Moment::$moment, $messages).in_time().await?
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($moment:ident, ?) => {};
    ($moment:ident, $messages:expr $(, $($how:tt)+)?) => {
        if false {
            let _ = $messages;
        }
    };
}

/// Whether this mistake is planted.
#[cfg(feature = "failpoints")]
macro_rules! mutant {
    ($mutant:ident) => {
        $crate::failpoints::is_active($crate::failpoints::Mutant::$mutant)
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! mutant {
    ($mutant:ident) => {
        false
    };
}

pub(crate) use {failpoint, mutant};
