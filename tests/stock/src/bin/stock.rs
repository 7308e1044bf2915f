fn main() -> std::process::ExitCode {
    rabbitry::cli::main(&[rabbitry::cli::About::of::<stock::Stock>()])
}
