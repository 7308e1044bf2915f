//! Wall clocks that jump.

use std::fs;

use futures::FutureExt;

use super::Cell;
use crate::stage::Stage;

pub fn cells() -> Vec<Cell> {
    vec![
        Cell::new("clock", "jumps forth and back by an hour", |stage| jumps(stage, 3_600).boxed_local()),
        Cell::new("clock", "jumps forth and back by a day", |stage| jumps(stage, 86_400).boxed_local())
            .quick(),
    ]
}

/// Less than the inbox remembers, so that nothing may be forgotten or refused as too old.
async fn jumps(stage: &mut Stage, seconds: i64) {
    let file = stage.place.file("clock-shift");
    stage.fleet.set("RABBITRY_CLOCK_SHIFT", &file.display().to_string());
    stage.kill_all();
    for shift in [seconds, 0, -seconds, 0] {
        fs::write(&file, shift.to_string()).expect("the shift can be written");
        stage.go_on(0.25).await;
    }
    stage.fleet.unset("RABBITRY_CLOCK_SHIFT");
    stage.kill_all();
}
