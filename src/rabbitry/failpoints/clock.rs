//! A wall clock that is wrong.

use std::{env, fs, path::PathBuf, sync::LazyLock};

static SHIFT: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| env::var_os("RABBITRY_CLOCK_SHIFT").map(PathBuf::from));

/// What the file that `RABBITRY_CLOCK_SHIFT` names says now, in seconds; 0 without it.
pub fn clock_shift_ms() -> i64 {
    let text = SHIFT.as_ref().and_then(|path| fs::read_to_string(path).ok());
    text.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0).saturating_mul(1000)
}
