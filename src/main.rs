//! The `pillion` process: hands the command line to [`pillion::cli`].

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pillion::cli::main()
}
