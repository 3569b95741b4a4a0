//! The one binary: flags and wiring, nothing else. Each component is a crate; they meet at the Kubernetes API.

mod component;
mod down;
mod flags;
mod host;
mod layout;
mod lock;
mod progress;
mod settings;
mod up;

use std::process::ExitCode;

/// A request makes and drops a few hundred small pieces of memory: with libc's allocator that is a quarter of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;
use flags::{Cli, Command, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&cli.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match cli.logging_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    pki::tls::provider();
    // Detaching starts a process: before any thread of ours exists.
    if let Command::Up(flags) = &cli.command
        && flags.detach
    {
        return report(up::detached(flags));
    }
    // A thread that always has work looks for input after so many tasks: tokio's 61 lists of pods took 40 ms.
    const TASKS_BETWEEN_INPUT: u32 = 4;
    let runtime = tokio::runtime::Builder::new_multi_thread().event_interval(TASKS_BETWEEN_INPUT).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(error.into())),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Up(flags) => up::run(&flags).await,
            Command::Down(flags) => down::run(&flags).await,
            Command::Apiserver(flags) => component::apiserver(&flags).await,
            Command::ControllerManager(flags) => component::controller_manager(&flags).await,
            Command::Scheduler(flags) => component::scheduler(&flags).await,
            Command::Kubelet(flags) => component::kubelet(&flags).await,
            Command::Proxy(flags) => component::proxy(&flags).await,
            Command::Dns(flags) => component::dns(&flags).await,
        }
    });
    // Blocking work that is stuck (a hung mount) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    report(result)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knarr: {error:#}");
            ExitCode::FAILURE
        }
    }
}
