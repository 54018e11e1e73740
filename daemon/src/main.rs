//! wharfd: runs OCI containers and keeps them running.
//!
//! It may be killed or replaced at any moment: containers belong to their keepers, and what must be known of them is
//! on the disk. Ending it ends nothing else.

mod api;
mod bus;
mod clock;
mod config;
mod damaged;
mod definition;
mod driver;
mod ephemeral;
mod events;
mod ids;
mod logs;
mod metrics;
mod nickname;
mod notify;
mod paths;
mod probe;
mod processes;
mod runtime;
mod saved;
mod store;
mod substitute;
mod supervision;
mod view;

use anyhow::Context;
use clap::Parser;
use config::Config;
use paths::Paths;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wharf_oci::bundle::Host;
use wharf_oci::{failpoint, hands};

/// Runs OCI containers on this host and keeps them running. Containers go on when it ends.
#[derive(Debug, Parser)]
#[command(name = "wharfd", version)]
struct Arguments {
    /// Where definitions, images, root file systems and logs are kept; made if missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wharf")]
    state_dir: PathBuf,
    /// Where sockets and what belongs to running containers are kept; the private socket is DIR/private
    #[arg(long, value_name = "DIR", default_value = "/run/wharf")]
    runtime_dir: PathBuf,
    /// The configuration file [default: /etc/wharf/wharf.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration file and end
    #[arg(long)]
    check_config: bool,
    /// When ending, end the forge as well; for an instance that nobody comes back to
    #[arg(long)]
    end_forge: bool,
    /// For one client: end as soon as standard input does, and leave nothing behind, neither containers nor the forge
    /// nor these directories
    #[arg(long)]
    ephemeral: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log();
    end_with_any_panic();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "wharfd cannot run");
            ExitCode::FAILURE
        }
    }
}

/// In every build as in the installed one: a wharfd of which a part has gone would only seem to work, and the next one
/// knows everything that it knew.
fn end_with_any_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// To standard error, with the level from WHARF_LOG (`info` by default; `debug`, `wharfd::driver=trace`, …).
fn log() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("WHARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.config.as_deref())?;
    if arguments.check_config {
        tracing::info!("the configuration is good");
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("containers, cgroups and mounts need root: start wharfd as root, or with sudo");
    }
    raise_descriptor_limit();
    // One worker, since waking another for each of hundreds of probes a second costs as much as the probes; blocking work
    // has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(arguments, config));
    // Blocking work that is under way (a load, a start) is as good as killed: recovery finishes it.
    runtime.shutdown_background();
    outcome
}

/// A descriptor per container and reader of its files: as many as the hard limit gives.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "raising the limit of descriptors, ignoring");
    }
}

async fn serve(arguments: &Arguments, config: Config) -> anyhow::Result<()> {
    let paths = Paths {
        state: absolute(&arguments.state_dir)?,
        runtime: absolute(&arguments.runtime_dir)?,
        cgroup_root: config.cgroup_root.clone(),
    };
    paths.prepare()?;
    failpoint::watch(&paths.runtime);
    // First of all: its lock says that no other wharfd uses these directories.
    let store = store::Store::open(&paths.database(), &paths.containers())?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let images = Arc::new(wharf_oci::image::Store::open(&paths.state).context("the image store")?);
    images.ensure_embedded().context("the image wharf/demo")?;
    let forge = hands::ensure(&paths.runtime).context("the forge")?.revived_in(&paths.runtime);
    let init = install_init(&paths.runtime).context("the program for --init")?;

    let (facts, heard) = mpsc::channel(driver::FACTS);
    let (wishes, wished) = mpsc::channel(driver::COMMANDS);
    let host = Host::detect();
    let runtime = Arc::new(runtime::Runtime::new(paths.clone(), host, images, forge.clone(), init, facts));
    let views = Arc::new(view::Views::default());
    let events = Arc::new(events::Events::new(views.clone()));
    let driver = driver::Driver::new(
        store,
        config.ids.clone(),
        &config.limits,
        runtime.clone(),
        views.clone(),
        events.clone(),
    )
    .await
    .context("taking over what was saved")?;
    let api = Arc::new(api::Api::new(views, events, runtime, wishes));

    // Listening before anything is served: who connects from now on waits instead of failing.
    let private = bus::private::listen(&paths.private_socket())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(wished, heard));
    tasks.spawn(bus::private::serve(private, api.clone(), config.limits.connections));
    if config.bus.system {
        tasks.spawn(bus::system::serve(api.clone()));
    }
    if config.metrics.socket {
        let listener = metrics::listen(&paths.metrics_socket())?;
        tasks.spawn(metrics::serve(listener, api.clone()));
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %paths.private_socket().display(),
        containers = api.views.count(),
        "ready"
    );
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "nobody waits for our readiness");
    }
    let reason = tokio::select! {
        _ = stop.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        reason = ephemeral::client_gone(), if arguments.ephemeral => reason,
        ended = tasks.join_next() => anyhow::bail!("a part of wharfd has ended: {ended:?}"),
    };
    if arguments.ephemeral {
        tracing::info!(reason, "ending, and containers with it");
        // Even if something is left of the first, the rest goes.
        let emptied = ephemeral::empty(&api, &forge, &paths).await;
        let ended = hands::end(&forge).map_err(anyhow::Error::from);
        return emptied.and(ended).and(ephemeral::remove_directories(&paths));
    }
    tracing::info!(reason, "ending; containers go on");
    if arguments.end_forge {
        hands::end(&forge)?;
    }
    Ok(())
}

fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("the directory {}", path.display()))
}

/// The program that `init` puts in front of a container's command, where containers can mount it from.
fn install_init(runtime: &std::path::Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = runtime.join("wharf-init");
    let new = runtime.join("wharf-init.new");
    // Renamed over the old one, which running containers go on using.
    std::fs::write(&new, hands::INIT)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}
