//! The checkers of the fault suite: what is right passes, and each thing that is wrong is told by the check for it.

#[path = "../faults/check/mod.rs"]
mod check;
#[path = "../faults/history.rs"]
mod history;

mod ann;
mod orders;
mod planted;
mod second_opinion;
mod seeded;
mod store;
mod transfers;
mod world;
