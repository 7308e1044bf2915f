//! Faults between lapin and the real broker.
