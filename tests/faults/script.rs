//! The project's scripts, which start and stop servers.

use tokio::process::Command;

/// Runs a script of the project; what it says.
///
/// # Panics
/// If it fails.
pub async fn run(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(script);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().await.expect("the script can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {text}{complaint}");
    text
}
