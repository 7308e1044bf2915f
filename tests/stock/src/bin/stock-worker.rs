fn main() -> std::process::ExitCode {
    rabbitry::worker::main::<stock::Stock>()
}
